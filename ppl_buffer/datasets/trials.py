"""A table of trials as padded arrays: subjects in rows, trials in columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from ppl_buffer.datasets.text_files import is_number
from ppl_buffer.extras import needs
from ppl_buffer.formulas.levels import level_of
from ppl_buffer.network.foreign import plain
from ppl_buffer.network.missing import Missing
from ppl_buffer.network.network import Network
from ppl_buffer.network.observed import ObservedTrials, observe_trials
from ppl_buffer.schema import stack_value

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class TrialData:
    """Trials of S subjects (or of S sets of trials), padded to the K trials of the longest.

    A padded trial holds legal values (0, a response time of 1) and is False in `trial_mask`.

    Attributes:
        subjects: (S,) labels of the subjects, in the order of their first row; where a subject has several data sets
            (sessions), labels of these.
        trial_counts: (S,) number of trials of each subject.
        inputs: dict name -> (S, K), known before the response.
        outcomes: dict name -> (S, K), what the subject did.
        feedback: dict name -> (S, K), known after the response.
        trial_mask: (S, K) bool, False = padding.
        covariates: dict name -> (S, K), what else is known of each trial, numbers or text; the model does not read it,
            formulas do.
        persons: (S,) label of the subject whose each data set is; None = each is somebody else's.
        excluded: how many trials a condition has left out.
        codes: name of a category -> {its number: what the table says}; empty where nothing was read from a table.
        missing: a `ppl_buffer.Missing` where outcomes may be missing, NaN or infinite as it says; None = none is.

    Raises:
        ValueError: if shapes disagree, or `trial_counts` is not what `trial_mask` says.
    """

    subjects: np.ndarray
    trial_counts: np.ndarray
    inputs: Arrays
    outcomes: Arrays
    feedback: Arrays
    trial_mask: np.ndarray
    covariates: Arrays = field(default_factory=dict)
    persons: np.ndarray | None = None
    excluded: int = 0
    codes: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    missing: Missing | None = None

    def __post_init__(self) -> None:
        mask = np.asarray(self.trial_mask)
        if mask.dtype != bool or mask.ndim != 2:
            raise ValueError(
                f"trial_mask: expected booleans (subjects, trials), got {mask.dtype} of shape {mask.shape}"
            )
        if np.shape(self.subjects) != mask.shape[:1]:
            raise ValueError(f"subjects: expected {len(mask)} labels, got shape {np.shape(self.subjects)}")
        if not np.array_equal(self.trial_counts, mask.sum(1)):
            raise ValueError(
                f"trial_counts: expected the trials of trial_mask, {mask.sum(1).tolist()}, got "
                f"{np.asarray(self.trial_counts).tolist()}"
            )
        if self.persons is not None and np.shape(self.persons) != mask.shape[:1]:
            raise ValueError(f"persons: expected {len(mask)} labels, got shape {np.shape(self.persons)}")
        groups = {name: getattr(self, name) for name in ("inputs", "outcomes", "feedback", "covariates")}
        for group, columns in groups.items():
            for name, values in columns.items():
                if np.shape(values) != mask.shape:
                    raise ValueError(f"{group}[{name!r}]: expected shape {mask.shape}, got {np.shape(values)}")

    @classmethod
    def from_rows(
        cls,
        subject: ArrayLike,
        *,
        inputs: Mapping[str, np.ndarray],
        outcomes: Mapping[str, np.ndarray],
        feedback: Mapping[str, np.ndarray],
        fill: Mapping[str, float],
        covariates: Mapping[str, np.ndarray] | None = None,
        persons: ArrayLike | None = None,
        excluded: int = 0,
    ) -> TrialData:
        """Pad the columns of a table with a row a trial. Rows of several subjects may alternate.

        Args:
            subject: (rows,) label of the subject of each row.
            inputs: dict name -> (rows,); a column keeps its type.
            outcomes: dict name -> (rows,).
            feedback: dict name -> (rows,).
            fill: name -> legal value of a padded trial, 0 where a name is missing.
            covariates: dict name -> (rows,), numbers or text.
            persons: (rows,) label of the person whose data set each row is in; None = that of the data set.
            excluded: how many rows a condition has left out.

        Raises:
            ValueError: if there are no rows, a row has no label, or columns differ in length.
            ImportError: if pandas is not installed.
        """
        with needs("a table of trials", "data"):
            import pandas
        row, subjects = pandas.factorize(np.asarray(subject))
        if not len(row) or (row < 0).any():
            raise ValueError(
                f"subject: expected the label of each row, got {'none' if not len(row) else 'a row without'}"
            )
        trial = pandas.Series(row).groupby(row).cumcount().to_numpy()
        counts = np.bincount(row)
        mask = np.arange(counts.max()) < counts[:, None]

        def pad(columns: Mapping[str, np.ndarray]) -> Arrays:
            padded = {}
            for name, column in columns.items():
                values = np.asarray(column)
                if values.dtype.kind != "U":
                    values = np.asarray(plain(column))
                if values.shape != row.shape:
                    raise ValueError(f"{name}: expected a value in each of {len(row)} rows, got shape {values.shape}")
                empty = "" if values.dtype.kind == "U" else fill.get(name, 0)
                padded[name] = np.full(mask.shape, empty, dtype=values.dtype)
                padded[name][row, trial] = values
            return padded

        return cls(
            subjects=np.asarray(subjects),
            trial_counts=counts,
            inputs=pad(inputs),
            outcomes=pad(outcomes),
            feedback=pad(feedback),
            trial_mask=mask,
            covariates=pad(covariates or {}),
            persons=None if persons is None else np.asarray(persons)[np.unique(row, return_index=True)[1]],
            excluded=excluded,
        )

    @property
    def levels(self) -> dict[str, str]:
        """Covariate -> the lowest level at which it varies: "subject", "data set" (a session) or "trial"."""
        persons = self.subjects if self.persons is None else self.persons
        return {name: level_of(values, self.trial_mask, persons) for name, values in self.covariates.items()}

    @property
    def words(self) -> dict[str, dict[int, str]]:
        """Name of a category -> {its number: its word in the table}, of those that the table has no numbers for."""
        return {
            name: {number: text for number, text in said.items() if text}
            for name, said in self.codes.items()
            if not any(is_number(part) for text in said.values() for part in text.split(", "))
        }

    def observe(self, net: Network) -> ObservedTrials:
        """What ``net.observe`` makes of these trials where all parameters are given: one batch dimension, the subjects.

        Args:
            net: a network, of either backend, whose schema names the inputs, outcomes and feedback.

        Raises:
            ValueError: if a variable of the schema is missing, or holds values that are not legal.
        """
        schema = net.schema
        for group, columns, names in (
            ("inputs", self.inputs, schema.inputs),
            ("outcomes", self.outcomes, schema.outcomes),
            ("feedback", self.feedback, schema.feedback),
        ):
            if lacking := [name for name in names if name not in columns]:
                raise ValueError(f"{group}: expected {list(names)}, which the network reads, but {lacking} are missing")
        outcomes = {name: np.asarray(x, np.float32) for name, x in self.outcomes.items()}
        return observe_trials(
            net,
            {name: self.inputs[name] for name in schema.inputs},
            stack_value(np, schema, outcomes),
            feedback={name: self.feedback[name] for name in schema.feedback},
            trial_mask=self.trial_mask,
            context=None,
            missing=self.missing,
            purpose="likelihood",
        )

    def select(self, indices: np.ndarray) -> TrialData:
        """Some of the subjects, with no more padding than they need.

        Args:
            indices: (n,) their rows, in the order wanted, or (S,) booleans.

        Raises:
            ValueError: if they are no rows, or none.
        """
        rows = np.asarray(indices)
        if rows.dtype == bool and rows.shape == self.trial_counts.shape:
            rows = np.flatnonzero(rows)
        count = len(self.trial_counts)
        if (
            rows.ndim != 1
            or rows.dtype.kind not in "iu"
            or not rows.size
            or (rows < -count).any()
            or (rows >= count).any()
        ):
            raise ValueError(
                f"indices: expected a list of rows from 0 to {count - 1}, or {count} booleans, got {indices!r}"
            )
        longest = 1 + int(np.flatnonzero(self.trial_mask[rows].any(0))[-1])

        def part(columns: Arrays) -> Arrays:
            return {name: values[rows, :longest] for name, values in columns.items()}

        return TrialData(
            subjects=self.subjects[rows],
            trial_counts=self.trial_counts[rows],
            inputs=part(self.inputs),
            outcomes=part(self.outcomes),
            feedback=part(self.feedback),
            trial_mask=self.trial_mask[rows, :longest],
            covariates=part(self.covariates),
            persons=None if self.persons is None else self.persons[rows],
            excluded=self.excluded,
            codes=self.codes,
            missing=self._missing_of(rows, longest),
        )

    def _missing_of(self, rows: np.ndarray, trials: int) -> Missing | None:
        if self.missing is None or self.missing.deadline is None:
            return self.missing
        deadline = np.broadcast_to(self.missing.deadline, self.trial_mask.shape)
        return self.missing.at(deadline[rows, :trials])

    def pad(self, values: np.ndarray) -> np.ndarray:
        """Numbers of the trials that exist, each put at its place.

        Args:
            values: (*L, trials), subjects below each other.

        Returns:
            (*L, S, K), NaN where there is no trial.
        """
        padded = np.full((*values.shape[:-1], *self.trial_mask.shape), np.nan)
        padded[..., self.trial_mask] = values
        return padded
