"""Pyro's NUTS gets through the hierarchy that the documentation teaches, and finds a start, whatever the seed."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("pyro")

import pyro
from pyro.infer import MCMC, NUTS

from tests.pyro.hierarchy import deciders, documented_hierarchy

SEEDS = 20


def run(model: Any, seed: int, *args: Any, warmup: int, draws: int) -> MCMC:
    pyro.set_rng_seed(seed)
    mcmc = MCMC(NUTS(model, max_tree_depth=3), num_samples=draws, warmup_steps=warmup, disable_progbar=True)
    mcmc.run(*args)
    return mcmc


@pytest.mark.slow
def test_the_documented_hierarchy_runs_from_every_seed() -> None:
    model = documented_hierarchy()["hierarchical"]
    for seed in range(SEEDS):
        draws = run(model, seed, warmup=12, draws=3).get_samples()
        assert all(x.isfinite().all() for x in draws.values()), seed


@pytest.mark.slow
def test_priors_below_the_responses_start_from_every_seed() -> None:
    model = deciders()
    for seed in range(SEEDS):
        draws = run(model, seed, warmup=2, draws=2).get_samples()
        assert all(x.isfinite().all() for x in draws.values()), seed
    with pytest.raises(ValueError, match="cannot find valid initial params"):
        run(model, 0, False, warmup=2, draws=2)
