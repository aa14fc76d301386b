"""Data of real people for examples and tests: read from disk, or fetched from their source. None are shipped."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

_SELECTION_TASK_URL = (
    "https://raw.githubusercontent.com/hddm-devs/hddm/19feaa9849619931d306094b48d9803ef9c8d0bd/"
    "hddm/examples/rlddm_data.csv"
)
_SELECTION_TASK_SHA256 = "7da583ddc29fe34e8974fc5dc56051dd4c225e17663fb0d8133fa7dd5327c550"
# Where the file is inside a folder of data; the last is its name at the source.
_SELECTION_TASK_PLACES = ("rlddm_pst_hddm/pst_learning.csv", "pst_learning.csv", "rlddm_data.csv")
_SELECTION_TASK_COLUMNS: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray]]] = {
    "subject": ("integers", lambda value: value == np.floor(value)),
    "split_by": ("0, 1 or 2", lambda value: np.isin(value, (0, 1, 2))),
    "response": ("0 or 1", lambda value: np.isin(value, (0, 1))),
    "rt": ("numbers above 0", lambda value: np.isfinite(value) & (value > 0)),
    "feedback": ("0 or 1", lambda value: np.isin(value, (0, 1))),
}


@dataclass(frozen=True)
class TrialData:
    """Trials of S people, padded to the K trials of the longest.

    A padded trial holds legal values (0, a response time of 1) and is False in `trial_mask`.

    Attributes:
        subjects: (S,) integer ids, in the order of their first row.
        trial_counts: (S,) number of trials of each person.
        inputs: dict name -> (S, K), known before the response.
        outcomes: dict name -> (S, K), what the person did.
        feedback: dict name -> (S, K), known after the response.
        trial_mask: (S, K) bool, False = padding.
    """

    subjects: np.ndarray
    trial_counts: np.ndarray
    inputs: dict[str, np.ndarray]
    outcomes: dict[str, np.ndarray]
    feedback: dict[str, np.ndarray]
    trial_mask: np.ndarray


def selection_task(path: str | os.PathLike[str] | None = None) -> TrialData:
    r"""Learning phase of the probabilistic selection task: 28 people, 113 to 360 trials each.

    Each trial shows one of three pairs of symbols; the better one is rewarded with probability 0.8, 0.7 or 0.6, the
    other with the complement (Frank, Seeberger & O'Reilly 2004, Science 306, 1940-1943). The data are the example of
    HDDM's module for reinforcement learning (Pedersen & Frank 2020, Computational Brain & Behavior 3, 458-471;
    BSD-2-Clause). A person's trials stay in the order of the file, which is that of presentation.

    Args:
        path: the CSV file, with the columns of the original or renamed (``subject`` for ``subj_idx``), or a folder
            that holds ``rlddm_pst_hddm/pst_learning.csv``, ``pst_learning.csv`` or ``rlddm_data.csv``. By default
            the folder in the environment variable ``PPL_BUFFER_DATA``; where that is not set, the original is
            fetched once, checked against its checksum, and kept in the user's cache folder.

    Returns:
        inputs ``pair`` in {0, 1, 2} (rewarded with 0.8, 0.7, 0.6); outcomes ``choice`` (1 = the better symbol,
        0 = the other) and ``rt`` (response time, seconds); feedback ``reward`` in {0, 1}.

    Raises:
        FileNotFoundError: if there is no such file, or it cannot be fetched.
        ValueError: if the file is not the selection task, or what was fetched does not have its checksum.
        ImportError: if pandas is not installed.

    Example:
        The columns that are read, and how a person with fewer trials is padded:

        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
        ...     rows = "subject,split_by,response,rt,feedback\n7,0,1,0.53,1\n7,2,0,0.71,0\n9,1,1,0.48,1\n"
        ...     _ = file.write(rows)
        ...     file.flush()
        ...     data = selection_task(file.name)
        >>> data.outcomes["choice"]
        array([[1, 0],
               [1, 0]])
        >>> data.trial_mask
        array([[ True,  True],
               [ True, False]])
    """
    try:
        import pandas
    except ImportError as error:
        raise ImportError("selection_task reads its file with pandas: pip install 'ppl-buffer[data]'") from error

    file = _selection_task_file(path)
    try:
        table = pandas.read_csv(file).rename(columns={"subj_idx": "subject"})
    except (pandas.errors.ParserError, pandas.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"path: expected the CSV file of the selection task, got {file}: {error}") from error
    columns = {}
    for name, (expected, legal) in _SELECTION_TASK_COLUMNS.items():
        if name not in table:
            raise ValueError(f"path: expected a column {name!r}, got {file} with the columns {list(table)}")
        columns[name] = pandas.to_numeric(table[name], errors="coerce").to_numpy(dtype=float)
        illegal = np.flatnonzero(~legal(columns[name]))
        if illegal.size:
            raise ValueError(
                f"path: expected {expected} in column {name!r}, got {table[name].iloc[illegal[0]]!r} "
                f"in row {illegal[0] + 1} of {file}"
            )
    if table.empty:
        raise ValueError(f"path: expected at least one trial, got {file}, which has none")

    person, subjects = pandas.factorize(columns["subject"].astype(int))
    trial = pandas.Series(person).groupby(person).cumcount().to_numpy()
    trial_counts = np.bincount(person)

    def padded(values: np.ndarray, padding: float) -> np.ndarray:
        array = np.full((len(subjects), trial_counts.max()), padding, dtype=values.dtype)
        array[person, trial] = values
        return array

    return TrialData(
        subjects=subjects,
        trial_counts=trial_counts,
        inputs={"pair": padded(columns["split_by"].astype(int), 0)},
        outcomes={"choice": padded(columns["response"].astype(int), 0), "rt": padded(columns["rt"], 1.0)},
        feedback={"reward": padded(columns["feedback"], 0.0)},
        trial_mask=padded(np.ones(len(table), dtype=bool), False),
    )


# Seconds until a server that does not answer counts as out of reach.
_FETCH_TIMEOUT = 10


def _selection_task_file(path: str | os.PathLike[str] | None) -> Path:
    """Where the CSV file is, after fetching it if need be."""
    argument = "path"
    if path is None:
        # An empty variable counts as not set: that is how a makefile says "no folder".
        path, argument = os.environ.get("PPL_BUFFER_DATA") or None, "PPL_BUFFER_DATA"
    if path is None:
        return _fetch_selection_task()
    given = Path(path)
    for place in (given, *(given / place for place in _SELECTION_TASK_PLACES)):
        if place.is_file():
            return place
    raise FileNotFoundError(
        f"{argument}: expected the CSV file of the selection task or a folder that holds {_SELECTION_TASK_PLACES[0]}, "
        f"got {given}; the original is at {_SELECTION_TASK_URL}"
    )


def _fetch_selection_task() -> Path:
    """Fetch the original file, or find it in the cache folder."""
    advice = f"download {_SELECTION_TASK_URL} and pass its path, or set PPL_BUFFER_DATA to the folder that holds it"
    try:
        import pooch
    except ImportError as error:
        raise FileNotFoundError(
            f"the selection task is not on this machine and fetching it takes pooch (pip install 'ppl-buffer[data]'); "
            f"or {advice}"
        ) from error
    try:
        file = pooch.retrieve(
            _SELECTION_TASK_URL,
            known_hash=f"sha256:{_SELECTION_TASK_SHA256}",
            fname="rlddm_data.csv",
            path=pooch.os_cache("ppl_buffer"),
            # Behind a network that swallows requests a person would wait for minutes.
            downloader=pooch.HTTPDownloader(timeout=_FETCH_TIMEOUT),
        )
    except OSError as error:  # what pooch and requests raise where there is no network, or no such page
        raise FileNotFoundError(f"the selection task could not be fetched ({error}); {advice}") from error
    return Path(file)
