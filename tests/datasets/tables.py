"""A table of simulated subjects of the selection task, and networks' schemas to read it for."""

from types import SimpleNamespace

import numpy as np
import pandas

from ppl_buffer.datasets.tables import read_trials
from ppl_buffer.network.config import Config
from ppl_buffer.simulators import NoisyQ, RLDriftDiffusion

TASK = NoisyQ()
LEARNER = RLDriftDiffusion()
NOISY_Q = SimpleNamespace(schema=TASK.schema, config=Config(), standardization={"reward": (0.5, 0.5)}, record=None)
RLDDM = SimpleNamespace(
    schema=LEARNER.schema, config=Config(), standardization={"rt": (-0.1, 0.7), "reward": (0.5, 0.5)}, record=None
)
COLUMNS = {"choice": "response", "reward": "feedback", "pair": "cond"}
SUBJECTS, TRIALS = 3, 20
COUNTS = (20, 17, 19)


def table_of_trials() -> pandas.DataFrame:
    """Simulated subjects in the columns of the selection task."""
    rng = np.random.default_rng(0)
    inputs = TASK.inputs(rng, SUBJECTS, TRIALS)
    params = {"alpha": [0.2, 0.3, 0.5], "beta": [4.0, 5.0, 3.0], "kappa": [0.1, 0.2, 0.3], "zeta": [0.1, 0.2, 0.1]}
    data = TASK.simulate(rng, {name: np.array(x) for name, x in params.items()}, inputs)
    rows = [
        {"subject": f"s{index}", "cond": inputs["pair"][index, k], "response": data["choice"][index, k],
         "feedback": int(data["reward"][index, k]), "rt": 0.4 + 0.01 * k}
        for index in range(SUBJECTS) for k in range(COUNTS[index])
    ]  # fmt: skip
    return pandas.DataFrame(rows)


def read(table, net=NOISY_Q, simulator=TASK, **more):
    return read_trials(table, net, columns=COLUMNS, simulator=simulator, **more)
