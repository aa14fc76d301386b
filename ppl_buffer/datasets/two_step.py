"""The two-step task: people who plan, learn, or both."""

from __future__ import annotations

import os

import numpy as np

from ppl_buffer.datasets.sources import (
    BINARY,
    INTEGERS,
    LegalColumn,
    Source,
    check_columns,
    locate,
    need_pandas,
    read_csv,
)
from ppl_buffer.datasets.trials import TrialData

SOURCE = Source(
    title="the two-step task",
    url=(
        "https://raw.githubusercontent.com/CCS-Lab/hBayesDM/9cbe245f3c812e2eb2d259821f80a65ff4007988/"
        "commons/extdata/ts_exampleData.txt"
    ),
    sha256="d138b5e9546a396d5078f347c827014a30a855c276c8de167eeddf7a586d2c2c",
    places=("two_step_hbayesdm/ts_exampleData.txt", "ts_exampleData.txt"),
    columns={
        "subjID": INTEGERS,
        "level1_choice": LegalColumn("1 or 2", lambda value: np.isin(value, (1, 2))),
        "level2_choice": LegalColumn("1, 2, 3 or 4", lambda value: np.isin(value, (1, 2, 3, 4))),
        "reward": BINARY,
    },
)


def two_step_task(path: str | os.PathLike[str] | None = None) -> TrialData:
    r"""Two choices a trial, of which the second one is rewarded: 11 people, 197 to 200 trials each.

    The task of Daw, Gershman, Seymour, Dayan & Dolan (2011, Neuron 69, 1204-1215): either option of the first stage
    leads to its own state in 70 % of the trials, else to the other one, and the rewards of the four options there
    drift. The data are the example of the package hBayesDM (Ahn, Haines & Zhang 2017, Computational Psychiatry 1,
    24-57; GPL-3); trials without a response, at most three of a person, are left out, there and here.

    Args:
        path: the file, tab-separated, or a folder that holds ``two_step_hbayesdm/ts_exampleData.txt`` or
            ``ts_exampleData.txt``. By default the folder in the environment variable ``PPL_BUFFER_DATA``; where that is
            not set, the original is fetched once, checked against its checksum, and kept in the user's cache folder.

    Returns:
        input ``common`` (1 = the transition was the option's own, 0 = the rare one); outcomes ``choice_1`` and
        ``choice_2``, both 0 or 1, the second one in the state that the first one led to; feedback ``reward`` in {0, 1}:
        what `ppl_buffer.simulators.TwoStep` simulates.

    Raises:
        FileNotFoundError: if there is no such file, or it cannot be fetched.
        ValueError: if the file is not the two-step task, or what was fetched does not have its checksum.
        ImportError: if pandas is not installed.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        ...     rows = "subjID level1_choice level2_choice reward;3 1 2 1;3 2 1 0;5 2 4 1".replace(" ", "\t")
        ...     _ = file.write(rows.replace(";", "\n"))
        ...     file.flush()
        ...     data = two_step_task(file.name)
        >>> data.inputs["common"]
        array([[1, 0],
               [1, 0]])
        >>> data.outcomes["choice_2"]
        array([[1, 0],
               [1, 0]])
    """
    need_pandas("two_step_task")
    file = locate(SOURCE, path)
    columns = check_columns(SOURCE, file, read_csv(SOURCE, file, separator="\t"))
    first, arm = columns["level1_choice"].astype(int) - 1, columns["level2_choice"].astype(int) - 1
    state = arm // 2
    return TrialData.from_rows(
        columns["subjID"].astype(int),
        inputs={"common": (state == first).astype(int)},
        outcomes={"choice_1": first, "choice_2": arm % 2},
        feedback={"reward": columns["reward"]},
        fill={},
    )
