"""`ppl_buffer` for NumPyro: the distribution, hierarchies by formula, a model as a simulator, priors."""

from ppl_buffer.extras import needs

with needs("ppl_buffer.numpyro", "numpyro"):
    from ppl_buffer.numpyro.distribution import JointPredictive, TrialSupport
    from ppl_buffer.numpyro.hierarchy import hierarchical_params, linear_predictors, natural_params, site_distribution
    from ppl_buffer.numpyro.latent import OutcomeTransform
    from ppl_buffer.numpyro.priors import prior_distributions
    from ppl_buffer.numpyro.simulator import simulator_from_model
    from ppl_buffer.numpyro.trace import guide_samples, prior_samples, sampler_statistics, trace_posterior

__all__ = [
    "JointPredictive",
    "OutcomeTransform",
    "TrialSupport",
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
