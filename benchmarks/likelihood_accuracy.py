"""How well a network knows its model's likelihood, where that is exact: all parameters given, data from the prior.

The mean difference of the log densities is KL(exact || network) a trial, of the network's direct likelihood and of its
buffered transformer, on the same data sets. `collapsing_ddm` has no formula: there the
reference is a numerical solution, within 3e-5 nats. For `rlddm` also the model evidence, no parameter given, against
importance sampling with the exact likelihood over the prior.

    python benchmarks/likelihood_accuracy.py ddm [--checkpoint PATH] [--backend torch] [--quick]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `tests.references`, which is not installed

import harness  # noqa: E402

import ppl_buffer as pb  # noqa: E402
from ppl_buffer.inference.evidence import METHODS  # noqa: E402
from ppl_buffer.inference.importance import importance_weights  # noqa: E402
from ppl_buffer.network.observed import choose_likelihood  # noqa: E402
from ppl_buffer.predictive import density  # noqa: E402
from ppl_buffer.predictive.query import Query  # noqa: E402
from ppl_buffer.schema import stack_value  # noqa: E402
from ppl_buffer.simulator import WithAtoms  # noqa: E402
from tests.precision import double_precision  # noqa: E402
from tests.references import (  # noqa: E402
    angle_drift_diffusion,
    collapsing_drift_diffusion,
    confidence,
    discounting,
    drift_diffusion,
    multisensory,
    q_learning,
    racing_diffusion,
    rl_drift_diffusion,
    two_step,
)

Named = dict[str, np.ndarray]
# Data sets scored at once: bounds the memory of one pass at 400 trials.
_CHUNK = 20
_EVIDENCE = {"datasets": 20, "trials": 120, "draws": 4000, "network_draws": 1000}


@dataclass(frozen=True)
class Case:
    """What is measured of one network.

    Attributes:
        simulator: draws the data sets.
        exact: log density (datasets, K) of each trial from parameters (datasets,) and data (datasets, K).
        trials: lengths of the sequences.
        bar: KL a trial.
        evidence_bar: RMSE of the log evidence, if it is measured.
    """

    simulator: Any
    exact: Callable[[Named, Named], np.ndarray]
    trials: tuple[int, ...]
    bar: float
    evidence_bar: float | None = None


def exact_ddm(params: Named, data: Named) -> np.ndarray:
    return drift_diffusion.log_density({name: x[..., None] for name, x in params.items()}, data["choice"], data["rt"])


def exact_angle(params: Named, data: Named) -> np.ndarray:
    params = {name: x[..., None] for name, x in params.items()}
    return angle_drift_diffusion.log_density(params, data["choice"], data["rt"])


def exact_racing_diffusion(params: Named, data: Named) -> np.ndarray:
    params = {name: x[..., None] for name, x in params.items()}
    return racing_diffusion.log_density(params, data["choice"], data["rt"])


def exact_collapsing_ddm(params: Named, data: Named) -> np.ndarray:
    return collapsing_drift_diffusion.CollapsingDensity(params).log_density(data["choice"], data["rt"])


def exact_rlddm(params: Named, data: Named) -> np.ndarray:
    return rl_drift_diffusion.exact_conditionals(params, *(data[name] for name in ("pair", "choice", "rt", "reward")))


def exact_discounting(params: Named, data: Named) -> np.ndarray:
    return discounting.log_probability({name: x[..., None] for name, x in params.items()}, data)


def exact_q_learning(params: Named, data: Named) -> np.ndarray:
    import jax

    columns = (data[name] for name in ("options", "choice", "reward"))
    return np.asarray(jax.jit(jax.vmap(q_learning.conditionals_jax))(params, *columns), dtype=float)


def exact_two_step(params: Named, data: Named) -> np.ndarray:
    """Of both choices, in double precision: log-odds can be large."""
    import jax

    columns = [data[name] for name in ("common", "choice_1", "choice_2", "reward")]
    with double_precision():
        return np.asarray(jax.jit(two_step.exact_conditionals_jax)(params, *columns, np.ones(columns[0].shape, bool)))


def exact_multisensory(rho: float) -> Callable[[Named, Named], np.ndarray]:
    def exact(params: Named, data: Named) -> np.ndarray:
        rows = []
        for row, response in enumerate(data["response"]):
            theta = {name: x[row] for name, x in params.items()}
            inputs = {name: x[row] for name, x in data.items() if name != "response"}
            rows.append(multisensory.log_likelihood(theta, inputs, response, rho))
        return np.stack(rows)

    return exact


CASES = {
    "ddm": Case(pb.simulators.DriftDiffusion(drift=(-6.0, 6.0)), exact_ddm, (200,), 0.0003),
    "collapsing_ddm": Case(pb.simulators.CollapsingDriftDiffusion(), exact_collapsing_ddm, (200,), 0.001),
    "angle": Case(pb.simulators.AngleDriftDiffusion(), exact_angle, (200,), 0.0005),
    "racing_diffusion": Case(pb.simulators.RacingDiffusion(), exact_racing_diffusion, (200,), 0.001),
    "confidence": Case(pb.simulators.Confidence(), confidence.log_probability, (200,), 0.0005),
    "discounting": Case(pb.simulators.Discounting(), exact_discounting, (200,), 0.0005),
    "q_learning": Case(pb.simulators.QLearningTasks(), exact_q_learning, (120, 360), 0.001),
    "two_step": Case(pb.simulators.TwoStep(), exact_two_step, (120, 300), 0.001),
    "rlddm": Case(pb.simulators.RLDriftDiffusion(), exact_rlddm, (120, 360), 0.0006, 1.5),
    "multisensory_rho1": Case(pb.simulators.MultisensoryCausalInference(1.0), exact_multisensory(1.0), (400,), 0.0005),
    "multisensory_rho43": Case(
        pb.simulators.MultisensoryCausalInference(4 / 3), exact_multisensory(4 / 3), (400,), 0.0005
    ),
}


def simulate(case: Case, size: int, trials: int, stream: int, special: bool = False) -> tuple[Named, Named]:
    """Parameters (size,) and data (size, trials), in the single precision in which the network reads them."""
    rng = np.random.default_rng([51, stream, trials])
    params = case.simulator.prior(rng, size)
    if special:
        params |= {name: np.full(size, value) for name, value in case.simulator.atoms.items()}
    params = {name: x.astype(np.float32) for name, x in params.items()}
    inputs = case.simulator.inputs(rng, size, trials)
    more = {} if inputs else {"trials": trials}
    data = {**inputs, **case.simulator.simulate(rng, params, inputs, **more)}
    return params, {name: np.asarray(x, np.float32) for name, x in data.items()}


def conditionals(net: Any, params: Mapping[str, np.ndarray], data: Named, way: str) -> np.ndarray:
    """The network's log density of each trial, (datasets, K), by its direct likelihood or its buffered transformer."""
    schema, rows = net.schema, []
    for start in range(0, len(next(iter(data.values()))), _CHUNK):
        part = {name: x[start : start + _CHUNK] for name, x in data.items()}
        query = Query.build(
            net,
            {name: part[name] for name in schema.inputs},
            trials=next(iter(part.values())).shape[1],
            params={name: x[start : start + _CHUNK] for name, x in params.items()},
            feedback={name: part[name] for name in schema.feedback} or None,
            likelihood=way,
        )
        value = harness.to_backend(net, stack_value(np, schema, part))
        rows.append(np.asarray(density.conditionals(query, value)))
    return np.concatenate(rows)


def likelihood(net: Any, case: Case, size: int, trials: int, special: bool) -> dict[str, dict[str, float]]:
    """KL a trial with its standard error, and the errors of whole data sets, by what ``likelihood=`` asks for."""
    params, data = simulate(case, size, trials, int(special), special)
    exact = case.exact({name: x.astype(float) for name, x in params.items()}, data)
    figures = {}
    for way in harness.likelihoods(net):
        difference = exact - conditionals(net, params, data, way)
        by_set = difference.mean(-1)
        figures[way] = {
            "kl_per_trial": float(by_set.mean()),
            "standard_error": float(by_set.std(ddof=1) / np.sqrt(size)),
            "median_set": float(np.median(by_set)),
            "worst_set": float(by_set.max()),
            "rmse_of_total": float(np.sqrt((difference.sum(-1) ** 2).mean())),
        }
    return figures


def evidence(net: Any, case: Case, size: int) -> dict[str, dict[str, float]]:
    """Log evidence, no parameter given, by both methods, against importance sampling with the exact likelihood."""
    _, data = simulate(case, size, _EVIDENCE["trials"], 2)
    priors = case.simulator.priors
    # No response is faster than the non-decision time: its prior is cut at the fastest, and what is cut away counts.
    share = priors["non_decision_time"].cdf(data["rt"].min(-1))

    def exact(scores: np.ndarray) -> np.ndarray:
        from scipy.special import ndtr

        totals = []
        for part in np.array_split(scores, max(1, len(scores) // 500)):
            below = {name: ndtr(part[..., index]) for index, name in enumerate(priors)}
            below["non_decision_time"] *= share
            params = {name: prior.quantile(below[name]) for name, prior in priors.items()}
            many = {name: np.broadcast_to(x, (len(part), *x.shape)) for name, x in data.items()}
            totals.append(case.exact(params, many).sum(-1))
        return np.concatenate(totals)

    weights = importance_weights(exact, size, len(priors), _EVIDENCE["draws"], np.random.default_rng(52))
    top = weights.max(0)
    relative = np.exp(weights - top)
    truth = top + np.log(relative.mean(0)) + np.log(share)
    error = relative.std(0, ddof=1) / relative.mean(0) / np.sqrt(len(weights))
    given = {name: data[name] for name in net.schema.inputs}, harness.to_backend(net, stack_value(np, net.schema, data))
    feedback = {name: data[name] for name in net.schema.feedback}
    estimates = {}
    for method in METHODS:
        estimate = pb.log_evidence(net, *given, feedback=feedback, method=method, draws=_EVIDENCE["network_draws"])
        difference = estimate.log_evidence - truth
        estimates[method] = {
            "rmse": float(np.sqrt((difference**2).mean())),
            "mean_error": float(difference.mean()),
            "greatest_standard_error": float(estimate.standard_error.max()),
            "greatest_error_of_truth": float(error.max()),
        }
    return estimates


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=list(CASES))
    parser.add_argument("--checkpoint", default=None, help="a path; by default the network in the zoo")
    parser.add_argument("--backend", default="torch", choices=harness.BACKENDS)
    parser.add_argument("--quick", action="store_true", help="few data sets; nothing is written")
    options = parser.parse_args()
    case = CASES[options.name]
    net = pb.load(options.checkpoint or options.name, backend=options.backend)
    size = 20 if options.quick else 200
    figures = {}
    for trials in case.trials:
        for special in (False, True) if isinstance(case.simulator, WithAtoms) else (False,):
            name = f"{trials} trials"
            if special:
                name += "".join(f", {param} = {value:g}" for param, value in case.simulator.atoms.items())
            figures[name] = likelihood(net, case, size, trials, special)
    harness.print_table(
        f"{options.name}: KL(exact || network) given all parameters, {size} data sets (nats; bar {case.bar})",
        ["", "likelihood", *next(iter(next(iter(figures.values())).values()))],
        [[name, way, *row.values()] for name, ways in figures.items() for way, row in ways.items()],
    )
    results: dict[str, Any] = {
        "checkpoint": options.checkpoint or options.name,
        "training_steps": harness.training_steps(net),
        "datasets": size,
        "likelihood": figures,
        "bars": {"kl_per_trial": case.bar, "evidence_rmse": case.evidence_bar},
    }
    if case.evidence_bar is not None:
        estimates = evidence(net, case, 5 if options.quick else _EVIDENCE["datasets"])
        by = choose_likelihood(net, "auto")
        results["evidence"] = {"methods": estimates, "importance_likelihood": by, **_EVIDENCE}
        harness.print_table(
            f"{options.name}: log evidence, no parameter given (nats; bar {case.evidence_bar})",
            ["method", *next(iter(estimates.values()))],
            [[method, *row.values()] for method, row in estimates.items()],
        )
    if not options.quick:
        harness.write_results(f"{options.name}_accuracy", results)


if __name__ == "__main__":
    main()
