"""The support of a joint predictive, and the way there from unbounded numbers, as far as both languages share them."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

from ppl_buffer.network.arguments import legal_trials
from ppl_buffer.network.backend import Array
from ppl_buffer.network.missing import legal_events
from ppl_buffer.network.missing_rule import MissingRule
from ppl_buffer.schema import Discrete, Schema, split_value, stack_value


class TrialSupportBase:
    """Values whose every existing trial holds legal outcomes. Their constraint classes differ between the languages.

    Attributes:
        schema: whose outcomes the columns are.
        missing: what missing answers mean; None where there are none.
    """

    schema: Schema
    missing: MissingRule | None

    def _legal_trials(
        self, cast: Callable[[Array], Array], xp: ModuleType, value: Array, trial_mask: Array | None
    ) -> Array:
        """Which trials (..., K) hold legal outcomes, or do not exist. No deadline is looked at: a density does."""
        if self.missing is None:
            return legal_trials(cast, xp, self.schema, value, trial_mask)
        return legal_events(cast, xp, self.schema, value, trial_mask, self.missing, None)

    @property
    def event_dim(self) -> int:
        """1 for one outcome, 2 for several."""
        return 1 if len(self.schema.outcomes) == 1 else 2

    @property
    def is_discrete(self) -> bool:
        """Whether every outcome is a category or an integer."""
        return all(isinstance(variable, Discrete) for variable in self.schema.outcomes.values())

    def __repr__(self) -> str:
        outcomes = ", ".join(f"{name}: {variable.description}" for name, variable in self.schema.outcomes.items())
        return f"{type(self).__name__}({outcomes})"


def require_continuous(schema: Schema, trial_mask: Array | None) -> None:
    """Refuse a joint predictive as a latent site if it cannot be one.

    Raises:
        ValueError: if an outcome is discrete, or trials may be missing.
    """
    discrete = [name for name, variable in schema.outcomes.items() if isinstance(variable, Discrete)]
    if discrete:
        raise ValueError(f"outcomes: expected continuous ones of a joint predictive that is latent, got {discrete}")
    if trial_mask is not None:
        raise ValueError("trial_mask: expected None of a joint predictive that is latent: leave missing trials out")


def constrain_outcomes(xp: ModuleType, schema: Schema, value: Array, inverse: bool = False) -> Array:
    """Unbounded numbers of the shape of a value as outcomes, or back, each by the transform of its variable."""
    columns = split_value(schema, value)
    for name, column in columns.items():
        variable = schema.outcomes[name]
        assert not isinstance(variable, Discrete)
        columns[name] = variable.unconstrain(xp, column) if inverse else variable.constrain(xp, column)
    return stack_value(xp, schema, columns)


def unconstrained_slope(xp: ModuleType, schema: Schema, value: Array) -> Array:
    """Log derivative of unbounded numbers by outcomes, of the shape of the value."""
    columns = split_value(schema, value)
    for name, column in columns.items():
        variable = schema.outcomes[name]
        assert not isinstance(variable, Discrete)
        columns[name] = variable.log_slope(xp, column)
    return stack_value(xp, schema, columns)
