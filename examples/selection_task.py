"""Learning from rewards: a hierarchical fit
=========================================

Fit people who learn from rewards, all together, with a likelihood that nobody can write down.

28 people chose between the symbols of three pairs and learned from rewards (the probabilistic selection task). The
model is Q-learning with learning noise, whose likelihood has no formula; the network `noisy_q` supplies it. NUTS fits
a hierarchical model, ArviZ keeps the posterior, and data sets drawn from it are laid over the people's learning.

::

    python examples/selection_task.py                   # 13 people, two chains, minutes
    python examples/selection_task.py --subjects all    # all 28, a quarter of an hour
    python examples/selection_task.py --quick           # a few people and draws: does it run?

Results go to demo/: posterior.nc, posterior.png, learning_curves.png.
"""

from __future__ import annotations

import argparse
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import random
from numpyro.infer import MCMC, NUTS, init_to_median
from scipy.optimize import minimize

import ppl_buffer as pb
from ppl_buffer.arviz import EXTRA_FIELDS, from_mcmc
from ppl_buffer.datasets import TrialData, selection_task
from ppl_buffer.numpyro import JointPredictive

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # ArviZ announces its next major version on import
    import arviz as az

MEANING = {
    "alpha": "learning rate",
    "beta": "inverse temperature",
    "kappa": "stickiness (log-odds)",
    "zeta": "learning noise",
}
# Priors of the population, on the scale that `to_box` maps into the trained box. A mean of scale 1.5 covers the box
# nearly evenly. People do differ: a spread of exactly 0 is not plausible, and would be a hard place for a sampler.
MEAN_SCALE, SPREAD_MEDIAN, SPREAD_SCALE = 1.5, 0.5, 0.7
# All people did at least about this many trials; who went on after them had not learned well enough.
TRIALS_SHOWN = 120
# As many as two processor cores fit within five minutes: those who did 120 trials or fewer.
PEOPLE = 13

Arrays = dict[str, np.ndarray]


def to_box(net: Any, unconstrained: dict[str, Any]) -> dict[str, Any]:
    """Map numbers into the box that the network was trained on: the logistic function, short of the very bounds."""
    inside = {name: 1e-4 + (1 - 2e-4) * jax.nn.sigmoid(value) for name, value in unconstrained.items()}
    return {name: low + (high - low) * inside[name] for name, (low, high) in net.box.items()}


def model(net: Any, data: Any) -> None:
    """The hierarchical model of people whose trials `net.observe` has prepared."""
    people = data.batch_shape[0]
    means, persons = {}, {}
    for name in net.box:
        means[name] = numpyro.sample(f"{name}_mean", dist.Normal(0.0, MEAN_SCALE))
        spread = numpyro.sample(f"{name}_spread", dist.LogNormal(np.log(SPREAD_MEDIAN), SPREAD_SCALE))
        with numpyro.plate("person", people):
            offset = numpyro.sample(f"{name}_offset", dist.Normal(0.0, 1.0))
        persons[name] = means[name] + spread * offset
    for name, value in to_box(net, means).items():
        numpyro.deterministic(f"{name}_group", value)
    params = {name: numpyro.deterministic(name, value) for name, value in to_box(net, persons).items()}
    with numpyro.plate("person", people):
        numpyro.sample("choice", JointPredictive(net, data, params=params), obs=data.value)


def start(net: Any, data: Any) -> tuple[np.ndarray, np.ndarray]:
    """Mode and covariance of the group means if all people were alike: where NUTS starts and how it scales its steps.

    The group means are correlated and far better known than their prior says. A sampler finds that out from its own
    warm-up, at several hundred gradients; a fit of four numbers tells it for thirty.
    """

    @jax.jit
    @jax.value_and_grad
    def loss(mean: Any) -> Any:
        params = to_box(net, dict(zip(net.box, mean, strict=True)))
        likelihood = JointPredictive(net, data, params=params).log_prob(data.value).sum()
        return 0.5 * ((mean / MEAN_SCALE) ** 2).sum() - likelihood

    def evaluate(mean: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = loss(jnp.asarray(mean, jnp.float32))
        return float(value), np.asarray(gradient, dtype=float)

    mode = minimize(evaluate, np.zeros(len(net.box)), jac=True, method="BFGS", options={"gtol": 0.5}).x
    step = 0.05 * np.eye(len(mode))
    hessian = np.stack([(evaluate(mode + h)[1] - evaluate(mode - h)[1]) / 0.1 for h in step])
    eigenvalues, vectors = np.linalg.eigh(0.5 * (hessian + hessian.T))
    # Never wider than the prior, also where the curvature says nothing.
    return mode, (vectors / np.maximum(eigenvalues, MEAN_SCALE**-2)) @ vectors.T


def fit(net: Any, data: Any, args: argparse.Namespace) -> MCMC:
    """Draw from the posterior of `model` with NUTS, one chain a core."""
    people, names = data.batch_shape[0], list(net.box)
    mode, covariance = start(net, data)
    means, spreads, offsets = (tuple(f"{name}_{kind}" for name in names) for kind in ("mean", "spread", "offset"))
    kernel = NUTS(
        partial(model, net, data),
        init_strategy=init_to_median(num_samples=3),
        # People differ, so the group means are known less well than for people who are all alike.
        inverse_mass_matrix={
            means: jnp.asarray(2 * covariance, jnp.float32),
            spreads: jnp.full(len(names), 0.2),
            offsets: jnp.full(len(names) * people, 0.8),
        },
        dense_mass=[means],
        adapt_mass_matrix=False,
        step_size=0.3,
        target_accept_prob=args.target_accept,
        max_tree_depth=args.tree_depth,
    )
    # Chains begin apart from each other, or R-hat could not tell whether they have met.
    rng = np.random.default_rng(args.seed)
    first = dict(zip(means, rng.multivariate_normal(mode, 4 * covariance, args.chains).T, strict=True))
    first |= {name: np.log(SPREAD_MEDIAN) + SPREAD_SCALE * rng.standard_normal(args.chains) for name in spreads}
    first |= {name: rng.standard_normal((args.chains, people)) for name in offsets}
    if args.chains == 1:
        first = {name: value[0] for name, value in first.items()}
    mcmc = MCMC(kernel, num_warmup=args.warmup, num_samples=args.draws, num_chains=args.chains)
    init_params = {name: jnp.asarray(value, jnp.float32) for name, value in first.items()}
    mcmc.run(random.PRNGKey(args.seed), init_params=init_params, extra_fields=EXTRA_FIELDS)
    return mcmc


def learning_curves(pair: np.ndarray, choice: np.ndarray, exists: np.ndarray, width: int = 5) -> np.ndarray:
    """Share of choices of the better symbol, over people, by pair and by how often the pair was seen before.

    Args:
        pair: (people, trials).
        choice: (*S, people, trials).
        exists: (people, trials), which trials there are.
        width: presentations in a bin.

    Returns:
        (*S, pairs, bins).
    """
    curves = []
    for index in range(int(pair.max()) + 1):
        shown = (pair == index) & exists
        seen = np.cumsum(shown, axis=1) - 1
        bins = int(np.median(shown.sum(1))) // width
        cells = [shown & (seen // width == number) for number in range(bins)]
        curves.append(np.stack([choice[..., cell].mean(-1) for cell in cells], axis=-1))
    shortest = min(curve.shape[-1] for curve in curves)
    return np.stack([curve[..., :shortest] for curve in curves], axis=-2)


def plot_learning_curves(
    file: Path, observed: np.ndarray, replicated: np.ndarray, chances: Any, title: str, width: int = 5
) -> None:
    """Data against the 50 % and 90 % bands of data sets drawn from the posterior, one panel a pair."""
    centers = width * (np.arange(observed.shape[-1]) + 0.5)
    figure, axes = plt.subplots(1, len(observed), figsize=(10, 3.6), sharey=True, layout="constrained")
    for index, (axis, chance) in enumerate(zip(axes, chances, strict=True)):
        curves = replicated[:, index]
        for level, shade in ((90, 0.25), (50, 0.45)):
            low, high = np.percentile(curves, [50 - level / 2, 50 + level / 2], axis=0)
            axis.fill_between(centers, low, high, color="C0", alpha=shade, lw=0, label=f"model, {level} %")
        axis.plot(centers, observed[index], "o-", color="k", ms=4, lw=1, label="data")
        axis.axhline(0.5, color="0.6", lw=0.8, ls=":")
        axis.set(title=f"rewarded {chance:.0%} against {1 - chance:.0%}", xlabel="times this pair was seen (trials)")
    axes[0].set(ylabel="choices of the better symbol\n(share of all people)", ylim=(min(0.3, observed.min() - 0.03), 1))
    axes[0].legend(loc="lower right", frameon=False)
    figure.suptitle(title)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def plot_posterior(file: Path, net: Any, draws: Arrays, title: str) -> None:
    """Each parameter's group value, as a trace and as a histogram, and each person's mean and 90 % interval."""
    figure, axes = plt.subplots(len(net.box), 3, figsize=(11, 2.3 * len(net.box)), layout="constrained")
    for row, name in zip(axes, net.box, strict=True):
        group, persons = draws[f"{name}_group"], draws[name]
        for chain, values in enumerate(group):
            row[0].plot(values, lw=0.7, label=f"chain {chain + 1}")
            row[1].hist(values, bins=25, density=True, histtype="step", lw=1.5)
        row[0].set(ylabel=f"{name}\n{MEANING.get(name, '')}")
        persons = persons.reshape(-1, persons.shape[-1])
        persons = persons[:, np.argsort(persons.mean(0))]
        low, high = np.percentile(persons, [5, 95], axis=0)
        row[2].vlines(np.arange(persons.shape[1]), low, high, color="0.6", lw=2)
        row[2].plot(persons.mean(0), "o", color="k", ms=3)
        row[2].axhline(group.mean(), color="C0", lw=1)
        row[2].set(ylabel=name)
        row[1].set(yticks=[])
        row[1].sharex(row[1])
    axes[0, 0].legend(frameon=False, ncols=len(group), loc="upper right", fontsize="small")
    for axis, head in zip(
        axes[0], ("group value: trace", "group value: posterior density", "people: mean and 90 % interval"), strict=True
    ):
        axis.set_title(head)
    for axis, label in zip(axes[-1], ("draw after warm-up", "parameter value", "person, sorted"), strict=True):
        axis.set_xlabel(label)
    figure.suptitle(title)
    figure.savefig(file, dpi=100)
    plt.close(figure)


def simulate_people(task: pb.simulators.NoisyQ, seed: int) -> TrialData:
    """A data set of the same design: 28 people, 120 to 360 trials, drawn from a population."""
    rng = np.random.default_rng(seed)
    trial_counts = rng.permutation(np.repeat([120, 180, 240, 360], [13, 6, 4, 5]))
    people = len(trial_counts)

    def logistic(mean: float, spread: float, low: float, high: float) -> np.ndarray:
        return low + (high - low) / (1 + np.exp(-mean - spread * rng.standard_normal(people)))

    params = {
        "alpha": logistic(-1.8, 0.6, 0, 1),
        "beta": logistic(0.2, 0.6, 0, 10),
        "kappa": logistic(0.1, 0.4, -2, 2),
        "zeta": logistic(-1.5, 0.5, 0, 1),
    }
    inputs = task.inputs(rng, people, int(trial_counts.max()))
    drawn = task.simulate(rng, params, inputs)
    exists = np.arange(trial_counts.max()) < trial_counts[:, None]
    return TrialData(
        subjects=np.arange(1, people + 1),
        trial_counts=trial_counts,
        inputs=inputs,
        outcomes={"choice": drawn["choice"]},
        feedback={"reward": drawn["reward"]},
        trial_mask=exists,
    )


def some_people(data: TrialData, count: int) -> TrialData:
    """The `count` people with the fewest trials, in the order of the data."""
    chosen = np.sort(np.argsort(data.trial_counts, kind="stable")[:count])
    trials = int(data.trial_counts[chosen].max())

    def part(group: Arrays) -> Arrays:
        return {name: value[chosen, :trials] for name, value in group.items()}

    return TrialData(
        subjects=data.subjects[chosen],
        trial_counts=data.trial_counts[chosen],
        inputs=part(data.inputs),
        outcomes=part(data.outcomes),
        feedback=part(data.feedback),
        trial_mask=data.trial_mask[chosen, :trials],
    )


def arguments(argv: list[str] | None) -> argparse.Namespace:
    def people(text: str) -> int | None:
        if text != "all" and not (text.isdigit() and int(text) > 1):
            raise argparse.ArgumentTypeError(f"expected 'all' or a number of at least 2, got {text!r}")
        return None if text == "all" else int(text)

    parser = argparse.ArgumentParser(description="Fit people who learn from rewards, all together.")
    parser.add_argument("--checkpoint", default="noisy_q", help="a name of the zoo or a file (default: noisy_q)")
    parser.add_argument("--data", help="CSV file or folder of the selection task (default: see selection_task)")
    parser.add_argument("--simulated", action="store_true", help="fit simulated people instead")
    parser.add_argument(
        "--subjects", type=people, default=PEOPLE, help=f"'all', or how many, fewest trials first (default: {PEOPLE})"
    )
    parser.add_argument("--chains", type=int, default=2)
    parser.add_argument("--warmup", type=int, default=200, help="warm-up draws of each chain")
    parser.add_argument("--draws", type=int, default=350, help="kept draws of each chain")
    parser.add_argument("--replicates", type=int, default=200, help="data sets drawn from the posterior")
    parser.add_argument("--target-accept", type=float, default=0.8)
    parser.add_argument("--tree-depth", type=int, default=4, help="of NUTS: at most 2 ** depth - 1 gradients a draw")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for the results")
    parser.add_argument("--quick", action="store_true", help="4 people, few draws: only to see that it runs")
    args = parser.parse_args(argv)
    if args.quick:
        args.subjects, args.warmup, args.draws, args.replicates = 4, 20, 20, 20
    return args


def main(argv: list[str] | None = None) -> None:
    args = arguments(argv)
    began = time.perf_counter()
    numpyro.set_host_device_count(args.chains)
    task = pb.simulators.NoisyQ()
    net = pb.load(args.checkpoint, backend="jax")

    source = "28 people, probabilistic selection task"
    try:
        trials = simulate_people(task, args.seed) if args.simulated else selection_task(args.data)
    except (FileNotFoundError, ImportError) as error:
        print(f"The selection task is not here ({error}).")
        trials = simulate_people(task, args.seed)
        args.simulated = True
    if args.simulated:
        print("Simulated people of the same design are fitted: the results say nothing about real ones.")
        source = "simulated people"
    everybody = len(trials.subjects)
    if args.subjects is not None and args.subjects < everybody:
        trials = some_people(trials, args.subjects)
        print(f"Fitting the {args.subjects} of {everybody} people with the fewest trials; --subjects all takes all.")
    people = len(trials.subjects)
    source = source if people == everybody else f"{people} of {source}"
    counts = trials.trial_counts
    print(f"{people} people, {counts.min()} to {counts.max()} trials each, {counts.sum()} in all;")
    print(f"{args.chains} chains of {args.warmup} + {args.draws} draws.")

    data = net.observe(
        {"pair": trials.inputs["pair"]},
        trials.outcomes["choice"].astype(np.float32),
        feedback={"reward": trials.feedback["reward"]},
        trial_mask=trials.trial_mask,
    )
    mcmc = fit(net, data, args)
    jax.block_until_ready(mcmc.get_samples())
    sampled = time.perf_counter()

    names = list(net.box)
    labels = {"subject": trials.subjects, "trial": np.arange(1, data.trials + 1)}
    posterior = from_mcmc(mcmc, predictive_draws=0, coords=labels)
    by_chain = {name: np.asarray(value) for name, value in mcmc.get_samples(group_by_chain=True).items()}
    # Every person does the first trials again, at each of some posterior draws.
    shown = slice(0, min(TRIALS_SHOWN, data.trials))
    pair, exists = trials.inputs["pair"][:, shown], trials.trial_mask[:, shown]
    chosen = np.linspace(0, args.chains * args.draws - 1, min(args.replicates, args.chains * args.draws)).astype(int)
    draws = {name: by_chain[name].reshape(-1, people)[chosen] for name in names}
    again = pb.posterior_predictive(
        net, {"pair": pair}, draws, trial_mask=exists, environment=task.environment, seed=args.seed
    ).value

    args.out.mkdir(parents=True, exist_ok=True)
    posterior.to_netcdf(str(args.out / "posterior.nc"))
    plot_posterior(args.out / "posterior.png", net, by_chain, f"Posterior of noisy Q-learning: {source}")
    plot_learning_curves(
        args.out / "learning_curves.png",
        learning_curves(pair, trials.outcomes["choice"][:, shown], exists),
        learning_curves(pair, again, exists),
        task.reward_probabilities,
        f"Learning in the first {again.shape[-1]} trials: {source}",
    )
    report(posterior, mcmc, names, trials)
    print(f"Written to {args.out}/: posterior.nc, posterior.png, learning_curves.png. "
          f"{sampled - began:.0f} s to the last draw, {time.perf_counter() - began:.0f} s in all.")  # fmt: skip


def report(posterior: Any, mcmc: MCMC, names: list[str], trials: TrialData) -> None:
    """Print the table and what the sampler's diagnostics say."""
    few = trials.subjects[: min(3, len(trials.subjects))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of R-hat where there is one chain
        group = az.summary(posterior, var_names=[f"{name}_{kind}" for kind in ("group", "spread") for name in names])
        print("\nThe group: value of the median person in natural units, and spread on the unconstrained scale")
        print(group.to_string())
        print(f"\nPeople {', '.join(map(str, few))}")
        print(az.summary(posterior.posterior.sel(subject=few), var_names=names).to_string())
        parts = [f"{name}{kind}" for name in names for kind in ("", "_mean", "_spread")]
        whole = az.summary(posterior, var_names=parts)
    fields = mcmc.get_extra_fields()
    diverging, steps = float(np.mean(fields["diverging"])), float(np.mean(fields["num_steps"]))
    worst, least = float(whole["r_hat"].astype(float).max()), float(whole["ess_bulk"].astype(float).min())
    print(f"\nOver all {len(whole)} quantities: R-hat at most {worst:.3f}, effective sample size at least {least:.0f}. "
          f"Divergences {diverging:.1%}, {steps:.1f} gradients a draw.")  # fmt: skip
    if not (worst <= 1.02 and diverging < 0.01):
        print("R-hat should be at most 1.02, divergences below 1 %: take more --draws before reading the posterior.")


if __name__ == "__main__":
    main()
