"""Bias of `ddm` where responses are omitted: with omissions modelled, and with such trials deleted.

People whose parameters are draws of stated priors; one deadline for all of them, past which a share of all responses
falls. Each person's posterior under the same priors, by importance sampling (`ppl_buffer.inference.importance`), from
the complete trials, from the trials as they are seen (`ppl_buffer.Missing`), and from those with a response alone.

Were likelihood and sampler exact, (posterior mean - truth) / posterior standard deviation would average to 0 over
people with complete trials and with omissions modelled. That average, the bias in posterior standard deviations, is
printed for each parameter with its standard error; and beside it the same against the complete trials' posterior mean,
in which most of the noise of the people and of the network cancels: the bar, stated before measuring, is on that.

    python benchmarks/omissions.py [--quick] [--out DIR]
"""

from __future__ import annotations

from collections.abc import Sequence

import harness
import numpy as np
from tqdm.auto import tqdm

import ppl_buffer as pb
from ppl_buffer.files import to_numpy
from ppl_buffer.inference.importance import importance_weights, normalize
from ppl_buffer.inference.normal_scores import NormalScores
from ppl_buffer.network.network import Network
from ppl_buffer.network.observed import ObservedTrials
from ppl_buffer.predictive import density
from ppl_buffer.predictive.query import Query
from ppl_buffer.prior import Prior

PRIORS = {
    "drift": Prior("Normal", {"loc": 1.0, "scale": 0.7}),
    "boundary": Prior.uniform(1.0, 2.4),
    "starting_point": Prior.uniform(0.4, 0.6),
    "non_decision_time": Prior.uniform(0.2, 0.4),
    "drift_variability": Prior.uniform(0.2, 0.8),
}
PEOPLE, TRIALS, DRAWS, SHARE = 300, 100, 600, 0.15
QUICK = (7, 40, 60)
# Draws that are evaluated at once, and the bar: posterior standard deviations.
AT_ONCE, MOST_BIAS = 20, 0.1
SEEN = ("complete", "omissions modelled", "omissions deleted")
Arrays = dict[str, np.ndarray]


def simulated(subjects: int, trials: int, rng: np.random.Generator) -> tuple[Arrays, np.ndarray, float]:
    """Parameters of the subjects, their complete trials (subjects, trials, 2), and the deadline."""
    truth = {name: prior.sample(rng, subjects) for name, prior in PRIORS.items()}
    data = pb.simulators.DriftDiffusion().simulate(rng, truth, {}, trials=trials)
    return truth, np.stack([data["choice"], data["rt"]], -1), float(np.quantile(data["rt"], 1 - SHARE))


def observed(net: Network, value: np.ndarray, deadline: float, how: str) -> ObservedTrials:
    """The trials as a network sees them."""
    omitted = value[..., 1] > deadline
    if how == "complete":
        return net.observe({}, value.astype(np.float32))
    if how == "omissions deleted":
        # Somebody who never responds in time is left without a trial, and with the prior.
        return net.observe({}, value.astype(np.float32), trial_mask=~omitted)
    value = np.where(omitted[..., None], np.array([np.nan, np.inf]), value).astype(np.float32)
    return net.observe({}, value, missing=pb.Missing(deadline=deadline))


def posterior(
    net: Network, seen: ObservedTrials, draws: int, rng: np.random.Generator
) -> tuple[Arrays, Arrays, np.ndarray]:
    """Posterior mean and standard deviation of each parameter, (subjects,), and the effective number of draws."""
    subjects = seen.batch_shape[0]
    scale, last = NormalScores(PRIORS), []
    fastest = to_numpy(net.upper_bounds(seen)["non_decision_time"])
    below = {"non_decision_time": PRIORS["non_decision_time"].cdf(fastest)}

    def log_likelihood(scores: np.ndarray) -> np.ndarray:
        last[:] = [scores]
        totals = []
        for start in range(0, len(scores), AT_ONCE):
            params = scale.params(scores[start : start + AT_ONCE], (subjects,), below=below)
            query = Query.build(net, seen, params=params, outside="ignore", check=False)
            totals.append(to_numpy(density.log_prob(query, seen.value)).astype(float))
        bar.update(len(scores))
        return np.concatenate(totals)

    with tqdm(unit="draw", desc="posteriors", leave=False) as bar:
        log_weights = importance_weights(log_likelihood, subjects, len(PRIORS), draws, rng)
    weights = normalize(log_weights)
    params = scale.params(last[0], (subjects,), below=below)
    mean = {name: (weights * x).sum(0) for name, x in params.items()}
    spread = {name: np.sqrt((weights * (x - mean[name]) ** 2).sum(0)) for name, x in params.items()}
    return mean, spread, 1 / (weights**2).sum(0)


def average(values: np.ndarray) -> dict[str, float]:
    """A mean and its standard error."""
    return {"mean": float(values.mean()), "error": float(values.std(ddof=1) / np.sqrt(len(values)))}


def biases(net: Network, subjects: int, trials: int, draws: int) -> dict[str, object]:
    """Bias by parameter and by what was made of omissions, against truth and against complete trials."""
    truth, value, deadline = simulated(subjects, trials, np.random.default_rng(0))
    results = {
        how: posterior(net, observed(net, value, deadline, how), draws, np.random.default_rng(1)) for how in SEEN
    }
    rows = {}
    for name in PRIORS:
        whole = results["complete"][0][name]
        rows[name] = {
            how: {
                "against truth": average((mean[name] - truth[name]) / spread[name]),
                "against complete": average((mean[name] - whole) / spread[name]),
            }
            for how, (mean, spread, _) in results.items()
        }
    return {
        "deadline": deadline,
        "omitted": float((value[..., 1] > deadline).mean()),
        "people": subjects,
        "trials": trials,
        "effective draws, median": {how: float(np.median(effective)) for how, (_, _, effective) in results.items()},
        "bias": rows,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate, compute posteriors, print, write."""
    options = harness.parse(__doc__, arguments)
    net = pb.load("ddm", backend="torch")
    subjects, trials, draws = QUICK if options.quick else (PEOPLE, TRIALS, DRAWS)
    measured_bias = biases(net, subjects, trials, draws)
    rows = [
        [name, how, *(row[how][against][part] for against in ("against truth", "against complete")
                      for part in ("mean", "error"))]
        for name, row in measured_bias["bias"].items() for how in SEEN
    ]  # fmt: skip
    title = f"Bias in posterior sd, {subjects} subjects, {trials} trials, {measured_bias['omitted']:.0%} omitted"
    harness.print_table(title, ["parameter", "", "from truth", "error", "from complete", "error"], rows)
    worst = max(abs(row["omissions modelled"]["against complete"]["mean"]) for row in measured_bias["bias"].values())
    measured = [harness.bar("bias with omissions modelled, posterior sd", worst, most=MOST_BIAS)]
    harness.print_bars(measured)
    if not options.quick:
        harness.write_results("omissions", {**measured_bias, "bars": measured}, options.out)


if __name__ == "__main__":
    main()
