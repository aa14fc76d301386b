"""A context that is summarised by latent tokens obeys the laws, and what is kept of it has one size."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch", reason="the laws are checked in torch first")
pytest.importorskip("pyro", reason="the laws are checked on distributions")
pytest.importorskip("jax", reason="both backends are compared")
pytest.importorskip("numpyro", reason="both backends are compared")

from tests.laws import test_dependence, test_draws, test_mirror, test_reencoding
from tests.laws.cases import BACKENDS, conditionals, first_told
from tests.networks import FUNCTION, TINY, Case, array, data, network

pytestmark = pytest.mark.usefixtures("quick_compilation")

LATENTS = 3
SUMMARISED = Case("summarised", FUNCTION.schema, config=replace(TINY, latents=LATENTS))


@pytest.mark.parametrize("variant", ["plain", "mask", "block of 3"])
def test_one_pass_equals_rollout(variant):
    test_draws.check_one_pass(SUMMARISED, "torch", test_draws.ROLLOUTS[variant])


def test_a_context_is_still_a_set():
    test_dependence.test_context_is_a_set(SUMMARISED, "torch")


@pytest.mark.parametrize("with_context", [True, False])
def test_blocks_encode_anew(with_context):
    test_reencoding.test_block_of_one_is_re_encoding_autoregression(SUMMARISED, with_context)


def test_both_backends_compute_the_same_numbers():
    test_mirror.test_mirror_of_densities(SUMMARISED)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("points", [2, 11])
def test_a_summary_has_one_size(backend, points):
    context = data(SUMMARISED, points=points).context
    cache = network(SUMMARISED, backend).encode(array(backend, context)).cache
    assert [segment.values.shape[3] for segment in cache.context] == [LATENTS] * TINY.depth


def test_every_point_of_the_context_counts():
    given = data(SUMMARISED)
    before = conditionals(SUMMARISED, "torch", given, **first_told(given))
    for point in range(5):
        context = {name: x.copy() for name, x in given.context.items()}
        context["y"][:, point] += 1
        after = conditionals(SUMMARISED, "torch", given, **{**first_told(given), "context": context})
        assert (np.abs(after - before) > 1e-6).any()
