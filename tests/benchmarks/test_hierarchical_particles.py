"""The particle method of hierarchical fits samples what it should, and the comparison with HSSM runs on our side."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

for _library in ("jax", "torch"):
    pytest.importorskip(_library)

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import hierarchical_particles  # noqa: E402
import hssm_end_to_end  # noqa: E402
import particles  # noqa: E402

from ppl_buffer.workflow.hierarchical import MEAN_SCALE, SPREAD_MEDIAN, SPREAD_SCALE  # noqa: E402

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_the_group_is_drawn_from_its_conditional_distribution() -> None:
    people = np.random.default_rng(2).normal(0.7, 0.4, (7, 3)).astype(np.float32)
    chains = 13
    u = jnp.tile(jnp.asarray(people), (chains, 1, 1))

    @jax.jit
    def run(key):
        def step(log_spreads, key):
            means, log_spreads = hierarchical_particles.draw_group(u, log_spreads, key)
            return log_spreads, (means, log_spreads)

        return jax.lax.scan(step, jnp.zeros((chains, 3)), jax.random.split(key, 3_000))[1]

    means, log_spreads = (np.asarray(x)[100:] for x in run(jax.random.key(0)))
    # On a grid of means and log spreads.
    mean, log_spread = np.linspace(-3, 4, 701)[:, None], np.linspace(-4, 3, 501)
    for index in range(3):
        log_density = scipy.stats.norm(mean, np.exp(log_spread)).logpdf(people[:, index, None, None]).sum(0)
        log_density += scipy.stats.norm(0, MEAN_SCALE).logpdf(mean)
        log_density += scipy.stats.norm(math.log(SPREAD_MEDIAN), SPREAD_SCALE).logpdf(log_spread)
        density = np.exp(log_density - log_density.max())
        density /= density.sum()
        for drawn, grid in ((means, mean), (log_spreads, log_spread)):
            expected = (density * grid).sum()
            deviation = math.sqrt((density * (grid - expected) ** 2).sum())
            assert abs(drawn[..., index].mean() - expected) < 0.06 * deviation
            assert drawn[..., index].std() == pytest.approx(deviation, rel=0.06)


def test_density_of_people_is_normal() -> None:
    rng = np.random.default_rng(3)
    u, means, spreads = rng.normal(size=(2, 5, 3)), rng.normal(size=(2, 3)), rng.uniform(0.5, 2, (2, 3))
    expected = scipy.stats.norm(means[:, None], spreads[:, None]).logpdf(u).sum(-1)
    constant = -1.5 * math.log(2 * math.pi)
    np.testing.assert_allclose(hierarchical_particles.normal(u, means, spreads), expected - constant, rtol=1e-5)


def test_people_are_filtered_by_their_own_trials() -> None:
    rng, shape = np.random.default_rng(5), (3, 17)
    pair, choice, reward = rng.integers(0, 2, shape), rng.integers(0, 2, shape), rng.integers(0, 2, shape)
    theta = rng.uniform(0.2, 0.9, (1, 3, 4)).astype(np.float32)
    theta[..., 3] = 0.0
    log_likelihood, numbers = particles.people_by_pair(pair, choice, reward)
    uniform = jnp.asarray(rng.uniform(size=(1, 3, *numbers)), jnp.float32)
    params = dict(zip(("alpha", "beta", "kappa", "zeta"), theta[0].T, strict=True))
    exact = particles.noisy_q.exact_conditionals(params, pair, choice, reward).sum(-1)
    np.testing.assert_allclose(log_likelihood(theta, uniform, 4)[0], exact, rtol=1e-4)


def test_factors_of_walks_are_those_of_the_covariance() -> None:
    z = np.random.default_rng(7).normal(size=(40, 3, 5, 2)) @ np.array([[2.0, 0.0], [1.0, 0.5]])
    factors = np.asarray(particles.walk_factor(z))
    kept = z[10:].reshape(-1, 5, 2)
    for index in range(5):
        covariance = np.cov(kept[:, index].T) + 1e-4 * np.eye(2)
        np.testing.assert_allclose(factors[index] @ factors[index].T, covariance, rtol=1e-4)


@pytest.mark.slow
def test_our_side_is_measured_without_hssm(tmp_path: Path) -> None:
    hssm_end_to_end.main(["--quick", "--out", str(tmp_path)])
    (data,) = json.loads((tmp_path / "hssm_end_to_end.json").read_text())["results"]["data"].values()
    (side,) = data["sides"].values()
    assert side["first"] > 0 and 0.6 < side["mean and sd"]["boundary"][0] < 5
