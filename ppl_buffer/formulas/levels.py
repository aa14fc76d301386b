"""At which level a covariate varies: between subjects, between the data sets of a subject, or from trial to trial."""

from __future__ import annotations

import numpy as np

SUBJECT, DATA_SET, TRIAL = "subject", "data set", "trial"


def level_of(values: np.ndarray, trial_mask: np.ndarray, persons: np.ndarray) -> str:
    """The lowest level at which a covariate varies: SUBJECT, DATA_SET (a session, say) or TRIAL.

    What is alike everywhere is of the subject.

    Args:
        values: (S, K), numbers or text; a missing number is a value too.
        trial_mask: (S, K) bool, which trials exist.
        persons: (S,) label of the subject whose each data set is.
    """
    codes = _codes(values)
    first = codes[np.arange(len(codes)), trial_mask.argmax(1)]
    if ((codes != first[:, None]) & trial_mask).any():
        return TRIAL
    _, person = np.unique(persons, return_inverse=True)
    of_person = np.zeros(person.max() + 1, dtype=int)
    of_person[person] = first
    return SUBJECT if np.array_equal(of_person[person], first) else DATA_SET


def _codes(values: np.ndarray) -> np.ndarray:
    """Whole numbers that are equal where values are, (S, K)."""
    return np.unique(values, return_inverse=True)[1].reshape(values.shape)
