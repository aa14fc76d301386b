"""Learning in choices and in response times
=========================================

Learning seen in choices and in response times: reinforcement learning whose values drive a diffusion.

People chose between the symbols of three pairs and learned from rewards. As the values of two symbols move apart the
drift grows, so that choices get better *and* faster; the network `rlddm` is the likelihood of both outcomes together.
Each person is fitted alone, all side by side in one program. What one learns: how a model with two outcomes in a trial
is fitted, and how data sets drawn from the posterior show whether it describes learning in both.

::

    python examples/learning_ddm.py                 # 13 people
    python examples/learning_ddm.py --quick         # three people, few draws: a first look

Results go to learning_ddm/: posterior.nc, learning.png.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import random
from numpyro.infer import MCMC, NUTS, init_to_value

import ppl_buffer as pb
from ppl_buffer import plots
from ppl_buffer.datasets import selection_task
from ppl_buffer.numpyro import JointPredictive

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # ArviZ announces its next major version on import
    import arviz as az

# Share of trials that are no decision at all: an attention lapse, uniform up to the slowest response.
LAPSE_RATE = 0.02
Arrays = dict[str, np.ndarray]


# %%
# The data
# --------
#
# Which pair was shown, the choice, its response time, the reward. Where the file is not at hand people are simulated.
def simulate_subjects(task: pb.simulators.RLDriftDiffusion, subjects: int, trials: int, seed: int) -> Arrays:
    """People (subjects, trials) of the same design."""
    rng = np.random.default_rng(seed)
    params = {
        "alpha_positive": rng.uniform(0.05, 0.3, subjects),
        "alpha_negative": rng.uniform(0.02, 0.2, subjects),
        "scaling": rng.uniform(2.0, 5.0, subjects),
        "boundary": rng.uniform(1.3, 2.2, subjects),
        "non_decision_time": rng.uniform(0.25, 0.4, subjects),
    }
    inputs = task.inputs(rng, subjects, trials)
    return {**inputs, **task.simulate(rng, params, inputs), "mask": np.ones((subjects, trials), bool)}


def load(path: str | None, task: Any, subjects: int, trials: int, seed: int) -> tuple[Arrays, str]:
    """The first trials of the people who did fewest, or of simulated ones."""
    try:
        data = selection_task(path)
    except (FileNotFoundError, ImportError) as error:
        print(f"The selection task is not here ({error}).")
        print("Simulated people are fitted: the results say nothing of real ones.")
        return simulate_subjects(task, subjects, trials, seed), f"{subjects} simulated people"
    data = data.select(np.sort(np.argsort(data.trial_counts, kind="stable")[:subjects]))
    columns = {**data.inputs, **data.outcomes, **data.feedback, "mask": data.trial_mask}
    return {name: x[:, :trials] for name, x in columns.items()}, f"{len(data.subjects)} people, selection task"


# %%
# The model
# ---------
#
# Two outcomes a trial, one distribution: the network's density of choice and response time together.
def model(net: Any, data: Any, lapse: pb.Lapse) -> None:
    """Every person alone, with weak priors inside the trained box."""
    with numpyro.plate("subject", data.batch_shape[0]):
        params = {
            "alpha_positive": numpyro.sample("alpha_positive", dist.Beta(1.2, 4.0)),
            "alpha_negative": numpyro.sample("alpha_negative", dist.Beta(1.2, 4.0)),
            "scaling": numpyro.sample("scaling", dist.TruncatedNormal(3.0, 2.0, low=0.01, high=10.0)),
            "boundary": numpyro.sample("boundary", dist.TruncatedNormal(1.8, 0.6, low=0.6, high=5.0)),
            # The fastest response may be a lapse, and is no bound.
            "non_decision_time": numpyro.sample(
                "non_decision_time", dist.TruncatedNormal(0.3, 0.15, low=0.02, high=1.5)
            ),
        }
        numpyro.sample("y", JointPredictive(net, data, params=params, lapse=lapse), obs=data.value)


# %%
# Learning curves
# ---------------
#
# Of both outcomes, for the data and for data sets drawn from the posterior.
def curves(pair: np.ndarray, choice: np.ndarray, rt: np.ndarray, width: int) -> np.ndarray:
    """Share of better choices and mean response time by pair and time it was seen: (*S, 2, pairs, bins)."""
    return np.stack([plots.learning_curve(values, pair, width) for values in (choice, rt)], -3)


def plot(file: Path, observed: np.ndarray, generated: np.ndarray, chances: Any, width: int, title: str) -> None:
    """Choices (top) and response times (bottom), a column a pair: data over the 50 % and 90 % bands of the model."""
    figure, axes = plt.subplots(2, 3, figsize=(10.5, 5.6), sharex=True, sharey="row", layout="constrained")
    centers = width * (np.arange(observed.shape[-1]) + 0.5)
    for row in range(2):
        for index, chance in enumerate(chances):
            axis = axes[row, index]
            plots.bands(axis, centers, generated[:, row, index])
            axis.plot(centers, observed[row, index], "o-", color="k", ms=4, lw=1, label="data")
            if row == 0:
                axis.set(title=f"rewarded {chance:.0%} against {1 - chance:.0%}", ylim=(0, 1))
            else:
                axis.set(xlabel="times this pair was seen (trials)")
    axes[0, 0].set(ylabel="choices of the better symbol")
    axes[1, 0].set(ylabel="mean response time (s)")
    axes[0, 0].legend(loc="lower right", frameon=False)
    figure.suptitle(title)
    figure.savefig(file, dpi=110)


# %%
# Options
# -------
#
# On a command line these are its options. In a notebook the defaults hold: change them here.
parser = argparse.ArgumentParser(description="Learning in choices and in response times.")
parser.add_argument("--checkpoint", default="rlddm", help="a name of the zoo or a file")
parser.add_argument("--data", help="CSV file or folder of the selection task")
parser.add_argument("--subjects", type=int, default=13)
parser.add_argument("--trials", type=int, default=120, help="at most so many of each person, the first ones")
parser.add_argument("--chains", type=int, default=2)
parser.add_argument("--warmup", type=int, default=300)
parser.add_argument("--draws", type=int, default=300)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--out", type=Path, default=Path("learning_ddm"), help="folder for the results")
parser.add_argument("--quick", action="store_true", help="three people, 60 trials each, one short chain")
options = parser.parse_args([] if "ipykernel" in sys.modules else None)
if options.quick:
    options.subjects, options.trials, options.chains, options.warmup, options.draws = 3, 60, 1, 30, 30
numpyro.set_host_device_count(options.chains)

# %%
# Network and trials
# ------------------
task = pb.simulators.RLDriftDiffusion()
net = pb.load(options.checkpoint, backend="jax")
trials, source = load(options.data, task, options.subjects, options.trials, options.seed)
mask = trials["mask"]
print(f"{source}; {options.chains} chains of {options.warmup} + {options.draws} draws.")
data = net.observe(
    {"pair": trials["pair"]},
    np.stack([trials["choice"], trials["rt"]], -1).astype(np.float32),
    feedback={"reward": trials["reward"]},
    trial_mask=mask,
)

# %%
# Sampling
# --------
#
# Everybody at once, each alone.
lapse = pb.Lapse(LAPSE_RATE, {"rt": (0.0, float(trials["rt"][mask].max()))})
# NUTS starts where people could be: at the middle of the box most responses would be faster than a decision can be.
first = {"alpha_positive": 0.15, "alpha_negative": 0.1, "scaling": 3.0, "boundary": 1.8, "non_decision_time": 0.2}
values = {name: jnp.full(len(mask), value) for name, value in first.items()}
kernel = NUTS(partial(model, net, data, lapse), init_strategy=init_to_value(values=values), max_tree_depth=6)
mcmc = MCMC(kernel, num_warmup=options.warmup, num_samples=options.draws, num_chains=options.chains)
mcmc.run(random.PRNGKey(options.seed))
posterior = az.from_numpyro(mcmc, log_likelihood=False)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of R-hat where there is one chain
    print(az.summary(posterior, var_names=list(net.schema.params)).to_string())

# %%
# Does the model learn as people do?
# ----------------------------------
draws = {name: np.asarray(x) for name, x in mcmc.get_samples().items()}
some = np.linspace(0, len(draws["scaling"]) - 1, min(100, len(draws["scaling"]))).astype(int)
simulated = pb.posterior_predictive(
    net,
    data,
    {name: draws[name][some] for name in net.schema.params},
    environment=task.environment,
    lapse=lapse,
    seed=options.seed,
)
width = 4
generated = curves(trials["pair"], simulated.value[..., 0], simulated.value[..., 1], width)
# No number where there is no trial.
seen = (np.where(mask, trials[name], np.nan) for name in ("choice", "rt"))
observed = curves(trials["pair"], *seen, width)
options.out.mkdir(parents=True, exist_ok=True)
posterior.to_netcdf(str(options.out / "posterior.nc"))
plot(options.out / "learning.png", observed, generated, task.reward_probabilities, width, f"Learning: {source}")
print(f"Written to {options.out}/: posterior.nc, learning.png")
