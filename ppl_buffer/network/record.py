"""What a network was trained on: the record that a checkpoint carries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ppl_buffer.prior import Prior


@dataclass(frozen=True)
class TrainingRecord:
    """What a network was trained on: where its numbers can be trusted.

    Args:
        box: parameter -> (low, high), the range that training covered, in the parameter's units.
        priors: parameter -> the prior it was drawn from, or None where the simulator only offers draws.
        trials: longest sequence (ordered) or buffer (exchangeable) trained on.
        context: largest context trained on; 0 for an ordered model.
        simulator: the simulator's name.
        provenance: JSON-ready facts about the run: steps, seed, versions, date, held-out loss, dropped data sets.
    """

    box: Mapping[str, tuple[float, float]]
    priors: Mapping[str, Prior | None]
    trials: int
    context: int
    simulator: str
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def prior(self, name: str) -> Prior:
        """The prior of a parameter that training covered: the stated one, or else the uniform one over its range."""
        return self.priors.get(name) or Prior.uniform(*self.box[name])

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready description."""
        return {
            "box": {name: list(bounds) for name, bounds in self.box.items()},
            "priors": {name: None if prior is None else prior.to_dict() for name, prior in self.priors.items()},
            "trials": self.trials,
            "context": self.context,
            "simulator": self.simulator,
            "provenance": dict(self.provenance),
        }

    @classmethod
    def from_dict(cls, description: Mapping[str, Any]) -> TrainingRecord:
        """Read what `to_dict` wrote."""
        return cls(
            box={name: (float(low), float(high)) for name, (low, high) in description["box"].items()},
            priors={
                name: None if prior is None else Prior.from_dict(prior) for name, prior in description["priors"].items()
            },
            trials=int(description["trials"]),
            context=int(description["context"]),
            simulator=str(description["simulator"]),
            provenance=dict(description["provenance"]),
        )
