"""Choices under conflict of 14 people with a deep brain stimulator."""

from __future__ import annotations

import os

import numpy as np

from ppl_buffer.datasets.sources import (
    BINARY,
    INTEGERS,
    NUMBERS,
    POSITIVE,
    LegalColumn,
    Source,
    check_columns,
    locate,
    need_pandas,
    read_csv,
)
from ppl_buffer.datasets.trials import TrialData

SOURCE = Source(
    title="the conflict task",
    url=(
        "https://raw.githubusercontent.com/hddm-devs/hddm/19feaa9849619931d306094b48d9803ef9c8d0bd/"
        "hddm/examples/cavanagh_theta_nn.csv"
    ),
    sha256="52193c5a6f7a1712369dfa5d6df10007fa49d8b8d501a0cbc4a3c58046314706",
    places=("ddm_cavanagh2011/cavanagh2011.csv", "cavanagh2011.csv", "cavanagh_theta_nn.csv"),
    columns={
        "subject": INTEGERS,
        "stim": LegalColumn("LL, WL or WW", lambda value: np.isin(value, (0, 1, 2))),
        "rt": POSITIVE,
        "response": BINARY,
        "theta": NUMBERS,
        "dbs": BINARY,
        "conf": LegalColumn("LC or HC", lambda value: np.isin(value, (0, 1))),
    },
)
# Words in the file, by the numbers that stand for them.
_CODES = {"stim": ("LL", "WL", "WW"), "conf": ("LC", "HC")}


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
    need_pandas("conflict_task")
    file = locate(SOURCE, path)
    table = read_csv(SOURCE, file).rename(columns={"subj_idx": "subject"})
    for name, words in _CODES.items():
        if name in table:
            # A word that stands for no number stays, and is refused.
            table[name] = [words.index(word) if word in words else word for word in table[name]]
    columns = check_columns(SOURCE, file, table)
    return TrialData.from_rows(
        columns["subject"].astype(int),
        inputs={
            "symbols": columns["stim"].astype(int),
            "conflict": columns["conf"].astype(int),
            "theta": columns["theta"],
            "stimulation": columns["dbs"].astype(int),
        },
        outcomes={"choice": columns["response"].astype(int), "rt": columns["rt"]},
        feedback={},
        fill={"rt": 1.0},
    )
