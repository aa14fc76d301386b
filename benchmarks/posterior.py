"""Posteriors from a network's likelihood against posteriors from the exact one: NUTS on both.

Data sets are drawn from the prior, for `noisy_q` at zeta = 0, where the likelihood is an exact recursion. The
parameters of each are sampled with NumPyro's NUTS, once with the exact likelihood (`tests/references/`) and once with
the network: a chain for each data set, all of them in one program.

Chains with fewer than 100 effective draws are run again, with four and then sixteen times the warm-up and the draws,
every fourth or sixteenth of which is kept.

Two chains differ by their Monte-Carlo noise, too. So the network's posterior is also computed from the exact chain's
draws, weighted by the ratio of the two likelihoods: noise that both share cancels. Its effective draws say whether that
can be read. The network's likelihood is its direct one and that of its buffered transformer, in turn.

    python benchmarks/posterior.py noisy_q|ddm|angle|racing_diffusion|rlddm|discounting|confidence \
        [--sets 20] [--draws 700]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from harness import likelihoods, print_table, training_steps, write_results
from numpyro.diagnostics import effective_sample_size
from numpyro.distributions import biject_to
from numpyro.infer.hmc import hmc
from scipy.special import softmax

import ppl_buffer as pb
from ppl_buffer.numpyro import JointPredictive
from ppl_buffer.numpyro.priors import prior_distribution
from ppl_buffer.schema import stack_value
from ppl_buffer.simulator import simulate_keywords

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.references import (  # noqa: E402
    angle_drift_diffusion,
    confidence,
    discounting,
    drift_diffusion,
    noisy_q,
    q_learning,
    racing_diffusion,
    rl_drift_diffusion,
    two_step,
)

WARMUP = 300
# Chains with fewer effective draws are run again, longer by these factors.
FEWEST_EFFECTIVE = 100.0
LONGER = (4, 16)
# Draws of every data set whose likelihoods are computed at once.
AT_ONCE = 20
# Of the exact confidence model: an error of at most 1e-5 nats a trial.
QUADRATURE = np.polynomial.legendre.leggauss(16)
BARS = {"mean_shift_in_sd": 0.1, "sd_ratio": [0.9, 1.1]}
Named = dict[str, Any]


@dataclass(frozen=True)
class Model:
    """What is measured for one network.

    Attributes:
        simulator: draws the data sets.
        trials: of each data set.
        exact: log likelihood of one data set from its parameters and its inputs, outcomes and feedback, each (K,).
        fixed: parameters that are given and not sampled.
        shift_bar: posterior standard deviations by which means may be off, on average.
    """

    simulator: Any
    trials: int
    exact: Callable[[Named, Named], Any]
    fixed: Mapping[str, float] = field(default_factory=dict)
    shift_bar: float = 0.1


def exact_noisy_q(theta: Named, data: Named) -> Any:
    columns = (data[name][None] for name in ("pair", "choice", "reward"))
    return noisy_q.exact_conditionals_jax({name: x[None] for name, x in theta.items()}, *columns).sum()


def exact_ddm(theta: Named, data: Named) -> Any:
    return drift_diffusion.log_density(theta, data["choice"], data["rt"], xp=jnp).sum()


def exact_angle(theta: Named, data: Named) -> Any:
    return angle_drift_diffusion.log_density(theta, data["choice"], data["rt"], xp=jnp).sum()


def exact_racing_diffusion(theta: Named, data: Named) -> Any:
    return racing_diffusion.log_density(
        theta, data["choice"], data["rt"], xp=jnp, log_cdf=jax.scipy.special.log_ndtr
    ).sum()


def exact_rlddm(theta: Named, data: Named) -> Any:
    columns = (data[name][None] for name in ("pair", "choice", "rt", "reward"))
    return rl_drift_diffusion.exact_conditionals_jax({name: x[None] for name, x in theta.items()}, *columns).sum()


def exact_discounting(theta: Named, data: Named) -> Any:
    return discounting.log_probability(theta, data, xp=jnp).sum()


def exact_confidence(theta: Named, data: Named) -> Any:
    return confidence.log_probability(theta, data, xp=jnp, cdf=jax.scipy.special.ndtr, nodes=QUADRATURE).sum()


def exact_q_learning(theta: Named, data: Named) -> Any:
    return q_learning.conditionals_jax(theta, *(data[name] for name in ("options", "choice", "reward"))).sum()


def exact_two_step(theta: Named, data: Named) -> Any:
    one = {name: x[None] for name, x in theta.items()}
    columns = [data[name][None] for name in ("common", "choice_1", "choice_2", "reward")]
    return two_step.exact_conditionals_jax(one, *columns, jnp.ones(columns[0].shape, bool)).sum()


MODELS = {
    "noisy_q": Model(pb.simulators.NoisyQ(), 120, exact_noisy_q, {"zeta": 0.0}),
    "ddm": Model(pb.simulators.DriftDiffusion(drift=(-6.0, 6.0)), 200, exact_ddm),
    "angle": Model(pb.simulators.AngleDriftDiffusion(), 200, exact_angle),
    "racing_diffusion": Model(pb.simulators.RacingDiffusion(), 200, exact_racing_diffusion),
    "rlddm": Model(pb.simulators.RLDriftDiffusion(), 200, exact_rlddm),
    "discounting": Model(pb.simulators.Discounting(), 200, exact_discounting),
    "confidence": Model(pb.simulators.Confidence(), 200, exact_confidence),
    "two_step": Model(pb.simulators.TwoStep(), 200, exact_two_step, shift_bar=0.15),
    "q_learning": Model(pb.simulators.QLearningTasks(), 200, exact_q_learning, shift_bar=0.15),
}


def draw(model: Model, sets: int) -> tuple[Named, Named, Named]:
    """Parameters (sets,), inputs (sets, K), and outcomes and feedback (sets, K)."""
    rng = np.random.default_rng(20)
    params = model.simulator.prior(rng, sets)
    params |= {name: np.full(sets, value) for name, value in model.fixed.items()}
    inputs = model.simulator.inputs(rng, sets, model.trials)
    keywords = simulate_keywords(model.simulator.simulate, model.simulator.schema, sets, model.trials)
    data = model.simulator.simulate(rng, params, inputs, **keywords)
    # As the network reads them, so that both likelihoods see the same numbers.
    return params, inputs, {name: x.astype(np.float32) for name, x in data.items()}


def priors_of(model: Model, data: Named) -> Callable[[Any], dict[str, Any]]:
    """Function of a data set's index that gives the prior of each sampled parameter.

    No response is faster than the non-decision time: its prior is cut there, where the likelihood ends anyway.
    """
    stated = {name: x for name, x in model.simulator.priors.items() if name not in model.fixed}

    def priors_at(index: Any) -> dict[str, Any]:
        priors = {name: prior_distribution(prior) for name, prior in stated.items()}
        if "non_decision_time" in priors:
            low, high = stated["non_decision_time"].range()
            priors["non_decision_time"] = dist.Uniform(low, jnp.minimum(high, jnp.asarray(data["rt"]).min(-1)[index]))
        return priors

    return priors_at


def sample(
    log_likelihood: Callable[[Named, Any], Any],
    priors: Callable[[Any], dict[str, Any]],
    start: Named,
    draws: int,
    seed: int,
) -> dict[str, np.ndarray]:
    """Posterior draws (draws, sets) of each parameter: a NUTS chain with a mass matrix of its own for each data set.

    `log_likelihood` takes the parameters of one data set and its index. The chains start at `start` (sets,).
    """
    chains = _run(log_likelihood, priors, start, np.arange(len(next(iter(start.values())))), draws, seed, WARMUP)
    for factor in LONGER:
        worst = np.min([effective_draws(x) for x in chains.values()], 0)
        indices = np.flatnonzero(worst < FEWEST_EFFECTIVE)
        if not len(indices):
            break
        print(f"run again, {factor} times as long: sets {indices.tolist()}, with {worst[indices].round()} draws")
        first = {name: x[indices] for name, x in start.items()}
        longer = _run(log_likelihood, priors, first, indices, factor * draws, seed + factor, factor * WARMUP)
        for name, x in longer.items():
            chains[name][:, indices] = x[::factor]
    return chains


def _run(
    log_likelihood: Callable[[Named, Any], Any],
    priors: Callable[[Any], dict[str, Any]],
    start: Named,
    indices: np.ndarray,
    draws: int,
    seed: int,
    warmup: int,
) -> dict[str, np.ndarray]:
    """Chains (draws, len(indices)) of some of the data sets, side by side in one program."""

    def chain(key: Any, index: Any, first: Named) -> Any:
        at_index = priors(index)
        transforms = {name: biject_to(prior.support) for name, prior in at_index.items()}

        def potential(unconstrained: Named) -> Any:
            total, theta = 0.0, {}
            for name, transform in transforms.items():
                theta[name] = transform(unconstrained[name])
                total += at_index[name].log_prob(theta[name])
                total += transform.log_abs_det_jacobian(unconstrained[name], theta[name])
            return -total - log_likelihood(theta, index)

        begin, step = hmc(potential, algo="NUTS")
        place = {name: transform.inv(first[name]) for name, transform in transforms.items()}
        state = begin(place, warmup, target_accept_prob=0.85, dense_mass=True, max_tree_depth=5, rng_key=key)
        state = jax.lax.fori_loop(0, warmup, lambda _, state: step(state), state)

        def draw(state: Any, _: Any) -> Any:
            state = step(state)
            return state, {name: transforms[name](x) for name, x in state.z.items()}

        return jax.lax.scan(draw, state, None, draws)[1]

    keys = jax.random.split(jax.random.PRNGKey(seed), len(indices))
    first = {name: jnp.asarray(x) for name, x in start.items()}
    chains = jax.jit(jax.vmap(chain))(keys, jnp.asarray(indices), first)
    return {name: np.array(x).T for name, x in chains.items()}


def weights_of(
    posterior: Named, exact: Callable[[Named, Any], Any], network: Callable[[Named, Any], Any]
) -> np.ndarray:
    """Weights (draws, sets), 1 in sum for each set, that make exact draws draws of the network's posterior."""
    draws, sets = next(iter(posterior.values())).shape

    @jax.jit
    def ratio(theta: Named) -> Any:
        def one(index: Any, params: Named) -> Any:
            return network(params, index) - exact(params, index)

        return jax.vmap(jax.vmap(one), (None, 0))(jnp.arange(sets), theta)

    chunks = [
        np.asarray(ratio({name: x[start : start + AT_ONCE] for name, x in posterior.items()}))
        for start in range(0, draws, AT_ONCE)
    ]
    return softmax(np.concatenate(chunks).astype(float), 0)


def compare(reference: Named, mean: Named, std: Named, effective: Mapping[str, float]) -> dict[str, Any]:
    """Means and standard deviations (sets,) of each parameter beside those of exact draws (draws, sets)."""
    results: dict[str, Any] = {}
    for name, draws in reference.items():
        shift = np.abs(mean[name] - draws.mean(0)) / draws.std(0)
        ratio = std[name] / draws.std(0)
        results[name] = {
            "mean_shift_in_sd": float(shift.mean()),
            "largest_mean_shift_in_sd": float(shift.max()),
            "sd_ratio": float(ratio.mean()),
            "least_sd_ratio": float(ratio.min()),
            "greatest_sd_ratio": float(ratio.max()),
            "least_effective_draws": effective[name],
        }
    averages = {key: float(np.mean([figures[key] for figures in results.values()])) for key in BARS}
    return {"parameters": results, **averages}


def effective_draws(draws: np.ndarray) -> np.ndarray:
    """Effective number (sets,) of draws (draws, sets), a chain for each data set."""
    return np.array([float(effective_sample_size(chain[None])) for chain in draws.T])


def least_effective(draws: Named) -> dict[str, float]:
    """The least effective number of draws (draws, sets) of any data set, by parameter."""
    return {name: float(effective_draws(x).min()) for name, x in draws.items()}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=list(MODELS))
    parser.add_argument("--checkpoint", default=None, help="a path; by default the network in the zoo")
    parser.add_argument("--sets", type=int, default=20)
    parser.add_argument("--draws", type=int, default=700, help="kept draws of the network's chains; 0 = weights alone")
    parser.add_argument("--exact-draws", type=int, default=2800, help="kept draws of the exact posterior's chains")
    options = parser.parse_args()
    model = MODELS[options.model]
    truth, inputs, outcomes = draw(model, options.sets)
    net = pb.load(options.checkpoint or options.model, backend="jax")
    schema = net.schema
    value = stack_value(np, schema, outcomes)
    feedback = {name: outcomes[name] for name in schema.feedback}
    given = {"feedback": feedback} if feedback else {}
    observed = {way: net.observe(inputs, value, **given, likelihood=way) for way in likelihoods(net)}
    arrays = {name: jnp.asarray(x) for name, x in {**inputs, **outcomes}.items()}
    names = [name for name in schema.params if name not in model.fixed]
    priors = priors_of(model, outcomes)

    def exact(theta: Named, index: Any) -> Any:
        params = {**theta, **{name: jnp.asarray(value) for name, value in model.fixed.items()}}
        return model.exact(params, {name: x[index] for name, x in arrays.items()})

    def network(way: str) -> Callable[[Named, Any], Any]:
        def log_likelihood(theta: Named, index: Any) -> Any:
            at_index = observed[way][index]
            params = {**theta, **{name: jnp.asarray(value) for name, value in model.fixed.items()}}
            return JointPredictive(net, at_index, params=params, likelihood=way).log_prob(at_index.value)

        return log_likelihood

    start = {name: truth[name] for name in names}
    settings = {
        "checkpoint": options.checkpoint or options.model,
        "training_steps": training_steps(net),
        "sets": options.sets,
        "trials": model.trials,
        "exact_draws": options.exact_draws,
    }

    def report(way: str, how: str, suffix: str, comparison: dict[str, Any], seconds: float, **more: Any) -> None:
        rows = [[name, *figures.values()] for name, figures in comparison["parameters"].items()]
        rows.append(["average", comparison["mean_shift_in_sd"], None, comparison["sd_ratio"], None, None, None])
        print_table(
            f"{options.model}: posterior of {options.sets} data sets of {model.trials} trials, {how} ({way}) against "
            f"exact likelihood (bars: mean shift {model.shift_bar} sd, sd ratio 0.9 to 1.1, on average)",
            ["parameter", "|mean shift| (sd)", "largest", "sd ratio", "least", "greatest", "least ESS"],
            rows,
        )
        name = f"{options.model}_posterior{suffix}{'_direct' if way == 'direct' else ''}"
        bars = {**BARS, "mean_shift_in_sd": model.shift_bar}
        write_results(name, {**settings, "likelihood": way, **more, **comparison, "bars": bars, "seconds": seconds})

    begun = time.perf_counter()
    reference = sample(exact, priors, start, options.exact_draws, seed=1)
    print(f"exact chains: {time.perf_counter() - begun:.0f} s, least effective draws {least_effective(reference)}")
    for way in observed:
        begun = time.perf_counter()
        weights = weights_of(reference, exact, network(way))
        mean = {name: (weights * x).sum(0) for name, x in reference.items()}
        std = {name: np.sqrt((weights * (x - mean[name]) ** 2).sum(0)) for name, x in reference.items()}
        counted = dict.fromkeys(names, float((1 / (weights**2).sum(0)).min()))
        comparison = compare(reference, mean, std, counted)
        report(way, "exact draws weighted by the network", "_weighted", comparison, time.perf_counter() - begun)
    for way in observed if options.draws else ():
        begun = time.perf_counter()
        chains = sample(network(way), priors, start, options.draws, seed=1)
        moments = ({name: getattr(x, kind)(0) for name, x in chains.items()} for kind in ("mean", "std"))
        comparison = compare(reference, *moments, least_effective(chains))
        report(way, "NUTS with the network", "", comparison, time.perf_counter() - begun, draws=options.draws)


if __name__ == "__main__":
    main()
