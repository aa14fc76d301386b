"""`JointPredictive` for PyMC: a buffered transformer as a distribution of all trials of a data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from pytensor import config
from pytensor.graph.basic import Constant, Variable
from pytensor.link.jax.ops import JAXOp
from pytensor.tensor.extra_ops import broadcast_shape
from pytensor.tensor.type import TensorType
from pytensor.tensor.variable import TensorVariable

from ppl_buffer.checks import check_numbers
from ppl_buffer.network.arguments import check_names
from ppl_buffer.network.backend import Array
from ppl_buffer.network.jax.weights import JaxNetwork
from ppl_buffer.network.lapses import Lapse
from ppl_buffer.network.network import Network
from ppl_buffer.network.observed import EncodedContext, ObservedTrials
from ppl_buffer.ppl.docstring import ARGUMENTS
from ppl_buffer.pymc.definition import Definition, Options
from ppl_buffer.pymc.ops import JointPredictiveRV

# What PyMC's variables have in place of the other languages' last argument.
_ARGUMENTS = ARGUMENTS[: ARGUMENTS.index("        validate_args:")]


class JointPredictive:  # noqa: D101
    __doc__ = f"""Joint predictive distribution of the outcomes of K trials, by a buffered transformer.

    A variable of the model on the stack, as PyMC's distributions make them; `dist` makes one without a name. In a
    model of people::

        with pm.Model(coords={{"subject": subjects, "trial": range(K)}}):
            theta = {{"alpha": pm.Beta("alpha", 2, 2, dims="subject"), ...}}
            JointPredictive("choice", net, seen, params=theta, observed=seen.value, dims=("subject", "trial"))

    `params`, `trial_params` and `lapse` may hold variables of the model, and numbers. All else is data: numbers. The
    log density is one pass of the network (Hassan et al. 2026, equation 5) and has one value a data set; `conditionals`
    has one a trial. Draws, as in `pm.sample_posterior_predictive`, are the rollout (equation 3). Observed data that are
    those of `net.observe` are read as it arranged them; a `pm.Data` is arranged anew each time.

    Batch shape is *B, the broadcast batch dimensions of all arguments; an event has shape (K,), or (K, n_outcomes) with
    columns in the schema's order. Values are integers where all outcomes are. PyMC's own samplers call JAX in this
    process: keep them in one process, by ``pm.sample(cores=1)``. ``nuts_sampler="numpyro"`` compiles model and network
    together.

    {_ARGUMENTS}        observed: the outcomes, (*B, K) or (*B, K, n_outcomes).
        kwargs: whatever PyMC's distributions take: `dims`, `shape`, `rng`, `initval`, ...

    Raises:
        ValueError: if the network is not of JAX, or an argument's names, shapes or values do not fit the schema.
        TypeError: if there is no model on the stack.
    """

    def __new__(  # type: ignore[misc]  # noqa: D102
        cls,
        name: str,
        net: Network,
        inputs: Mapping[str, Array] | ObservedTrials,
        *,
        trials: int | None = None,
        params: Mapping[str, Array] | None = None,
        trial_params: Mapping[str, Array] | None = None,
        context: Mapping[str, Array] | EncodedContext | None = None,
        feedback: Mapping[str, Array] | None = None,
        trial_mask: Array = None,
        orders: Array = None,
        block: int | None = None,
        environment: Callable[..., Array] | None = None,
        lapse: Array | Lapse | None = None,
        outside: str = "warn",
        likelihood: str = "auto",
        observed: Array = None,
        **kwargs: object,
    ) -> TensorVariable:
        options = Options(trials, context, feedback, trial_mask, orders, block, environment, outside, likelihood)
        definition, arrays = _define(net, inputs, options, params, trial_params, lapse)
        if observed is not None and not isinstance(observed, Variable):
            observed = definition.check_value(check_numbers("observed", observed))
        return _Variable(name, definition, *arrays, observed=observed, **kwargs)

    @classmethod
    def dist(
        cls,
        net: Network,
        inputs: Mapping[str, Array] | ObservedTrials,
        *,
        params: Mapping[str, Array] | None = None,
        trial_params: Mapping[str, Array] | None = None,
        lapse: Array | Lapse | None = None,
        **arguments: object,
    ) -> TensorVariable:
        """A variable that belongs to no model, from the same arguments; for `pm.draw` and `pm.logp`.

        Raises:
            ValueError: as above.
        """
        known = {field.name for field in fields(Options)} & arguments.keys()
        options = Options(**{name: arguments.pop(name) for name in known})  # type: ignore[arg-type]
        definition, arrays = _define(net, inputs, options, params, trial_params, lapse)
        return _Variable.dist(definition, *arrays, **arguments)


def conditionals(rv: TensorVariable, value: Array) -> TensorVariable:
    """Log density of each trial given the trials before it, (*B, K), as a tensor: what `pm.logp` is the sum of.

    Of a model's own parameters, for the pointwise log likelihood that ArviZ compares models by::

        choice = JointPredictive("choice", net, seen, params=theta, observed=seen.value)
        pm.Deterministic("log_likelihood_by_trial", conditionals(choice, seen.value))

    Args:
        rv: a variable that `JointPredictive` made.
        value: outcomes, (*B, K) or (*B, K, n_outcomes).

    Raises:
        ValueError: if the variable is of another distribution or averages over `orders`, or the value does not fit.
    """
    if rv.owner is None or not isinstance(rv.owner.op, JointPredictiveRV):
        raise ValueError(f"rv: expected a variable that JointPredictive made, got {rv}")
    definition = rv.owner.op.definition
    if definition.options.orders is not None:
        raise ValueError("orders: expected None for conditionals, which follow one order of the trials")
    numbers = definition.check_value(check_numbers("value", value))
    inputs = [x.astype(config.floatX) for x in definition.arrays_of(rv.owner.inputs)]
    function = definition.conditionals_observed
    if not definition.is_observed(numbers):
        inputs, function = [pt.constant(numbers, dtype=config.floatX), *inputs], definition.conditionals
    shape = (*rv.type.shape[: rv.ndim - len(definition.event_shape)], definition.known.trials)
    score = JAXOp(
        [x.type for x in inputs],
        [TensorType(config.floatX, shape)],
        lambda *arrays: (function(*arrays),),
        name="JointPredictiveConditionals",
    )
    return score(*inputs)


class _Variable(pm.Distribution):  # type: ignore[misc]
    """What PyMC registers."""

    rv_type = JointPredictiveRV

    @classmethod
    def dist(cls, definition: Definition, *arrays: TensorVariable, **kwargs: object) -> TensorVariable:
        return super().dist(arrays, definition=definition, **kwargs)

    @classmethod
    def rv_op(
        cls, *arrays: TensorVariable, definition: Definition, size: Array = None, **kwargs: object
    ) -> TensorVariable:
        op = JointPredictiveRV(definition)
        if size is None:
            # The data may have batch dimensions that no parameter has.
            shapes = [tuple(x.shape)[: x.ndim - n] for x, n in zip(arrays, definition.trailing, strict=True)]
            size = broadcast_shape(definition.data_shape, *shapes, arrays_are_shapes=True)
        return op(*arrays, size=size, **kwargs)


def _define(
    net: Network,
    inputs: Mapping[str, Array] | ObservedTrials,
    options: Options,
    params: Mapping[str, Array] | None,
    trial_params: Mapping[str, Array] | None,
    lapse: Array | Lapse | None,
) -> tuple[Definition, list[TensorVariable]]:
    """A definition, and the tensors that its functions take, in order."""
    if not isinstance(net, JaxNetwork):
        raise ValueError(f"net: expected a network loaded with backend='jax', got {type(net).__name__}")
    if isinstance(options.context, Mapping):
        options = replace(options, context=net.encode(options.context))
    one, many = (_tensors(net, *group) for group in (("params", params), ("trial_params", trial_params)))
    tensors = [*one.values(), *many.values()]
    given = Lapse.of(lapse)
    if given is not None and given.prior is None:
        rate = _tensor("lapse", given.rate)
        given = given.at(_example(rate, 0.1))
        tensors.append(rate)
    return Definition.build(net, inputs, options, _examples(net, one), _examples(net, many), given), tensors


def _tensors(net: JaxNetwork, argument: str, given: Mapping[str, Array] | None) -> dict[str, TensorVariable]:
    """Parameters as tensors, in the schema's order."""
    if given is None:
        return {}
    check_names(argument, given, net.schema.params, subset=True)
    return {name: _tensor(f"{argument}[{name!r}]", given[name]) for name in net.schema.params if name in given}


def _tensor(argument: str, value: Array) -> TensorVariable:
    return value if isinstance(value, Variable) else pt.constant(check_numbers(argument, value), dtype=config.floatX)


def _example(x: TensorVariable, number: float) -> np.ndarray:
    """Numbers of the shape of a tensor: its own where they are known."""
    if isinstance(x, Constant):
        return np.asarray(x.data, float)
    return np.full([1 if size is None else size for size in x.type.shape], number)


def _examples(net: JaxNetwork, group: Mapping[str, TensorVariable]) -> dict[str, np.ndarray]:
    return {name: _example(x, _typical(net, name)) for name, x in group.items()}


def _typical(net: JaxNetwork, name: str) -> float:
    """A value of a parameter of which there is nothing to say: the middle of the trained range."""
    low, high = net.box.get(name, (net.schema.params[name].fill,) * 2)
    return (low + high) / 2
