"""Covariates as the table that a formula is evaluated on: a row a data set, or a row a trial where one varies."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from ppl_buffer.files import to_numpy
from ppl_buffer.formulas.levels import TRIAL, level_of

SUBJECT_COLUMN = "subject"


def _array(argument: str, values: object) -> np.ndarray:
    """Numbers or text of any library, as an array; text of objects where each is text.

    Raises:
        ValueError: if they are neither.
    """
    try:
        array = np.asarray(to_numpy(values))
    except (TypeError, ValueError, RuntimeError):
        array = np.empty(0, dtype=object)
    if array.dtype.kind == "O" and array.size and all(isinstance(x, str) for x in array.reshape(-1)):
        array = array.astype(str)
    if array.dtype.kind not in "biufU":
        raise ValueError(f"{argument}: expected an array of numbers or of text, got {values!r}")
    return array


@dataclass(frozen=True, eq=False)
class Rows:
    """Values of some covariates, one row for each data set or for each trial that exists.

    Attributes:
        columns: name -> (rows,).
        data_set: (rows,), which data set each is of.
        place: index of each row by data set (S,), or by trial (S, K); a trial that does not exist has that of the
            first one of its data set.
    """

    columns: dict[str, np.ndarray]
    data_set: np.ndarray
    place: np.ndarray


@dataclass(frozen=True, eq=False)
class Covariates:
    """All covariates of S data sets of K trials.

    Attributes:
        values: name -> (S, K), numbers or text.
        trial_mask: (S, K) bool.
        persons: (S,) label of the subject whose each data set is; it is the covariate "subject".
    """

    values: Mapping[str, np.ndarray]
    trial_mask: np.ndarray
    persons: np.ndarray

    @classmethod
    def of(cls, given: Mapping[str, object], trial_mask: np.ndarray, persons: object) -> Covariates:
        """Arrays (S,) or (S, K), checked.

        Raises:
            ValueError: if one has another shape, or is neither of numbers nor of text.
        """
        sets = len(trial_mask)
        labels = _array("subjects", np.arange(1, sets + 1) if persons is None else persons)
        if labels.shape != (sets,):
            raise ValueError(f"subjects: expected {sets} labels, one a data set, got shape {labels.shape}")
        labels = labels.astype(str)
        values = {}
        for name, x in {**given, SUBJECT_COLUMN: labels}.items():
            array = _array(f"covariates[{name!r}]", x)
            if array.shape not in ((sets,), trial_mask.shape):
                raise ValueError(
                    f"covariates[{name!r}]: expected numbers or text, ({sets},) or {trial_mask.shape}, got shape "
                    f"{array.shape}"
                )
            values[str(name)] = np.broadcast_to(array[:, None] if array.ndim == 1 else array, trial_mask.shape)
        return cls(values, trial_mask, labels)

    def level(self, name: str) -> str:
        """The lowest level at which a covariate varies."""
        return level_of(self.values[name], self.trial_mask, self.persons)

    def check(self, names: Collection[str], formula: str) -> None:
        """Refuse names that no covariate has, and covariates without a value somewhere.

        Raises:
            ValueError: as said.
        """
        for name in sorted(names):
            if name not in self.values:
                like = difflib.get_close_matches(name, list(self.values), 1, 0.6)
                raise ValueError(
                    f"formulas: {formula!r}: there is no column {name!r}{f', but {like[0]!r}' if like else ''}; the "
                    f"columns are {', '.join(map(repr, self.values))}"
                )
            x = self.values[name]
            missing = ((x == "") if x.dtype.kind == "U" else np.isnan(x.astype(float))) & self.trial_mask
            if missing.any():
                where = self.persons[missing.any(1)]
                raise ValueError(
                    f"formulas: {formula!r}: column {name!r} has no value in {int(missing.sum())} of "
                    f"{int(self.trial_mask.sum())} trials (subject {where[0]}); leave these rows out by a condition "
                    f"(where), or fill them"
                )

    def rows(self, names: Collection[str]) -> Rows:
        """The rows that some covariates need: one a data set where all stay within each."""
        mask = self.trial_mask
        if not any(self.level(name) == TRIAL for name in names):
            first = mask.argmax(1)
            sets = np.arange(len(mask))
            return Rows({name: self.values[name][sets, first] for name in names}, sets, sets)
        place = np.zeros(mask.shape, dtype=int)
        place[mask] = np.arange(mask.sum())
        place = np.where(mask, place, place[np.arange(len(mask)), mask.argmax(1)][:, None])
        return Rows({name: self.values[name][mask] for name in names}, np.nonzero(mask)[0], place)
