"""Audio-visual localisation by 15 people: where was the sound, where was the flash?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ppl_buffer.datasets.sources import (
    INTEGERS,
    NUMBERS,
    LegalColumn,
    Source,
    check_columns,
    locate,
    need_pandas,
    read_csv,
)
from ppl_buffer.datasets.trials import TrialData

if TYPE_CHECKING:
    import pandas

SOURCE = Source(
    title="the audio-visual localisation task",
    url=(
        "https://raw.githubusercontent.com/LSZ2001/Audiovisual-causal-inference/"
        "b065a1984a7a2bbc9b6df5e06c9caddc927961ea/data/alldata.mat"
    ),
    sha256="5abea6af11ca75cdf3c6612b59d58a5c5e515479c7cbdd919c0c78f21986d87e",
    places=("mci_audiovisual_liu2026/av.csv", "av.csv", "alldata.mat"),
    columns={
        "subject": INTEGERS,
        "reliability": LegalColumn("1, 2 or 3", lambda value: np.isin(value, (1, 2, 3))),
        "s_A": NUMBERS,
        "s_V": NUMBERS,
        "response": NUMBERS,
    },
)
# Strata of the sets: report asked for (2) by noise level of the flash (3).
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
    need_pandas("audiovisual_localization")
    file = locate(SOURCE, path)
    table = _read_original(file) if file.suffix == ".mat" else read_csv(SOURCE, file)
    if "task" not in table:
        raise ValueError(f"path: expected a column 'task', got {file} with the columns {list(table)}")
    table = table[table["task"].isin(["BV", "BA"])]
    columns = check_columns(SOURCE, file, table)
    columns["r_type"] = (table["task"] == "BA").to_numpy().astype(int)
    columns["V_level"] = columns["reliability"].astype(int) - 1
    labels = columns["subject"].astype(int)
    subjects = labels[np.sort(np.unique(labels, return_index=True)[1])]
    rng = np.random.default_rng(seed)
    sets: list[np.ndarray] = []
    for subject in subjects:
        rows = np.flatnonzero(labels == subject)
        if len(rows) < 2 * _SET_TRIALS:
            raise ValueError(
                f"path: expected at least {2 * _SET_TRIALS} BV and BA trials of each person, got {len(rows)} of "
                f"subject {subject} in {file}"
            )
        strata = 3 * columns["r_type"][rows] + columns["V_level"][rows]
        sets += [rows[part] for part in _halves(rng, strata)]
    trials = np.stack(sets)
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
    by_stratum = [rng.permutation(np.flatnonzero(strata == stratum)) for stratum in range(_STRATA)]
    pairs = np.array([len(rows) // 2 for rows in by_stratum])
    taken = np.zeros(_STRATA, dtype=int)
    for _ in range(min(_SET_TRIALS, pairs.sum())):
        # The next pair goes to the stratum that has fewest, of those that are not used up.
        taken[np.where(taken < pairs, taken, _SET_TRIALS).argmin()] += 1
    halves = [[rows[half * n : (half + 1) * n] for rows, n in zip(by_stratum, taken, strict=True)] for half in (0, 1)]
    # Where the pairs do not suffice: single trials of strata of odd size.
    single = [rows[-1:] for rows, n in zip(by_stratum, taken, strict=True) if len(rows) > 2 * n]
    missing = _SET_TRIALS - taken.sum()
    first, second = (
        np.sort(np.concatenate(half + single[which * missing : (which + 1) * missing]))
        for which, half in enumerate(halves)
    )
    return first, second


def _read_original(file: Path) -> pandas.DataFrame:
    """The authors' file as a table: a cell a person, of a matrix (reliability, s_A, s_V, response) a task."""
    import pandas
    from scipy.io import loadmat

    try:
        subjects = loadmat(file, simplify_cells=True)["data"]
        pieces = [
            pandas.DataFrame(matrices[key], columns=["reliability", "s_A", "s_V", "response"]).assign(
                subject=subject, task=task
            )
            for subject, matrices in enumerate(subjects, start=1)
            for key, task in (("dataV", "BV"), ("dataA", "BA"))
        ]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ValueError(f"path: expected the authors' alldata.mat, got {file}: {error!r}") from error
    return pandas.concat(pieces, ignore_index=True)
