"""The reference of the speed benchmarks: autoregression that encodes everything anew at every step (TNP-D-AR).

What one does without a buffer, written as well as we can. It uses the same weights as the network that it is compared
with and gives the same numbers (`block=1`), but none of the package's arithmetic:

- context and target are one stream of tokens, so that queries, keys and values are one matrix product a layer;
- the last layer computes the target alone, since nobody reads the context's tokens after it;
- all draws read the same context at the first step, which is encoded once for them;
- torch attends by `scaled_dot_product_attention`, over exactly the tokens that there are;
- JAX compiles a step for a fixed number of tokens: the context is padded to the next of a few sizes, and its softmax
  is divided after the product with the values, a head at a time;
- draws are a batch; on a processor only as many together as its cache holds (`draws_at_once`), which is faster.

Functions come in pairs, ``torch_...`` and ``jax_...``. All of them are for networks of one real input and one real
outcome (`harness.FUNCTION`), standardised already, without parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np

# Tokens that are computed together on a processor, and on a GPU. With 1024 context points one draw at a time is more
# than twice as fast in JAX as two; with 64 points sixteen are a fifth (JAX) to a third (torch) faster than one.
_TOKENS_ON_CPU, _TOKENS_ON_GPU = 1024, 2**18
_LEAST_SCALE = 1e-3


def draws_at_once(net: Any, size: int) -> int:
    """Draws of `size` tokens that are computed together, where that is for us to choose."""
    if net.backend == "torch":
        on_cpu = net.device.type == "cpu"
    else:
        on_cpu = next(iter(net.weights["role.target"].devices())).platform == "cpu"
    return max(1, (_TOKENS_ON_CPU if on_cpu else _TOKENS_ON_GPU) // size)


def buckets(context: int, trials: int) -> list[tuple[int, int, int]]:
    """Sizes that contexts are padded to in JAX: (size, first step, step after the last); at most eight of them."""
    length = max(16, -(-trials // 8))
    return [(context + min(k + length, trials), k, min(k + length, trials)) for k in range(0, trials, length)]


# torch ----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=8)
def _torch_weights(net: Any) -> dict[str, Any]:
    """The network's weights; query, key and value projections of a layer joined to one matrix."""
    import torch

    weights = {name: weight.detach() for name, weight in net.weights.items()}
    for index in range(net.config.depth):
        for kind in ("weight", "bias"):
            parts = [weights[f"layers.{index}.{part}.{kind}"] for part in ("query", "key_value")]
            weights[f"layers.{index}.qkv.{kind}"] = torch.cat(parts)
    return weights


def torch_represent(net: Any, context: Any, x: Any) -> Any:
    """Representation (S, W) of targets x (S,), given contexts (S, n, 2): columns x and y."""
    import torch
    from torch.nn import functional

    weights, config = _torch_weights(net), net.config
    size, head = config.width, config.width // config.heads

    def linear(name: str, x: Any) -> Any:
        return functional.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def perceptron(name: str, x: Any) -> Any:
        return linear(f"{name}.out", functional.silu(linear(f"{name}.hidden", x), inplace=True))

    def norm(name: str, x: Any) -> Any:
        return functional.layer_norm(x, (size,), weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-5)

    def heads(x: Any) -> Any:
        return x.unflatten(-1, (config.heads, head)).transpose(1, 2)

    pairs = perceptron("embed.pair", context) + weights["role.context"]
    target = perceptron("embed.target", x[:, None, None]) + weights["role.target"]
    tokens = torch.cat([pairs, target], 1)
    for index in range(config.depth):
        layer = f"layers.{index}"
        query, key, value = linear(f"{layer}.qkv", norm(f"{layer}.norm_attention", tokens)).split(size, -1)
        # Nobody reads the target: the null token takes its place among keys and values.
        key[:, -1], value[:, -1] = weights[f"{layer}.null_key"].flatten(), weights[f"{layer}.null_value"].flatten()
        if index == config.depth - 1:
            query, tokens = query[:, -1:], tokens[:, -1:]
        read = functional.scaled_dot_product_attention(heads(query), heads(key), heads(value))
        tokens = tokens + linear(f"{layer}.merge", read.transpose(1, 2).flatten(2))
        tokens = tokens + perceptron(f"{layer}.mlp", norm(f"{layer}.norm_mlp", tokens))
    return linear("heads.y.out", functional.silu(linear("heads.y.hidden", norm("norm_out", tokens[:, 0]))))


def _torch_log_prob(raw: Any, y: Any) -> Any:
    from torch.nn import functional

    logits, means, scales = raw.chunk(3, -1)
    scales = functional.softplus(scales) + _LEAST_SCALE
    log_normal = -0.5 * ((y[..., None] - means) / scales) ** 2 - scales.log() - 0.5 * math.log(2 * math.pi)
    return (logits.log_softmax(-1) + log_normal).logsumexp(-1)


def _torch_draw(raw: Any, uniform: Any) -> Any:
    import torch
    from torch.nn import functional

    logits, means, scales = raw.chunk(3, -1)
    below = logits.softmax(-1).cumsum(-1)[..., :-1]
    component = (uniform[..., :1] >= below).sum(-1, keepdim=True)
    std = functional.softplus(scales.gather(-1, component)) + _LEAST_SCALE
    return (means.gather(-1, component) + std * torch.special.ndtri(uniform[..., 1:2]))[..., 0]


def torch_step(net: Any, context: Any, x: Any, uniform: Any, at_once: int | None = None) -> tuple[Any, Any]:
    """Draw one target of each draw: outcomes and log densities (S,).

    Args:
        net: the network.
        context: (S, n, 2), or (1, n, 2) where all draws have the same.
        x: (S,).
        uniform: (S, 2).
        at_once: draws that are computed together; None = `draws_at_once`.
    """
    import torch

    at_once = at_once or draws_at_once(net, context.shape[1])
    chunks = zip(context.split(at_once), x[: len(context)].split(at_once), strict=True)
    raw = torch.cat([torch_represent(net, *chunk) for chunk in chunks]).expand(len(x), -1)
    outcome = _torch_draw(raw, uniform)
    return outcome, _torch_log_prob(raw, outcome)


def torch_rollout(net: Any, context: Any, x: Any, noise: Any, at_once: int | None = None) -> tuple[Any, Any]:
    """Draw K targets one after another; outcomes and log densities (S, K).

    Args:
        net: the network.
        context: (n, 2).
        x: (K,), inputs of the targets.
        noise: uniform numbers (S, K, 2).
        at_once: draws that are computed together; None = `draws_at_once`.
    """
    import torch

    draws, count = noise.shape[:2]
    full = torch.cat([context, torch.zeros((count, 2), device=context.device)])[None].repeat(draws, 1, 1)
    full[:, len(context) :, 0] = x
    log_probs = torch.empty((draws, count), device=context.device)
    for k in range(count):
        known = full[: draws if k else 1, : len(context) + k]
        outcome, log_probs[:, k] = torch_step(net, known, full[:, len(context) + k, 0], noise[:, k], at_once)
        full[:, len(context) + k, 1] = outcome
    return full[:, len(context) :, 1], log_probs


def torch_conditionals(net: Any, context: Any, x: Any, y: Any) -> Any:
    """Log density (K,) of each y (K,) given the context (n, 2) and the pairs before it, one evaluation each."""
    import torch

    pairs = torch.stack([x, y], -1)
    raw = [torch_represent(net, torch.cat([context, pairs[:k]])[None], x[k : k + 1]) for k in range(len(x))]
    return _torch_log_prob(torch.cat(raw), y)


# JAX ------------------------------------------------------------------------------------------------------------


def jax_represent(net: Any, context: Any, known: Any, x: Any) -> Any:
    """Representation (W,) of a target x (), given the first `known` points of a context (n, 2)."""
    import jax
    import jax.numpy as jnp

    weights, config = net.weights, net.config
    size, head = config.width, config.width // config.heads

    def linear(name: str, x: Any) -> Any:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def perceptron(name: str, x: Any) -> Any:
        return linear(f"{name}.out", jax.nn.silu(linear(f"{name}.hidden", x)))

    def norm(name: str, x: Any) -> Any:
        return jax.nn.standardize(x, epsilon=1e-5) * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def heads(x: Any) -> Any:
        return x.reshape(-1, config.heads, head).swapaxes(0, 1)

    pairs = perceptron("embed.pair", context) + weights["role.context"]
    target = perceptron("embed.target", x[None, None]) + weights["role.target"]
    tokens = jnp.concatenate([pairs, target])
    hidden = jnp.where(jnp.arange(len(tokens)) < known, 0.0, -math.inf).at[-1].set(0.0)
    for index in range(config.depth):
        layer = f"layers.{index}"
        joined = (jnp.concatenate([weights[f"{layer}.{part}.{kind}"] for part in ("query", "key_value")])
                  for kind in ("weight", "bias"))  # fmt: skip
        matrix, bias = joined
        query, key, value = jnp.split(norm(f"{layer}.norm_attention", tokens) @ matrix.T + bias, 3, -1)
        # Nobody reads the target: the null token takes its place among keys and values.
        key = key.at[-1].set(weights[f"{layer}.null_key"].reshape(-1))
        value = value.at[-1].set(weights[f"{layer}.null_value"].reshape(-1))
        if index == config.depth - 1:
            query, tokens = query[-1:], tokens[-1:]
        scores = heads(query / math.sqrt(head)) @ heads(key).mT + hidden
        shares = jnp.exp(scores - scores.max(-1, keepdims=True))
        read = (shares @ heads(value)) / shares.sum(-1, keepdims=True)
        tokens = tokens + linear(f"{layer}.merge", read.swapaxes(0, 1).reshape(-1, size))
        tokens = tokens + perceptron(f"{layer}.mlp", norm(f"{layer}.norm_mlp", tokens))
    return linear("heads.y.out", jax.nn.silu(linear("heads.y.hidden", norm("norm_out", tokens[0]))))


def _jax_log_prob(raw: Any, y: Any) -> Any:
    import jax
    import jax.numpy as jnp

    logits, means, scales = jnp.split(raw, 3, -1)
    scales = jax.nn.softplus(scales) + _LEAST_SCALE
    log_normal = -0.5 * ((y[..., None] - means) / scales) ** 2 - jnp.log(scales) - 0.5 * math.log(2 * math.pi)
    return jax.nn.logsumexp(jax.nn.log_softmax(logits) + log_normal, -1)


def _jax_draw(raw: Any, uniform: Any) -> Any:
    import jax
    import jax.numpy as jnp

    logits, means, scales = jnp.split(raw, 3, -1)
    below = jnp.cumsum(jax.nn.softmax(logits), -1)[..., :-1]
    component = (uniform[..., :1] >= below).sum(-1, keepdims=True)
    mean, scale = (jnp.take_along_axis(part, component, -1)[..., 0] for part in (means, scales))
    return mean + (jax.nn.softplus(scale) + _LEAST_SCALE) * jax.scipy.special.ndtri(uniform[..., 1])


def jax_step(net: Any, context: Any, known: Any, x: Any, uniform: Any, at_once: int | None = None) -> tuple[Any, Any]:
    """`torch_step`, given the first `known` points of each context (S, n, 2); to be compiled."""
    import jax
    import jax.numpy as jnp

    if len(context) == 1:
        raw = jax_represent(net, context[0], known, x[0])[None]
    else:
        at_once = at_once or draws_at_once(net, context.shape[1])
        raw = jax.lax.map(lambda each: jax_represent(net, each[0], known, each[1]), (context, x), batch_size=at_once)
    raw = jnp.broadcast_to(raw, (len(x), raw.shape[-1]))
    outcome = _jax_draw(raw, uniform)
    return outcome, _jax_log_prob(raw, outcome)


def jax_rollout(net: Any, context: Any, x: Any, noise: Any, at_once: int | None = None) -> tuple[Any, Any]:
    """`torch_rollout`; to be compiled."""
    import jax
    import jax.numpy as jnp

    points, (draws, count) = len(context), noise.shape[:2]
    pairs = jnp.zeros((draws, count, 2)).at[:, :, 0].set(x)
    full = jnp.concatenate([jnp.broadcast_to(context, (draws, *context.shape)), pairs], 1)
    log_probs = []
    for size, first, stop in buckets(points, count):

        def step(k: Any, state: tuple[Any, Any], size: int = size) -> tuple[Any, Any]:
            full, log_probs = state
            outcome, log_prob = jax_step(net, full[:, :size], points + k, full[:, points + k, 0], noise[:, k], at_once)
            return full.at[:, points + k, 1].set(outcome), log_probs.at[:, k].set(log_prob)

        if first == 0:
            outcome, log_prob = jax_step(net, context[None], points, full[:, points, 0], noise[:, 0])
            full = full.at[:, points, 1].set(outcome)
            log_probs = jnp.zeros((draws, count)).at[:, 0].set(log_prob)
        full, log_probs = jax.lax.fori_loop(max(first, 1), stop, step, (full, log_probs))
    return full[:, points:, 1], log_probs


def jax_conditionals(net: Any, context: Any, x: Any, y: Any) -> Any:
    """`torch_conditionals`, small contexts together; to be compiled."""
    import jax
    import jax.numpy as jnp

    points = len(context)
    full = jnp.concatenate([context, jnp.stack([x, y], -1)])
    raw = []
    for size, first, stop in buckets(points, len(x)):

        def one(k: Any, size: int = size) -> Any:
            return jax_represent(net, full[:size], points + k, x[k])

        raw.append(jax.lax.map(one, jnp.arange(first, stop), batch_size=draws_at_once(net, size)))
    return _jax_log_prob(jnp.concatenate(raw), y)


# Both -----------------------------------------------------------------------------------------------------------


def rollout(net: Any, at_once: int | None = None) -> Callable[..., Any]:
    """`torch_rollout` or the compiled `jax_rollout` of a network: function (context, x, noise)."""
    if net.backend == "torch":
        return partial(torch_rollout, net, at_once=at_once)
    import jax

    return jax.jit(partial(jax_rollout, net, at_once=at_once))


def conditionals(net: Any) -> Callable[..., Any]:
    """`torch_conditionals` or the compiled `jax_conditionals` of a network: function (context, x, y)."""
    if net.backend == "torch":
        return partial(torch_conditionals, net)
    import jax

    return jax.jit(partial(jax_conditionals, net))


def one_step(net: Any, at_once: int | None = None) -> Callable[..., Any]:
    """One step of `rollout`: function (context (S, n, 2), x (S,), uniform (S, 2)); all points are known."""
    if net.backend == "torch":
        return partial(torch_step, net, at_once=at_once)
    import jax

    def step(context: Any, x: Any, uniform: Any) -> Any:
        return jax_step(net, context, context.shape[1], x, uniform, at_once)

    return jax.jit(step)


def step_sizes(backend: str, context: int, trials: int) -> list[int]:
    """How many context points each of the K steps computes with, padding included."""
    if backend == "torch":
        return [context + k for k in range(trials)]
    return [context, *(size for size, first, stop in buckets(context, trials) for _ in range(max(first, 1), stop))]


def estimate_rollout(sizes: Sequence[int], measured: dict[int, float], shared: float) -> float:
    """Time of all steps from that of a few: linear between the sizes measured.

    Args:
        sizes: from `step_sizes`.
        measured: size -> time of one step of all draws.
        shared: time of the first step, whose context all draws share.
    """
    known = sorted(measured)
    return shared + float(np.interp(sizes[1:], known, [measured[size] for size in known]).sum())
