"""What a network was trained on: the record that a checkpoint carries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ppl_buffer.network.estimated_error import EstimatedError, nearest
from ppl_buffer.network.ranges import ValueRange
from ppl_buffer.prior import Prior
from ppl_buffer.stored import StoredData


@dataclass(frozen=True)
class StageRecord:
    """One stage of a network's training, one call of `train`: what it began with, what it did, where it came to.

    Args:
        date: when the weights were written, as ISO 8601 says.
        versions: of this package, of Python and of the libraries that computed.
        start: digest of the weights that the stage began with (`ppl_buffer.network.digest.weights_digest`); None where
            they were random.
        seed: of the initial weights and of all data.
        steps: that the stage was planned for; where the time was planned, those that it made until then.
        step: after which these weights were taken: those of the least held-out loss; of a training with gaps or changes
            of parameters, of the least loss on held-out data that have these.
        learning_rate: its peak.
        held_out_loss: in nats a trial; None where it was no number.
        data_sets: drawn up to then.
        dropped_data_sets: of these, with values that were no numbers or not legal.
        skipped_updates: steps whose gradient was no number.
        options: JSON-ready, what else decides the batches and the updates, by the names of the arguments of `train`.
        part: of the network that was trained, ``"likelihood"`` (direct) or ``"buffer"`` (the buffered transformer).
        seconds: of training until these weights were taken; None where that is not known.
    """

    date: str
    versions: Mapping[str, str]
    start: str | None
    seed: int
    steps: int
    step: int
    learning_rate: float
    held_out_loss: float | None
    data_sets: int
    dropped_data_sets: int
    skipped_updates: int
    options: Mapping[str, Any] = field(default_factory=dict)
    part: str = "buffer"
    seconds: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready description."""
        return asdict(self)

    @classmethod
    def from_dict(cls, description: Mapping[str, Any]) -> StageRecord:
        """Read what `to_dict` wrote."""
        return cls(**description)


@dataclass(frozen=True)
class TrainingRecord:
    """What a network was trained on: where its numbers can be trusted, and how they came about.

    Args:
        box: parameter -> (low, high), the range that training covered, in the parameter's units.
        priors: parameter -> the prior it was drawn from, or None where the simulator only offers draws.
        trials: longest sequence (ordered) or buffer (exchangeable) trained on.
        context: largest context trained on; 0 for an ordered model.
        simulator: the simulator's name.
        stages: the stages of the training in turn, the last one last.
        ranges: input, outcome or feedback -> where its values lay in the training data; empty where that is not known.
        errors: part of the network, "likelihood" (direct) or "buffer" -> how far its likelihood is from the
            simulator's, as far as one could tell; a part that was not measured is missing.
        likelihood_ranges: `ranges` of the direct likelihood, where it was trained on other data than the buffered
            transformer beside it, at parameters from the same box; empty where these are the same.
        stored: the data sets in store that it was trained on; None where a simulator drew new ones.
    """

    box: Mapping[str, tuple[float, float]]
    priors: Mapping[str, Prior | None]
    trials: int
    context: int
    simulator: str
    stages: tuple[StageRecord, ...] = ()
    ranges: Mapping[str, ValueRange] = field(default_factory=dict)
    errors: Mapping[str, EstimatedError] = field(default_factory=dict)
    likelihood_ranges: Mapping[str, ValueRange] = field(default_factory=dict)
    stored: StoredData | None = None

    def familiar(self, direct: bool) -> Mapping[str, ValueRange]:
        """Where values lay in the training data of the direct likelihood, or else of the buffered transformer."""
        return (self.likelihood_ranges or self.ranges) if direct else self.ranges

    @property
    def source(self) -> str:
        """What it was trained on, in words: the simulator's name, or stored data of that name."""
        return self.simulator if self.stored is None else f"{self.simulator}, {self.stored}"

    @property
    def observed(self) -> bool:
        """Whether it was trained on observed data, of people for instance: a predictive, and no model's likelihood."""
        return self.stored is not None and not self.stored.simulated

    @property
    def estimated_error(self) -> EstimatedError | None:
        """The error of the part that ``likelihood="auto"`` takes, the least of `errors`; None if none was measured."""
        return nearest(self.errors)

    @property
    def provenance(self) -> dict[str, Any]:
        """The facts of the last stage in one dict, its options among them; empty where no stage is known."""
        if not self.stages:
            return {}
        facts = self.stages[-1].to_dict()
        options = facts.pop("options")
        return {**facts, **options}

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
            "stages": [stage.to_dict() for stage in self.stages],
            "ranges": {name: values.to_dict() for name, values in self.ranges.items()},
            "errors": {part: error.to_dict() for part, error in self.errors.items()},
            "likelihood_ranges": {name: values.to_dict() for name, values in self.likelihood_ranges.items()},
            "stored": None if self.stored is None else self.stored.to_dict(),
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
            stages=tuple(StageRecord.from_dict(stage) for stage in description["stages"]),
            # Files from before ranges or errors were kept have none.
            **{
                group: {name: ValueRange.from_dict(values) for name, values in description.get(group, {}).items()}
                for group in ("ranges", "likelihood_ranges")
            },
            stored=None if description.get("stored") is None else StoredData.from_dict(description["stored"]),
            errors={part: EstimatedError.from_dict(error) for part, error in description.get("errors", {}).items()},
        )
