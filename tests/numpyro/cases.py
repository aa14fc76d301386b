"""Distributions and a model of tiny networks."""

import numpyro
import numpyro.distributions as dist

from ppl_buffer.numpyro import JointPredictive
from tests.networks import REPORT, array, network


def make(case, given, **more):
    options = {name: array("jax", x) for name, x in given.arguments(**more).items()}
    return JointPredictive(network(case, "jax"), array("jax", given.inputs), **options)


def hierarchical(data, subsample_size=None):
    mean = numpyro.sample("mean", dist.Normal(0, 1))
    with numpyro.plate("people", 3, subsample_size=subsample_size) as index:
        mu = numpyro.sample("mu", dist.Normal(mean, 1))
        some = data if subsample_size is None else data[index]
        numpyro.sample("y", JointPredictive(network(REPORT, "jax"), some, params={"mu": mu}), obs=some.value)
