"""An unknown function in a model, without a kernel
================================================

How does the rate of false alarms change in two hours of watching? Known is how many there were in each ten minutes, but
for half an hour that was not recorded.

Nobody has a formula for such a curve. The usual way is a Gaussian process: write a kernel down, give priors to its
lengthscale and variance, and factorise a covariance matrix in every step of the sampler. The network `gp` has learnt
what such functions look like, with kernels and hyperparameters that differ from function to function. It goes into the
model as the distribution of the function's values at all places together: one line, no kernel, everything that is
hidden integrated out. What one learns: a joint predictive as a latent variable behind a likelihood that is not normal;
and, since this function has an exact answer as well, how near the short way comes to the long one.

The data are simulated, so that the true curve is known.

::

    python examples/function_prior.py
    python examples/function_prior.py --quick    # fewer draws: a first look

Results go to function_prior/: rates.png.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.diagnostics import effective_sample_size
from numpyro.infer import MCMC, NUTS

import ppl_buffer as pb
from ppl_buffer.numpyro import JointPredictive

BLUE, ORANGE, GREY = "#2f6fb0", "#d9822b", "0.6"

# %%
# Options
# -------
#
# On a command line these are its options. In a notebook the defaults hold: change them here.
parser = argparse.ArgumentParser(description="An unknown function in a model of counts, without a kernel.")
parser.add_argument("--draws", type=int, default=1000, help="posterior draws, after 300 that are thrown away")
parser.add_argument("--seed", type=int, default=5)
parser.add_argument("--out", type=Path, default=Path("function_prior"), help="folder for the results")
parser.add_argument("--quick", action="store_true", help="fewer draws")
options = parser.parse_args([] if "ipykernel" in sys.modules else None)
warmup = 300
if options.quick:
    warmup, options.draws = 100, 150
options.out.mkdir(parents=True, exist_ok=True)

# %%
# Counts, with a gap
# ------------------
#
# Twelve blocks of ten minutes. The rate rises within the first hour and falls a little towards the end; of three blocks
# the counts are lost.
rng = np.random.default_rng(options.seed)
minutes = np.arange(12) * 10.0 + 5
rate = 2 + 11 / (1 + np.exp(-(minutes - 40) / 8)) - 0.12 * np.clip(minutes - 75, 0, None)
counts = rng.poisson(rate)
kept = ~np.isin(np.arange(12), (6, 7, 8))
print("false alarms:", *(str(count) if there else "?" for count, there in zip(counts, kept, strict=True)))

# %%
# The function as one latent variable
# -----------------------------------
#
# The network knows functions on [-2, 2], whose values vary about zero by about one: two hours are that interval, and
# the logarithm of the rate is a level and such a function. No parameter is given to `JointPredictive`, so that it is
# the joint distribution with lengthscale, variance and noise integrated out, over its three kernels too. Its noise is
# what a block has of its own beside the curve.
net = pb.load("gp", backend="jax")
x = (minutes - 60) / 30


def counts_given(z):
    level = numpyro.sample("level", dist.Normal(2, 1))
    numpyro.sample("counts", dist.Poisson(jnp.exp(level + z)[kept]), obs=counts[kept])


def without_kernel():
    counts_given(numpyro.sample("z", JointPredictive(net, {"x": x})))


# %%
# The same by hand
# ----------------
#
# The process that the network was trained on, written down: three kernels, their probabilities, the priors of the
# hyperparameters. NUTS has these to sample as well, and a covariance matrix of each kernel to factorise in each step.
process = pb.simulators.GaussianProcess()
distance = jnp.abs(x[:, None] - x)
kernels = {
    "squared_exponential": lambda r: jnp.exp(-0.5 * r**2),
    "matern32": lambda r: (1 + 3**0.5 * r) * jnp.exp(-(3**0.5) * r),
    "matern52": lambda r: (1 + 5**0.5 * r + 5 / 3 * r**2) * jnp.exp(-(5**0.5) * r),
}


def with_kernel():
    hidden = {name: numpyro.sample(name, dist.Uniform(*prior.range())) for name, prior in process.priors.items()}
    ratio = distance / hidden["lengthscale"]
    processes = [
        dist.MultivariateNormal(0, hidden["variance"] * kernels[name](ratio) + hidden["noise"] ** 2 * jnp.eye(len(x)))
        for name in process.kernels
    ]
    probabilities = dist.Categorical(jnp.array(list(process.kernels.values())))
    counts_given(numpyro.sample("z", dist.MixtureGeneral(probabilities, processes)))


# %%
# Both posteriors
# ---------------
#
# The largest difference of two posterior means, in posterior standard deviations, stands beside the standard error that
# it has since chains are finite. Twelve places are few: here the matrices are the faster way. The network is the way
# where nobody can write a kernel, for functions that a simulator draws.
def posterior(model):
    mcmc = MCMC(NUTS(model), num_warmup=warmup, num_samples=options.draws, progress_bar=False)
    mcmc.run(jax.random.PRNGKey(options.seed))
    samples = mcmc.get_samples()
    return np.asarray(samples["level"][:, None] + samples["z"])


def effective(draws):
    """Effective draws of each log rate."""
    return effective_sample_size(draws[None])


fits = {}
for name, model in (("network, no kernel", without_kernel), ("exact Gaussian process", with_kernel)):
    began = time.process_time()
    fits[name] = posterior(model)
    size = effective(fits[name])
    print(f"{name}: {time.process_time() - began:.0f} s of a processor, compilation included;", end=" ")
    print(f"{options.draws} draws, effectively {size.min():.0f} to {size.max():.0f}")
network, exact = fits.values()
spread = exact.std(0)
difference = np.abs(network.mean(0) - exact.mean(0)) / spread
expected = np.sqrt(sum(1 / effective(draws) for draws in fits.values()))
print(f"largest difference of posterior means: {difference.max():.2f} sd, standard error {expected.max():.2f}")
ratios = network.std(0) / spread
print(f"posterior standard deviations: {ratios.min():.2f} to {ratios.max():.2f} of the exact ones")

# %%
# A picture
# ---------
#
# To the left what both say of the rate: median, half of the posterior, and nine tenths. Where no counts are, it is wide
# in both. To the right that they agree on more than single blocks: how the middle of the gap goes with all others.
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.9), layout="constrained", width_ratios=(3, 2))
for (name, draws), color, shift in zip(fits.items(), (BLUE, ORANGE), (-1.2, 1.2), strict=True):
    outer, lower, middle, upper, end = np.exp(np.quantile(draws, (0.05, 0.25, 0.5, 0.75, 0.95), axis=0))
    left.vlines(minutes + shift, outer, end, color=color, lw=1.2)
    left.vlines(minutes + shift, lower, upper, color=color, lw=4.5)
    left.plot(minutes + shift, middle, "o", color="white", mec=color, ms=4.5, label=name)
    right.plot(minutes, np.corrcoef(draws.T)[7], "o-", color=color, ms=4, lw=1.2)
left.plot(minutes, rate, color=GREY, lw=1.2, zorder=0, label="true rate")
left.plot(minutes[kept], counts[kept], "k_", ms=11, mew=1.6, label="counts")
left.axvspan(60, 90, color="0.95", zorder=-1)
left.annotate("not recorded", (75, 0.8), ha="center", color="0.5")
left.set(
    xlabel="minutes", ylabel="false alarms in ten minutes", title="the rate: 50 and 90 %", yscale="log", ylim=(0.7, 60)
)
left.set_yticks((1, 2, 5, 10, 20, 50), ("1", "2", "5", "10", "20", "50"))
left.minorticks_off()
left.legend(frameon=False, loc="upper left", fontsize=8)
right.axhline(0, color="0.85", lw=1, zorder=0)
right.axvspan(60, 90, color="0.95", zorder=-1)
right.set(xlabel="minutes", ylabel="posterior correlation", title="the log rate at 75 minutes with the others")
for axis in (left, right):
    axis.spines[["top", "right"]].set_visible(False)
figure.savefig(options.out / "rates.png", dpi=110)
plt.close(figure)
print(f"Written to {options.out}/: rates.png")
