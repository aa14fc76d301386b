"""`ppl_buffer` for NumPyro: the distribution, a model as a simulator, priors."""

from ppl_buffer.extras import needs

with needs("ppl_buffer.numpyro", "numpyro"):
    from ppl_buffer.numpyro.distribution import JointPredictive, TrialSupport
    from ppl_buffer.numpyro.latent import OutcomeTransform
    from ppl_buffer.numpyro.priors import prior_distributions
    from ppl_buffer.numpyro.simulator import simulator_from_model
    from ppl_buffer.numpyro.trace import guide_samples, prior_samples, sampler_statistics, trace_posterior

__all__ = [
    "JointPredictive",
    "OutcomeTransform",
    "TrialSupport",
    "guide_samples",
    "prior_distributions",
    "prior_samples",
    "sampler_statistics",
    "simulator_from_model",
    "trace_posterior",
]
