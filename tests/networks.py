"""Tiny networks with random weights, in both backends from one set of weights, and data to feed them.

Random weights are larger than a training would start from, so that whatever a prediction may read changes it visibly.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ppl_buffer.network.config import Config, weight_shapes
from ppl_buffer.network.record import TrainingRecord
from ppl_buffer.predictive import sampling
from ppl_buffer.prior import Prior
from ppl_buffer.schema import Categorical, Discrete, Integer, Interval, Positive, Real, Schema

# Sizes that differ in what they exercise: a layer above the first that reads parameters and finer scales, no layer
# below those that read parameters, no counters.
DEEP = Config(
    width=12, depth=3, heads=3, mlp=17, components=5, param_depth=2, contextual_positions=2, asinh_scales=2,
    likelihood_width=0,
)  # fmt: skip
FLAT = Config(
    width=10, depth=2, heads=2, mlp=13, components=3, param_depth=2, contextual_positions=0, likelihood_width=0
)
TINY = Config(
    width=12, depth=2, heads=3, mlp=17, components=5, param_depth=1, contextual_positions=2, likelihood_width=0
)
# Hardly a transformer, beside a direct likelihood of a size that nothing else has.
DIRECT_SIZES = Config(
    width=6, depth=1, heads=2, mlp=7, components=5, param_depth=1, contextual_positions=0, asinh_scales=1,
    likelihood_width=11,
)  # fmt: skip


def reward(trial, inputs, outcomes, uniform):
    """An environment: a reward that depends on the choice, and a little on chance. Works in both backends."""
    return {"reward": 0.4 * outcomes["choice"] + uniform[..., 0] - 0.3}


def points(trial, inputs, outcomes, uniform):
    """An environment for a category of feedback."""
    return {"points": 1.0 * (uniform[..., 0] < 0.2 + 0.3 * outcomes["button"])}


def score(trial, inputs, outcomes, uniform):
    """An environment for a whole number of feedback."""
    return {"score": 1.0 * (uniform[..., 0] < 0.6) + 1.0 * (outcomes["grade"] > 3) - 1.0 * (outcomes["side"] == 2)}


@dataclass(frozen=True, eq=False)
class Case:
    """A schema, and what is needed to draw from a network that has it."""

    name: str
    schema: Schema
    environment: Callable[..., Any] | None = None
    config: Config = TINY

    @property
    def has_lapse(self) -> bool:
        """Whether every outcome states what a lapse is."""
        return all(isinstance(x, Discrete) or x.lapse_range is not None for x in self.schema.outcomes.values())

    def __repr__(self) -> str:
        return self.name


LEARNING = Case(
    "learning",
    Schema(
        params={"alpha": Interval(0, 1), "beta": Positive(), "zeta": Interval(0, 1, closed=True)},
        inputs={"pair": Categorical(3), "delay": Real()},
        outcomes={"choice": Categorical(2), "rt": Positive(lapse_range=(0, 10))},
        feedback={"reward": Real()},
        ordered=True,
    ),
    reward,
    DEEP,
)
REPORT = Case(
    "report",
    Schema(params={"mu": Real()}, inputs={"cue": Real()}, outcomes={"rating": Categorical(5)}, ordered=True),
    config=FLAT,
)
FUNCTION = Case(
    "function",
    Schema(params={"mu": Real(), "sigma": Positive()}, inputs={"x": Real()}, outcomes={"y": Real(lapse_range=(-9, 9))}),
)
DECISION = Case(
    "decision",
    Schema(
        params={"drift": Real(), "delay": Positive(), "bound": Positive()},
        inputs={"coherence": Real(frequencies=3)},
        outcomes={"choice": Categorical(2), "rt": Positive(lapse_range=(0, 10), above="delay")},
        independent=True,
    ),
)
SLIDER = Case("slider", Schema(params={"mu": Real()}, outcomes={"position": Interval(-2, 3)}), config=FLAT)
CONTAMINATED = Case(
    "contaminated",
    Schema(
        params={"speed": Positive()},
        inputs={"side": Categorical(2)},
        outcomes={"rt": Positive(lapse_range=(0, 5)), "button": Categorical(3)},
        feedback={"points": Categorical(2)},
        lapse_rate=0.07,
    ),
    points,
)
# Without a range, a lapse has no density.
LAPSELESS = Case("lapseless", Schema(inputs={"x": Real()}, outcomes={"y": Real()}))
# With a direct likelihood, which computes where all parameters are given.
RESPONDING = Case(
    "responding",
    Schema(
        params={"alpha": Interval(0, 1), "delay": Positive(), "beta": Real()},
        inputs={"pair": Categorical(3), "cue": Real(frequencies=(0.7,))},
        outcomes={"choice": Categorical(2), "rt": Positive(lapse_range=(0, 10), above="delay")},
        feedback={"reward": Real()},
        ordered=True,
    ),
    reward,
    DIRECT_SIZES,
)
# One state for all categories of the inputs, where the others have one for each.
UNDIVIDED = replace(RESPONDING, name="undivided", config=replace(DIRECT_SIZES, likelihood_slots=False))
HABIT = Case(
    "habit",
    Schema(inputs={"cue": Categorical(4)}, outcomes={"key": Categorical(3), "side": Categorical(2)}, ordered=True),
    config=DIRECT_SIZES,
)
DISCRIMINATION = Case("discrimination", DECISION.schema, config=DIRECT_SIZES)
GUESS = Case(
    "guess",
    Schema(params={"mu": Real()}, outcomes={"share": Interval(-2, 3)}, independent=True),
    config=replace(DIRECT_SIZES, head="logistic"),
)
# Whole numbers everywhere, among them an outcome that another one follows.
GRADING = Case(
    "grading",
    Schema(
        params={"mu": Real()},
        inputs={"level": Integer(0, 5)},
        outcomes={"grade": Integer(-2, 8), "side": Categorical(3)},
        feedback={"score": Integer(-1, 3)},
        ordered=True,
    ),
    score,
    DIRECT_SIZES,
)
DIRECT = [RESPONDING, HABIT, DISCRIMINATION, GUESS, GRADING]
CASES = [LEARNING, REPORT, FUNCTION, DECISION, SLIDER, CONTAMINATED]
ORDERED = [case for case in CASES if case.schema.ordered]
EXCHANGEABLE = [case for case in CASES if not case.schema.ordered]


@functools.cache
def weights(case: Case) -> dict[str, np.ndarray]:
    """Random weights, the same in every process."""
    rng = np.random.default_rng(sum(map(ord, case.name)))
    out = {}
    for name, shape in weight_shapes(case.schema, case.config).items():
        scale = 1 / np.sqrt(shape[-1]) if name.endswith("weight") and len(shape) == 2 else 0.4
        out[name] = (scale * rng.normal(size=shape)).astype(np.float32) + ("norm" in name and name.endswith("weight"))
    return out


def standardization(schema: Schema) -> dict[str, tuple[float, float]]:
    """A shift and a scale that are not neutral, other ones for each variable."""
    variables = {**schema.params, **schema.inputs, **schema.outcomes, **schema.feedback}
    names = [name for name, variable in variables.items() if not isinstance(variable, Categorical)]
    names += [schema.scale_above(name) for name in schema.lower_bounds]
    scales = {name: (0.1 - 0.05 * index, 0.4 + 0.1 * index) for index, name in enumerate(names)}
    whole = {name: x for name, x in variables.items() if isinstance(x, Integer)}
    return scales | {name: (0.1 + x.fill, x.n / 4) for name, x in whole.items()}


@functools.cache
def network(case: Case, backend: str, record: TrainingRecord | None = None) -> Any:
    """The network of a case in a backend, the same object in every call."""
    schema = case.schema
    if backend == "jax":
        import jax

        from ppl_buffer.network.jax.weights import JaxNetwork

        # Whoever asks first may be inside a function that is being traced.
        with jax.ensure_compile_time_eval():
            return JaxNetwork(schema, case.config, standardization(schema), weights(case), record)
    import torch

    from ppl_buffer.network.torch.weights import TorchNetwork

    net = TorchNetwork(schema, case.config, standardization(schema), record=record)
    with torch.no_grad():
        for name, value in weights(case).items():
            net.weights[name].copy_(torch.as_tensor(value))
    return net.eval().requires_grad_(False)


class Record(TrainingRecord):
    """A training record that can be a key of a cache."""

    __hash__ = object.__hash__


FUNCTION_RECORD = Record(
    box={"mu": (-2.0, 2.0), "sigma": (0.5, 3.0)},
    priors={"mu": Prior("Normal", {"loc": 0.0, "scale": 0.5}), "sigma": None},
    trials=11,
    context=13,
    simulator="none",
)


def draw_variable(rng: np.random.Generator, variable: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Legal values of a variable."""
    if isinstance(variable, Discrete):
        return variable.low + rng.integers(0, variable.n, shape).astype(np.float32)
    if isinstance(variable, Positive):
        return rng.lognormal(0, 0.5, shape).astype(np.float32)
    if isinstance(variable, Interval):
        return (variable.low + (variable.high - variable.low) * rng.uniform(0.1, 0.9, shape)).astype(np.float32)
    return rng.normal(0, 1, shape).astype(np.float32)


def draw_group(rng: np.random.Generator, variables: Any, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Legal values of several variables."""
    return {name: draw_variable(rng, variable, shape) for name, variable in variables.items()}


@dataclass
class Data:
    """NumPy data of a case: batch (B,), trials K, context size N."""

    inputs: dict[str, np.ndarray]
    value: np.ndarray
    feedback: dict[str, np.ndarray]
    params: dict[str, np.ndarray]
    context: dict[str, np.ndarray] | None

    def arguments(self, **more: Any) -> dict[str, Any]:
        """Keyword arguments of `JointPredictive` for scoring."""
        if "trials" not in more:
            more["trials"] = self.value.shape[1]
        return {
            "params": self.params,
            "feedback": self.feedback,
            "context": self.context,
            **more,
        }


def data(case: Case, batch: int = 3, trials: int = 7, points: int = 5, seed: int = 0, context: bool = True) -> Data:
    """Data that need not come from the network: laws of densities hold at any value."""
    rng = np.random.default_rng(seed)
    schema = case.schema
    outcomes = draw_group(rng, schema.outcomes, (batch, trials))
    past = {**schema.inputs, **schema.outcomes, **schema.feedback}
    inputs = draw_group(rng, schema.inputs, (batch, trials))
    feedback = draw_group(rng, schema.feedback, (batch, trials))
    params = draw_group(rng, schema.params, (batch,))
    for name, above in schema.lower_bounds.items():
        outcomes[name] = outcomes[name] + params[above][:, None]
    columns = list(outcomes.values())
    return Data(
        inputs=inputs,
        value=np.stack(columns, -1) if schema.event_shape_tail else columns[0],
        feedback=feedback,
        params=params,
        context=draw_group(rng, past, (batch, points)) if context and not schema.ordered else None,
    )


def array(backend: str, value: Any) -> Any:
    """NumPy arrays of numbers, or nested dicts of them, as the backend's; anything else as it is."""
    if isinstance(value, dict):
        return {name: array(backend, x) for name, x in value.items()}
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
        return value
    if backend == "jax":
        import jax.numpy as jnp

        return jnp.asarray(value)
    import torch

    return torch.tensor(value)


def joint_predictive(case: Case, backend: str, inputs: Any, net: Any = None, **arguments: Any) -> Any:
    """The distribution of the backend's language, from NumPy arguments."""
    if backend == "jax":
        from ppl_buffer.numpyro import JointPredictive
    else:
        from ppl_buffer.pyro import JointPredictive
    given = {name: array(backend, x) for name, x in arguments.items()}
    # Observed data and inputs tell the number of trials; a test that gives it all the same wants it checked.
    if not isinstance(inputs, dict):
        given.pop("trials", None)
    inputs = array(backend, inputs)
    return JointPredictive(net or network(case, backend), inputs, **given)


@functools.cache
def _jitted_rollout() -> Any:
    import jax

    return jax.jit(lambda distribution, noise: sampling.rollout(distribution.query, noise))


def rollout(backend: str, distribution: Any, noise: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """Value, feedback and log densities drawn from given uniform numbers."""
    run = _jitted_rollout() if backend == "jax" else lambda d, noise: sampling.rollout(d.query, noise)
    value, feedback, log_probs = run(distribution, array(backend, noise.astype(np.float32)))
    return np.asarray(value), {name: np.asarray(x) for name, x in feedback.items()}, np.asarray(log_probs)
