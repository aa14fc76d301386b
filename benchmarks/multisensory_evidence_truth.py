"""Log evidence of the multisensory models on people's data, from the exact likelihood: the truth for other estimates.

For each of the 30 sets of 400 trials (`ppl_buffer.datasets.audiovisual_localization`) and for rho = 1 and 4/3, the
likelihood, an integral over the noise of both percepts by quadrature, is integrated over the seven parameters' prior in
two ways: importance sampling with a Student t fitted in tempered rounds that start from the prior, and bridge sampling
(Meng & Wong 1996) between that t and Markov chains, with draws of its own. Both work on scores under which the prior is
standard normal. What is reported is their mean, weighted by precision.

The prior is normalised. Hassan et al. (ICLR 2026, arXiv 2510.09477), appendix D.3.3, add a floor to its density beyond
the truncation, which their hard bounds never reach. If their densities inside are those of normal distributions that
are not truncated, their log evidences are lower than these by 7 log(1 / 0.9545) = 0.326 nats, for both models alike.

    python benchmarks/multisensory_evidence_truth.py [--data FOLDER] [--rows 0,1] [--parts runs/multisensory_truth]
    python benchmarks/multisensory_evidence_truth.py --simulated

With --simulated the sets are drawn from the models instead, 30 from each and scored under their own model, by
importance sampling alone. A posterior that one t does not cover shows in the standard error: importance sampling is
then done again with the t distributions of clusters of draws, which may follow a bend or several modes. Each of the 60
results is kept in a file of its own as soon as it is known; the same call goes on with the others, and writes
results/multisensory_evidence_truth.json or multisensory_simulated_truth.json when none is missing.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from harness import RESULTS, print_table, write_results
from scipy.cluster.vq import kmeans2
from scipy.special import gammaln, logsumexp
from tqdm import tqdm

import ppl_buffer as pb
from ppl_buffer.datasets import audiovisual_localization
from ppl_buffer.files import write_atomic

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.references.multisensory import NAMES, from_scores, log_likelihood  # noqa: E402

RHOS = {"1": 1.0, "4/3": 4 / 3}
# Fineness of the quadrature: `quadrature_change` says by how many nats a halving of the steps changes a log likelihood.
# Fitting a proposal needs less.
FINER, FINER_FIT = 0.24, 0.16
# Draws of a round of the fit, of importance sampling and of bridge sampling; Markov chains, their length and burn-in.
ROUND, DRAWS, CHAINS, LENGTH, BURN_IN = 360, 500, 20, 45, 10
# Importance sampling takes further rounds of draws until its standard error is this small, or there are so many.
ENOUGH, MOST_DRAWS = 0.1, 2500
# Rounds of the fit; a proposal that has not settled by then shows in the standard error.
MOST_ROUNDS = 20
# Where one t does not settle: draws of a round, the t distributions, and most draws in the end.
WIDE_ROUND, CLUSTERS, MOST_WIDE = 1500, 8, 20_000
# Of their mixture, the share of one t for all, and the fewest draws that make one more. A cluster is cut off at its
# neighbours, its t is wider.
SHARE_OF_ALL, FEWEST, WIDER = 0.15, 30, 1.3
FREEDOM = 5.0
DIMS = len(NAMES)
# Scores beyond which a parameter is within 1 % of the prior's mass of the edge of its range.
EDGE = 2.33
SETS, TRIALS = 30, 400


class Student:
    """A multivariate Student t: `location` (P,), `scale` (P, P) a Cholesky factor."""

    def __init__(self, location: np.ndarray, scale: np.ndarray) -> None:
        self.location, self.scale = location, scale

    def sample(self, rng: np.random.Generator, size: int) -> np.ndarray:
        spread = np.sqrt(FREEDOM / rng.chisquare(FREEDOM, (size, 1)))
        return self.location + spread * rng.standard_normal((size, DIMS)) @ self.scale.T

    def log_density(self, points: np.ndarray) -> np.ndarray:
        distance = (np.linalg.solve(self.scale, (points - self.location).T) ** 2).sum(0)
        constant = gammaln(0.5 * (FREEDOM + DIMS)) - gammaln(0.5 * FREEDOM) - 0.5 * DIMS * np.log(FREEDOM * np.pi)
        determinant = np.log(np.diagonal(self.scale)).sum()
        return constant - determinant - 0.5 * (FREEDOM + DIMS) * np.log1p(distance / FREEDOM)


class Many:
    """A mixture of Student ts: that of all draws, and one for each cluster of them."""

    def __init__(self, points: np.ndarray, whole: Student, rng: np.random.Generator) -> None:
        whitened = np.linalg.solve(whole.scale, (points - whole.location).T).T
        _, label = kmeans2(whitened, CLUSTERS, minit="++", rng=rng)
        clusters = [points[label == index] for index in range(CLUSTERS)]
        clusters = [cluster for cluster in clusters if len(cluster) >= FEWEST]
        count = sum(map(len, clusters))
        self.shares = np.array([SHARE_OF_ALL, *((1 - SHARE_OF_ALL) * len(cluster) / count for cluster in clusters)])
        self.parts = [whole]
        for cluster in clusters:
            covariance = WIDER * np.cov(cluster.T) + 1e-4 * np.eye(DIMS)
            self.parts.append(Student(cluster.mean(0), np.linalg.cholesky(covariance)))

    def sample(self, rng: np.random.Generator, size: int) -> np.ndarray:
        counts = rng.multinomial(size, self.shares)
        return np.concatenate([part.sample(rng, count) for part, count in zip(self.parts, counts, strict=True)])

    def log_density(self, points: np.ndarray) -> np.ndarray:
        return logsumexp([part.log_density(points) for part in self.parts], axis=0, b=self.shares[:, None])


def log_prior(points: np.ndarray) -> np.ndarray:
    """Of scores (n, P)."""
    return -0.5 * (points**2).sum(-1) - 0.5 * DIMS * np.log(2 * np.pi)


def fit(
    log_likelihood_of: Callable[[np.ndarray], np.ndarray], rng: np.random.Generator, many: bool = False
) -> Student | Many:
    """A proposal like the posterior: rounds of importance sampling, tempered until a fifth of the draws counts."""
    size = WIDE_ROUND if many else ROUND
    points = rng.standard_normal((size, DIMS))
    log_ratio = np.zeros(size)
    settled, power = 0, 0.0
    for turn in range(MOST_ROUNDS):
        total = log_likelihood_of(points)
        power = _temper(total, log_ratio, power)
        weight = np.exp(power * total + log_ratio - logsumexp(power * total + log_ratio))
        location = weight @ points
        covariance = (points - location).T @ ((points - location) * weight[:, None])
        scale = np.linalg.cholesky(covariance + 1e-4 * np.eye(DIMS))
        proposal: Student | Many = Student(location, scale)
        if many:
            proposal = Many(points[rng.choice(size, size, p=weight)], proposal, rng)
        settled += power == 1
        if settled == 2 or turn == MOST_ROUNDS - 1:
            break
        points = proposal.sample(rng, size)
        log_ratio = log_prior(points) - proposal.log_density(points)
    return proposal


def _temper(total: np.ndarray, log_ratio: np.ndarray, least: float) -> float:
    """Greatest power of the likelihood, at most 1, at which a fifth of the draws counts, or the `least` one.

    A power that could fall again would never end: of a proposal as narrow as the posterior few draws count towards the
    prior.
    """
    enough = len(total) / 5

    def effective(power: float) -> float:
        weight = power * total + log_ratio
        return float(np.exp(2 * logsumexp(weight) - logsumexp(2 * weight)))

    if effective(1.0) >= enough:
        return 1.0
    low, high = least, 1.0
    for _ in range(40):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if effective(middle) >= enough else (low, middle)
    return low


def markov(
    log_likelihood_of: Callable[[np.ndarray], np.ndarray], proposal: Student, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, float]:
    """Posterior draws by chains of Metropolis-Hastings steps, independent ones and random walks in turn.

    They start far apart: from draws of the proposal with its scale doubled.

    Returns:
        scores (chains, draws, P), their log likelihoods (chains, draws), and the share of independent steps accepted.
    """
    points = Student(proposal.location, 2 * proposal.scale).sample(rng, CHAINS)
    total = log_likelihood_of(points)
    kept_points, kept_total, accepted = [], [], []
    for step in range(BURN_IN + LENGTH):
        independent = step % 3 != 2
        if independent:
            new = proposal.sample(rng, CHAINS)
        else:
            new = points + 2.4 / np.sqrt(DIMS) * rng.standard_normal((CHAINS, DIMS)) @ proposal.scale.T
        new_total = log_likelihood_of(new)
        log_ratio = new_total - total + log_prior(new) - log_prior(points)
        if independent:
            log_ratio += proposal.log_density(points) - proposal.log_density(new)
        accept = np.log(rng.random(CHAINS)) < log_ratio
        points, total = np.where(accept[:, None], new, points), np.where(accept, new_total, total)
        if step >= BURN_IN:
            kept_points.append(points)
            kept_total.append(total)
            if independent:
                accepted.append(accept.mean())
    return np.stack(kept_points, 1), np.stack(kept_total, 1), float(np.mean(accepted))


def bridge(posterior: np.ndarray, proposed: np.ndarray, effective: float) -> float:
    """Log evidence from log (likelihood x prior / proposal) at posterior draws and at draws of the proposal."""
    share = effective / (effective + len(proposed))
    estimate = float(logsumexp(proposed) - np.log(len(proposed)))
    for _ in range(1000):
        # The optimal bridge, whose weights depend on the evidence itself.
        above = -np.logaddexp(np.log(share), np.log1p(-share) + estimate - proposed)
        below = -np.logaddexp(np.log(share) + posterior, np.log1p(-share) + estimate)
        new = logsumexp(above) - np.log(len(proposed)) - logsumexp(below) + np.log(posterior.size)
        done, estimate = abs(new - estimate) < 1e-8, float(new)
        if done:
            break
    return estimate


def effective_draws(chains: np.ndarray) -> float:
    """Effective number of draws of (chains, draws), from the spread of the chains' means."""
    between = chains.mean(1).var(ddof=1)
    return float(min(chains.size, chains.size * chains.var() / (chains.shape[1] * between)))


def simulated(name: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Inputs and responses (SETS, TRIALS) drawn from the model of one rho, parameters from its prior."""
    rng = np.random.default_rng([41, list(RHOS).index(name)])
    simulator = pb.simulators.MultisensoryCausalInference(rho=RHOS[name])
    params, inputs = simulator.prior(rng, SETS), simulator.inputs(rng, SETS, TRIALS)
    return inputs, simulator.simulate(rng, params, inputs)["response"]


def evidence(
    inputs: dict[str, np.ndarray],
    response: np.ndarray,
    rho: float,
    rng: np.random.Generator,
    bar: Any,
    both: bool = True,
) -> dict[str, Any]:
    """Log evidence of one set of trials by both methods and a summary of the posterior, or by importance alone."""
    calls = [0]

    def total(points: np.ndarray, finer: float = FINER) -> np.ndarray:
        params = from_scores(points)
        out = np.empty(len(points))
        for row in range(len(points)):
            one = {name: x[row] for name, x in params.items()}
            out[row] = log_likelihood(one, inputs, response, rho, finer).sum()
            calls[0] += 1
        bar.set_postfix(likelihoods=calls[0])
        return out

    def proposed(proposal: Student | Many) -> np.ndarray:
        points = proposal.sample(rng, DRAWS)
        return total(points) + log_prior(points) - proposal.log_density(points)

    def sampled(proposal: Student | Many, most: int) -> tuple[float, float, np.ndarray]:
        weights, error = np.empty(0), np.inf
        while error > ENOUGH and len(weights) < most:
            weights = np.concatenate([weights, proposed(proposal)])
            estimate = float(logsumexp(weights) - np.log(len(weights)))
            relative = np.exp(weights - estimate)
            error = float(relative.std() / np.sqrt(len(weights)))
        return estimate, error, relative

    def fitted(many: bool = False) -> Student | Many:
        return fit(lambda points: total(points, FINER_FIT), rng, many)

    proposal = fitted()
    importance, importance_error, relative = sampled(proposal, MOST_DRAWS)
    if not both:
        result: dict[str, Any] = {"log_evidence": importance, "standard_error": importance_error}
        if importance_error > ENOUGH:
            wide, wide_error, _ = sampled(fitted(many=True), MOST_WIDE)
            result = {"log_evidence": wide, "standard_error": wide_error, "one_t": result}
        return {**result, "likelihoods": calls[0]}
    assert isinstance(proposal, Student)

    draws, draws_total, accepted = markov(total, proposal, rng)
    flat = draws.reshape(-1, DIMS)
    ratios = (draws_total.ravel() + log_prior(flat) - proposal.log_density(flat)).reshape(CHAINS, -1)
    fresh = proposed(proposal)
    effective = effective_draws(np.exp(-np.logaddexp(ratios, importance)))
    bridged = bridge(ratios, fresh, effective)
    # Jackknife over chains and over blocks of the proposal's draws.
    blocks = np.array_split(np.arange(DRAWS), CHAINS)
    chains_left = [bridge(np.delete(ratios, k, 0), fresh, effective) for k in range(CHAINS)]
    draws_left = [bridge(ratios, np.delete(fresh, block), effective) for block in blocks]
    bridge_error = float(np.sqrt((CHAINS - 1) * (np.var(chains_left) + np.var(draws_left))))

    precision = np.array([importance_error, bridge_error]) ** -2.0
    params = from_scores(draws)
    few = flat[rng.integers(0, len(flat), 5)]
    return {
        "log_evidence": float(np.average([importance, bridged], weights=precision)),
        "standard_error": float(precision.sum() ** -0.5),
        "importance": {
            "log_evidence": importance,
            "standard_error": importance_error,
            "effective_draws": float(relative.sum() ** 2 / (relative**2).sum()),
        },
        "bridge": {
            "log_evidence": bridged,
            "standard_error": bridge_error,
            "effective_draws": effective,
            "accepted": accepted,
        },
        "likelihoods": calls[0],
        "quadrature_change": float(np.abs(total(few, 2 * FINER) - total(few)).max()),
        "posterior": {
            name: {
                "mean": float(x.mean()),
                "sd": float(x.std()),
                "at_low_edge": float((draws[..., index] < -EDGE).mean()),
                "at_high_edge": float((draws[..., index] > EDGE).mean()),
            }
            for index, (name, x) in enumerate(params.items())
        },
    }


def main() -> None:
    """Compute what is missing; print and write when all is there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=None, help="file or folder of the audio-visual data")
    parser.add_argument("--rows", default=None, help="which of the 30 sets, e.g. 0,5,7; all by default")
    parser.add_argument("--parts", default="runs/multisensory_truth", help="folder of the single results")
    parser.add_argument("--results", default=str(RESULTS), help="folder of the results file")
    parser.add_argument("--simulated", action="store_true", help="sets drawn from the models instead of people's")
    options = parser.parse_args()
    parts = Path(options.parts)
    parts.mkdir(parents=True, exist_ok=True)
    if options.simulated:
        sets = {name: simulated(name) for name in RHOS}
        subjects, prefix = np.arange(SETS), "simulated_"
    else:
        data = audiovisual_localization(options.data)
        sets = dict.fromkeys(RHOS, (data.inputs, data.outcomes["response"]))
        subjects, prefix = data.subjects, ""
    rows = range(len(subjects)) if options.rows is None else [int(row) for row in options.rows.split(",")]
    bar = tqdm([(row, name) for row in rows for name in RHOS], unit="evidence")
    for row, name in bar:
        file = parts / f"{prefix}{row}_{'1' if name == '1' else '43'}.json"
        if file.exists():
            continue
        start = time.process_time()
        inputs = {key: x[row] for key, x in sets[name][0].items()}
        rng = np.random.default_rng([row, list(RHOS).index(name)])
        result = evidence(inputs, sets[name][1][row], RHOS[name], rng, bar, both=not options.simulated)
        place = {"row": row, "subject": int(subjects[row]), "set": row % 2, "rho": name}
        result = {**place, **result, "cpu_seconds": time.process_time() - start}
        write_atomic(file, json.dumps(result, allow_nan=False).encode())
    results = [json.loads(file.read_text()) for file in parts.glob(f"{prefix}[0-9]*_*.json")]
    results.sort(key=lambda one: (one["row"], one["rho"]))
    columns = ["subject", "set", "rho", "log evidence", "error"]
    cells = [[one["subject"], one["set"], one["rho"], one["log_evidence"], one["standard_error"]] for one in results]
    summary: dict[str, Any] = {"greatest_standard_error": max(one["standard_error"] for one in results), "bar": 0.1}
    if not options.simulated:
        columns += ["importance", "error", "bridge", "error"]
        for row, one in zip(cells, results, strict=True):
            for method in ("importance", "bridge"):
                row += [one[method]["log_evidence"], one[method]["standard_error"]]
        differences = [abs(one["importance"]["log_evidence"] - one["bridge"]["log_evidence"]) for one in results]
        summary["greatest_difference_of_methods"] = max(differences)
    print_table("Log evidence (nats)", columns, cells)
    print(*(f"\n{name}: {value:.3f}" for name, value in summary.items()))
    if len(results) < len(subjects) * len(RHOS):
        print(f"{len(results)} of {len(subjects) * len(RHOS)} are known: no results file yet")
        return
    name = "multisensory_simulated_truth" if options.simulated else "multisensory_evidence_truth"
    write_results(name, {**summary, "sets": results}, Path(options.results))


if __name__ == "__main__":
    main()
