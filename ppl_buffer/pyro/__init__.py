"""`ppl_buffer` for Pyro: the distribution, hierarchies by formula, a model as a simulator, priors."""

from ppl_buffer.extras import needs

with needs("ppl_buffer.pyro", "pyro"):
    from ppl_buffer.pyro.distribution import JointPredictive, TrialSupport
    from ppl_buffer.pyro.hierarchy import hierarchical_params, linear_predictors, natural_params, site_distribution
    from ppl_buffer.pyro.latent import OutcomeTransform
    from ppl_buffer.pyro.priors import TruncatedNormal, prior_distributions
    from ppl_buffer.pyro.simulator import simulator_from_model
    from ppl_buffer.pyro.trace import guide_samples, prior_samples, sampler_statistics, trace_posterior

__all__ = [
    "JointPredictive",
    "OutcomeTransform",
    "TrialSupport",
    "TruncatedNormal",
    "guide_samples",
    "hierarchical_params",
    "linear_predictors",
    "natural_params",
    "prior_distributions",
    "prior_samples",
    "sampler_statistics",
    "simulator_from_model",
    "site_distribution",
    "trace_posterior",
]
