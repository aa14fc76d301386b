"""`ppl_buffer` for Pyro: the distribution, a model as a simulator, priors."""

from ppl_buffer.pyro.distribution import JointPredictive, TrialSupport
from ppl_buffer.pyro.priors import TruncatedNormal, prior_distributions
from ppl_buffer.pyro.simulator import simulator_from_model
from ppl_buffer.pyro.trace import guide_samples, prior_samples, replay, sampler_statistics

__all__ = [
    "JointPredictive",
    "TrialSupport",
    "TruncatedNormal",
    "guide_samples",
    "prior_distributions",
    "prior_samples",
    "replay",
    "sampler_statistics",
    "simulator_from_model",
]
