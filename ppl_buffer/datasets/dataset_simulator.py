"""Observed data of many people (or recordings, or tables) in place of a simulator, to predict other people."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from ppl_buffer.checks import check_number, check_seed
from ppl_buffer.datasets.stored_arrays import (
    Columns,
    as_stored,
    derived_schema,
    read_arrays,
    read_data,
)
from ppl_buffer.datasets.trials import TrialData
from ppl_buffer.schema import Schema
from ppl_buffer.stored import Arrays, StoredData, StoredSets, digest_of

# Two to train on and one to hold out.
_FEWEST_GROUPS = 3


class DatasetSimulator:
    """Observed data sets as something that `train` takes for a simulator: a network that predicts people it never saw.

    The network has no parameters, and it is no likelihood of a model: it is a joint predictive distribution of the
    trials of another person of the same population, given as much of that person as its context, or the trials before.
    What takes parameters (fits, evidence, calibration against a simulator) refuses it.

    Training draws data sets of the training people alone; the held-out loss is of the other people, and the training
    ends where that rises. Of an ordered schema a batch of K trials holds the first K of each data set; of an
    exchangeable one, any of its trials, disjointly as context, buffer and targets. A batch draws from those data sets
    that are long enough.

    A subclass may have a method ``augment(rng, data)``, which moves data sets, name -> (size, trials), to others that
    are as likely (`ppl_buffer.simulator.WithSymmetries`): in the training each comes in a new form every time.

    Attributes:
        schema: stated, or derived.
        stored_sets: what training draws from.
        held_out_groups: labels of the people that it never sees.
        name: what records call it.

    Args:
        outcomes: dict name -> (data sets, trials). Data sets of unequal length end with NaN in every variable.
        inputs: likewise, known before the outcomes; (trials,) where they are those of all data sets.
        feedback: likewise, known after the outcomes.
        schema: without parameters. By default arrays of an integer type that begin at 0 and stay below 20 are
            categories, all others real numbers: state it for what is positive or has bounds.
        ordered: of a derived schema, whether a trial depends on those before it.
        group: (data sets,) labels: whose each one is. By default each is somebody else's. Nobody is both trained on and
            held out.
        held_out: share of the people to hold out, or their labels.
        seed: of who is held out.
        unit: what those are called whom the data are of, in the plural: "people", "animals", "tables".
        name: what records call it.

    Raises:
        ValueError: if names, shapes or values do not fit, there are fewer than three people, or `held_out` leaves
            nobody on one side.
    """

    def __init__(
        self,
        outcomes: Columns,
        inputs: Columns | None = None,
        feedback: Columns | None = None,
        *,
        schema: Schema | None = None,
        ordered: bool | None = None,
        group: ArrayLike | None = None,
        held_out: float | Sequence[object] = 0.2,
        seed: int = 0,
        unit: str = "people",
        name: str = "DatasetSimulator",
    ) -> None:
        self.schema, data, lengths = read_data({}, outcomes, inputs, feedback, schema, ordered)
        labels = _as_labels("group", np.arange(len(lengths)) if group is None else group)
        if labels.shape != lengths.shape:
            raise ValueError(f"group: expected a label for each of {len(lengths)} data sets, got shape {labels.shape}")
        self.held_out_groups = _held_out_groups(labels, held_out, seed, unit)
        self.name = str(name)
        apart = np.isin(labels, self.held_out_groups)
        stored = as_stored(data)
        summary = StoredData(
            simulated=False,
            data_sets=int((~apart).sum()),
            held_out_data_sets=int(apart.sum()),
            groups=len(np.unique(labels[~apart])),
            held_out_groups=len(self.held_out_groups),
            unit=str(unit),
            digest=digest_of({}, stored, apart),
        )
        self.stored_sets = StoredSets({}, stored, lengths, apart, self.schema.ordered, summary)

    @classmethod
    def from_trials(
        cls,
        trials: TrialData,
        *,
        schema: Schema | None = None,
        ordered: bool | None = None,
        held_out: float | Sequence[object] = 0.2,
        seed: int = 0,
        name: str = "DatasetSimulator",
    ) -> DatasetSimulator:
        """Of a table of trials, a data set a subject.

        Args:
            trials: what `ppl_buffer.datasets.read_trials` or a loader of `ppl_buffer.datasets` returned.
            schema: as for the class.
            ordered: likewise.
            held_out: share of the subjects, or their labels.
            seed: of who is held out.
            name: what records call it.

        Raises:
            ValueError: as the class, or if trials are missing before a subject's last one.
        """
        mask = np.asarray(trials.trial_mask)
        if (mask[:, 1:] & ~mask[:, :-1]).any():
            raise ValueError("trials: expected no trial missing before the last one of a subject; leave them out")
        groups = {"inputs": trials.inputs, "outcomes": trials.outcomes, "feedback": trials.feedback}
        if schema is None:
            read = {group: read_arrays(group, columns, mask.shape) for group, columns in groups.items()}
            schema, ordered = derived_schema({}, read, ordered), None
        outcomes, inputs, feedback = (
            {key: np.where(mask, np.asarray(x, dtype=float), np.nan) for key, x in columns.items()}
            for columns in (trials.outcomes, trials.inputs, trials.feedback)
        )
        return cls(
            outcomes, inputs, feedback, schema=schema, ordered=ordered, group=trials.subjects, held_out=held_out,
            seed=seed, name=name,
        )  # fmt: skip

    def prior(self, rng: np.random.Generator, size: int) -> Arrays:
        """No parameters."""
        return {}

    def inputs(self, rng: np.random.Generator, size: int, trials: int) -> Arrays:
        """The inputs of training people, (size, trials)."""
        return {key: x for key, x in self._draw(rng, size, trials).items() if key in self.schema.inputs}

    def simulate(self, rng: np.random.Generator, params: Arrays, inputs: Arrays, **sizes: int) -> Arrays:
        """Refuse: nobody knows what these people would have done at other inputs.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            f"simulator: {self.name} holds {self.stored_sets.summary}, which cannot be drawn anew; what needs new data "
            "or parameters has to be asked of a model"
        )

    def _draw(self, rng: np.random.Generator, size: int, trials: int) -> Arrays:
        return self.stored_sets.draw(rng, size, trials, held_out=False)[1]


def _as_labels(argument: str, labels: object) -> np.ndarray:
    """Labels of one type, which can be sorted."""
    try:
        array = np.asarray(labels)
    except ValueError as error:
        raise ValueError(f"{argument}: expected labels in a row, got {labels!r}") from error
    if array.ndim != 1 or not array.size:
        raise ValueError(f"{argument}: expected labels in a row, got shape {array.shape}")
    return array.astype(str) if array.dtype.kind == "O" else array


def _held_out_groups(labels: np.ndarray, held_out: float | Sequence[object], seed: int, unit: str) -> np.ndarray:
    """Labels of the groups that are held out."""
    groups = np.unique(labels)
    if len(groups) < _FEWEST_GROUPS:
        raise ValueError(f"group: expected {_FEWEST_GROUPS} {unit} at least, some to hold out, got {len(groups)}")
    if isinstance(held_out, (Sequence, np.ndarray)) and not isinstance(held_out, str):
        named = np.unique(_as_labels("held_out", held_out))
        unknown = [label for label in named.tolist() if label not in groups]
        if unknown or not 0 < len(named) < len(groups):
            raise ValueError(
                f"held_out: expected labels of some of the {len(groups)} {unit}, not of all, got "
                f"{unknown or held_out!r}"
            )
        return named
    share = check_number("held_out", held_out, "a share between 0 and 1, or labels", lambda x: 0 < x < 1)
    count = min(max(round(share * len(groups)), 1), len(groups) - 2)
    rng = np.random.default_rng(check_seed(seed))
    return np.sort(rng.permutation(groups)[:count])
