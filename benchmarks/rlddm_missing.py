"""Learners by diffusion some of whose trials are lost: divergence of the shipped network from a particle filter.

`rlddm` reads which choices, times and rewards were lost. Learners are drawn from the prior, and all three are lost of a
share of their trials by chance. The reference is the density of each response given what was seen before it, by a
bootstrap particle filter (Gordon, Salmond & Smith 1993, IEE Proc F 140, 107-113) whose particles are the learner's
values and whatever was lost: a lost time tells nothing more, since nothing is learnt from times.

Measured, in nats a trial that was seen, of trials read as lost and of lost trials deleted (`trial_mask`): the
Kullback-Leibler divergence from the reference's probability of the choice to the network's; and the reference's log
density of choice and time less the network's, which has the same mean as the divergence of both, but the noise of the
responses that were drawn. The bar, on the first, is that of complete data.

    python benchmarks/rlddm_missing.py [--checkpoint rlddm] [--quick] [--out DIR]
"""

from __future__ import annotations

from collections.abc import Sequence

import harness
import numpy as np
import torch
from missing_history import Named, divergence, parents_of, show
from tqdm.auto import tqdm

import ppl_buffer as pb
from ppl_buffer.files import to_numpy
from ppl_buffer.network.network import Network
from ppl_buffer.predictive import density
from ppl_buffer.predictive.query import Query
from ppl_buffer.simulators.drift_diffusion import choice_probability, decision_log_density

SUBJECTS, TRIALS, SHARES, PARTICLES, SEED = 100, 120, (0.0, 0.05, 0.2), 2**12, 71
QUICK = (3, 12, 2**7)
# Bar: nats a trial.
MOST = 0.001


def filtered(
    rng: np.random.Generator,
    params: dict[str, float],
    rewarded: np.ndarray,
    pair: np.ndarray,
    data: Named,
    lost: np.ndarray,
    particles: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Of each trial given what was seen before it: probability of choice 1, and log density of the response, (trials,).

    Args:
        rng: of the filter.
        params: of one person.
        rewarded: (pairs,), probability that choice 1 is rewarded; of choice 0 it is the complement.
        pair: (trials,), which pair is shown.
        data: ``choice``, ``rt`` and ``reward``, (trials,).
        lost: (trials,) bool.
        particles: how many.
    """
    values, weight, rows = (
        np.full((particles, len(rewarded), 2), 0.5),
        np.full(particles, 1 / particles),
        np.arange(particles),
    )
    probability, log_density = np.empty(len(lost)), np.full(len(lost), np.nan)
    for trial, (shown, unseen) in enumerate(zip(pair, lost, strict=True)):
        drift = params["scaling"] * (values[:, shown, 1] - values[:, shown, 0])
        upper = choice_probability(drift, np.full(particles, params["boundary"]), 0.5)
        probability[trial] = upper @ weight
        if unseen:
            choice = (rng.random(particles) < upper).astype(int)
            chance = np.where(choice == 1, rewarded[shown], 1 - rewarded[shown])
            reward = (rng.random(particles) < chance).astype(float)
        else:
            choice, reward = np.full(particles, int(data["choice"][trial])), float(data["reward"][trial])
            time = np.full(particles, data["rt"][trial] - params["non_decision_time"])
            made = decision_log_density(time, drift, np.full(particles, params["boundary"]), 0.5, choice)
            most = made.max()
            weight = weight * np.exp(made - most)
            log_density[trial] = most + np.log(weight.sum())
            weight = weight / weight.sum()
        error = reward - values[rows, shown, choice]
        values[rows, shown, choice] += np.where(error > 0, params["alpha_positive"], params["alpha_negative"]) * error
        parents = parents_of(rng, weight)
        if parents is not None:
            values, weight = values[parents], np.full(particles, 1 / particles)
    return probability, log_density


def by_network(
    net: Network, inputs: Named, params: Named, data: Named, lost: np.ndarray, deleted: bool
) -> tuple[np.ndarray, np.ndarray]:
    """What `filtered` gives, by a network: each (subjects, trials)."""
    shown = {name: np.where(lost & (not deleted), np.nan, x).astype(np.float32) for name, x in data.items()}
    query = Query.build(
        net, inputs, trials=lost.shape[1], params=params, feedback={"reward": torch.as_tensor(shown["reward"])},
        trial_mask=~lost if deleted else None, missing=pb.Missing() if lost.any() and not deleted else None,
        likelihood="direct", outside="ignore",
    )  # fmt: skip
    value = torch.as_tensor(np.stack([shown["choice"], shown["rt"]], -1))
    # Single precision rounds what is nearly certain to certainty.
    rounding = float(np.finfo(np.float32).eps)
    probability = to_numpy(density.one_step_probabilities(query, value))[..., 1].astype(float)
    return probability.clip(rounding, 1 - rounding), to_numpy(density.conditionals(query, value)).astype(float)


def difference(right: np.ndarray, network: np.ndarray, seen: np.ndarray) -> dict[str, float]:
    """Mean difference of log densities of a trial that was seen, in nats, and its standard error over subjects."""
    by_subject = np.where(seen, right - network, 0.0).sum(1) / seen.sum(1)
    return {"of both": float(by_subject.mean()), "its error": float(by_subject.std(ddof=1) / len(by_subject) ** 0.5)}


def measure(net: Network, subjects: int, trials: int, particles: int) -> list[dict[str, object]]:
    """Divergence of each way to treat lost trials, by their share."""
    simulator, rng, rows = pb.simulators.RLDriftDiffusion(), np.random.default_rng(SEED), []
    params, inputs = simulator.prior(rng, subjects), simulator.inputs(rng, subjects, trials)
    data = simulator.simulate(rng, params, inputs)
    rewarded = np.asarray(simulator.reward_probabilities)
    ranks = rng.random((subjects, trials)).argsort(1).argsort(1)
    with tqdm(total=subjects * len(SHARES), unit="subject", desc="particle filters") as bar:
        for share in SHARES:
            lost = ranks < round(share * trials)
            right, log_density = np.empty(lost.shape), np.empty(lost.shape)
            for subject in range(subjects):
                one = {name: float(x[subject]) for name, x in params.items()}
                seen = inputs["pair"][subject], {name: x[subject] for name, x in data.items()}, lost[subject]
                right[subject], log_density[subject] = filtered(
                    np.random.default_rng([SEED, subject]), one, rewarded, *seen, particles
                )
                bar.update()
            for way in ("read as lost", "deleted") if share else ("nothing lost",):
                probability, of_both = by_network(net, inputs, params, data, lost, way == "deleted")
                figures = divergence(right, probability, ~lost) | difference(log_density, of_both, ~lost)
                rows.append({"lost": share, "way": way, **figures})
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate, compare, print, write."""
    options = harness.parse(__doc__, arguments, checkpoint="rlddm")
    sizes = QUICK if options.quick else (SUBJECTS, TRIALS, PARTICLES)
    rows = measure(pb.load(options.checkpoint, backend="torch"), *sizes)
    bars = show(f"a particle filter, nats a choice; {sizes[0]} subjects, {sizes[1]} trials", rows, MOST)
    harness.print_table(
        "Log density of choice and time, less than the filter's, nats a trial", ["lost", "way", "nats", "error"],
        [[f"{row['lost']:.0%}", row["way"], row["of both"], row["its error"]] for row in rows],
    )  # fmt: skip
    results = {"subjects": sizes[0], "trials": sizes[1], "particles": sizes[2], "rows": rows, "bar": MOST, "bars": bars}
    results["about"] = "of the trials lost, choice, time and reward: KL of a choice that was seen"
    harness.write_results("rlddm_missing", results, options.out)


if __name__ == "__main__":
    main()
