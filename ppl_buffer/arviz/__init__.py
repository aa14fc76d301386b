"""From a finished fit to ArviZ: every group in one call, for NumPyro and Pyro, ArviZ 0.2x and 1.x.

``from_mcmc(mcmc)``, ``from_svi(svi, params)`` and ``from_samples(model, samples)`` return what the installed ArviZ
works with: `InferenceData` of 0.2x, `xarray.DataTree` of 1.x. Groups, with dimensions chain, draw, then the plates':

| group | holds |
|---|---|
| posterior, prior | latent and deterministic sites |
| log_prior | log density of each latent site, on the user's scale |
| sample_stats | what the sampler recorded (`EXTRA_FIELDS`) |
| log_likelihood | log p(trial given the trials before it, parameters): one number a trial |
| posterior_predictive | new data sets: whole rollouts |
| prior_predictive | the same at draws of the prior, where they are asked for (`prior_predictive_draws`) |
| one_step_ahead | draws of each trial given the *observed* trials before it |
| observed_data, constant_data | outcomes; inputs and feedback |

Trials have the dimensions (subject, trial). Where subjects did different numbers of trials, padding is dropped and one
dimension ``observation`` remains, with the coordinates ``subject`` and ``trial``. Several outcomes of a trial (choice
and response time) are variables of their own; their log likelihood is one variable named as the site.

`az.loo` of the result scores one-step-ahead predictions, in sample: the removed trial stays in the history of later
ones. `ppl_buffer.scores` says what other scores there are, and what each of them claims.
"""

from ppl_buffer.arviz.convert import EXTRA_FIELDS, Options, from_mcmc, from_samples, from_svi
from ppl_buffer.arviz.versions import arviz_version, container, groups_of, import_arviz
from ppl_buffer.arviz.views import one_step_ahead

__all__ = [
    "EXTRA_FIELDS",
    "Options",
    "arviz_version",
    "container",
    "from_mcmc",
    "from_samples",
    "from_svi",
    "groups_of",
    "import_arviz",
    "one_step_ahead",
]
