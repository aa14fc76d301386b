"""Learners some of whose trials are lost: divergence from the exact likelihood, lost trials read as such, and deleted.

Two direct likelihoods of `ForgettingQ`, trained alike for as many steps: one that reads which outcomes and feedback are
missing (`Config(likelihood_missing=True)`), and one that does not. People are drawn from the prior, and choice and
reward of a share of their trials are lost by chance. The exact probability of each choice given what was seen before
it sums over all choices and rewards that the lost trials may have had, with the learner's values after each of them,
and with the bandit's better arm, which nobody sees, as a hidden Markov chain (Rabiner 1989, Proc IEEE 77, 257-286).

Measured: Kullback-Leibler divergence from these probabilities to a network's, in nats a trial that was seen: of trials
read as lost, of lost trials deleted (`trial_mask`), and, where nothing is lost, of the network that cannot read it. The
bar was stated before measuring.

    python benchmarks/missing_history.py [--quick] [--out DIR]
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import harness
import numpy as np
import torch
from scipy import special
from tqdm.auto import tqdm

import ppl_buffer as pb
from ppl_buffer.files import to_numpy
from ppl_buffer.network.network import Network
from ppl_buffer.predictive import density
from ppl_buffer.predictive.query import Query

Named = dict[str, np.ndarray]
WIDTH, STEPS, LENGTHS = 32, 8000, (8, 48)
SUBJECTS, TRIALS, SHARES = 300, 40, (0.0, 0.05, 0.2)
QUICK = (20, 7, 12)
# Bar: nats a trial.
MOST = 0.001
READS, OTHER = "reads what is missing", "does not"


def exact(simulator: pb.simulators.ForgettingQ, params: dict[str, float], data: Named, lost: np.ndarray) -> np.ndarray:
    """Probability of choice 1 on each trial given what was seen before it, (trials,).

    Args:
        simulator: whose bandit gave the rewards.
        params: of one person.
        data: ``choice`` and ``reward``, (trials,).
        lost: (trials,) bool.
    """
    better = np.array([1 - simulator.environment.reward_probability, simulator.environment.reward_probability])
    change = simulator.environment.reversal_probability
    # A row for each history that is possible: the two values, the last choice as -1, 0 or 1, and the probability of
    # the row together with arm 0 or arm 1 being the better one.
    values, last, weight = np.full((1, 2), 0.5), np.zeros(1), np.full((1, 2), 0.5)
    out = np.empty(len(lost))
    for trial, unseen in enumerate(lost):
        upper = special.expit(params["beta"] * (values[:, 1] - values[:, 0]) + params["perseveration"] * last)
        out[trial] = upper @ weight.sum(1)
        rows = []
        for choice in (0, 1) if unseen else (int(data["choice"][trial]),):
            for reward in (0.0, 1.0) if unseen else (float(data["reward"][trial]),):
                learnt = values.copy()
                error = reward - learnt[:, choice]
                learnt[:, choice] += np.where(error > 0, params["alpha_positive"], params["alpha_negative"]) * error
                learnt[:, 1 - choice] += params["forgetting"] * (0.5 - learnt[:, 1 - choice])
                # Columns: the better arm is 0, or 1.
                rewarded = better if choice else better[::-1]
                chance = rewarded if reward else 1 - rewarded
                made = upper if choice else 1 - upper
                rows.append((learnt, np.full(len(learnt), 2.0 * choice - 1), weight * made[:, None] * chance))
        values, last, weight = (np.concatenate(parts) for parts in zip(*rows, strict=True))
        weight = weight / weight.sum()
        weight = (1 - change) * weight + change * weight[:, ::-1]
    return out


def parents_of(rng: np.random.Generator, weight: np.ndarray) -> np.ndarray | None:
    """Systematic resampling of particles of these weights; None where they are even enough to go on with."""
    particles = len(weight)
    if (weight**2).sum() * particles <= 2:
        return None
    places = (rng.random() + np.arange(particles)) / particles
    return np.searchsorted(weight.cumsum(), places).clip(max=particles - 1)


def probabilities(net: Network, inputs: Named, params: Named, data: Named, lost: np.ndarray, how: str) -> np.ndarray:
    """A network's probability of choice 1 on each trial, (subjects, trials)."""
    choice, reward = (data[name].astype(np.float32) for name in ("choice", "reward"))
    mask, missing = None, None
    if how == "deleted":
        mask = ~lost
    elif lost.any():
        choice, reward = (np.where(lost, np.nan, x).astype(np.float32) for x in (choice, reward))
        missing = pb.Missing()
    value = torch.as_tensor(choice)
    query = Query.build(
        net, inputs, trials=lost.shape[1], params=params, feedback={"reward": torch.as_tensor(reward)}, trial_mask=mask,
        missing=missing, likelihood="direct", outside="ignore",
    )  # fmt: skip
    return to_numpy(density.one_step_probabilities(query, value))[..., 1].astype(float)


def divergence(right: np.ndarray, probability: np.ndarray, seen: np.ndarray) -> dict[str, float]:
    """Mean Kullback-Leibler divergence of a choice that was seen, in nats, and its standard error over subjects."""
    by_trial = special.rel_entr(right, probability) + special.rel_entr(1 - right, 1 - probability)
    by_subject = (by_trial * seen).sum(1) / seen.sum(1)
    return {"nats": float(by_subject.mean()), "error": float(by_subject.std(ddof=1) / np.sqrt(len(by_subject)))}


def measure(nets: dict[str, Network], subjects: int, trials: int) -> list[dict[str, object]]:
    """Divergence of each way to treat lost trials, by their share."""
    simulator, rng, rows = pb.simulators.ForgettingQ(), np.random.default_rng(0), []
    params = simulator.prior(rng, subjects)
    data = simulator.simulate(rng, params, {}, trials)
    ranks = rng.random((subjects, trials)).argsort(1).argsort(1)
    with tqdm(total=subjects * len(SHARES), unit="subject", desc="exact probabilities") as bar:
        for share in SHARES:
            lost = ranks < round(share * trials)
            right = np.empty(lost.shape)
            for subject in range(subjects):
                one = {name: float(x[subject]) for name, x in params.items()}
                right[subject] = exact(simulator, one, {name: x[subject] for name, x in data.items()}, lost[subject])
                bar.update()
            ways = {"read as lost": (READS, "lost"), "deleted": (READS, "deleted")}
            ways = ways if share else {"nothing lost": (READS, "lost"), f"network that {OTHER}": (OTHER, "lost")}
            for way, (which, how) in ways.items():
                figures = divergence(right, probabilities(nets[which], {}, params, data, lost, how), ~lost)
                rows.append({"lost": share, "way": way, **figures})
    return rows


def show(reference: str, rows: Sequence[Mapping[str, Any]], most: float) -> list[dict[str, Any]]:
    """Print divergences from a reference, by share and way, and the bars, which are returned."""
    harness.print_table(
        f"Divergence from {reference}",
        ["lost", "way", "nats", "error"],
        [[f"{row['lost']:.0%}", row["way"], row["nats"], row["error"]] for row in rows],
    )
    bars = [
        harness.bar(f"divergence with {row['lost']:.0%} lost, nats a trial", row["nats"], most=most)
        for row in rows
        if row["way"] in ("nothing lost", "read as lost")
    ]
    harness.print_bars(bars)
    return bars


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, simulate, compare, print, write."""
    options = harness.parse(__doc__, arguments)
    subjects, trials, steps = QUICK if options.quick else (SUBJECTS, TRIALS, STEPS)
    nets, trained = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name, flag in ((READS, True), (OTHER, False)):
            nets[name] = pb.train(
                pb.simulators.ForgettingQ(), pb.Config(depth=0, likelihood_width=WIDTH, likelihood_missing=flag),
                steps=steps, trials=LENGTHS, workers=0, out=Path(folder) / str(flag),
            )  # fmt: skip
            stage = nets[name].record.stages[-1]
            trained[name] = {
                "steps": stage.step,
                "seconds": stage.seconds,
                "missing_fraction": stage.options.get("missing_fraction"),
                "estimated error": nets[name].estimated_error.nats_per_trial,
            }
    rows = measure(nets, subjects, trials)
    bars = show(f"the exact likelihood, nats a trial; {subjects} subjects, {trials} trials", rows, MOST)
    results = {"subjects": subjects, "trials": trials, "networks": trained, "rows": rows, "bars": bars}
    harness.write_results("missing_history", results, options.out)


if __name__ == "__main__":
    main()
