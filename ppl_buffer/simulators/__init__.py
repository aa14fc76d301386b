"""The shipped simulators."""

from ppl_buffer.simulators.collapsing_drift_diffusion import CollapsingDriftDiffusion
from ppl_buffer.simulators.drift_diffusion import DriftDiffusion
from ppl_buffer.simulators.gaussian_process import GaussianProcess
from ppl_buffer.simulators.multisensory import MultisensoryCausalInference
from ppl_buffer.simulators.multisensory_departures import MultisensoryDepartures
from ppl_buffer.simulators.noisy_q import NoisyQ
from ppl_buffer.simulators.rl_drift_diffusion import RLDriftDiffusion

__all__ = [
    "CollapsingDriftDiffusion",
    "DriftDiffusion",
    "GaussianProcess",
    "MultisensoryCausalInference",
    "MultisensoryDepartures",
    "NoisyQ",
    "RLDriftDiffusion",
]
