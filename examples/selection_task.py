"""Learning from rewards: a hierarchical fit
=========================================

Fit people who learn from rewards, all together, with a likelihood that nobody can write down.

28 people chose between the symbols of three pairs and learned from rewards (the probabilistic selection task). The
model is Q-learning with learning noise, whose likelihood has no formula; the network `noisy_q` supplies it. NUTS fits
a hierarchical model, ArviZ keeps the posterior, and data sets drawn from it are laid over the people's learning. What
one learns: the steps behind `ppl-buffer fit`, each of which can be replaced by one's own.

::

    python examples/selection_task.py                   # 13 people, two chains, minutes
    python examples/selection_task.py --subjects 28     # all of them
    python examples/selection_task.py --quick           # a few people and draws: does it run?

Results go to demo/: posterior.nc, and the pictures of this page.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import numpyro

import ppl_buffer as pb
from ppl_buffer import plots
from ppl_buffer.datasets import selection_task, simulated_selection_task
from ppl_buffer.workflow import fit

# %%
# Options
# -------
#
# On a command line these are its options. In a notebook the defaults hold: change them here.
parser = argparse.ArgumentParser(description="Fit people who learn from rewards, all together.")
parser.add_argument("--simulated", action="store_true", help="fit simulated people instead")
parser.add_argument("--subjects", type=int, default=13, help="how many, fewest trials first")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for the results")
parser.add_argument("--quick", action="store_true", help="4 people, few draws: only to see that it runs")
options = parser.parse_args([] if "ipykernel" in sys.modules else None)
sampling = {"chains": 2, "warmup": 200, "draws": 800, "predictive_draws": 150}
if options.quick:
    options.subjects, sampling = 4, {"chains": 2, "warmup": 20, "draws": 20, "predictive_draws": 20}
# Chains run at the same time, each on a device of its own; JAX must hear of it first.
numpyro.set_host_device_count(sampling["chains"])

# %%
# The data
# --------
#
# Inputs (which pair), outcomes (the choice), feedback (the reward), and which trials are padding: what
# `ppl_buffer.datasets.read_trials` makes of a table of your own. Where the task is not at hand people are simulated.
try:
    trials = simulated_selection_task(options.seed) if options.simulated else selection_task()
except FileNotFoundError as error:
    print(f"The selection task is not here ({error}): simulated people are fitted.")
    trials = simulated_selection_task(options.seed)
trials = trials.select(np.sort(np.argsort(trials.trial_counts, kind="stable")[: options.subjects]))
print(f"{len(trials.subjects)} people, {trials.trial_counts.sum()} trials.")

# %%
# Do they learn?
# --------------
#
# Share of choices of the better symbol, by how often its pair was seen.
task = pb.simulators.NoisyQ()
labels = [f"rewarded {chance:.0%} against {1 - chance:.0%}" for chance in task.reward_probabilities]
options.out.mkdir(parents=True, exist_ok=True)
figure, axes = plt.subplots(1, 3, figsize=(11, 2.8), layout="constrained", sharey=True)
plots.plot_learning_curves(trials, cue="pair", cue_labels=labels, axes=axes)
figure.savefig(options.out / "data.png", dpi=110)

# %%
# The fit
# -------
#
# The likelihood is a network; people are draws from one population. `ppl_buffer.workflow.hierarchical.model` is the
# NumPyro model, and the page on hierarchies writes one by hand. The environment is the rule that rewards drawn choices:
# without it no data sets could be drawn.
net = pb.load("noisy_q", backend="jax")
print(net)
result = fit(net, trials, environment=task.environment, seed=options.seed, **sampling)

# %%
# Did it converge?
# ----------------
#
# Chains should overlap, and look like noise without a trend: here the median person's parameters.
print(f"R-hat at most {result.r_hat:.3f}, effective sample size at least {result.effective:.0f}, "
      f"divergences {result.diverging:.1%}; {result.seconds:.0f} s of sampling.")  # fmt: skip
figure, axes = plt.subplots(len(net.box), 2, figsize=(9, 1.55 * len(net.box) + 0.5), layout="constrained")
plots.plot_traces({name: result.draws(f"{name}_group") for name in net.box}, axes=axes)
figure.savefig(options.out / "posterior.png", dpi=110)

# %%
# What is the population like?
# ----------------------------
#
# The median person in natural units, and how much people differ, on the logistic scale that the trained range is mapped
# from.
result.posterior.to_netcdf(str(options.out / "posterior.nc"))
print(result.summary[result.summary.index.str.endswith(("_group", "_spread"))].to_string())

# %%
# How do people differ?
# ---------------------
#
# Everybody's learning rate, sorted: median, 50 % and 90 % interval, and the group's across.
figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
everybody = result.draws("alpha").reshape(-1, len(trials.subjects))
plots.plot_subjects(
    everybody, group=result.draws("alpha_group"), labels=trials.subjects, name="learning rate", axes=axes
)
figure.savefig(options.out / "people.png", dpi=110)

# %%
# Do data sets of the fitted model look like the people?
# ------------------------------------------------------
#
# The learning curves from above over data sets drawn from the posterior: 50 and 90 % of them are in the shades, and
# 95 % of whole curves between the dashed lines. Real people, 13 or more of them together, prefer at first the worse
# symbol of the hardest pair, which this model has no way to do.
figure, axes = plt.subplots(1, 3, figsize=(11, 3.1), layout="constrained", sharey=True)
plots.plot_learning_curves(trials, result.replicated, cue="pair", cue_labels=labels, axes=axes)
figure.savefig(options.out / "learning_curves.png", dpi=110)
print(f"Written to {options.out}/: posterior.nc, data.png, posterior.png, people.png, learning_curves.png.")
