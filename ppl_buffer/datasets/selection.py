"""The probabilistic selection task: 28 people who learn from rewards, or simulated ones of the same design."""

from __future__ import annotations

import os

import numpy as np

from ppl_buffer.datasets.sources import (
    BINARY,
    INTEGERS,
    POSITIVE,
    LegalColumn,
    Source,
    check_columns,
    locate,
    need_pandas,
    read_csv,
)
from ppl_buffer.datasets.trials import TrialData
from ppl_buffer.simulators.noisy_q import NoisyQ

SOURCE = Source(
    title="the selection task",
    url=(
        "https://raw.githubusercontent.com/hddm-devs/hddm/19feaa9849619931d306094b48d9803ef9c8d0bd/"
        "hddm/examples/rlddm_data.csv"
    ),
    sha256="7da583ddc29fe34e8974fc5dc56051dd4c225e17663fb0d8133fa7dd5327c550",
    places=("rlddm_pst_hddm/pst_learning.csv", "pst_learning.csv", "rlddm_data.csv"),
    columns={
        "subject": INTEGERS,
        "split_by": LegalColumn("0, 1 or 2", lambda value: np.isin(value, (0, 1, 2))),
        "response": BINARY,
        "rt": POSITIVE,
        "feedback": BINARY,
    },
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
    need_pandas("selection_task")
    file = locate(SOURCE, path)
    columns = check_columns(SOURCE, file, read_csv(SOURCE, file).rename(columns={"subj_idx": "subject"}))
    return TrialData.from_rows(
        columns["subject"].astype(int),
        inputs={"pair": columns["split_by"].astype(int)},
        outcomes={"choice": columns["response"].astype(int), "rt": columns["rt"]},
        feedback={"reward": columns["feedback"]},
        fill={"rt": 1.0},
    )


def simulated_selection_task(seed: int = 0) -> TrialData:
    """What `selection_task` gives, but of 28 simulated people: for a machine that cannot fetch the real ones.

    They learn as `ppl_buffer.simulators.NoisyQ` does, with parameters simulated from one population, and did 120 to 360
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
    simulated = task.simulate(rng, params, inputs)
    return TrialData(
        subjects=np.arange(1, len(counts) + 1),
        trial_counts=counts,
        inputs=inputs,
        outcomes={"choice": simulated["choice"]},
        feedback={"reward": simulated["reward"]},
        trial_mask=np.arange(counts.max()) < counts[:, None],
    )
