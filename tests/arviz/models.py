"""Models of both languages, and fits of them that need no sampling. Importing this skips where ArviZ is missing."""

from types import SimpleNamespace

import numpy as np
import pytest

from ppl_buffer.arviz import arviz_version
from tests.networks import FUNCTION, LEARNING, array, data, joint_predictive, network

pytest.importorskip("xarray")
try:
    arviz_version()
except ImportError:
    pytest.skip("ArviZ is not installed", allow_module_level=True)

# ArviZ 1 smooths importance weights of no fewer than 25 draws.
PEOPLE, TRIALS, DRAWS, CHAINS = 3, 7, 13, 2
MASK = np.arange(TRIALS) < np.array([[7], [2], [5]])
PERSON, TRIAL = np.nonzero(MASK)
GIVEN = data(LEARNING, batch=PEOPLE, trials=TRIALS)
QUIET = {"progress": False, "prior_draws": 5}


def finished(language, model, samples, args=()):
    """What `from_mcmc` reads of a sampler, with draws that need no sampling."""
    kernel = SimpleNamespace(model=model)
    contents = {
        "__module__": f"{language}.infer",
        "sampler": kernel,
        "kernel": kernel,
        "_args": args,
        "_kwargs": {},
        "get_samples": lambda self, group_by_chain: samples,
        "get_extra_fields": lambda self, group_by_chain: {},
        "diagnostics": lambda self: {},
    }
    return type("MCMC", (), contents)()


def draws(*sites, seed=0):
    """Draws (chain, draw, *shape) near standard normal."""
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=(CHAINS, DRAWS, *shape)).astype(np.float32) for name, shape in sites}


def learners(backend):
    """A hierarchical model of people with 7, 2 and 5 trials, in either language."""
    net = network(LEARNING, backend)
    seen = net.observe(GIVEN.inputs, GIVEN.value, feedback=GIVEN.feedback, trial_mask=MASK)
    if backend == "jax":
        import jax
        import numpyro as ppl
        import numpyro.distributions as dist

        squash = jax.nn.sigmoid
    else:
        import pyro as ppl
        import pyro.distributions as dist
        import torch

        squash = torch.sigmoid

    def model(seen):
        mean = ppl.sample("mean", dist.Normal(0.0, 1.0))
        people = ppl.plate("people", PEOPLE)
        with people:
            offset = ppl.sample("offset", dist.Normal(0.0, 2.0))
        alpha = ppl.deterministic("alpha", squash(mean + offset))
        with people:
            beta = ppl.deterministic("beta", 0.5 + alpha**2)
            conditioned = {"alpha": alpha, "beta": beta}
            ppl.sample("y", joint_predictive(LEARNING, backend, seen, params=conditioned), obs=seen.value)

    return model, seen


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def reference(backend, alpha, **more):
    """Log densities (*S, people, trials) computed without anything that was observed before."""
    conditioned = {"alpha": alpha, "beta": 0.5 + alpha**2}
    one = joint_predictive(
        LEARNING, backend, GIVEN.inputs, params=conditioned, feedback=GIVEN.feedback, trial_mask=MASK, **more
    )
    return np.asarray(one.conditionals(array(backend, GIVEN.value)))


def ppl_of(backend):
    """The backend's language, its distributions and its `JointPredictive`."""
    if backend == "jax":
        ppl = pytest.importorskip("numpyro")
        import numpyro.distributions as dist

        from ppl_buffer.numpyro import JointPredictive
    else:
        ppl = pytest.importorskip("pyro")
        import pyro.distributions as dist

        from ppl_buffer.pyro import JointPredictive
    return ppl, dist, JointPredictive


def simple(backend, given, **more):
    """A model of sets of points that all have the same number of trials, and of four numbers beside them."""
    ppl, dist, joint = ppl_of(backend)
    net, value, items = network(FUNCTION, backend), array(backend, given.value), array(backend, np.arange(4.0))

    def model():
        mu = ppl.sample("mu", dist.Normal(0.0, 1.0))
        with ppl.plate("set", len(given.value)):
            ppl.sample("y", joint(net, given.inputs, params={"mu": mu}, **more), obs=value)
        ppl.sample("extra", dist.Normal(mu, 1.0).expand([4]).to_event(1), obs=items)

    return model
