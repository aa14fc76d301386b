"""What a data set holds: named parameters, inputs, outcomes and feedback, and the scale each lives on.

Every transform here works on NumPy, torch and JAX arrays: functions take the array namespace as ``xp``
(``numpy``, ``torch`` or ``jax.numpy``), so that the two backends and the simulators share one definition.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import ModuleType
from typing import Any

from ppl_buffer.checks import check_flag, check_integer, check_number

Array = Any


def _finite(name: str, value: float) -> float:
    return check_number(name, value, "a finite number", lambda x: True)


def checked_range(name: str, value: tuple[float, float]) -> tuple[float, float]:
    """A pair (low, high) of finite numbers in order.

    Raises:
        ValueError: if it is none; `name` is what it is called.
    """
    try:
        low, high = value
    except (TypeError, ValueError):
        raise ValueError(f"{name}: expected a pair (low, high), got {value!r}") from None
    low, high = _finite(name, low), _finite(name, high)
    if not low < high:
        raise ValueError(f"{name}: expected low < high, got ({low}, {high})")
    return low, high


@dataclass(frozen=True)
class Real:
    """A real number.

    Args:
        lapse_range: range (low, high) of the uniform density that a lapse follows, in the variable's units.
    """

    lapse_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.lapse_range is not None:
            object.__setattr__(self, "lapse_range", checked_range("lapse_range", self.lapse_range))

    def unconstrain(self, xp: ModuleType, value: Array) -> Array:
        """Map a value to the unconstrained scale."""
        return value

    def constrain(self, xp: ModuleType, unconstrained: Array) -> Array:
        """Inverse of `unconstrain`."""
        return unconstrained

    def log_slope(self, xp: ModuleType, value: Array) -> Array:
        """Log derivative of `unconstrain` at a value: the log-Jacobian that a density carries."""
        return xp.zeros_like(value)

    def contains(self, xp: ModuleType, value: Array) -> Array:
        """Whether each value is legal: boolean array."""
        return xp.isfinite(value)

    @property
    def fill(self) -> float:
        """A legal value, for places where there is no trial."""
        return 0.0

    @property
    def description(self) -> str:
        """What a legal value is, for an error message."""
        return "a finite real number"


@dataclass(frozen=True)
class Positive:
    """A number above zero (a response time, a scale); the network sees its logarithm.

    Args:
        lapse_range: range (low, high) of the uniform density that a lapse follows, in the variable's units.
        above: for an outcome, the parameter that it always exceeds: a response time its non-decision time. Where the
            parameter is conditioned on, the head describes the logarithm of the difference, and the density is 0
            below; where it is hidden, the logarithm of the outcome.
    """

    lapse_range: tuple[float, float] | None = None
    above: str | None = None

    def __post_init__(self) -> None:
        if self.lapse_range is not None:
            low, high = checked_range("lapse_range", self.lapse_range)
            if low < 0:
                raise ValueError(f"lapse_range: expected a range of positive numbers, got ({low}, {high})")
            object.__setattr__(self, "lapse_range", (low, high))

    def unconstrain(self, xp: ModuleType, value: Array) -> Array:
        """Map a value to the unconstrained scale."""
        return xp.log(value)

    def constrain(self, xp: ModuleType, unconstrained: Array) -> Array:
        """Inverse of `unconstrain`."""
        return xp.exp(unconstrained)

    def log_slope(self, xp: ModuleType, value: Array) -> Array:
        """Log derivative of `unconstrain` at a value: the log-Jacobian that a density carries."""
        return -xp.log(value)

    def contains(self, xp: ModuleType, value: Array) -> Array:
        """Whether each value is legal: boolean array."""
        return xp.isfinite(value) & (value > 0)

    @property
    def fill(self) -> float:
        """A legal value, for places where there is no trial."""
        return 1.0

    @property
    def description(self) -> str:
        """What a legal value is, for an error message."""
        return "a number above 0"


@dataclass(frozen=True)
class Interval:
    """A number between two bounds.

    Args:
        low: lower bound.
        high: upper bound.
        closed: the bounds themselves are legal. Only for parameters: the network then reads the value on its
            linear scale, since the logit has no value at a bound.

    Raises:
        ValueError: if the bounds are not finite or not in order.
    """

    low: float
    high: float
    closed: bool = False

    def __post_init__(self) -> None:
        low, high = checked_range("Interval", (self.low, self.high))
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)
        object.__setattr__(self, "closed", check_flag("closed", self.closed))

    @property
    def lapse_range(self) -> tuple[float, float]:
        """A lapse is uniform over the interval."""
        return self.low, self.high

    def unconstrain(self, xp: ModuleType, value: Array) -> Array:
        """Map a value to the unconstrained scale."""
        if self.closed:
            return value
        return xp.log(value - self.low) - xp.log(self.high - value)

    def constrain(self, xp: ModuleType, unconstrained: Array) -> Array:
        """Inverse of `unconstrain`."""
        if self.closed:
            return unconstrained
        # The logistic function through tanh, which every namespace has and which never overflows.
        return self.low + (self.high - self.low) * 0.5 * (xp.tanh(0.5 * unconstrained) + 1)

    def log_slope(self, xp: ModuleType, value: Array) -> Array:
        """Log derivative of `unconstrain` at a value: the log-Jacobian that a density carries."""
        if self.closed:
            return xp.zeros_like(value)
        return math.log(self.high - self.low) - xp.log(value - self.low) - xp.log(self.high - value)

    def contains(self, xp: ModuleType, value: Array) -> Array:
        """Whether each value is legal: boolean array."""
        if self.closed:
            return (value >= self.low) & (value <= self.high)
        return (value > self.low) & (value < self.high)

    @property
    def fill(self) -> float:
        """A legal value, for places where there is no trial."""
        return 0.5 * (self.low + self.high)

    @property
    def description(self) -> str:
        """What a legal value is, for an error message."""
        brackets = "[]" if self.closed else "()"
        return f"a number in {brackets[0]}{self.low:g}, {self.high:g}{brackets[1]}"


@dataclass(frozen=True)
class Categorical:
    """One of n categories, coded 0 to n - 1.

    Args:
        n: number of categories, at least 2.

    Raises:
        ValueError: if n is not an integer above 1.
    """

    n: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", check_integer("Categorical: n", self.n, 2))

    def contains(self, xp: ModuleType, value: Array) -> Array:
        """Whether each value is legal: boolean array."""
        return (value >= 0) & (value < self.n) & (value == xp.floor(value))

    @property
    def fill(self) -> float:
        """A legal value, for places where there is no trial."""
        return 0.0

    @property
    def description(self) -> str:
        """What a legal value is, for an error message."""
        return f"an integer from 0 to {self.n - 1}"


Continuous = Real | Positive | Interval
Variable = Continuous | Categorical
_KINDS = {"Real": Real, "Positive": Positive, "Interval": Interval, "Categorical": Categorical}
GROUPS = ("params", "inputs", "outcomes", "feedback")


def _checked_group(group: str, variables: Mapping[str, Variable]) -> dict[str, Variable]:
    """A group of variables as a dict of its own.

    Raises:
        ValueError: if it is no dict, a name is no identifier, or a kind does not fit the group.
    """
    if not isinstance(variables, Mapping):
        raise ValueError(f"{group}: expected a dict of name to variable, got {type(variables).__name__}")
    for name, variable in variables.items():
        if not isinstance(name, str) or not name.isidentifier() or name == "training":
            raise ValueError(
                f"{group}: expected names that are Python identifiers, other than 'training', got {name!r}"
            )
        if not isinstance(variable, tuple(_KINDS.values())):
            raise ValueError(f"{group}[{name!r}]: expected Real, Positive, Interval or Categorical, got {variable!r}")
        if group == "params" and isinstance(variable, Categorical):
            raise ValueError(f"params[{name!r}]: expected Real, Positive or Interval, got {variable!r}")
        if group != "params" and isinstance(variable, Interval) and variable.closed:
            raise ValueError(f"{group}[{name!r}]: a closed Interval is only for parameters")
    return dict(variables)


@dataclass(frozen=True, eq=False)
class Schema:
    """What one data set holds, and how its trials hang together.

    Args:
        params: the simulator's parameters, each `Real`, `Positive` or `Interval`.
        inputs: what is known of a trial before the response.
        outcomes: what the participant does, in the order in which the density factorises inside a trial.
        feedback: what the participant learns after responding.
        ordered: trial k depends on the trials before it. Otherwise the trials are exchangeable.
        independent: exchangeable trials are independent given all parameters, so that the buffer is skipped where all
            are conditioned on. Leave it False for a random function, whose points depend on each other whatever is
            given.
        lapse_rate: known probability that a trial's outcome is a lapse, mixed into the density, in training too.

    Raises:
        ValueError: if a name is used twice or is no identifier, a kind does not fit its place, there is no outcome,
            or `lapse_rate` is given while an outcome states no lapse range.
    """

    params: Mapping[str, Continuous] = field(default_factory=dict)
    inputs: Mapping[str, Variable] = field(default_factory=dict)
    outcomes: Mapping[str, Variable] = field(default_factory=dict)
    feedback: Mapping[str, Variable] = field(default_factory=dict)
    ordered: bool = False
    independent: bool = False
    lapse_rate: float = 0.0

    def __post_init__(self) -> None:
        for group in GROUPS:
            object.__setattr__(self, group, _checked_group(group, getattr(self, group)))
        names = [name for group in GROUPS for name in getattr(self, group)]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"names: expected each once in all of params, inputs, outcomes, feedback; got {repeated}")
        if not self.outcomes:
            raise ValueError("outcomes: expected at least one outcome, got none")
        for group in GROUPS:
            for name, variable in getattr(self, group).items():
                above = variable.above if isinstance(variable, Positive) else None
                if above is not None and (group != "outcomes" or above not in self.params):
                    raise ValueError(
                        f"{group}[{name!r}]: above: expected one of the parameters {list(self.params)} and an outcome, "
                        f"got {above!r}"
                    )
        for name in ("ordered", "independent"):
            object.__setattr__(self, name, check_flag(name, getattr(self, name)))
        if self.ordered and self.independent:
            raise ValueError("independent: expected False for an ordered schema, got True")
        object.__setattr__(self, "lapse_rate", _finite("lapse_rate", self.lapse_rate))
        if not 0 <= self.lapse_rate < 1:
            raise ValueError(f"lapse_rate: expected a probability in [0, 1), got {self.lapse_rate!r}")
        if self.lapse_rate:
            self.require_lapse("lapse_rate")

    def __eq__(self, other: object) -> bool:
        # Unlike the order of a dict's names, the order of variables means something.
        return isinstance(other, Schema) and self.to_dict() == other.to_dict()

    def require_lapse(self, argument: str) -> None:
        """Refuse `argument` unless every outcome states the density that a lapse follows."""
        for name, variable in self.outcomes.items():
            if not isinstance(variable, Categorical) and variable.lapse_range is None:
                raise ValueError(
                    f"{argument}: expected every outcome to state the range of a lapse, but {name!r} has none; "
                    f"write {type(variable).__name__}(lapse_range=(low, high)) in the schema"
                )

    @cached_property
    def lower_bounds(self) -> dict[str, str]:
        """The outcomes that stay above a parameter, each with that parameter's name."""
        return {
            name: variable.above
            for name, variable in self.outcomes.items()
            if isinstance(variable, Positive) and variable.above is not None
        }

    def scale_above(self, name: str) -> str:
        """Key in a network's standardization for the difference of an outcome and the parameter it stays above."""
        return f"{name} - {self.lower_bounds[name]}"

    @property
    def standardized(self) -> set[str]:
        """Keys of a network's standardization: continuous variables, and outcomes' differences to lower bounds."""
        groups = (self.params, self.inputs, self.outcomes, self.feedback)
        names = {name for group in groups for name, variable in group.items() if not isinstance(variable, Categorical)}
        return names | {self.scale_above(name) for name in self.lower_bounds}

    @property
    def event_shape_tail(self) -> tuple[int, ...]:
        """What follows K in the event shape: () for one outcome, (n_outcomes,) for several."""
        return () if len(self.outcomes) == 1 else (len(self.outcomes),)

    @property
    def noise_size(self) -> int:
        """Uniform numbers that one trial of a rollout takes: two an outcome, one for the lapse, one a feedback."""
        return 2 * len(self.outcomes) + 1 + len(self.feedback)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready description, read back by `from_dict`."""
        groups = {}
        for group in GROUPS:
            # A list of pairs, not an object: the order of the variables is part of the meaning.
            groups[group] = [
                [name, {"kind": type(variable).__name__, **vars(variable)}]
                for name, variable in getattr(self, group).items()
            ]
        return {
            **groups,
            "ordered": self.ordered,
            "independent": self.independent,
            "lapse_rate": self.lapse_rate,
        }

    @classmethod
    def from_dict(cls, description: Mapping[str, Any]) -> Schema:
        """Read what `to_dict` wrote."""
        groups: dict[str, Any] = {}
        for group in GROUPS:
            groups[group] = {}
            for name, entry in description[group]:
                arguments = {key: tuple(v) if isinstance(v, list) else v for key, v in entry.items() if key != "kind"}
                groups[group][name] = _KINDS[entry["kind"]](**arguments)
        rest = {key: description[key] for key in ("ordered", "independent", "lapse_rate")}
        return cls(**groups, **rest)


def split_value(schema: Schema, value: Array) -> dict[str, Array]:
    """Columns of a value (..., K) or (..., K, n_outcomes) by outcome, each (..., K)."""
    if len(schema.outcomes) == 1:
        return {name: value for name in schema.outcomes}
    return {name: value[..., index] for index, name in enumerate(schema.outcomes)}


def stack_value(xp: ModuleType, schema: Schema, outcomes: Mapping[str, Array]) -> Array:
    """Inverse of `split_value`: outcomes (..., K) as a value (..., K) or (..., K, n_outcomes)."""
    if len(schema.outcomes) == 1:
        return outcomes[next(iter(schema.outcomes))]
    return xp.stack([outcomes[name] for name in schema.outcomes], -1)
