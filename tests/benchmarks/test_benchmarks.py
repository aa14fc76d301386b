"""The benchmarks of speed: references that give the package's own numbers, counts, and scripts that run."""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from scipy.special import logsumexp

from ppl_buffer.network.config import Config
from ppl_buffer.predictive import sampling

for _library in ("jax", "torch"):
    pytest.importorskip(_library)

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import torch  # noqa: E402

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import effective_samples  # noqa: E402
import flops  # noqa: E402
import gradient  # noqa: E402
import gradient_noise  # noqa: E402
import harness  # noqa: E402
import memory  # noqa: E402
import multisensory_evidence_truth as truth  # noqa: E402
import particles  # noqa: E402
import reencoding  # noqa: E402
import training_step  # noqa: E402

from ppl_buffer.simulators import NoisyQ  # noqa: E402
from ppl_buffer.training.batches import make_batch  # noqa: E402
from tests.references import noisy_q  # noqa: E402

pytestmark = pytest.mark.usefixtures("quick_compilation")
TINY = harness.config_of("tiny")


@pytest.mark.parametrize("backend", harness.BACKENDS)
def test_reencoding_gives_the_numbers_of_block_1(backend: str) -> None:
    context, trials, draws = 7, 19, 5
    net = harness.random_network(TINY, backend)
    known, x, noise = (
        harness.to_backend(net, array)
        for array in (harness.normals(context, 2), harness.normals(trials), harness.uniforms(draws, trials, 3))
    )
    distribution = harness.joint_predictive(backend)(
        net, {"x": x}, context={"x": known[:, 0], "y": known[:, 1]}, block=1
    )
    value, _, log_probs = sampling.rollout(distribution.query, noise)
    drawn = reencoding.rollout(net, at_once=2)(known, x, noise[..., :2])
    np.testing.assert_allclose(np.asarray(drawn[0]), np.asarray(value), atol=1e-5)
    np.testing.assert_allclose(np.asarray(drawn[1]), np.asarray(log_probs), atol=1e-5)
    scored = reencoding.conditionals(net)(known, x, value[0])
    np.testing.assert_allclose(np.asarray(scored), np.asarray(log_probs)[0], atol=1e-5)


def test_one_timed_step_is_a_step_of_the_rollout() -> None:
    net = harness.random_network(TINY, "torch")
    known, noise = torch.as_tensor(harness.normals(7, 2)), torch.as_tensor(harness.uniforms(5, 3, 2))
    x = torch.as_tensor(harness.normals(3))
    drawn, log_probs = reencoding.torch_rollout(net, known, x, noise)
    pairs = torch.stack([x[:2].expand(5, 2), drawn[:, :2]], -1)
    last = reencoding.one_step(net, 2)(torch.cat([known.expand(5, 7, 2), pairs], 1), x[2].expand(5), noise[:, 2])
    torch.testing.assert_close(last, (drawn[:, 2], log_probs[:, 2]))


def test_steps_are_added_up() -> None:
    # Time that is linear in the size is recovered from two sizes; the first step is the shared one.
    assert reencoding.estimate_rollout([10, 11, 12, 13], {11: 1.0, 13: 3.0}, 0.5) == pytest.approx(0.5 + 1 + 2 + 3)
    assert reencoding.step_sizes("torch", 64, 3) == [64, 65, 66]
    assert reencoding.step_sizes("jax", 64, 19) == [64, *[80] * 15, *[83] * 3]


def test_tnp_a_gives_the_numbers_of_the_one_pass_density() -> None:
    net = harness.random_network(TINY, "torch")
    ways = training_step.losses(net, 3, 5, 2, 7)
    assert float(ways["TNP-A"]()) == pytest.approx(float(ways["buffer of 7"]()), abs=1e-5)
    pairs = torch.as_tensor(harness.normals(3, 1, 12, 2))[:, 0]
    known, x, y = pairs[:, :5], pairs[:, 5:, 0], pairs[:, 5:, 1]
    context = {"x": known[..., 0], "y": known[..., 1]}
    joint = harness.joint_predictive("torch")(net, {"x": x}, context=context)
    torch.testing.assert_close(training_step.tnp_a_log_prob(net, known, x, y), joint.conditionals(y))


CONFIG = Config(width=24, depth=3, heads=2, mlp=31, components=5)


def counted(function, slopes: bool = False) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(slopes):
        function()
    return counter.get_total_flops()


def test_operations_of_reencoding_are_those_that_torch_counts() -> None:
    net = harness.random_network(CONFIG, "torch")
    context, trials, draws = 13, 5, 3
    known, x = torch.as_tensor(harness.normals(context, 2)), torch.as_tensor(harness.normals(trials))
    noise = torch.as_tensor(harness.uniforms(draws, trials, 2))
    # Attention of small products, which torch counts, in place of its fused kernel for processors, which it does not.
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        total = counted(lambda: reencoding.torch_rollout(net, known, x, noise))
    # For the sake of one product a layer the reference computes keys of targets and, at the top, all queries.
    width, evaluations = CONFIG.width, [(context + k, draws if k else 1) for k in range(trials)]
    spare = sum(count * (CONFIG.depth * 4 * width**2 + size * 2 * width**2) for size, count in evaluations)
    assert flops.reencode(CONFIG, harness.FUNCTION, context, trials, draws) + spare == total


def test_operations_needed_are_fewer_than_those_done() -> None:
    net = harness.random_network(CONFIG, "torch")
    x, y = (torch.as_tensor(harness.normals(3, 29)) for _ in range(2))
    done = counted(lambda: harness.density_of(net)(None, x, y))
    needed = 3 * flops.decode(CONFIG, harness.FUNCTION, 0, 29)
    assert needed < done < 1.5 * needed
    noise = torch.as_tensor(harness.uniforms(11, 5, 3))
    done = counted(lambda: harness.draws_of(net)(torch.as_tensor(harness.normals(29, 2)), x[0, :5], noise))
    needed = flops.rollout(CONFIG, harness.FUNCTION, 29, 5, 11)
    assert needed <= done < 1.5 * needed


@pytest.mark.parametrize(("param_depth", "most"), [(1, 1.02), (2, 2.5)])
def test_operations_of_an_observed_gradient_are_those_that_torch_counts(param_depth: int, most: float) -> None:
    # Above the lowest layer torch computes the hidden half of the scores, and all scores once more for their slopes.
    config = replace(CONFIG, param_depth=param_depth)
    learner = harness.random_network(config, "torch", NoisyQ().schema)
    for trials in (29, 83):
        way = gradient.gradients(learner, gradient.simulated([trials]))["observed"]
        needed = flops.observed_gradient(config, learner.schema, trials)
        assert needed < counted(way, slopes=True) < most * needed


def test_harness() -> None:
    assert harness.slope([1, 2, 4, 8], [3 * x**1.7 for x in (1, 2, 4, 8)]) == pytest.approx(1.7)
    assert harness.bar("a", 250, least=250)["met"] and not harness.bar("a", 249.9, least=250)["met"]
    assert harness.bar("a", 1.1, most=1.1)["met"] and not harness.bar("a", math.nan, most=1.1)["met"]
    calls: list[int] = []
    times = harness.interleaved({"a": lambda: calls.append(1)}, repeats=50, warmup=1, seconds=0.0)
    assert len(calls) == 4 and times["a"]["lowest"] <= times["a"]["median"] <= times["a"]["highest"]


def test_highest_memory_is_that_of_the_call() -> None:
    size = 50 * 2**20

    def call() -> None:
        for _ in range(3):
            torch.ones(size // 4)

    # The kernel counts pages in batches.
    assert 0.95 * size < memory.highest_memory("torch", call) < 1.5 * size


@pytest.fixture(scope="module")
def person() -> dict[str, np.ndarray]:
    return effective_samples.person(23)


@pytest.mark.parametrize("kind", ["bootstrap", "by_pair"])
def test_filters_estimate_the_likelihood(kind: str, person: dict[str, np.ndarray]) -> None:
    log_likelihood = jax.jit(getattr(particles, kind)(person), static_argnums=2)
    trials = [person[name][None] for name in ("pair", "choice", "reward")]
    params = {"alpha": 0.3, "beta": 4.0, "kappa": 0.5, "zeta": 0.0}
    exact = noisy_q.exact_conditionals({name: np.array([x]) for name, x in params.items()}, *trials).sum()
    repeats = 211
    theta = jnp.tile(jnp.array(list(params.values())), (repeats, 1))
    found = log_likelihood(theta, jax.random.key(1), 64)
    # Without noise every particle is the learner.
    np.testing.assert_allclose(found, exact, rtol=1e-5)
    estimates = np.exp(np.asarray(log_likelihood(theta.at[:, 3].set(0.6), jax.random.key(1), 64), float))
    many = {name: np.full(1, x) for name, x in {**params, "zeta": 0.6}.items()}
    reference = np.exp(noisy_q.particle_filter(many, *trials, particles=2**14, seed=0).total[0])
    error = estimates.std() / math.sqrt(repeats)
    assert abs(estimates.mean() - reference) < 4 * error
    assert error < 0.05 * reference


def test_pmmh_samples_the_posterior_of_a_noisy_likelihood() -> None:
    def flat(theta, key, particles):
        # The estimate of a likelihood of 1: unbiased, with a deviation of its log of 0.7.
        return 0.7 * jax.random.normal(key, theta.shape[:1]) - 0.5 * 0.7**2

    run = effective_samples.sample_pmmh(flat, 8, (6, 12), 1000)
    assert effective_samples.smallest_ess(run["draws"]) > 400
    for name, draws in run["draws"].items():
        low, high = effective_samples.PRIORS[name].range()
        assert draws.shape == (effective_samples.CHAINS, 12_000)
        share = (draws - low) / (high - low)
        assert abs(share.mean() - 0.5) < 0.05
        assert abs(share.std() - 1 / math.sqrt(12)) < 0.03


def test_t_distributions_of_clusters_find_the_evidence_of_two_modes() -> None:
    # Posterior of two narrow modes, of which the far one has a third of the mass, under a standard normal prior.
    scale, shares = 0.2, np.array([0.4, 0.6])
    modes = np.stack([np.full(truth.DIMS, 0.7), np.full(truth.DIMS, -0.9)])

    def log_likelihood(points: np.ndarray) -> np.ndarray:
        parts = [scipy.stats.multivariate_normal(mode, scale**2).logpdf(points) for mode in modes]
        return logsumexp(parts, axis=0, b=shares[:, None])

    widths = np.full(truth.DIMS, 1 + scale**2)
    masses = [scipy.stats.multivariate_normal(np.zeros(truth.DIMS), np.diag(widths)).pdf(mode) for mode in modes]
    rng = np.random.default_rng(3)
    proposal = truth.fit(log_likelihood, rng, many=True)
    points = proposal.sample(rng, 2_003)
    log_density = proposal.log_density(points)
    reference = [
        scipy.stats.multivariate_t(part.location, part.scale @ part.scale.T, truth.FREEDOM) for part in proposal.parts
    ]
    few = sum(share * part.pdf(points[::331]) for share, part in zip(proposal.shares, reference, strict=True))
    np.testing.assert_allclose(log_density[::331], np.log(few), rtol=1e-8)
    weights = log_likelihood(points) + truth.log_prior(points) - log_density
    found = logsumexp(weights) - np.log(len(weights))
    error = np.exp(weights - found).std() / np.sqrt(len(weights))
    assert error < 0.05
    assert abs(found - np.log(shares @ masses)) < 4 * error


@pytest.mark.slow
def test_noise_of_the_gradient_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gradient_noise.main(["--quick", "--out", str(tmp_path)])
    rows = json.loads((tmp_path / "gradient_noise.json").read_text())["results"]["rows"]
    assert len(rows) == 2 * 2 * len(gradient_noise.CASES)
    assert all(row["variance ratio"] == 1 for row in rows if row["outcome_samples"] == 1)
    assert all(row["variance"] > 0 and row["seconds"] > 0 for row in rows)
    assert "some hidden" in capsys.readouterr().out


def test_one_of_the_condition_masks_is_kept() -> None:
    simulator, settings = gradient_noise.CASES["ddm"]
    batch = make_batch(simulator, settings, 0, 0).data
    for index in (0, 1):
        kept = gradient_noise.one_set(batch, index)
        np.testing.assert_array_equal(kept["conditioned"][:, 0], batch["conditioned"][:, index])
        np.testing.assert_array_equal(kept["visible"][:, 0], batch["visible"][:, index])


def test_particles_are_tuned() -> None:
    def log_likelihood(theta, key, particles):
        return 10 / particles * jax.random.normal(key, theta.shape[:1])

    count, std = particles.tune(log_likelihood, np.zeros(4), 4096)
    assert count == 8 and 1.0 < std < 1.4
    assert particles.tune(log_likelihood, np.zeros(4), 4)[0] == 4


SCRIPTS = (
    "density", "efficiency", "training_step", "gradient", "scaling", "rollout", "effective_samples", "speculative",
    "posterior_predictive", "hierarchical_fit", "formula_recovery", "hierarchical_particles", "compilations",
    "distinct_inputs", "compiler_options", "missing_history", "seeds",
)  # fmt: skip
# Those that compile many programs for JAX.
SLOW = SCRIPTS[3:]


@pytest.mark.parametrize(
    "script", [pytest.param(script, marks=[pytest.mark.slow] * (script in SLOW)) for script in SCRIPTS]
)
def test_scripts_run(script: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    importlib.import_module(script).main(["--quick", "--out", str(tmp_path)])
    written = json.loads((tmp_path / f"{script}.json").read_text())
    bars = written["results"]["bars"]
    # At these sizes a power may be anything.
    assert bars and all(math.isfinite(row["value"]) and (row["value"] > 0 or "slope" in row["what"]) for row in bars)
    assert (tmp_path / "speed.png").exists() == (script == "scaling")
    importlib.import_module("summary").main(["--out", str(tmp_path)])
    shown = capsys.readouterr().out
    assert all(row["what"] in shown for row in bars)
    missing = [f"{other}.py: not measured" for other in SCRIPTS if other != script]
    assert all(line in shown for line in missing)


def test_results_of_a_gpu_stand_beside_those_of_a_processor(tmp_path, monkeypatch):
    for machine in ({"cpu": "one"}, {"cpu": "one", "gpu": "a GPU"}, {"cpu": "one", "jax_device": "cuda:0"}):
        monkeypatch.setattr(harness, "hardware", lambda machine=machine: machine)
        path = harness.write_results("x", {}, tmp_path)
        assert path.name == ("x.json" if len(machine) == 1 else "x_gpu.json")
        assert json.loads(path.read_text())["hardware"] == machine
