"""Ways of computing that exist for speed alone give the numbers of the plain ones, in JAX."""

from __future__ import annotations

import numpy as np
import pytest

from tests.networks import CONTAMINATED, FUNCTION, LEARNING, SLIDER, Case, data, network

jax = pytest.importorskip("jax")
jnp = pytest.importorskip("jax.numpy")

from ppl_buffer.network.embeddings import embed_targets  # noqa: E402
from ppl_buffer.network.jax import joint  # noqa: E402
from ppl_buffer.network.jax.cache import Cache, allocate  # noqa: E402
from ppl_buffer.network.jax.network import encode_params, extend, predict, prepare, step  # noqa: E402

pytestmark = pytest.mark.usefixtures("quick_compilation")


def arranged(case: Case, sets: int, trials: int, replicas: int = 1) -> tuple[dict, dict]:
    """Trials (B, R, K) and parameters (B, R) of random data."""
    drawn = data(case, sets * replicas, trials)

    def put(x: np.ndarray) -> jax.Array:
        return jnp.asarray(x.reshape(sets, replicas, *x.shape[1:]))

    columns = np.moveaxis(drawn.value, -1, 0) if case.schema.event_shape_tail else [drawn.value]
    outcomes = dict(zip(case.schema.outcomes, columns, strict=True))
    groups = {"inputs": drawn.inputs, "outcomes": outcomes, "feedback": drawn.feedback}
    trials = {group: {name: put(x) for name, x in values.items()} for group, values in groups.items()}
    return trials, {name: put(x) for name, x in drawn.params.items()}


@pytest.mark.parametrize("case", [LEARNING, FUNCTION], ids=str)
def test_data_sets_observed_in_chunks(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data sets that are observed some at a time: 7 sets of 5 trials, three chunks the last of which is not full."""
    net = network(case, "jax")
    trials, _ = arranged(case, 7, 5)
    valid = jnp.asarray(np.random.default_rng(1).uniform(size=(7, 1, 5)) < 0.8)

    def score(trials: dict) -> jax.Array:
        prepared = joint.prepare_joint.__wrapped__(net, Cache(), trials, valid)
        return joint.conditionals.__wrapped__(net, prepared, encode_params(net, {}), trials["outcomes"], valid, None)

    def both(trials: dict) -> tuple[jax.Array, dict]:
        return score(trials), jax.grad(lambda trials: score(trials).sum())(trials)

    whole = jax.jit(both)(trials)
    assert "scan[" not in str(jax.make_jaxpr(score)(trials))
    monkeypatch.setattr(joint, "_TOKENS_AT_ONCE", 15)
    # Another function, so that nothing compiled is found.
    chunked = jax.jit(lambda trials: both(trials))(trials)
    assert ("scan[" in str(jax.make_jaxpr(lambda trials: score(trials))(trials))) == (jax.default_backend() == "cpu")
    for expected, found in zip(jax.tree.leaves(whole), jax.tree.leaves(chunked), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-5)


def test_draws_one_step_ahead_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """7 sets under 3 draws of their parameters, of 5 trials, some sets at a time; densities as without draws."""
    net = network(LEARNING, "jax")
    trials, _ = arranged(LEARNING, 7, 5)
    _, params = arranged(LEARNING, 7, 1, replicas=3)
    valid = jnp.asarray(np.random.default_rng(1).uniform(size=(7, 1, 5)) < 0.8)
    noise = jnp.asarray(np.random.default_rng(2).uniform(size=(7, 3, 5, net.schema.noise_size)), jnp.float32)
    prepared, conditioned = joint.prepare_joint(net, Cache(), trials, valid), encode_params(net, params)
    shared = (net, prepared, conditioned, trials["outcomes"], valid, None)
    whole = joint.one_step(*shared, noise)
    monkeypatch.setattr(joint, "_TOKENS_AT_ONCE", 40)
    chunked = jax.jit(lambda noise: joint.one_step.__wrapped__(*shared, noise))(noise)
    np.testing.assert_allclose(chunked, whole, rtol=1e-4, atol=2e-5)
    np.testing.assert_allclose(whole[..., 0], joint.conditionals(*shared), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("case", [LEARNING, CONTAMINATED], ids=str)
def test_fused_step_is_extend_and_predict(case: Case) -> None:
    """Three trials enter an allocated buffer and three targets are predicted in one pass, twice in a row."""
    net = network(case, "jax")
    trials, params = arranged(case, 2, 13, replicas=3)
    valid = jnp.asarray(np.random.default_rng(2).uniform(size=(2, 3, 13)) < 0.8)
    segments = encode_params(net, params)

    def part(tree: dict, start: int, stop: int) -> dict:
        return jax.tree.map(lambda x: x[..., start:stop], tree)

    @jax.jit
    def apart() -> jax.Array:
        cache = extend(net, Cache(), part(trials, 0, 5), valid[..., :5])
        found = []
        for k in range(5, 11):
            cache = extend(net, cache, part(trials, k, k + 1), valid[..., k : k + 1])
            targets = part(trials["inputs"], k + 1, k + 2)
            found.append(predict(net, prepare(net, cache, targets, jnp.asarray([k + 1]), (2, 3, 1)), segments))
        return jnp.concatenate(found, 2)

    @jax.jit
    def fused() -> jax.Array:
        cache = extend(net, Cache(), part(trials, 0, 5), valid[..., :5])
        cache, found = allocate(net, cache, (2, 3, 11)), []
        for k in (5, 8):
            targets = part(trials["inputs"], k + 1, k + 4)
            representation, cache = step(
                net, cache, part(trials, k, k + 3), valid[..., k : k + 3], targets, segments, k
            )
            found.append(representation)
        return jnp.concatenate(found, 2)

    np.testing.assert_allclose(fused(), apart(), rtol=1e-4, atol=2e-5)


def test_targets_without_inputs_are_no_constants_to_compute_with_while_compiling() -> None:
    net = network(SLIDER, "jax")
    program = jax.jit(lambda: embed_targets(net, {}, (2, 1, 37))).lower().compile().as_text()
    # The weights are; a program that holds the targets themselves has computed them, which took seconds of larger nets.
    assert "f32[2,1,37" in program and not any(
        "f32[2,1,37" in line for line in program.splitlines() if "constant(" in line
    )
