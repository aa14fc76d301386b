"""Noisy Q-learners some of whose trials are lost: divergence of the shipped network from a particle filter.

`noisy_q` reads which choices and rewards were lost. Learners are drawn from the prior, in tasks of all kinds that it
was trained in (`NoisyQTasks`), and choice and reward of a share of their trials are lost by chance. The reference is
the probability of each choice given what was seen before it, by a bootstrap particle filter (Gordon, Salmond & Smith
1993, IEE Proc F 140, 107-113) whose particles are a task, the learner's values and last choice, and whatever was lost.

Measured: Kullback-Leibler divergence from these probabilities to the network's, in nats a trial that was seen, of
trials read as lost and of lost trials deleted (`trial_mask`); and of one filter from another with other random numbers,
which is twice what the reference's own noise adds. The bar is that of complete data on all kinds of tasks.

    python benchmarks/noisy_q_missing.py [--checkpoint noisy_q] [--quick] [--out DIR]
"""

from __future__ import annotations

from collections.abc import Sequence

import harness
import numpy as np
from missing_history import Named, divergence, parents_of, probabilities, show
from scipy import special
from tqdm.auto import tqdm

import ppl_buffer as pb
from ppl_buffer.network.network import Network

SUBJECTS, TRIALS, SHARES, PARTICLES, SEED = 100, 120, (0.0, 0.05, 0.2), 2**14, 70
QUICK = (3, 12, 2**8)
# Bar: nats a trial.
MOST = 0.0015


def filtered(
    rng: np.random.Generator, params: dict[str, float], pair: np.ndarray, data: Named, lost: np.ndarray, particles: int
) -> np.ndarray:
    """Probability of choice 1 on each trial given what was seen before it, (trials,).

    Args:
        rng: of the filter.
        params: of one person.
        pair: (trials,), which pair is shown.
        data: ``choice`` and ``reward``, (trials,).
        lost: (trials,) bool.
        particles: how many.
    """
    task = pb.simulators.NoisyQTasks().tasks(rng, particles)
    swapped, values = (
        np.zeros((particles, task.probabilities.shape[1]), dtype=int),
        np.full(task.probabilities.shape, 0.5),
    )
    last, weight, rows = np.zeros(particles), np.full(particles, 1 / particles), np.arange(particles)
    out = np.empty(len(lost))
    state = [task.probabilities, task.reversal, task.unrewarded, swapped, values, last]
    for trial, (shown, unseen) in enumerate(zip(pair, lost, strict=True)):
        probabilities, reversal, unrewarded, swapped, values, last = state
        swapped[:, shown] ^= rng.random(particles) < reversal
        upper = special.expit(params["beta"] * (values[:, shown, 1] - values[:, shown, 0]) + params["kappa"] * last)
        out[trial] = upper @ weight
        if unseen:
            choice = (rng.random(particles) < upper).astype(int)
        else:
            choice = np.full(particles, int(data["choice"][trial]))
            weight = weight * np.where(choice == 1, upper, 1 - upper)
        rewarded = probabilities[rows, shown, choice ^ swapped[:, shown]]
        if unseen:
            reward = np.where(rng.random(particles) < rewarded, 1.0, unrewarded)
        else:
            reward = np.full(particles, float(data["reward"][trial]))
            weight = weight * np.where(reward == 1, rewarded, (1 - rewarded) * (reward == unrewarded))
        error = reward - values[rows, shown, choice]
        noise = rng.standard_normal(particles)
        values[rows, shown, choice] += params["alpha"] * error + params["zeta"] * np.abs(error) * noise
        last[:] = 2.0 * choice - 1
        weight = weight / weight.sum()
        parents = parents_of(rng, weight)
        if parents is not None:
            state, weight = [each[parents] for each in state], np.full(particles, 1 / particles)
    return out


def measure(net: Network, subjects: int, trials: int, particles: int) -> list[dict[str, object]]:
    """Divergence of each way to treat lost trials, by their share."""
    simulator, rng, rows = pb.simulators.NoisyQTasks(), np.random.default_rng(SEED), []
    params, inputs = simulator.prior(rng, subjects), simulator.inputs(rng, subjects, trials)
    data = simulator.simulate(rng, params, inputs)
    ranks = rng.random((subjects, trials)).argsort(1).argsort(1)
    with tqdm(total=subjects * len(SHARES), unit="subject", desc="particle filters") as bar:
        for share in SHARES:
            lost = ranks < round(share * trials)
            right, again = np.empty(lost.shape), np.empty(lost.shape)
            for subject in range(subjects):
                one = {name: float(x[subject]) for name, x in params.items()}
                seen = inputs["pair"][subject], {name: x[subject] for name, x in data.items()}, lost[subject]
                right[subject] = filtered(np.random.default_rng([SEED, subject, 0]), one, *seen, particles)
                again[subject] = filtered(np.random.default_rng([SEED, subject, 1]), one, *seen, particles)
                bar.update()
            for way in ("read as lost", "deleted") if share else ("nothing lost",):
                by_network = probabilities(net, inputs, params, data, lost, way)
                rows.append({"lost": share, "way": way, **divergence(right, by_network, ~lost)})
            rows.append({"lost": share, "way": "the filter, again", **divergence(right, again, ~lost)})
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate, compare, print, write."""
    options = harness.parse(__doc__, arguments, checkpoint="noisy_q")
    sizes = QUICK if options.quick else (SUBJECTS, TRIALS, PARTICLES)
    net = pb.load(options.checkpoint, backend="torch")
    rows = measure(net, *sizes)
    bars = show(f"a particle filter, nats a trial; {sizes[0]} subjects, {sizes[1]} trials", rows, MOST)
    results = {"subjects": sizes[0], "trials": sizes[1], "particles": sizes[2], "rows": rows, "bar": MOST, "bars": bars}
    harness.write_results("noisy_q_missing", results, options.out)


if __name__ == "__main__":
    main()
