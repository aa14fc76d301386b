"""The support of a joint predictive, as far as both languages share it."""

from __future__ import annotations

from ppl_buffer.schema import Discrete, Schema


class TrialSupportBase:
    """Values whose every existing trial holds legal outcomes. Their constraint classes differ between the languages.

    Attributes:
        schema: whose outcomes the columns are.
    """

    schema: Schema

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
