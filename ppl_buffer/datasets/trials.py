"""A table of trials as padded arrays: subjects in rows, trials in columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ppl_buffer.extras import needs

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class TrialData:
    """Trials of S subjects (or of S sets of trials), padded to the K trials of the longest.

    A padded trial holds legal values (0, a response time of 1) and is False in `trial_mask`.

    Attributes:
        subjects: (S,) labels of the subjects, in the order of their first row.
        trial_counts: (S,) number of trials of each subject.
        inputs: dict name -> (S, K), known before the response.
        outcomes: dict name -> (S, K), what the subject did.
        feedback: dict name -> (S, K), known after the response.
        trial_mask: (S, K) bool, False = padding.
    """

    subjects: np.ndarray
    trial_counts: np.ndarray
    inputs: Arrays
    outcomes: Arrays
    feedback: Arrays
    trial_mask: np.ndarray

    @classmethod
    def from_rows(
        cls,
        subject: ArrayLike,
        *,
        inputs: Mapping[str, np.ndarray],
        outcomes: Mapping[str, np.ndarray],
        feedback: Mapping[str, np.ndarray],
        fill: Mapping[str, float],
    ) -> TrialData:
        """Pad the columns of a table with a row a trial. Rows of several subjects may alternate.

        Args:
            subject: (rows,) label of the subject of each row.
            inputs: dict name -> (rows,); a column keeps its type.
            outcomes: dict name -> (rows,).
            feedback: dict name -> (rows,).
            fill: name -> legal value of a padded trial, 0 where a name is missing.
        """
        with needs("a table of trials", "data"):
            import pandas
        row, subjects = pandas.factorize(subject)
        trial = pandas.Series(row).groupby(row).cumcount().to_numpy()
        counts = np.bincount(row)
        mask = np.arange(counts.max()) < counts[:, None]

        def pad(columns: Mapping[str, np.ndarray]) -> Arrays:
            padded = {}
            for name, values in columns.items():
                padded[name] = np.full(mask.shape, fill.get(name, 0), dtype=values.dtype)
                padded[name][row, trial] = values
            return padded

        return cls(
            subjects=np.asarray(subjects),
            trial_counts=counts,
            inputs=pad(inputs),
            outcomes=pad(outcomes),
            feedback=pad(feedback),
            trial_mask=mask,
        )

    def select(self, indices: np.ndarray) -> TrialData:
        """Some of the subjects, with no more padding than they need.

        Args:
            indices: (n,) their rows, in the order wanted.
        """
        counts = self.trial_counts[indices]

        def part(columns: Arrays) -> Arrays:
            return {name: values[indices, : counts.max()] for name, values in columns.items()}

        return TrialData(
            subjects=self.subjects[indices],
            trial_counts=counts,
            inputs=part(self.inputs),
            outcomes=part(self.outcomes),
            feedback=part(self.feedback),
            trial_mask=self.trial_mask[indices, : counts.max()],
        )

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
