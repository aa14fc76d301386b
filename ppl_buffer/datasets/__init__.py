"""Data of real people for examples and tests: read from disk, or fetched from their source. None are shipped."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ppl_buffer.simulators.noisy_q import NoisyQ

Columns = dict[str, tuple[str, Callable[[np.ndarray], np.ndarray]]]


@dataclass(frozen=True)
class _Source:
    """Where a data set comes from.

    Attributes:
        title: what to call it.
        url: of the original file.
        sha256: of the original file.
        places: where the file is inside a folder of data; the last is its name at the source.
        columns: those that are read of a CSV file, with what a legal value is.
    """

    title: str
    url: str
    sha256: str
    places: tuple[str, ...]
    columns: Columns


_SELECTION_TASK = _Source(
    title="the selection task",
    url=(
        "https://raw.githubusercontent.com/hddm-devs/hddm/19feaa9849619931d306094b48d9803ef9c8d0bd/"
        "hddm/examples/rlddm_data.csv"
    ),
    sha256="7da583ddc29fe34e8974fc5dc56051dd4c225e17663fb0d8133fa7dd5327c550",
    places=("rlddm_pst_hddm/pst_learning.csv", "pst_learning.csv", "rlddm_data.csv"),
    columns={
        "subject": ("integers", lambda value: value == np.floor(value)),
        "split_by": ("0, 1 or 2", lambda value: np.isin(value, (0, 1, 2))),
        "response": ("0 or 1", lambda value: np.isin(value, (0, 1))),
        "rt": ("numbers above 0", lambda value: np.isfinite(value) & (value > 0)),
        "feedback": ("0 or 1", lambda value: np.isin(value, (0, 1))),
    },
)
_CONFLICT_TASK = _Source(
    title="the conflict task",
    url=(
        "https://raw.githubusercontent.com/hddm-devs/hddm/19feaa9849619931d306094b48d9803ef9c8d0bd/"
        "hddm/examples/cavanagh_theta_nn.csv"
    ),
    sha256="52193c5a6f7a1712369dfa5d6df10007fa49d8b8d501a0cbc4a3c58046314706",
    places=("ddm_cavanagh2011/cavanagh2011.csv", "cavanagh2011.csv", "cavanagh_theta_nn.csv"),
    columns={
        "subject": ("integers", lambda value: value == np.floor(value)),
        "stim": ("LL, WL or WW", lambda value: np.isin(value, (0, 1, 2))),
        "rt": ("numbers above 0", lambda value: np.isfinite(value) & (value > 0)),
        "response": ("0 or 1", lambda value: np.isin(value, (0, 1))),
        "theta": ("numbers", np.isfinite),
        "dbs": ("0 or 1", lambda value: np.isin(value, (0, 1))),
        "conf": ("LC or HC", lambda value: np.isin(value, (0, 1))),
    },
)
_AUDIOVISUAL = _Source(
    title="the audio-visual localisation task",
    url=(
        "https://raw.githubusercontent.com/LSZ2001/Audiovisual-causal-inference/"
        "b065a1984a7a2bbc9b6df5e06c9caddc927961ea/data/alldata.mat"
    ),
    sha256="5abea6af11ca75cdf3c6612b59d58a5c5e515479c7cbdd919c0c78f21986d87e",
    places=("mci_audiovisual_liu2026/av.csv", "av.csv", "alldata.mat"),
    columns={
        "subject": ("integers", lambda value: value == np.floor(value)),
        "reliability": ("1, 2 or 3", lambda value: np.isin(value, (1, 2, 3))),
        "s_A": ("numbers", np.isfinite),
        "s_V": ("numbers", np.isfinite),
        "response": ("numbers", np.isfinite),
    },
)


@dataclass(frozen=True)
class TrialData:
    """Trials of S people (or of S sets of trials), padded to the K trials of the longest.

    A padded trial holds legal values (0, a response time of 1) and is False in `trial_mask`.

    Attributes:
        subjects: (S,) integer ids of the people, in the order of their first row.
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

    def select(self, indices: np.ndarray) -> TrialData:
        """Some of the people, with no more padding than they need.

        Args:
            indices: (n,) their rows, in the order wanted.
        """
        counts = self.trial_counts[indices]

        def part(group: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            return {name: value[indices, : counts.max()] for name, value in group.items()}

        return TrialData(
            subjects=self.subjects[indices],
            trial_counts=counts,
            inputs=part(self.inputs),
            outcomes=part(self.outcomes),
            feedback=part(self.feedback),
            trial_mask=self.trial_mask[indices, : counts.max()],
        )


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
    _pandas("selection_task")
    file = _locate(_SELECTION_TASK, path)
    columns = _columns(_SELECTION_TASK, file, _read_csv(_SELECTION_TASK, file).rename(columns={"subj_idx": "subject"}))
    return _by_person(
        columns["subject"],
        inputs={"pair": columns["split_by"].astype(int)},
        outcomes={"choice": columns["response"].astype(int), "rt": columns["rt"]},
        feedback={"reward": columns["feedback"]},
    )


# Words in the file of the conflict task, by the numbers that stand for them.
_CONFLICT_CODES = {"stim": ("LL", "WL", "WW"), "conf": ("LC", "HC")}


def simulated_selection_task(seed: int = 0) -> TrialData:
    """What `selection_task` gives, but of 28 simulated people: for a machine that cannot fetch the real ones.

    They learn as `ppl_buffer.simulators.NoisyQ` does, with parameters drawn from one population, and did 120 to 360
    trials each. There are no response times.

    Args:
        seed: of the people.
    """
    rng = np.random.default_rng(seed)
    task = NoisyQ()
    counts = rng.permutation(np.repeat([120, 180, 240, 360], [13, 6, 4, 5]))
    params = {}
    for name, mean, spread, low, high in (
        ("alpha", -1.8, 0.6, 0, 1),
        ("beta", 0.2, 0.6, 0, 10),
        ("kappa", 0.1, 0.4, -2, 2),
        ("zeta", -1.5, 0.5, 0, 1),
    ):
        params[name] = low + (high - low) / (1 + np.exp(-mean - spread * rng.standard_normal(len(counts))))
    inputs = task.inputs(rng, len(counts), int(counts.max()))
    drawn = task.simulate(rng, params, inputs)
    return TrialData(
        subjects=np.arange(1, len(counts) + 1),
        trial_counts=counts,
        inputs=inputs,
        outcomes={"choice": drawn["choice"]},
        feedback={"reward": drawn["reward"]},
        trial_mask=np.arange(counts.max()) < counts[:, None],
    )


def conflict_task(path: str | os.PathLike[str] | None = None) -> TrialData:
    r"""Choices under conflict: 14 people with a deep brain stimulator, 217 to 309 trials each.

    Patients with Parkinson's disease chose, without feedback, between two symbols whose rewards they had learnt before,
    with their stimulator on or off and with EEG (Cavanagh, Wiecki, Cohen, Figueroa, Samanta, Sherman & Frank 2011,
    Nature Neuroscience 14, 1462-1467). The data are an example of HDDM (BSD-2-Clause). A person's trials stay in the
    order of the file.

    Args:
        path: the CSV file, with the columns of the original or renamed (``subject`` for ``subj_idx``), or a folder
            that holds ``ddm_cavanagh2011/cavanagh2011.csv``, ``cavanagh2011.csv`` or ``cavanagh_theta_nn.csv``. By
            default the folder in the environment variable ``PPL_BUFFER_DATA``; where that is not set, the original
            is fetched once, checked against its checksum, and kept in the user's cache folder.

    Returns:
        inputs ``symbols`` (0 = both had usually lost, 1 = one of each, 2 = both had usually won), ``conflict`` (1 =
        high: both had usually lost or both won, 0 = low), ``theta`` (frontal theta power, standardised within a
        person), ``stimulation`` (1 = on, 0 = off); outcomes ``choice`` (1 = the symbol with the better history, 0 =
        the other) and ``rt`` (response time, seconds). There is no feedback.

    Raises:
        FileNotFoundError: if there is no such file, or it cannot be fetched.
        ValueError: if the file is not the conflict task, or what was fetched does not have its checksum.
        ImportError: if pandas is not installed.
    """
    _pandas("conflict_task")
    file = _locate(_CONFLICT_TASK, path)
    table = _read_csv(_CONFLICT_TASK, file).rename(columns={"subj_idx": "subject"})
    for name, words in _CONFLICT_CODES.items():
        if name in table:
            # A word that stands for no number stays, and is refused.
            table[name] = [words.index(word) if word in words else word for word in table[name]]
    columns = _columns(_CONFLICT_TASK, file, table)
    return _by_person(
        columns["subject"],
        inputs={
            "symbols": columns["stim"].astype(int),
            "conflict": columns["conf"].astype(int),
            "theta": columns["theta"],
            "stimulation": columns["dbs"].astype(int),
        },
        outcomes={"choice": columns["response"].astype(int), "rt": columns["rt"]},
        feedback={},
    )


def _by_person(
    subject: np.ndarray, inputs: dict[str, np.ndarray], outcomes: dict[str, np.ndarray], feedback: dict[str, np.ndarray]
) -> TrialData:
    """Columns of trials (rows,) as padded arrays, a row a person."""
    import pandas

    person, subjects = pandas.factorize(subject.astype(int))
    trial = pandas.Series(person).groupby(person).cumcount().to_numpy()
    trial_counts = np.bincount(person)

    def padded(values: np.ndarray, padding: float) -> np.ndarray:
        array = np.full((len(subjects), trial_counts.max()), padding, dtype=values.dtype)
        array[person, trial] = values
        return array

    def group(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: padded(values, 1.0 if name == "rt" else 0.0) for name, values in columns.items()}

    return TrialData(
        subjects=subjects,
        trial_counts=trial_counts,
        inputs=group(inputs),
        outcomes=group(outcomes),
        feedback=group(feedback),
        trial_mask=padded(np.ones(len(person), dtype=bool), False),
    )


# Strata of the audio-visual sets: report asked for (2) by noise level of the flash (3).
_STRATA = 6
_SET_TRIALS = 400


def audiovisual_localization(path: str | os.PathLike[str] | None = None, *, seed: int = 0) -> TrialData:
    """Audio-visual localisation: two disjoint sets of 400 trials from each of 15 people.

    A sound and a flash, half of the time at the same place, are presented together, and the place of one of them is
    reported (Liu, Holland, Ma & Acerbi 2026, PLOS Computational Biology 22, e1014251; the authors' repository states no
    licence). The sets are made as Hassan et al. (ICLR 2026, arXiv 2510.09477), appendix D.2, describe: within a set
    the six combinations of report and noise level are as equally frequent as a person's trials allow, and both sets of
    a person hold each of them equally often; one person has so few trials that two pairs of them differ by one.
    Which trials go into which set is drawn from `seed`; the published comparison does not state its own.

    Args:
        path: the file, as CSV or the original ``alldata.mat``, or a folder that holds
            ``mci_audiovisual_liu2026/av.csv``, ``av.csv`` or ``alldata.mat``. By default the folder in the environment
            variable ``PPL_BUFFER_DATA``; where that is not set, the original is fetched once, checked against its
            checksum, and kept in the user's cache folder.
        seed: of the draw.

    Returns:
        30 rows, those of a person next to each other, of 400 trials in the order of the file. Inputs and outcome are
        named and coded as `ppl_buffer.simulators.MultisensoryCausalInference` has them: ``r_type`` (0: report of the
        flash, task BV; 1: of the sound, task BA), ``s_A`` and ``s_V`` (degrees), ``V_level`` (0 low, 1 medium, 2 high
        noise: the experiment's reliability 1 high, 2 medium, 3 low); ``response`` (degrees). There is no feedback.

    Raises:
        FileNotFoundError: if there is no such file, or it cannot be fetched.
        ValueError: if the file is not that of the task, a person has fewer than 800 trials, or what was fetched does
            not have its checksum.
        ImportError: if pandas (for the original: or SciPy) is not installed.
    """
    _pandas("audiovisual_localization")
    file = _locate(_AUDIOVISUAL, path)
    table = _read_audiovisual_original(file) if file.suffix == ".mat" else _read_csv(_AUDIOVISUAL, file)
    if "task" not in table:
        raise ValueError(f"path: expected a column 'task', got {file} with the columns {list(table)}")
    table = table[table["task"].isin(["BV", "BA"])]
    columns = _columns(_AUDIOVISUAL, file, table)
    columns["r_type"] = (table["task"] == "BA").to_numpy().astype(int)
    columns["V_level"] = columns["reliability"].astype(int) - 1
    people = columns["subject"].astype(int)
    subjects = people[np.sort(np.unique(people, return_index=True)[1])]
    rng = np.random.default_rng(seed)
    chosen = []
    for subject in subjects:
        rows = np.flatnonzero(people == subject)
        if len(rows) < 2 * _SET_TRIALS:
            raise ValueError(
                f"path: expected at least {2 * _SET_TRIALS} BV and BA trials of each person, got {len(rows)} of "
                f"subject {subject} in {file}"
            )
        strata = 3 * columns["r_type"][rows] + columns["V_level"][rows]
        chosen += [rows[part] for part in _halves(rng, strata)]
    trials = np.stack(chosen)
    return TrialData(
        subjects=np.repeat(subjects, 2),
        trial_counts=np.full(len(trials), _SET_TRIALS),
        inputs={name: columns[name][trials] for name in ("r_type", "s_A", "s_V", "V_level")},
        outcomes={"response": columns["response"][trials]},
        feedback={},
        trial_mask=np.ones(trials.shape, dtype=bool),
    )


def _halves(rng: np.random.Generator, strata: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two disjoint sets of 400 trials, each sorted, from a person's strata (at least 800,) in 0 to 5."""
    members = [rng.permutation(np.flatnonzero(strata == stratum)) for stratum in range(_STRATA)]
    pairs = np.array([len(rows) // 2 for rows in members])
    taken = np.zeros(_STRATA, dtype=int)
    for _ in range(min(_SET_TRIALS, pairs.sum())):
        # The next pair goes to the stratum that has fewest, of those that are not used up.
        taken[np.where(taken < pairs, taken, _SET_TRIALS).argmin()] += 1
    halves = [[rows[half * n : (half + 1) * n] for rows, n in zip(members, taken, strict=True)] for half in (0, 1)]
    # Where the pairs do not suffice: single trials of strata of odd size.
    single = [rows[-1:] for rows, n in zip(members, taken, strict=True) if len(rows) > 2 * n]
    missing = _SET_TRIALS - taken.sum()
    first, second = (
        np.sort(np.concatenate(half + single[which * missing : (which + 1) * missing]))
        for which, half in enumerate(halves)
    )
    return first, second


def _read_audiovisual_original(file: Path) -> Any:
    """The authors' file as a table: a cell a person, of a matrix (reliability, s_A, s_V, response) a task."""
    import pandas

    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise ImportError("audiovisual_localization reads alldata.mat with SciPy: pip install scipy") from error
    try:
        people = loadmat(file, simplify_cells=True)["data"]
        pieces = [
            pandas.DataFrame(person[key], columns=["reliability", "s_A", "s_V", "response"]).assign(
                subject=subject, task=task
            )
            for subject, person in enumerate(people, start=1)
            for key, task in (("dataV", "BV"), ("dataA", "BA"))
        ]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ValueError(f"path: expected the authors' alldata.mat, got {file}: {error!r}") from error
    return pandas.concat(pieces, ignore_index=True)


def _pandas(loader: str) -> Any:
    try:
        import pandas
    except ImportError as error:
        raise ImportError(f"{loader} reads its file with pandas: pip install 'ppl-buffer[data]'") from error
    return pandas


def _read_csv(source: _Source, file: Path) -> Any:
    """The file as a table, whatever its columns."""
    import pandas

    try:
        return pandas.read_csv(file)
    except (pandas.errors.ParserError, pandas.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"path: expected the CSV file of {source.title}, got {file}: {error}") from error


def _columns(source: _Source, file: Path, table: Any) -> dict[str, np.ndarray]:
    """The columns that are needed, checked."""
    import pandas

    columns = {}
    for name, (expected, legal) in source.columns.items():
        if name not in table:
            raise ValueError(f"path: expected a column {name!r}, got {file} with the columns {list(table)}")
        columns[name] = pandas.to_numeric(table[name], errors="coerce").to_numpy(dtype=float)
        illegal = np.flatnonzero(~legal(columns[name]))
        if illegal.size:
            raise ValueError(
                f"path: expected {expected} in column {name!r}, got {table[name].iloc[illegal[0]]!r} "
                f"in row {table.index[illegal[0]] + 1} of {file}"
            )
    if table.empty:
        raise ValueError(f"path: expected at least one trial, got {file}, which has none")
    return columns


# Seconds until a server that does not answer counts as out of reach.
_FETCH_TIMEOUT = 10


def _locate(source: _Source, path: str | os.PathLike[str] | None) -> Path:
    """Where the file is, after fetching it if need be."""
    argument = "path"
    if path is None:
        # An empty variable counts as not set: that is how a makefile says "no folder".
        path, argument = os.environ.get("PPL_BUFFER_DATA") or None, "PPL_BUFFER_DATA"
    if path is None:
        return _fetch(source)
    given = Path(path)
    for place in (given, *(given / place for place in source.places)):
        if place.is_file():
            return place
    raise FileNotFoundError(
        f"{argument}: expected the file of {source.title} or a folder that holds {source.places[0]}, got {given}; "
        f"the original is at {source.url}"
    )


def _fetch(source: _Source) -> Path:
    """Fetch the original file, or find it in the cache folder."""
    advice = f"download {source.url} and pass its path, or set PPL_BUFFER_DATA to the folder that holds it"
    try:
        import pooch
    except ImportError as error:
        raise FileNotFoundError(
            f"{source.title} is not on this machine and fetching it takes pooch (pip install 'ppl-buffer[data]'); "
            f"or {advice}"
        ) from error
    try:
        file = pooch.retrieve(
            source.url,
            known_hash=f"sha256:{source.sha256}",
            fname=source.places[-1],
            path=pooch.os_cache("ppl_buffer"),
            # Behind a network that swallows requests a person would wait for minutes.
            downloader=pooch.HTTPDownloader(timeout=_FETCH_TIMEOUT),
        )
    except OSError as error:  # what pooch and requests raise where there is no network, or no such page
        raise FileNotFoundError(f"{source.title} could not be fetched ({error}); {advice}") from error
    return Path(file)
