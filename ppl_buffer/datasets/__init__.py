"""Data of real people for examples and tests, and tables of your own, read and checked. No data are shipped.

Data sets are read from a folder (the environment variable ``PPL_BUFFER_DATA``), or fetched from their source.
"""

from ppl_buffer.datasets.audiovisual import audiovisual_localization
from ppl_buffer.datasets.conflict import conflict_task
from ppl_buffer.datasets.dataset_simulator import DatasetSimulator
from ppl_buffer.datasets.selection import selection_task, simulated_selection_task
from ppl_buffer.datasets.stored_simulations import StoredSimulations
from ppl_buffer.datasets.table_scale import TableScale
from ppl_buffer.datasets.tables import read_trials, write_trials
from ppl_buffer.datasets.trials import TrialData
from ppl_buffer.datasets.two_step import two_step_task

__all__ = [
    "DatasetSimulator",
    "StoredSimulations",
    "TableScale",
    "TrialData",
    "audiovisual_localization",
    "conflict_task",
    "read_trials",
    "selection_task",
    "simulated_selection_task",
    "two_step_task",
    "write_trials",
]
