"""The shipped simulators."""

from ppl_buffer.simulators.angle_drift_diffusion import AngleDriftDiffusion
from ppl_buffer.simulators.collapsing_drift_diffusion import CollapsingDriftDiffusion
from ppl_buffer.simulators.confidence import Confidence
from ppl_buffer.simulators.discounting import Discounting
from ppl_buffer.simulators.drift_diffusion import DriftDiffusion
from ppl_buffer.simulators.forgetting_q import ForgettingQ
from ppl_buffer.simulators.gaussian_process import GaussianProcess
from ppl_buffer.simulators.multisensory import MultisensoryCausalInference
from ppl_buffer.simulators.multisensory_departures import MultisensoryDepartures
from ppl_buffer.simulators.noisy_q import NoisyQ
from ppl_buffer.simulators.noisy_q_tasks import NoisyQTasks
from ppl_buffer.simulators.q_learning import QLearning
from ppl_buffer.simulators.q_learning_tasks import QLearningTasks
from ppl_buffer.simulators.racing_diffusion import RacingDiffusion
from ppl_buffer.simulators.regression_table import RegressionTable
from ppl_buffer.simulators.rl_drift_diffusion import RLDriftDiffusion
from ppl_buffer.simulators.sawtooth import Sawtooth
from ppl_buffer.simulators.sequential_sampling import SequentialSampling, from_ssms
from ppl_buffer.simulators.two_step import TwoStep

__all__ = [
    "AngleDriftDiffusion",
    "CollapsingDriftDiffusion",
    "Confidence",
    "Discounting",
    "DriftDiffusion",
    "ForgettingQ",
    "GaussianProcess",
    "MultisensoryCausalInference",
    "MultisensoryDepartures",
    "NoisyQ",
    "NoisyQTasks",
    "QLearning",
    "QLearningTasks",
    "RLDriftDiffusion",
    "RacingDiffusion",
    "RegressionTable",
    "Sawtooth",
    "SequentialSampling",
    "TwoStep",
    "from_ssms",
]
