"""The ways in which attention is computed, against one dense softmax: strips, parts, fused kernel, shared keys."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from ppl_buffer.network.torch import attention as module  # noqa: E402
from ppl_buffer.network.torch.attention import KVSegment, attention, partial_attention  # noqa: E402

HEADS, SIZE = 3, 7


def tensor(rng, *shape):
    return torch.tensor(rng.normal(size=shape), dtype=torch.float32)


def dense(query, segments):
    """Mean of values and log of the total, by one softmax over all segments, in NumPy."""
    batch, _, replicas, count = query.shape[:4]
    scores, values = [], []
    for segment in segments:
        tokens = segment.keys.shape[3]
        keys = np.broadcast_to(segment.keys.numpy(), (batch, HEADS, replicas, tokens, SIZE)).astype(float)
        score = np.einsum("bhrtd,bhrnd->bhrtn", query.numpy().astype(float), keys)
        if segment.mask is not None:
            score = np.where(segment.mask.numpy(), score, -np.inf)
        if segment.causal_offset is not None:
            score = np.where(np.arange(tokens) < segment.causal_offset + np.arange(count)[:, None], score, -np.inf)
        scores.append(score)
        values.append(np.broadcast_to(segment.values.numpy(), (batch, HEADS, replicas, tokens, SIZE)))
    scores, values = np.concatenate(scores, -1), np.concatenate(values, 3)
    top = scores.max(-1, keepdims=True)
    weight = np.exp(scores - top)
    total = weight.sum(-1, keepdims=True)
    return np.einsum("bhrtn,bhrnd->bhrtd", weight / total, values), top + np.log(total)


def segment(rng, batch, replicas, tokens, mask=None, causal_offset=None):
    shape = (batch, HEADS, replicas, tokens, SIZE)
    return KVSegment(tensor(rng, *shape), tensor(rng, *shape), mask, None, causal_offset)


def cases():
    """Name -> (replicas, queries, function that makes the segments); 5 data sets. Each has a null token of batch 1."""
    keep = np.random.default_rng(1)

    def mask(*shape):
        return torch.tensor(keep.random(shape) < 0.6)

    return {
        "null token alone": (1, 41, lambda rng: []),
        "few queries": (1, 2, lambda rng: [segment(rng, 5, 1, 11)]),
        "shared keys": (13, 41, lambda rng: [segment(rng, 5, 1, 11)]),
        "keys that all data sets share": (13, 41, lambda rng: [segment(rng, 1, 1, 11)]),
        "masked tokens": (13, 41, lambda rng: [segment(rng, 5, 1, 11, mask(5, 1, 1, 1, 11))]),
        "masked for each query": (2, 41, lambda rng: [segment(rng, 5, 1, 11, mask(5, 1, 2, 41, 11))]),
        "keys of each replica": (2, 41, lambda rng: [segment(rng, 5, 2, 11, mask(5, 1, 2, 1, 11))]),
        "both": (13, 41, lambda rng: [segment(rng, 5, 1, 17), segment(rng, 5, 13, 11, mask(5, 1, 13, 1, 11))]),
        "causal, in strips": (1, 137, lambda rng: [segment(rng, 5, 1, 137, mask(5, 1, 1, 1, 137), causal_offset=0)]),
        "causal after a context": (
            1,
            70,
            lambda rng: [segment(rng, 5, 1, 17), segment(rng, 5, 1, 73, causal_offset=3)],
        ),
    }


@pytest.mark.parametrize("budget", [2**18, 100], ids=["whole", "in parts"])
@pytest.mark.parametrize("gradient", [False, True], ids=["kernel", "gradient"])
@pytest.mark.parametrize("name", list(cases()))
def test_attention_is_one_softmax(name, gradient, budget, monkeypatch):
    monkeypatch.setattr(module, "_SCORES_AT_ONCE", budget)
    replicas, queries, make = cases()[name]
    rng = np.random.default_rng(0)
    null = segment(rng, 1, 1, 1)
    query = tensor(rng, 5, HEADS, replicas, queries, SIZE).requires_grad_(gradient)
    segments = [null, *make(rng)]
    mean, log_total = dense(query.detach(), segments)
    part = partial_attention(query, segments)
    np.testing.assert_allclose(attention(query, segments).detach(), mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose((part.output / part.sum).detach(), mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose((part.max + part.sum.log()).detach(), log_total, rtol=1e-4, atol=1e-5)


def test_the_kernel_is_used_where_nothing_is_differentiated(monkeypatch):
    if module._FLASH is None:
        pytest.skip("this torch has no fused attention for processors")
    calls = []
    kernel = module._FLASH
    monkeypatch.setattr(module, "_FLASH", lambda *x, **more: calls.append(1) or kernel(*x, **more))
    rng = np.random.default_rng(0)
    query, shared = tensor(rng, 5, HEADS, 13, 4, SIZE), segment(rng, 5, 1, 11)
    attention(query, [shared])
    assert calls
    calls.clear()
    query.requires_grad_()
    total = attention(query, [shared]).sum()
    total.backward()
    assert not calls and math.isfinite(total.item()) and query.grad.abs().sum() > 0
