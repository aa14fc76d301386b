"""The same model in Pyro: NUTS and SVI
====================================

People who learn from rewards, fitted in Pyro: MCMC for one of them, variational inference for all.

28 people chose between the symbols of three pairs and learned from rewards which is the better one. The model is
Q-learning with learning noise, whose likelihood nobody can write down; the network ``noisy_q`` has learned it, and
stands in the model as any other distribution would. What one learns here:

- `subject_model` and `group_model` are ordinary Pyro models: priors, plates, ``pyro.sample(..., obs=...)``.
- ``net.observe`` computes once what the parameters do not change; every gradient step is then several times faster.
- NUTS samples one person's posterior, with R-hat and effective sample sizes from ArviZ.
- SVI fits the same person, and everybody at once with a group distribution for each parameter. Parameters are
  non-centred and stay inside the range that the network was trained on. ``--batch`` takes that many people a step.
- The figure compares the three: how close SVI's normal distribution comes to NUTS, and what one person's estimate
  gains from the others.
- SVI is quick and leans to too little spread between people, as independent normal distributions do: where the
  group's spread matters, sample it, as ``selection_task.py`` does.

Run it with ``python examples/selection_task_pyro.py``; ``--quick`` shows the same in a minute, with too few steps for
conclusions. The data come from the folder in ``PPL_BUFFER_DATA`` or from their source; where neither can be had,
people are simulated.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import MCMC, NUTS, SVI, Trace_ELBO
from pyro.infer.autoguide import AutoLowRankMultivariateNormal, AutoNormal
from torch.distributions import biject_to
from tqdm import trange

import ppl_buffer as pb
from ppl_buffer.datasets import TrialData, selection_task
from ppl_buffer.pyro import JointPredictive

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # ArviZ announces its next major version on import
    import arviz as az

Draws = dict[str, torch.Tensor]


# %%
# The data
# --------
#
# Where the file is not at hand people are simulated.
def load_subjects(count: int | None, trials: int | None, seed: int) -> tuple[TrialData, dict[str, np.ndarray] | None]:
    """Data of the first people, cut to `trials` where given; where there are none, simulated people and the truth."""
    try:
        data, truth = selection_task(), None
    except (FileNotFoundError, ImportError) as error:
        print(f"Simulated people, since the data of real ones are not at hand: {error}\n")
        rng, simulator, size, length = np.random.default_rng(seed), pb.simulators.NoisyQ(), count or 28, trials or 180
        spread = {"alpha": (0.3, 0.1), "beta": (4.0, 1.5), "kappa": (0.3, 0.5), "zeta": (0.3, 0.1)}
        truth = {name: rng.normal(mean, sd, size) for name, (mean, sd) in spread.items()}
        truth = {name: np.clip(x, *simulator.priors[name].range()) for name, x in truth.items()}
        inputs = simulator.inputs(rng, size, length)
        simulated = simulator.simulate(rng, truth, inputs)
        data = TrialData(
            subjects=np.arange(size),
            trial_counts=np.full(size, length),
            inputs=inputs,
            outcomes={"choice": simulated["choice"]},
            feedback={"reward": simulated["reward"]},
            trial_mask=np.ones((size, length), dtype=bool),
        )
    subjects = slice(count)

    def cut(group: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: values[subjects, :trials] for name, values in group.items()}

    mask = data.trial_mask[subjects, :trials]
    part = TrialData(
        data.subjects[subjects], mask.sum(1), cut(data.inputs), cut(data.outcomes), cut(data.feedback), mask
    )
    return part, truth


# %%
# The models
# ----------
#
# Of one person, and of everybody.
def subject_model(net: Any, data: Any) -> None:
    """One person: the prior is that of the network's training."""
    params = {name: pyro.sample(name, prior) for name, prior in net.prior().items()}
    pyro.sample("choices", JointPredictive(net, data, params=params), obs=data.value)


def group_model(net: Any, data: Any, batch: int | None) -> None:
    """All people: each parameter has a group distribution on the unconstrained scale of the trained range."""
    subjects = data.batch_shape[0]
    # Normal(0, 1.5) before the logistic function is close to uniform after it.
    centres = {name: pyro.sample(f"{name}_centre", dist.Normal(0.0, 1.5)) for name in net.box}
    spreads = {name: pyro.sample(f"{name}_spread", dist.HalfNormal(1.0)) for name in net.box}
    with pyro.plate("subjects", subjects, subsample_size=batch) as index:
        # Non-centred: what is sampled is standard normal, whatever the group's spread.
        offsets = {name: pyro.sample(f"{name}_offset", dist.Normal(0.0, 1.0)) for name in net.box}
        params = to_params(net, centres, spreads, offsets)
        batch_data = data if batch is None else data[index]
        pyro.sample("choices", JointPredictive(net, batch_data, params=params), obs=batch_data.value)


def to_params(net: Any, centres: Draws, spreads: Draws, offsets: Draws) -> Draws:
    """Parameters in natural units, inside the range that the network was trained on."""
    params = {}
    for name, (low, high) in net.box.items():
        into_range = biject_to(dist.constraints.interval(low, high))
        params[name] = into_range(centres[name] + spreads[name] * offsets[name])
    return params


# %%
# NUTS and SVI
# ------------
def run_nuts(net: Any, data: Any, draws: int, warmup: int, chains: int, seed: int) -> dict[str, np.ndarray]:
    """Posterior draws of one person's parameters: dict name -> (chains, draws)."""
    samples = []
    for chain in range(chains):
        pyro.set_rng_seed(seed + chain)
        mcmc = MCMC(NUTS(subject_model, max_tree_depth=6), num_samples=draws, warmup_steps=warmup)
        mcmc.run(net, data)
        samples.append(mcmc.get_samples())
    return {name: np.stack([one[name].numpy() for one in samples]) for name in net.box}


def run_svi(model: Any, guide: Any, arguments: tuple, steps: int, rate: float, label: str) -> None:
    """Fit a guide, with a step size that falls to a tenth."""
    optimizer = pyro.optim.ClippedAdam({"lr": rate, "lrd": 0.1 ** (1 / steps)})
    svi = SVI(model, guide, optimizer, Trace_ELBO())
    with trange(steps, desc=label, mininterval=0.5) as bar:
        losses = []
        for _ in bar:
            losses.append(svi.step(*arguments))
            bar.set_postfix(loss=f"{np.mean(losses[-50:]):.1f}", refresh=False)


@torch.no_grad()
def draw_guide(guide: Any, arguments: tuple, draws: int) -> Draws:
    """Draws from a guide: dict name -> (draws, ...)."""
    with pyro.plate("draws", draws, dim=-2):
        return guide(*arguments)


def fit_subject(net: Any, data: Any, steps: int, draws: int, seed: int) -> Draws:
    """One person by SVI with a correlated normal guide: dict name -> (draws,)."""
    pyro.set_rng_seed(seed)
    pyro.clear_param_store()
    guide = AutoLowRankMultivariateNormal(subject_model, init_scale=0.1)
    run_svi(subject_model, guide, (net, data), steps, 0.03, "SVI, one person")
    with torch.no_grad():
        samples = [guide(net, data) for _ in range(draws)]
    return {name: torch.stack([sample[name] for sample in samples]) for name in net.box}


def fit_group(net: Any, data: Any, batch: int | None, steps: int, draws: int, seed: int) -> tuple[Draws, Draws]:
    """Everybody by SVI: people's parameters, dict name -> (draws, subjects), and a typical person's, (draws,)."""
    pyro.set_rng_seed(seed)
    pyro.clear_param_store()
    subjects = data.batch_shape[0]
    batch = batch if batch is not None and batch < subjects else None

    def plates(net: Any, data: Any, batch: int | None) -> Any:
        # Guide and model take the same people at each step.
        return pyro.plate("subjects", subjects, subsample_size=batch)

    guide = AutoNormal(group_model, init_scale=0.1, create_plates=plates)
    run_svi(group_model, guide, (net, data, batch), steps, 0.03, "SVI, everybody")
    sample = draw_guide(guide, (net, data, None), draws)
    centres, spreads, offsets = (
        {name: sample[f"{name}_{part}"] for name in net.box} for part in ("centre", "spread", "offset")
    )
    typical = {name: torch.zeros(()) for name in net.box}
    group = {name: x.flatten() for name, x in to_params(net, centres, spreads, typical).items()}
    return to_params(net, centres, spreads, offsets), group


# %%
# A table and a picture
# ---------------------
def print_group(subjects: Draws, group: Draws, data: TrialData) -> None:
    """Posterior means of everybody and of the group."""
    print("\nPosterior means (SVI with everybody); the last line is a person at the centre of the group, +- its sd\n")
    print(f"{'subject':>8} {'trials':>6}" + "".join(f"{name:>8}" for name in subjects))
    for index, (subject, trials) in enumerate(zip(data.subjects, data.trial_counts, strict=True)):
        numbers = "".join(f"{float(x[:, index].mean()):8.2f}" for x in subjects.values())
        print(f"{subject:>8} {trials:>6}{numbers}")
    print(f"{'group':>8} {'':>6}" + "".join(f"{float(x.mean()):8.2f}" for x in group.values()))
    print(f"{'+-':>8} {'':>6}" + "".join(f"{float(x.std()):8.2f}" for x in group.values()) + "\n")


def plot(
    net: Any, nuts: dict[str, np.ndarray], alone: Draws, together: Draws, truth: dict[str, float] | None, path: Path
) -> None:
    """One panel a parameter: the posterior by NUTS, by SVI, and by SVI with everybody."""
    labels = {
        "alpha": "learning rate alpha",
        "beta": "inverse temperature beta",
        "kappa": "stickiness kappa",
        "zeta": "learning noise zeta",
    }
    figure, axes = plt.subplots(1, len(net.box), figsize=(3.1 * len(net.box), 2.9), layout="constrained")
    for axis, (name, (low, high)) in zip(axes, net.box.items(), strict=True):
        bins = np.linspace(low, high, 26)
        axis.hist(nuts[name].ravel(), bins, density=True, color="0.8", label="NUTS, alone")
        for draws, colour, label in ((alone, "C0", "SVI, alone"), (together, "C1", "SVI, with everybody")):
            axis.hist(
                draws[name].numpy(), bins, density=True, histtype="step", color=colour, linewidth=1.5, label=label
            )
        if truth is not None:
            axis.axvline(truth[name], color="black", linestyle="--", linewidth=1, label="truth")
        axis.set(xlabel=labels.get(name, name), yticks=[], xlim=(low, high))
        axis.spines[["left", "right", "top"]].set_visible(False)
    axes[0].set_ylabel("posterior density")
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=len(names), frameon=False)
    figure.savefig(path, dpi=150)


# %%
# Options
# -------
#
# On a command line these are its options. In a notebook the defaults hold: change them here.
parser = argparse.ArgumentParser(description="The same model in Pyro: NUTS and SVI.")
parser.add_argument("--checkpoint", default="noisy_q", help="name in the zoo, or path, of the network")
parser.add_argument("--subject", type=int, default=0, help="whom to fit with NUTS: position in the data")
parser.add_argument("--subjects", type=int, help="fit the first so many people; default: all")
parser.add_argument("--batch", type=int, help="people a step of SVI; default: everybody")
parser.add_argument("--draws", type=int, default=200, help="draws of NUTS a chain")
parser.add_argument("--warmup", type=int, default=100, help="warm-up steps of NUTS")
parser.add_argument("--chains", type=int, default=2)
parser.add_argument("--steps", type=int, default=600, help="steps of SVI")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--out", type=Path, default=Path("demo"), help="folder of the figure")
parser.add_argument("--quick", action="store_true", help="few people, trials and steps: does it run?")
options = parser.parse_args([] if "ipykernel" in sys.modules else None)
options.trials = None
if options.quick:
    options.subjects, options.trials = min(options.subjects or 5, 5), 30
    options.draws, options.warmup, options.steps = 15, 15, 40

# %%
# Network and trials
# ------------------
net = pb.load(options.checkpoint, backend="torch")
trials, truth = load_subjects(options.subjects, options.trials, options.seed)
if not 0 <= options.subject < len(trials.subjects):
    raise SystemExit(f"--subject: expected a number from 0 to {len(trials.subjects) - 1}, got {options.subject}")
data = net.observe(trials.inputs, trials.outcomes["choice"], feedback=trials.feedback, trial_mask=trials.trial_mask)
# A person's own trials, without the padding that the others made necessary.
count, one = trials.trial_counts[options.subject], options.subject
subject = net.observe(
    {name: values[one, :count] for name, values in trials.inputs.items()},
    trials.outcomes["choice"][one, :count],
    feedback={name: values[one, :count] for name, values in trials.feedback.items()},
)

# %%
# One person, by NUTS
# -------------------
print(f"Person {trials.subjects[one]}, {count} trials")
nuts = run_nuts(net, subject, options.draws, options.warmup, options.chains, options.seed)
print(az.summary(az.convert_to_dataset(nuts), kind="all").to_string(), "\n")

# %%
# The same person, and everybody, by SVI
# --------------------------------------
alone = fit_subject(net, subject, options.steps, 1000, options.seed)
subjects, group = fit_group(net, data, options.batch, options.steps, 1000, options.seed)
print_group(subjects, group, trials)

# %%
# What one person's estimate gains from the others
# ------------------------------------------------
options.out.mkdir(parents=True, exist_ok=True)
path = options.out / "selection_task_pyro.png"
together = {name: draws[:, one] for name, draws in subjects.items()}
plot(net, nuts, alone, together, None if truth is None else {name: x[one] for name, x in truth.items()}, path)
print(f"Figure: {path}")
