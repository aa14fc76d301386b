"""Conflict: less evidence, or more caution?
=========================================

Does conflict slow people down because they collect evidence more slowly, or because they are more careful?

14 people chose between symbols that they had learnt about. In the drift-diffusion model evidence is collected at a
*drift* until it reaches a *boundary*; the network `ddm` is its likelihood. Both depend on the trial here: the drift on
whether the choice was one of conflict, the boundary on frontal theta power at that moment, separately with and without
conflict (Cavanagh et al. 2011). What one learns: how parameters that vary by trial enter (`trial_params`), how people
become a hierarchy, and how a regression coefficient is read.

::

    python examples/conflict_ddm.py                 # all people, 4,000 trials: half an hour
    python examples/conflict_ddm.py --quick         # three people, few draws: a first look

Results go to conflict_ddm/: posterior.nc, data.png, posterior.png, response_times.png.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import random
from numpyro.infer import MCMC, NUTS, init_to_value

import ppl_buffer as pb
from ppl_buffer import plots
from ppl_buffer.datasets import conflict_task
from ppl_buffer.numpyro import JointPredictive

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # ArviZ announces its next major version on import
    import arviz as az

# Share of trials that are no decision at all: an attention lapse, uniform up to the slowest response.
LAPSE_RATE = 0.02
EFFECTS = {
    "drift_conflict": "drift: high minus low conflict",
    "theta_low": "log boundary per sd of theta, low conflict",
    "theta_high": "log boundary per sd of theta, high conflict",
}

# %%
# Options
# -------
#
# On a command line these are its options. In a notebook the defaults hold: change them here.
parser = argparse.ArgumentParser(description="A diffusion model with regressions on trials.")
parser.add_argument("--checkpoint", default="ddm", help="a name of the zoo or a file")
parser.add_argument("--data", help="CSV file or folder of the conflict task")
parser.add_argument("--subjects", type=int, default=14)
parser.add_argument("--trials", type=int, default=309, help="at most so many of each person, the first ones")
parser.add_argument("--chains", type=int, default=2)
parser.add_argument("--warmup", type=int, default=300)
parser.add_argument("--draws", type=int, default=400)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--out", type=Path, default=Path("conflict_ddm"), help="folder for the results")
parser.add_argument("--quick", action="store_true", help="three people, 40 trials each, one short chain")
options = parser.parse_args([] if "ipykernel" in sys.modules else None)
if options.quick:
    options.subjects, options.trials, options.chains, options.warmup, options.draws = 3, 40, 1, 30, 30
numpyro.set_host_device_count(options.chains)


# %%
# The data
# --------
#
# Of each trial whether the choice was one of conflict, theta power at that moment, the choice and its response time, in
# arrays (people, trials); a mask says who has how many. Where the file is not at hand people are simulated.
def simulate_subjects(subjects: int, trials: int, seed: int) -> dict[str, np.ndarray]:
    """Trials (subjects, trials) of people who do what the original study reports."""
    rng = np.random.default_rng(seed)
    shape = (subjects, trials)
    conflict, theta = rng.integers(0, 2, shape), rng.standard_normal(shape)
    params = {
        "drift": 0.9 + 0.2 * rng.standard_normal((subjects, 1)) - 0.4 * conflict,
        "boundary": np.exp(0.7 + 0.1 * rng.standard_normal((subjects, 1)) + 0.05 * theta * conflict),
        "starting_point": np.full(shape, 0.5),
        "non_decision_time": np.broadcast_to(rng.uniform(0.3, 0.5, (subjects, 1)), shape),
        "drift_variability": np.full(shape, 0.2),
    }
    # To the simulator, whose parameters stay, each trial is a data set of its own.
    flat = {name: x.reshape(-1) for name, x in params.items()}
    data = pb.simulators.DriftDiffusion().simulate(rng, flat, {}, trials=1)
    return {"conflict": conflict, "theta": theta, "choice": data["choice"].reshape(shape),
            "rt": data["rt"].reshape(shape), "mask": np.ones(shape, dtype=bool)}  # fmt: skip


def load(path: str | None, subjects: int, most: int, seed: int) -> tuple[dict[str, np.ndarray], str]:
    """Trials of the first `subjects` people, at most `most` of each, or of simulated ones."""
    try:
        data = conflict_task(path)
    except (FileNotFoundError, ImportError) as error:
        print(f"The conflict task is not here ({error}).")
        print("Simulated people are fitted: the results say nothing of real ones.")
        return simulate_subjects(min(subjects, 3), min(most, 120), seed), "simulated people"
    columns = {**data.inputs, **data.outcomes, "mask": data.trial_mask}
    trials = {name: np.asarray(x)[:subjects, :most] for name, x in columns.items()}
    return trials, f"{len(trials['mask'])} people, conflict task"


trials, source = load(options.data, options.subjects, options.trials, options.seed)
value = jnp.asarray(np.stack([trials["choice"], trials["rt"]], -1), jnp.float32)
subjects = len(value)
print(f"{source}: {trials['mask'].sum()} trials.")

# %%
# A look at them
# --------------
#
# Response times of the better choice above the axis, of the worse one below it. With conflict people choose worse, and
# are slower.
options.out.mkdir(parents=True, exist_ok=True)
conditions = ["low conflict", "high conflict"]
data = {name: np.where(trials["mask"], trials[name], np.nan) for name in ("conflict", "choice", "rt")}
figure, axes = plt.subplots(1, 2, figsize=(10, 3.2), sharey=True, layout="constrained")
plots.plot_response_times(data, condition="conflict", condition_labels=conditions, bins=25, axes=axes)
figure.savefig(options.out / "data.png", dpi=110)


# %%
# The model
# ---------
#
# An ordinary NumPyro model; the network stands where a likelihood stands. What varies by person is (people,), what
# varies by trial (people, trials) and goes into `trial_params`. The fastest response may be a lapse, so that it is no
# bound of the non-decision time.
def model(net: Any, trials: dict[str, np.ndarray], value: Any = None) -> None:
    """Trial i of person p: drift v_p + conflict effect, log boundary a_p + theta effect, all else by person."""
    conflict, theta, mask = trials["conflict"], trials["theta"], trials["mask"]
    lapse = pb.Lapse(LAPSE_RATE, {"rt": (0.0, float(trials["rt"][mask].max()))})
    effects = {name: numpyro.sample(name, dist.Normal(0.0, scale))
               for name, scale in (("drift_conflict", 1.0), ("theta_low", 0.2), ("theta_high", 0.2))}  # fmt: skip
    group = {
        "drift": numpyro.sample("drift_mean", dist.Normal(0.5, 1.0)),
        "log_boundary": numpyro.sample("log_boundary_mean", dist.Normal(0.7, 0.3)),
    }
    spread = {name: numpyro.sample(f"{name}_spread", dist.HalfNormal(0.3)) for name in group}
    with numpyro.plate("subjects", len(mask)):
        offset = {name: numpyro.sample(f"{name}_offset", dist.Normal()) for name in group}
        # The fastest response may be a lapse, and is no bound.
        delay = numpyro.sample("non_decision_time", dist.TruncatedNormal(0.3, 0.15, low=0.02, high=1.5))
        variability = numpyro.sample("drift_variability", dist.HalfNormal(0.5))
        start = numpyro.sample("starting_point", dist.TruncatedNormal(0.5, 0.07, low=0.1, high=0.9))
        by_subject = {name: group[name] + spread[name] * offset[name] for name in group}
        # One value a person, (people,), and one a trial, (people, trials).
        params = {"starting_point": start, "non_decision_time": delay, "drift_variability": variability}
        theta_effect = jnp.where(conflict == 1, effects["theta_high"], effects["theta_low"])
        trial_params = {
            "drift": by_subject["drift"][:, None] + effects["drift_conflict"] * conflict,
            "boundary": jnp.exp(by_subject["log_boundary"][:, None] + theta_effect * theta),
        }
        y = JointPredictive(
            net, {}, trials=mask.shape[1], params=params, trial_params=trial_params, trial_mask=mask, lapse=lapse,
            outside="ignore",
        )  # fmt: skip
        numpyro.sample("y", y, obs=value)


# %%
# Sampling
# --------
#
# NUTS starts where people could be: at the middle of the box most responses would be faster than a decision can be.
net = pb.load(options.checkpoint, backend="jax")
first = {"drift_mean": 0.8, "log_boundary_mean": 0.7, "drift_spread": 0.3, "log_boundary_spread": 0.2}
alike = {"drift_variability": 0.3, "non_decision_time": 0.25, "starting_point": 0.5}
first |= {name: jnp.full(subjects, value) for name, value in alike.items()}
depth = 5 if options.quick else 7
kernel = NUTS(partial(model, net, trials), init_strategy=init_to_value(values=first), max_tree_depth=depth)
mcmc = MCMC(kernel, num_warmup=options.warmup, num_samples=options.draws, num_chains=options.chains)
mcmc.run(random.PRNGKey(options.seed), value)
draws = {name: np.asarray(x) for name, x in mcmc.get_samples().items()}

# %%
# Did it converge?
# ----------------
#
# R-hat at most 1.01 and at least 400 effective draws are wanted of each; a first look with few draws has neither.
posterior = az.from_numpyro(mcmc, log_likelihood=False)
posterior.to_netcdf(str(options.out / "posterior.nc"))
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of R-hat where there is one chain
    print(az.summary(posterior, var_names=[*EFFECTS, "drift_mean", "log_boundary_mean"]).to_string())

# %%
# The coefficients
# ----------------
#
# How sure is it that conflict lowers the drift, and that theta power raises the boundary where there is conflict? Each
# panel has the posterior of one coefficient, its 90 % interval, and the probability that it is above 0.
figure, axes = plt.subplots(1, len(EFFECTS), figsize=(11, 3.2), layout="constrained")
for axis, (name, meaning) in zip(axes, EFFECTS.items(), strict=True):
    axis.hist(draws[name], bins=30, density=True, color="C0", alpha=0.6)
    low, high = np.percentile(draws[name], [5, 95])
    axis.axvspan(low, high, color="C0", alpha=0.12, lw=0, label="90 % interval")
    axis.axvline(0.0, color="k", lw=0.8)
    axis.set(title=f"above 0: {(draws[name] > 0).mean():.1%}", xlabel=meaning, yticks=[])
axes[0].legend(frameon=False)
figure.suptitle(f"What conflict and theta power change: {source}")
figure.savefig(options.out / "posterior.png", dpi=110)

# %%
# Does the model describe the response times?
# -------------------------------------------
#
# Data sets under draws of the posterior, by the same model without the data: the bands hold 50 and 90 % of them.
some = np.linspace(0, len(draws["drift_mean"]) - 1, 40).astype(int)
selected = {name: jnp.asarray(x[some]) for name, x in draws.items()}
predictive = numpyro.infer.Predictive(partial(model, net, trials), selected, batch_ndims=1)
again = np.asarray(jax.device_get(predictive(random.PRNGKey(options.seed + 1))["y"]))
replicated = {"choice": again[..., 0], "rt": again[..., 1]}
figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), sharey=True, layout="constrained")
plots.plot_response_times(data, replicated, condition="conflict", condition_labels=conditions, bins=25, axes=axes)
figure.suptitle(f"Response times: {source}")
figure.savefig(options.out / "response_times.png", dpi=110)
print(f"Written to {options.out}/: posterior.nc, data.png, posterior.png, response_times.png")
