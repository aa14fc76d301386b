"""What a data set holds: named parameters, inputs, outcomes and feedback, and how its trials hang together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import ModuleType
from typing import Any

from ppl_buffer.checks import check_flag
from ppl_buffer.variables import (
    Array,
    Categorical,
    Continuous,
    Discrete,
    Integer,
    Interval,
    Positive,
    Real,
    Variable,
    finite,
)

_KINDS = {"Real": Real, "Positive": Positive, "Interval": Interval, "Integer": Integer, "Categorical": Categorical}
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
            raise ValueError(
                f"{group}[{name!r}]: expected Real, Positive, Interval, Integer or Categorical, got {variable!r}"
            )
        if group == "params" and isinstance(variable, Discrete):
            raise ValueError(f"params[{name!r}]: expected Real, Positive or Interval, got {variable!r}")
        if group != "params" and isinstance(variable, Interval) and variable.closed:
            raise ValueError(f"{group}[{name!r}]: a closed Interval is only for parameters")
        if group != "inputs" and isinstance(variable, Real) and variable.frequencies is not None:
            raise ValueError(f"{group}[{name!r}]: frequencies: expected none but of an input, got {variable!r}")
    return dict(variables)


def _description(variable: Variable) -> dict[str, object]:
    """A variable as JSON has it."""
    description = {"kind": type(variable).__name__, **vars(variable)}
    # As before there were any: digests of networks without them stay what they were.
    if description.get("frequencies", ()) is None:
        del description["frequencies"]
    return description


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
        object.__setattr__(self, "lapse_rate", finite("lapse_rate", self.lapse_rate))
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
            if not isinstance(variable, Discrete) and variable.lapse_range is None:
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
        """Keys of a network's standardization: variables but categories, outcomes' differences to lower bounds."""
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
            groups[group] = [[name, _description(variable)] for name, variable in getattr(self, group).items()]
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
