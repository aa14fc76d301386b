"""The random variable and its log density as PyTensor knows operations.

PyTensor takes a function of JAX as a `JAXOp`: PyMC's own samplers call the compiled function, samplers that are written
in JAX (`nuts_sampler="numpyro"`, "blackjax") inline it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pytensor.tensor as pt
from pymc.distributions.distribution import _support_point
from pymc.logprob.abstract import _logprob
from pytensor import config
from pytensor.gradient import DisconnectedType
from pytensor.graph.basic import Constant
from pytensor.link.jax.ops import JAXOp
from pytensor.tensor.random.op import RandomVariable
from pytensor.tensor.type import TensorType
from pytensor.tensor.variable import TensorVariable

from ppl_buffer.network.backend import Array
from ppl_buffer.pymc.definition import Definition


class LogDensityOp(JAXOp):  # type: ignore[misc]
    """Log densities (*B,) of data sets, and their derivatives by each input, (*B, ...), in the same call.

    A data set's density depends on its own values alone. So its derivatives are a pullback of ones, and PyTensor needs
    no second pass for the gradient.

    Args:
        inputs: whose types the inputs have.
        trailing: number of dimensions of each input behind its batch dimensions.
        batch_shape: of the data that are no inputs, all batch dimensions with size 1 where they have none.
        log_density: function of JAX from the inputs to (*B,).
    """

    def __init__(
        self,
        inputs: Sequence[TensorVariable],
        trailing: Sequence[int],
        batch_shape: tuple[int, ...],
        log_density: Callable[..., Array],
    ) -> None:
        types = [x.type for x in inputs]
        unknown = (None,) * len(batch_shape)
        shapes = [unknown] + [(*unknown, *one.shape[one.ndim - n :]) for one, n in zip(types, trailing, strict=True)]

        def spread(*arrays: Array) -> list[Array]:
            own = [x.shape[: x.ndim - n] for x, n in zip(arrays, trailing, strict=True)]
            batch = np.broadcast_shapes(batch_shape, *own)
            for one, shape in zip(types, own, strict=True):
                _refuse_stretching(one, shape, batch)
            ends = [x.shape[x.ndim - n :] for x, n in zip(arrays, trailing, strict=True)]
            return [jnp.broadcast_to(x, (*batch, *end)) for x, end in zip(arrays, ends, strict=True)]

        def with_derivatives(*arrays: Array) -> tuple[Array, ...]:
            result, pull_back = jax.vjp(log_density, *spread(*arrays))
            return (result, *pull_back(jnp.ones_like(result)))

        def in_jax(*arrays: Array) -> tuple[Array, ...]:
            # JAX differentiates the density by itself, and drops derivatives that nobody asks for.
            fixed = jax.lax.stop_gradient(arrays)
            return (log_density(*spread(*arrays)), *with_derivatives(*fixed)[1:])

        self.in_jax = in_jax
        outputs = [TensorType(config.floatX, shape) for shape in shapes]
        super().__init__(types, outputs, with_derivatives, name="JointPredictive")

    def perform_jax(self, *inputs: Array) -> Array:
        """What samplers that are written in JAX inline."""
        result = self.in_jax(*inputs)
        return result if len(result) > 1 else result[0]

    def grad(self, inputs: Sequence[TensorVariable], output_gradients: Sequence[TensorVariable]) -> list[object]:
        """Derivatives by the inputs, read from the outputs of the same call."""
        if any(not isinstance(gradient.type, DisconnectedType) for gradient in output_gradients[1:]):
            raise NotImplementedError("second derivatives of JointPredictive: sample in JAX, which computes them")
        _, *derivatives = self(*inputs, return_list=True)
        results = []
        for x, derivative in zip(inputs, derivatives, strict=True):
            gradient = output_gradients[0]
            total = gradient.reshape((*gradient.shape, *(1,) * (derivative.ndim - gradient.ndim)), ndim=derivative.ndim)
            total = total * derivative
            wide = derivative.type.broadcastable
            shared = [axis for axis, one in enumerate(x.type.broadcastable) if one and not wide[axis]]
            results.append(total.sum(shared, keepdims=True) if shared else total)
        return results


def _refuse_stretching(one: TensorType, shape: Sequence[int], batch: Sequence[int]) -> None:
    """Refuse a size of 1 that was not known to be 1 where others have more: its derivative would have their shape."""
    offset = len(batch) - len(shape)
    for axis, size in enumerate(shape):
        if size == 1 != batch[offset + axis] and not one.broadcastable[axis]:
            raise ValueError(
                f"params: expected a size that is known when the model is written, got 1 for {batch[offset + axis]} "
                f"data sets on axis {axis}"
            )


class JointPredictiveRV(RandomVariable):  # type: ignore[misc]
    """The random variable: draws of the rollout."""

    name = "JointPredictive"
    __props__ = ("name", "signature", "dtype", "inplace", "definition")
    _print_name = ("JointPredictive", "\\operatorname{JointPredictive}")

    def __init__(
        self,
        definition: Definition,
        name: str | None = None,
        signature: str | None = None,
        dtype: str | None = None,
        inplace: bool | None = None,
    ) -> None:
        self.definition = definition
        if dtype is None:
            dtype = "int64" if definition.is_discrete else str(config.floatX)
        super().__init__(name=name, signature=signature or definition.signature, dtype=dtype, inplace=inplace)

    def rng_fn(self, rng: np.random.Generator, *arguments: np.ndarray) -> np.ndarray:
        """A draw, as NumPy's generator and the parameters say."""
        *arrays, size = arguments
        shapes = [x.shape[: x.ndim - n] for x, n in zip(arrays, self.definition.trailing, strict=True)]
        batch = np.broadcast_shapes(*shapes, self.definition.data_shape) if size is None else tuple(size)
        return self.definition.draw(rng, arrays, batch).astype(self.dtype)


@_logprob.register(JointPredictiveRV)
def _log_density(
    op: JointPredictiveRV,
    values: Sequence[TensorVariable],
    rng: object,
    size: object,
    *arrays: TensorVariable,
    **_: object,
) -> TensorVariable:
    definition, (value,) = op.definition, values
    event = len(definition.event_shape)
    missing = (1,) * (value.ndim - event - len(definition.data_shape))
    batch = (*missing, *definition.data_shape)
    inputs = [x.astype(config.floatX) for x in arrays]
    if isinstance(value, Constant) and definition.is_observed(value.data):
        score = LogDensityOp(inputs, definition.trailing, batch, definition.log_density_observed)
    else:
        inputs = [value.astype(config.floatX), *inputs]
        score = LogDensityOp(inputs, [event, *definition.trailing], batch, definition.log_density)
    return score(*inputs, return_list=True)[0]


@_support_point.register(JointPredictiveRV)
def _legal_value(op: JointPredictiveRV, rv: TensorVariable, *_: object) -> TensorVariable:
    return pt.broadcast_to(pt.constant(op.definition.fill), rv.shape)
