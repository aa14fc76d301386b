"""`JointPredictive` for Pyro: a buffered transformer as a distribution of all trials of a data set."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all
from tqdm.auto import tqdm

from ppl_buffer.network.observed import EncodedContext, ObservedTrials, broadcasts_to
from ppl_buffer.network.record import TrainingRecord
from ppl_buffer.network.torch.weights import TorchNetwork
from ppl_buffer.ppl.docstring import ARGUMENTS
from ppl_buffer.ppl.simulator import (
    PROBE_TRIALS,
    InputSource,
    ModelSimulator,
    Site,
    probe_inputs,
)
from ppl_buffer.ppl.trace import (
    ObservedSite,
    PosteriorTrace,
    check_plate,
    check_samples,
    fixed_leaves,
    observed_site,
    unwrap_joint,
    varying,
    varying_data_error,
)
from ppl_buffer.predictive import LOOKAHEAD, Predictive, Speculation, check_sampling
from ppl_buffer.prior import Prior
from ppl_buffer.schema import Categorical, Schema, Variable, split_value
from ppl_buffer.simulator import Arrays


class TrialSupport(constraints.Constraint):
    """Values whose every existing trial holds legal outcomes.

    Args:
        schema: whose outcomes the columns are.
        trial_mask: (*B, K) bool, or None where all trials exist.
    """

    def __init__(self, schema: Schema, trial_mask: Tensor | None = None) -> None:
        self.schema = schema
        self.trial_mask = trial_mask
        super().__init__()

    @property
    def event_dim(self) -> int:  # type: ignore[override]
        """1 for one outcome, 2 for several."""
        return 1 + len(self.schema.event_shape_tail)

    @property
    def is_discrete(self) -> bool:  # type: ignore[override]
        """Whether every outcome is categorical."""
        return all(isinstance(variable, Categorical) for variable in self.schema.outcomes.values())

    def check(self, value: Tensor) -> Tensor:
        """Whether each value is legal: (*batch,)."""
        legal = torch.ones((), dtype=torch.bool, device=value.device)
        for name, column in split_value(self.schema, value).items():
            legal = legal & self.schema.outcomes[name].contains(torch, column)
        if self.trial_mask is not None:
            legal = legal | ~self.trial_mask
        return legal.all(-1)


class JointPredictive(Predictive, dist.TorchDistribution):  # type: ignore[misc]  # noqa: D101
    __doc__ = f"""Joint predictive distribution of the outcomes of K trials, by a buffered transformer.

    `sample` is the cached autoregressive rollout, `log_prob` the one-pass joint density (Hassan et al. 2026, equations
    3 and 5). Batch shape is *B, the broadcast batch dimensions of all arguments; event shape is (K,), or
    (K, n_outcomes) with columns in the schema's order and categories as integers 0..n-1 in the value's type.

    The network is kept by reference and frozen: it never enters the parameter store. Draws are not reparameterised;
    as a guide's site Pyro's `Trace_ELBO` adds the score term.

    {ARGUMENTS}
    Raises:
        ValueError: if an argument's names, shapes or values do not fit the schema, or the network is in training
            mode.
    """

    arg_constraints: dict[str, Any] = {}
    has_rsample = False
    has_enumerate_support = False

    def __init__(
        self,
        net: TorchNetwork,
        inputs: Mapping[str, Any] | ObservedTrials,
        *,
        trials: int | None = None,
        params: Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | EncodedContext | None = None,
        feedback: Mapping[str, Any] | None = None,
        trial_mask: Any = None,
        orders: Any = None,
        block: int | None = None,
        environment: Callable[..., Any] | None = None,
        lapse: Any = None,
        outside: str = "warn",
        validate_args: bool | None = None,
        _history: dict[str, Any] | None = None,
    ) -> None:
        if getattr(net, "backend", None) != "torch":
            raise ValueError(f"net: expected a network loaded with backend='torch', got {type(net).__name__}")
        if net.training:
            raise ValueError("net: expected a network in evaluation mode, got one in training mode; call net.eval()")
        batch = self.set_up(
            net, inputs, trials=trials, params=params, context=context, feedback=feedback, trial_mask=trial_mask,
            orders=orders, block=block, environment=environment, lapse=lapse, outside=outside, history=_history,
            check=validate_args is not False,
        )  # fmt: skip
        event = torch.Size((self.trials, *net.schema.event_shape_tail))
        dist.TorchDistribution.__init__(self, torch.Size(batch), event, validate_args=validate_args)

    @constraints.dependent_property
    def support(self) -> TrialSupport:
        """Legal outcomes in every existing trial."""
        return TrialSupport(self.net.schema, self.trial_mask)

    @classmethod
    def infer_shapes(  # type: ignore[override]
        cls, net: TorchNetwork, inputs: Mapping[str, tuple[int, ...]], *, trials: int | None = None, **shapes: Any
    ) -> tuple[torch.Size, torch.Size]:
        """Batch and event shape from the arguments' shapes: dicts name -> shape, or shapes."""
        lead = [tuple(shape[:-1]) for shape in inputs.values()]
        for name, shape in shapes.items():
            trailing = 0 if name in ("params", "lapse") else 1
            given = shape.values() if isinstance(shape, Mapping) else [shape]
            lead += [tuple(one[: len(one) - trailing]) for one in given]
        count = trials if trials is not None else next(iter(inputs.values()))[-1]
        return torch.Size(np.broadcast_shapes(*lead)), torch.Size((count, *net.schema.event_shape_tail))

    def _full_shape(self, value: Tensor) -> tuple[int, ...]:
        lead = tuple(value.shape[: value.ndim - self.event_dim])
        return np.broadcast_shapes(lead, tuple(self.batch_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """Joint log density of all trials, averaged over `orders` where given: (*sample, *batch)."""
        self.check_value_shape(value)
        if self._validate_args:
            self._validate_sample(value)
        return self.joint_log_prob(value).expand(self._full_shape(value))

    def conditionals(self, value: Tensor, orders: int = 0) -> Tensor:
        """Log density of each trial given the trials before it: (*sample, *batch, K). They sum to `log_prob`.

        Raises:
            ValueError: if the distribution averages over `orders`, or feedback is missing.
        """
        result = super().conditionals(value, orders)
        return result if orders else result.expand(*self._full_shape(value), self.trials)

    def marginals(self, value: Tensor) -> Tensor:
        """Log density of each trial alone, with an empty buffer: (*sample, *batch, K)."""
        return super().marginals(value).expand(*self._full_shape(value), self.trials)

    def leave_one_out(self, value: Tensor) -> Tensor:
        """Log density of each trial given all other trials (and the context): (*sample, *batch, K).

        Raises:
            ValueError: if the model is ordered.
        """
        return super().leave_one_out(value).expand(*self._full_shape(value), self.trials)

    def pit(self, value: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Conditional distribution function at each outcome, uniform under the model: (*sample, *batch, K).

        With several outcomes a trial the result is (*sample, *batch, K, n_outcomes), each given the earlier ones.
        A category gets a random place inside its step, from `generator` (by default a fixed one).
        """
        if generator is None:
            generator = torch.Generator(device=self.net.device).manual_seed(0)
        shape = (*self._full_shape(value), self.trials, len(self.net.schema.outcomes))
        uniform = torch.rand(shape, generator=generator, device=self.net.device, dtype=self.net.dtype)
        return self.cdf_values(value, uniform).expand(shape if self.net.schema.event_shape_tail else shape[:-1])

    def condition(self, value: Tensor) -> JointPredictive:
        """Distribution of the following trials given the outcomes of the first ones, (*sample, *batch, first, ...)."""
        inputs, arguments = self.conditioned(value)
        history = arguments.pop("history", None)
        return JointPredictive(self.net, inputs, **arguments, validate_args=self._validate_args, _history=history)

    def sample(self, sample_shape: Sequence[int] = torch.Size(), *, method: str = "rollout") -> Tensor:
        """Draw values (*sample_shape, *batch, *event).

        Args:
            sample_shape: how many draws.
            method: "rollout", trial after trial; or "speculative", many trials in one pass, which draws from the same
                distribution and may be faster for few draws: see `speculative_rollout`.

        Raises:
            ValueError: if the model has feedback and no `environment` supplies it, or the method is unknown or cannot
                be used with `block`.
        """
        check_sampling(method)
        if method == "speculative":
            return self.speculate(sample_shape).value
        return self.sample_with_feedback(sample_shape)[0]

    def speculate(
        self,
        sample_shape: Sequence[int] = torch.Size(),
        *,
        generator: torch.Generator | None = None,
        lookahead: int = LOOKAHEAD,
    ) -> Speculation:
        """Draw values as `sample(method="speculative")` does, and tell how many drafts were accepted.

        See `speculative_rollout` for what it is and where it gains.

        Args:
            sample_shape: how many draws.
            generator: of all random numbers; None = torch's global one.
            lookahead: number of trials that are tested in one pass.

        Raises:
            ValueError: if the model has feedback and no `environment` supplies it, the distribution has a `block`, or
                `lookahead` is below 1.
        """
        shape = self.noise_shape(tuple(sample_shape))
        with torch.no_grad():
            noise = self._positive(torch.rand(shape, generator=generator, device=self.net.device, dtype=self.net.dtype))
            return Speculation(*self.speculative_rollout(noise, generator, lookahead))

    def sample_with_feedback(self, sample_shape: Sequence[int] = torch.Size()) -> tuple[Tensor, dict[str, Tensor]]:
        """`sample`, and the feedback that the environment gave: dict name -> (*sample_shape, *batch, K)."""
        with torch.no_grad():
            noise = torch.rand(self.noise_shape(tuple(sample_shape)), device=self.net.device, dtype=self.net.dtype)
            value, feedback, _ = self.rollout(self._positive(noise))
        return value, feedback

    @staticmethod
    def _positive(noise: Tensor) -> Tensor:
        # The normal quantile of 0 is infinite.
        return noise.clamp(min=torch.finfo(noise.dtype).tiny)

    @property
    def mean(self) -> Tensor:
        """Mean of each outcome alone, with an empty buffer: (*batch, *event)."""
        return self.marginal_moments()[0].expand(self.batch_shape + self.event_shape)

    @property
    def variance(self) -> Tensor:
        """Variance of each outcome alone, with an empty buffer: (*batch, *event)."""
        return self.marginal_moments()[1].expand(self.batch_shape + self.event_shape)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> JointPredictive:
        """The same with batch dimensions expanded to `batch_shape`; data are not copied."""
        expanded = self._get_checked_instance(JointPredictive, _instance)
        batch_shape = torch.Size(batch_shape)
        if not broadcasts_to(self.batch_shape, batch_shape):
            raise ValueError(
                f"batch_shape: expected one that {tuple(self.batch_shape)} broadcasts to, got {tuple(batch_shape)}"
            )
        for name in (*self.data_fields, *self.static_fields, "_observed_value"):
            setattr(expanded, name, getattr(self, name))
        expanded.pad_batch(len(batch_shape))
        dist.TorchDistribution.__init__(expanded, batch_shape, self.event_shape, validate_args=False)
        expanded._validate_args = self._validate_args
        return expanded

    def mask(self, mask: Any) -> Any:
        """Mask data sets, as in Pyro; trials are masked by `trial_mask`.

        Raises:
            ValueError: if the mask has dimensions that the batch shape has not.
        """
        shape = tuple(mask.shape) if isinstance(mask, Tensor) else ()
        if not broadcasts_to(shape, self.batch_shape):
            raise ValueError(
                f"mask: expected a mask of data sets, of shape {tuple(self.batch_shape)}, got {shape}; it would "
                f"multiply the joint density. To leave out trials give trial_mask to JointPredictive"
            )
        return super().mask(mask)


class TruncatedNormal(dist.TorchDistribution):
    """A normal distribution between two bounds, which Pyro lacks.

    Args:
        loc: mean of the whole normal distribution.
        scale: its standard deviation.
        low: lower bound.
        high: upper bound.
        validate_args: as in every distribution.
    """

    arg_constraints = {name: constraints.real for name in ("loc", "low", "high")} | {"scale": constraints.positive}
    has_rsample = True

    def __init__(self, loc: Any, scale: Any, low: Any, high: Any, validate_args: bool | None = None) -> None:
        self.loc, self.scale, self.low, self.high = broadcast_all(loc, scale, low, high)
        super().__init__(self.loc.shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> constraints.Constraint:
        """The interval between the bounds."""
        return constraints.interval(self.low, self.high)

    def _masses(self) -> tuple[Tensor, Tensor]:
        """Probability that the whole normal distribution lies below `low`, and below `high`."""
        below_low, below_high = (torch.special.ndtr((x - self.loc) / self.scale) for x in (self.low, self.high))
        return below_low, below_high

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draw values, through which gradients reach the arguments."""
        below_low, below_high = self._masses()
        shape = self._extended_shape(torch.Size(sample_shape))
        uniform = torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device)
        standard = torch.special.ndtri(below_low + (below_high - below_low) * uniform)
        # Rounding may go beyond a bound.
        return (self.loc + self.scale * standard).clamp(self.low, self.high)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density; -inf beyond the bounds."""
        if self._validate_args:
            self._validate_sample(value)
        below_low, below_high = self._masses()
        standard = (value - self.loc) / self.scale
        whole = -0.5 * standard**2 - self.scale.log() - 0.5 * math.log(2 * math.pi)
        inside = (value >= self.low) & (value <= self.high)
        return torch.where(inside, whole - (below_high - below_low).log(), -torch.inf)

    def expand(self, batch_shape: Any, _instance: Any = None) -> TruncatedNormal:
        """The same distribution over more batch dimensions."""
        expanded = self._get_checked_instance(TruncatedNormal, _instance)
        for name in ("loc", "scale", "low", "high"):
            setattr(expanded, name, getattr(self, name).expand(batch_shape))
        super(TruncatedNormal, expanded).__init__(torch.Size(batch_shape), validate_args=False)
        expanded._validate_args = self._validate_args
        return expanded


def prior_distributions(record: TrainingRecord) -> dict[str, Any]:
    """The training priors of a record as Pyro distributions; see `ppl_buffer.predictive.NetworkVerbs.prior`."""
    priors = {name: record.priors.get(name) or Prior.uniform(*box) for name, box in record.box.items()}
    return {name: prior.distribution(dist) for name, prior in priors.items()}


# Data sets of the run that finds out whether a model can draw many at once: a number unlike `PROBE_TRIALS`.
_PROBE_SETS = 3


def simulator_from_model(
    model: Callable[..., Any],
    *,
    outcomes: Sequence[str] | Mapping[str, Variable],
    inputs: Mapping[str, InputSource] | None = None,
    ordered: bool = False,
    independent: bool = False,
    name: str | None = None,
) -> ModelSimulator:
    """A Pyro model as a simulator that `ppl_buffer.train` can learn from.

    Many data sets are drawn in one run of the model, in a plate over data sets: at dimension -2, left of a plate over
    trials, or at -1 where the trials are an event dimension. This is done if such a run has the density of single
    runs at the same values; otherwise the model runs once for each data set, with a warning. Draws depend on the
    given generator alone; torch's generator and the parameter store stay as they were. The model runs on the CPU.

    Args:
        model: function (inputs, trials) that samples one data set: scalar latent sites, and outcome sites of shape
            (trials,), in a plate or with an event dimension. `inputs` is a dict name -> (trials,). How the first
            trials come about must not depend on how many follow.
        outcomes: names of the outcome sites, in the order in which the density factorises inside a trial; or a dict
            name -> variable, to state more than the site's support does (the range of a lapse); None = the support.
        inputs: dict name -> (variable, function (rng, size, trials) -> array (size, trials)).
        ordered: trial k depends on the trials before it.
        independent: exchangeable trials are independent once all parameters are told.
        name: stored in the checkpoint; by default the name of the function.

    Returns:
        the simulator. Its parameters are the continuous scalar latent sites. Other latent sites are drawn with the
        data and never told: the network integrates over them.

    Raises:
        ValueError: if an outcome is no site of the program, is observed in it or has another shape, a support fits
            no variable, or a parameter is sampled after a latent site that is none.
    """
    shown = probe_inputs(inputs)
    probes = []
    for seed in (0, 1):
        with seeded(seed):
            probes.append(_sites(model, {}, shown, PROBE_TRIALS))

    def draw(
        rng: np.random.Generator, names: Sequence[str], params: Arrays, inputs: Arrays, size: int, trials: int
    ) -> Arrays:
        with seeded(int(rng.integers(2**63))):
            if layout is not None:
                sites = _sites_of_many(model, params, inputs, size, trials, layout)
                values = {key: sites[key]["value"] for key in names}
            else:
                runs = [_sites(model, _take(params, index), _take(inputs, index), trials) for index in range(size)]
                values = {key: torch.stack([sites[key]["value"] for sites in runs]) for key in names}
        shapes = {key: (size, trials) if key in simulator.schema.outcomes else (size,) for key in names}
        return {key: value.detach().reshape(shapes[key]).numpy() for key, value in values.items()}

    simulator = ModelSimulator(
        [
            {key: Site(x["fn"], tuple(x["value"].shape), x["is_observed"]) for key, x in probe.items()}
            for probe in probes
        ],
        draw,
        outcomes=outcomes,
        inputs=inputs,
        ordered=ordered,
        independent=independent,
        name=name or str(getattr(model, "__name__", type(model).__name__)),
    )
    several = simulator.inputs(np.random.default_rng(0), _PROBE_SETS, PROBE_TRIALS)
    layout = next((dim for dim in (-2, -1) if _draws_many(model, several, probes[0], dim)), None)
    if layout is None:
        warnings.warn(
            f"model: {simulator.name} cannot draw many data sets at once and draws them one after another, which is "
            f"slow; it would be fast if it also took parameters (size, 1) and inputs (size, trials)",
            stacklevel=2,
        )
    return simulator


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Runs models without a trace: random state, parameter store and effect handlers stay as they were."""
    store = pyro.get_param_store()
    with torch.random.fork_rng(devices=[]), store.scope(store.get_state()), poutine.block(), torch.no_grad():
        # Not torch.manual_seed, which would seed every other device too.
        torch.default_generator.manual_seed(seed)
        yield


def _sites(
    model: Callable[..., Any], params: Mapping[str, Any], given: Mapping[str, Any], trials: int
) -> dict[str, Any]:
    """Sample sites by name of one run of a model, with the sites in `params` fixed."""

    def tensors(arrays: Mapping[str, Any]) -> dict[str, Tensor]:
        # Integers stay integers: a model may use a category as an index.
        given = {key: torch.as_tensor(array) for key, array in arrays.items()}
        return {k: x.to(torch.get_default_dtype()) if x.is_floating_point() else x for k, x in given.items()}

    trace = poutine.trace(poutine.condition(model, data=tensors(params))).get_trace(tensors(given), trials)
    return {key: site for key, site in prune_subsample_sites(trace).nodes.items() if site["type"] == "sample"}


def _sites_of_many(
    model: Callable[..., Any], params: Mapping[str, Any], given: Mapping[str, Any], size: int, trials: int, layout: int
) -> dict[str, Any]:
    """Sample sites by name of one run for `size` data sets, in a plate at dimension `layout`."""
    wide = {key: np.reshape(values, (size, *(1,) * (-layout - 1))) for key, values in params.items()}
    return _sites(pyro.plate("_data_sets", size, dim=layout)(model), wide, given, trials)


def _take(arrays: Mapping[str, Any], index: int) -> dict[str, Any]:
    """What belongs to one data set."""
    return {key: array[index] for key, array in arrays.items()}


def _draws_many(model: Callable[..., Any], given: Mapping[str, Any], probe: Mapping[str, Any], layout: int) -> bool:
    """Whether a run for several data sets has, site by site, the density of single runs at the same values."""

    def each(site: Mapping[str, Any]) -> Tensor:
        return site["fn"].log_prob(site["value"]).reshape(_PROBE_SETS, -1).sum(-1)

    try:
        with seeded(0):
            many = _sites_of_many(model, {}, given, _PROBE_SETS, PROBE_TRIALS, layout)
            for index in range(_PROBE_SETS):
                drawn = {
                    key: site["value"][index].reshape(probe[key]["value"].shape)
                    for key, site in many.items()
                    if not site["is_observed"]
                }
                single = _sites(model, drawn, _take(given, index), PROBE_TRIALS)
                if single.keys() != many.keys():
                    return False
                for key, site in single.items():
                    alone = site["fn"].log_prob(site["value"]).sum()
                    if not torch.allclose(each(many[key])[index], alone, rtol=1e-4, atol=1e-4):
                        return False
    except Exception:
        # A model that was written for one data set may raise anything here; what it raises there, the probes did.
        return False
    return True


def _sample_sites(trace: Any) -> dict[str, Any]:
    """Sample sites by name, without those of plates."""
    for name, site in trace.nodes.items():
        if site["type"] == "sample" and type(site["fn"]).__name__ == "_Subsample":
            check_plate(name, site["fn"].size, len(site["value"]))
    return {k: x for k, x in prune_subsample_sites(trace).nodes.items() if x["type"] == "sample"}


def _is_deterministic(site: Mapping[str, Any]) -> bool:
    return bool(site["infer"].get("_deterministic", False))


def _is_latent(site: Mapping[str, Any]) -> bool:
    return not site["is_observed"] and not _is_deterministic(site)


@contextmanager
def _quiet_box() -> Iterator[None]:
    """Silences what a joint predictive says of single draws outside the trained box."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"params\[", UserWarning)
        yield


def replay(
    model: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    samples: Mapping[str, Any],
    progress: bool = False,
) -> PosteriorTrace:
    """Run a model at each of S draws of its latent sites, one after another.

    Args:
        model: the model.
        args: its arguments.
        kwargs: its keyword arguments.
        samples: dict name -> (S, *shape); sites that are not latent are ignored.
        progress: show a progress bar.

    Raises:
        ValueError: if draws of a latent site are missing, a plate subsamples, or data depend on latent variables.
    """
    drawn = {name: torch.as_tensor(value).detach() for name, value in samples.items()}
    count = len(next(iter(drawn.values()))) if drawn else 1
    with seeded(0), _quiet_box():
        structure = _sample_sites(poutine.trace(model).get_trace(*args, **kwargs))
        latent = [name for name, site in structure.items() if _is_latent(site)]
        check_samples(samples, latent)
        deterministic = [name for name, site in structure.items() if _is_deterministic(site)]
        trials: dict[str, ObservedSite] = {}
        for name, site in structure.items():
            found = (
                observed_site(site["fn"], site["value"]) if site["is_observed"] and name not in deterministic else None
            )
            if found is not None:
                trials[name] = found
        others = [name for name in structure if name not in (*latent, *deterministic, *trials)]
        others = [name for name in others if structure[name]["value"].numel()]  # `pyro.factor` observes nothing
        kept: dict[str, list[np.ndarray]] = {}

        def keep(group: str, name: str, value: Tensor) -> None:
            kept.setdefault(f"{group} {name}", []).append(value.detach().cpu().numpy())

        for draw in tqdm(range(count), disable=not progress, desc="replay", unit="draw"):
            known = {name: drawn[name][draw] for name in latent}
            again = _sample_sites(poutine.trace(poutine.condition(model, data=known)).get_trace(*args, **kwargs))
            for name in [*latent, *deterministic]:
                keep("value", name, again[name]["value"])
            for name in [*latent, *others]:
                keep("log_prob", name, again[name]["fn"].log_prob(again[name]["value"]))
            for name, site in trials.items():
                joint = unwrap_joint(again[name]["fn"])
                assert joint is not None
                both = zip(fixed_leaves(joint), fixed_leaves(site.distribution), strict=True)
                if not all(a is b or torch.equal(a, b) for a, b in both):
                    raise varying_data_error(name)
                for key, value in varying(joint)["params"].items():
                    keep(f"params {name}", key, value)
                if joint.lapse is not None:
                    keep("lapse", name, joint.lapse)
    stacked = {key: np.stack(values) for key, values in kept.items()}
    for name, site in trials.items():
        site.params = {key: stacked[f"params {name} {key}"] for key in site.distribution.params}
        site.lapse = stacked.get(f"lapse {name}")
    return PosteriorTrace(
        values={name: stacked[f"value {name}"] for name in [*latent, *deterministic]},
        log_prior={name: stacked[f"log_prob {name}"] for name in latent},
        trials=trials,
        observed={name: structure[name]["value"].detach().cpu().numpy() for name in others},
        log_likelihood={name: stacked[f"log_prob {name}"] for name in others},
        plates={
            name: {frame.dim: (frame.name, frame.size) for frame in site["cond_indep_stack"] if frame.vectorized}
            for name, site in structure.items()
        },
        batch_ndim={name: len(structure[name]["fn"].batch_shape) for name in [*latent, *others, *trials]},
    )


def prior_samples(
    model: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], draws: int, seed: int
) -> dict[str, np.ndarray]:
    """Draws (draws, *shape) of a model's latent and deterministic sites from the prior."""
    kept: dict[str, list[np.ndarray]] = {}
    with seeded(seed), _quiet_box():
        for _ in range(draws):
            for name, site in _sample_sites(poutine.trace(model).get_trace(*args, **kwargs)).items():
                if _is_latent(site) or _is_deterministic(site):
                    kept.setdefault(name, []).append(site["value"].detach().cpu().numpy())
    return {name: np.stack(values) for name, values in kept.items()}


def guide_samples(
    svi: Any, params: Any, args: Sequence[Any], kwargs: Mapping[str, Any], draws: int, seed: int
) -> dict[str, np.ndarray]:
    """Draws (draws, *shape) of what a guide samples, at the parameter store's values, or at `params` name -> value."""
    kept: dict[str, list[np.ndarray]] = {}
    guide = svi.guide if params is None else poutine.substitute(svi.guide, data=dict(params))
    with seeded(seed):
        for _ in range(draws):
            for name, site in poutine.trace(guide).get_trace(*args, **kwargs).nodes.items():
                if site["type"] == "sample":
                    kept.setdefault(name, []).append(site["value"].detach().cpu().numpy())
    return {name: np.stack(values) for name, values in kept.items()}


def sampler_statistics(mcmc: Any) -> dict[str, np.ndarray]:
    """What a sampler recorded, dict name -> (chain, draw): Pyro's keep which draws diverged, and no more."""
    divergences = mcmc.diagnostics().get("divergences")
    if divergences is None:
        return {}
    diverging = np.zeros(next(iter(mcmc.get_samples(group_by_chain=True).values())).shape[:2], dtype=bool)
    for chain, draws in divergences.items():
        diverging[int(chain.split()[-1]), draws] = True
    return {"diverging": diverging}
