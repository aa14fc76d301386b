"""The ways in which JAX computes attention, against one dense softmax: strips, filled places, a single key."""

import numpy as np
import pytest

jax = pytest.importorskip("jax")
jnp = pytest.importorskip("jax.numpy")

from ppl_buffer.network.jax.attention import KVSegment, attention, merge, partial_attention  # noqa: E402

SETS, HEADS, SIZE = 2, 3, 7


def array(rng, *shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)


def segment(rng, sets, replicas, tokens, mask=None, causal_offset=None, filled=None):
    keys, values = array(rng, sets, HEADS, replicas, SIZE, tokens), array(rng, sets, HEADS, replicas, tokens, SIZE)
    return KVSegment(keys, values, mask, None, causal_offset, filled)


def dense(query, segments):
    """Mean of values and log of the total, by one softmax over all segments, in NumPy."""
    query = np.asarray(query, float)
    sets, _, replicas, count = query.shape[:4]
    scores, values = [], []
    for each in segments:
        tokens = each.values.shape[3]
        keys = np.broadcast_to(np.asarray(each.keys, float), (sets, HEADS, replicas, SIZE, tokens))
        score = query @ keys
        if each.mask is not None:
            score = np.where(np.asarray(each.mask), score, -np.inf)
        if each.causal_offset is not None:
            score = np.where(np.arange(tokens) < each.causal_offset + np.arange(count)[:, None], score, -np.inf)
        scores.append(score)
        values.append(np.broadcast_to(np.asarray(each.values, float), (sets, HEADS, replicas, tokens, SIZE)))
    score, value = np.concatenate(scores, -1), np.concatenate(values, 3)
    top = score.max(-1, keepdims=True)
    weight = np.exp(score - top)
    total = weight.sum(-1, keepdims=True)
    return weight / total @ value, top + np.log(total)


def places(tokens, filled):
    """Mask of an allocated buffer."""
    return (jnp.arange(tokens) < filled)[None, None, None, None]


# Name -> (replicas, queries, function that makes the segments beside the null token).
CASES = {
    "null token alone": (3, 5, lambda rng: []),
    "shared keys": (3, 5, lambda rng: [segment(rng, SETS, 1, 11)]),
    "keys of each replica": (3, 5, lambda rng: [segment(rng, SETS, 3, 11)]),
    "both": (3, 5, lambda rng: [segment(rng, SETS, 1, 11), segment(rng, SETS, 3, 4)]),
    "causal, in strips": (1, 137, lambda rng: [segment(rng, SETS, 1, 137, causal_offset=0)]),
    "causal, after a context": (1, 70, lambda rng: [segment(rng, SETS, 1, 5), segment(rng, SETS, 1, 73, None, 3)]),
    "causal, masked": (1, 66, lambda rng: [segment(rng, SETS, 1, 66, places(66, 60), 1)]),
    **{
        f"{filled} of 13 places filled": (3, 2, lambda rng, filled=filled: [
            segment(rng, SETS, 3, 13, places(13, filled), filled=filled)
        ])
        for filled in (1, 4, 5, 13)
    },
}  # fmt: skip


@pytest.mark.parametrize("name", list(CASES))
def test_attention_is_one_softmax(name):
    replicas, queries, make = CASES[name]
    rng = np.random.default_rng(0)
    query = array(rng, SETS, HEADS, replicas, queries, SIZE)
    segments = [segment(rng, 1, 1, 1), *make(rng)]
    mean, log_total = dense(query, segments)
    part = partial_attention(query, segments)
    np.testing.assert_allclose(attention(query, segments), mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(part.output / part.sum, mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(part.max + jnp.log(part.sum), log_total, rtol=1e-4, atol=1e-5)


def test_merging_parts_is_associative():
    rng = np.random.default_rng(0)
    query = array(rng, SETS, HEADS, 1, 5, SIZE)
    parts = [partial_attention(query, [segment(rng, SETS, 1, tokens)]) for tokens in (1, 4, 11)]
    left, right = merge([merge(parts[:2]), parts[2]]), merge([parts[0], merge(parts[1:])])
    for one, other in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
