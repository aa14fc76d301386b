"""A regression whose covariate is missing in half of the rows
===========================================================

How much slower are people for each hour of sleep that they lack, where half of them kept no diary of their sleep?

Who leaves such rows out wastes what they say. Who wants to keep them needs a distribution of the missing hours, given
what else is known of these people; a model of these by hand is one more thing to get wrong. The network `table` has
learnt regression itself from random tables: given the complete rows, it is a joint distribution of the missing hours,
and goes into a model as any other distribution. What one learns: `TableScale`, a network as part of a larger model, and
latent variables that are drawn together.

The data are simulated, so that the complete table is known too.

::

    python examples/table.py
    python examples/table.py --quick           # fewer draws: a first look
    python examples/table.py --network FILE    # another network of such tables

Results go to table/: slopes.png.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import MCMC, NUTS

import ppl_buffer as pb
from ppl_buffer.datasets import TableScale
from ppl_buffer.numpyro import JointPredictive

BLUE, ORANGE, GREY = "#2f6fb0", "#d9822b", "0.6"
SLOPE, NOISE = -12.0, 14.0

# %%
# Options
# -------
#
# On a command line these are its options. In a notebook the defaults hold: change them here.
parser = argparse.ArgumentParser(description="A regression whose covariate is missing in half of the rows.")
parser.add_argument("--network", default="table", help="name of a shipped network, or a file")
parser.add_argument("--rows", type=int, default=52)
parser.add_argument("--draws", type=int, default=200, help="posterior draws, after as many that are thrown away")
parser.add_argument("--seed", type=int, default=3)
parser.add_argument("--out", type=Path, default=Path("table"), help="folder for the results")
parser.add_argument("--quick", action="store_true", help="fewer people, fewer draws")
options = parser.parse_args([] if "ipykernel" in sys.modules else None)
if options.quick:
    options.rows, options.draws = 40, 120
options.out.mkdir(parents=True, exist_ok=True)

# %%
# A table with gaps
# -----------------
#
# Sleep depends on age, on caffeine, and on night shifts, of which only people over some age are freed: no straight
# line. Those who work at night keep fewer diaries, so that whose sleep is missing depends on what is known of them, and
# not on their sleep or speed beyond that. Some did not say how much coffee they drink.
rng = np.random.default_rng(options.seed)
rows = options.rows
age = rng.uniform(20, 65, rows)
night = (rng.random(rows) < np.where(age < 50, 0.5, 0.1)).astype(float)
coffee = rng.gamma(2.0, 1.2, rows)
sleep = 7.6 - 1.8 * night - 1.0 * np.tanh(coffee - 3) - 0.9 * ((age - 42) / 15) ** 2 / 2 + rng.normal(0, 0.35, rows)
slowness = 380 + SLOPE * (sleep - 7) + rng.normal(0, NOISE, rows)
missing = rng.random(rows) < np.where(night == 1, 0.65, 0.45)
known = np.stack([age, night, np.where(rng.random(rows) < 0.15, np.nan, coffee)], 1)
print(f"{rows} people, sleep missing of {missing.sum()}, coffee of {np.isnan(known).any(1).sum()}")

# %%
# The missing hours, given the complete rows
# ------------------------------------------
#
# `TableScale` standardises by the complete rows, pads to the network's five features and flags missing cells. What the
# network says of each person: mean and spread of the hours that it was not shown.
net = pb.load(options.network, backend="jax")
scale = TableScale.of(known[~missing], sleep[~missing])
# Encoded once: no draw changes what the complete rows say.
context = net.encode(scale.context(known[~missing], sleep[~missing]))
inputs = scale.inputs(known[missing])
predicted = JointPredictive(net, inputs, context=context).sample(jax.random.PRNGKey(0), (200,))
hours = scale.in_units(np.asarray(predicted))
low, high = np.quantile(hours, (0.05, 0.95), axis=0)
inside = ((low < sleep[missing]) & (sleep[missing] < high)).mean()
error = np.sqrt(((hours.mean(0) - sleep[missing]) ** 2).mean())
print(f"predicted sleep: root mean square error {error:.2f} h, of a spread of {sleep.std():.2f} h;")
print(f"{inside:.0%} of the people are in their 90 % intervals")


# %%
# Three regressions
# -----------------
#
# The same model of reaction times, of all rows with the sleep that was deleted, of the complete rows alone, and of all
# rows, where the network's distribution of the missing hours is their prior: reaction times tell of sleep as well. The
# hours are drawn together, since the hours of one person say how those of others like them are to be understood.
def regression(x, y):
    level = numpyro.sample("level", dist.Normal(380, 50))
    slope = numpyro.sample("slope", dist.Normal(0, 50))
    noise = numpyro.sample("noise", dist.HalfNormal(50))
    numpyro.sample("y", dist.Normal(level + slope * (x - 7), noise), obs=y)


def with_missing(x, y):
    z = numpyro.sample("z", JointPredictive(net, inputs, context=context))
    hours = numpyro.deterministic("sleep", scale.outcome_mean + scale.outcome_std * z)
    regression(x.at[jnp.flatnonzero(missing, size=missing.sum())].set(hours), y)


def posterior(model, x, y):
    mcmc = MCMC(NUTS(model), num_warmup=options.draws, num_samples=options.draws, progress_bar=False)
    mcmc.run(jax.random.PRNGKey(options.seed), jnp.asarray(x), jnp.asarray(y))
    return mcmc.get_samples()


fits = {
    "complete table": posterior(regression, sleep, slowness),
    "complete rows alone": posterior(regression, sleep[~missing], slowness[~missing]),
    "network for the missing hours": posterior(with_missing, np.where(missing, 0.0, sleep), slowness),
}
print(f"milliseconds an hour of sleep, truly {SLOPE:g}:")
for name, samples in fits.items():
    slope = np.asarray(samples["slope"])
    print(f"  {name}: {slope.mean():.1f}, standard deviation {slope.std():.1f}")

# %%
# A picture
# ---------
#
# To the left the hours that were deleted, and what the fit says of them; to the right the slopes, the true one grey.
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
filled = np.asarray(fits["network for the missing hours"]["sleep"])
low, middle, high = np.quantile(filled, (0.05, 0.5, 0.95), axis=0)
left.plot([sleep.min(), sleep.max()], [sleep.min(), sleep.max()], color="0.85", lw=1)
left.errorbar(sleep[missing], middle, [middle - low, high - middle], fmt="o", ms=3, lw=0.8, color=BLUE)
left.set(xlabel="hours of sleep, deleted", ylabel="posterior: median and 90 %", title="the missing hours")
for place, ((name, samples), color) in enumerate(zip(fits.items(), (GREY, ORANGE, BLUE), strict=True)):
    outer = np.quantile(np.asarray(samples["slope"]), (0.05, 0.25, 0.5, 0.75, 0.95))
    right.plot(outer[[0, 4]], [place, place], color=color, lw=1.5)
    right.plot(outer[[1, 3]], [place, place], color=color, lw=5, solid_capstyle="butt")
    right.plot(outer[2], place, "o", color="white", mec=color, ms=6)
    right.annotate(name, (outer[2], place), (0, 9), textcoords="offset points", ha="center", color=color)
right.axvline(SLOPE, color="0.8", lw=1, zorder=0)
right.set(xlabel="milliseconds an hour of sleep", yticks=(), ylim=(2.6, -0.6), title="the slope: 50 and 90 %")
for axis in (left, right):
    axis.spines[["top", "right"]].set_visible(False)
figure.savefig(options.out / "slopes.png", dpi=110)
plt.close(figure)
print(f"Written to {options.out}/: slopes.png")
