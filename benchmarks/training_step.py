"""Time of a training step: the buffer against duplicating every target as an observed token (TNP-A), in torch.

M = 256 targets a data set, after a context of N points; loss, gradient and an AdamW update. Three ways, interleaved:

- buffer of 16: the paper's setting. Half of the targets see the context alone, the others a prefix of the buffer;
- buffer of 256: as many buffer tokens as targets, each target seeing those before it: the very loss of TNP-A;
- TNP-A: context, observed targets and targets in one sequence of N + 2M tokens under one mask, attended to by
  `scaled_dot_product_attention`, with the same weights. It computes the same loss as the way before.

A second table is of 64 targets: `train(trials=(16, 16), targets=64)` against `trials=(64, 64)`, which has as many
targets and a buffer of as many other trials.

The ratio of the operations that they need (`flops.py`) says what can be hoped for: TNP-A's 2M + N tokens are not many
more than the buffer's N + 16 + M.

    python benchmarks/training_step.py [--quick] [--out DIR] [--seconds 20]
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import flops
import numpy as np
import torch
from harness import (
    FUNCTION,
    bar,
    config_of,
    interleaved,
    normals,
    parse,
    print_bars,
    print_table,
    random_network,
    to_backend,
    write_results,
)
from torch import Tensor
from torch.nn import functional

from ppl_buffer.training.loss import Loss

# Data sets in a batch, and the buffer of the paper's training.
BATCH, BUFFER = 16, 16


def tnp_a_log_prob(net: Any, context: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Log density (B, M) of each y (B, M) given the context (B, N, 2) and the pairs before it."""
    weights, config = net.weights, net.config
    size, points, count = config.width, context.shape[1], x.shape[1]

    def linear(name: str, x: Tensor) -> Tensor:
        return functional.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def perceptron(name: str, x: Tensor) -> Tensor:
        return linear(f"{name}.out", functional.silu(linear(f"{name}.hidden", x)))

    def norm(name: str, x: Tensor) -> Tensor:
        return functional.layer_norm(x, (size,), weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-5)

    def heads(x: Tensor) -> Tensor:
        return x.unflatten(-1, (config.heads, -1)).transpose(1, 2)

    pairs = perceptron("embed.pair", torch.cat([context, torch.stack([x, y], -1)], 1))
    roles = torch.cat([weights["role.context"].expand(points, -1), weights["role.buffer"].expand(count, -1)])
    target = perceptron("embed.target", x[..., None]) + weights["role.target"]
    tokens = torch.cat([pairs + roles, target], 1)
    # Nobody reads a target, so that keys are those of the pairs, and the null token.
    mask = torch.zeros(points + 2 * count, points + count + 1, dtype=torch.bool, device=x.device)
    mask[:, :points] = mask[:, -1] = True
    steps = torch.arange(count, device=x.device)
    mask[points : points + count, points:-1] = steps <= steps[:, None]
    mask[points + count :, points:-1] = steps < steps[:, None]
    for index in range(config.depth):
        layer = f"layers.{index}"
        normed = norm(f"{layer}.norm_attention", tokens)
        key, value = linear(f"{layer}.key_value", normed[:, :-count]).chunk(2, -1)
        null_key, null_value = (weights[f"{layer}.{kind}"].reshape(1, 1, -1) for kind in ("null_key", "null_value"))
        key = torch.cat([key, null_key.expand(len(x), 1, -1)], 1)
        value = torch.cat([value, null_value.expand(len(x), 1, -1)], 1)
        if index == config.depth - 1:
            normed, tokens, mask = normed[:, -count:], tokens[:, -count:], mask[-count:]
        query = linear(f"{layer}.query", normed)
        read = functional.scaled_dot_product_attention(heads(query), heads(key), heads(value), attn_mask=mask)
        tokens = tokens + linear(f"{layer}.merge", read.transpose(1, 2).flatten(2))
        tokens = tokens + perceptron(f"{layer}.mlp", norm(f"{layer}.norm_mlp", tokens))
    logits, means, scales = perceptron("heads.y", norm("norm_out", tokens)).chunk(3, -1)
    scales = functional.softplus(scales) + 1e-3
    log_normal = -0.5 * ((y[..., None] - means) / scales) ** 2 - scales.log() - 0.5 * math.log(2 * math.pi)
    return (logits.log_softmax(-1) + log_normal).logsumexp(-1)


def batch(
    net: Any, sets: int, context: int, buffer: int, targets: int, *, teacher_forced: bool = False
) -> dict[str, Any]:
    """A batch as training makes it, its tensors where the network is.

    With teacher forcing, buffer and targets are the same trials and each target sees those before it.
    """
    rng = np.random.default_rng(0)

    def trials(array: np.ndarray) -> dict[str, Any]:
        named = {"inputs": {"x": array[..., 0]}, "outcomes": {"y": array[..., 1]}}
        return to_backend(net, {**named, "feedback": {}})

    pairs = normals(sets, 1, context + targets, 2)
    if teacher_forced:
        visible = np.broadcast_to(np.arange(targets), (sets, 1, targets)).copy()
        realised = pairs[:, :, context:]
    else:
        visible = np.where(rng.random((sets, 1, targets)) < 0.5, 0, rng.integers(1, buffer + 1, (sets, 1, targets)))
        realised = normals(sets, 1, buffer, 2)
    return {
        "params": {},
        "context": trials(pairs[:, :, :context]),
        "buffer": trials(realised),
        "targets": trials(pairs[:, :, context:]),
        "visible": to_backend(net, visible),
    }


def losses(net: Any, sets: int, context: int, buffer: int, targets: int) -> dict[str, Callable[[], Tensor]]:
    """The three ways: name -> function that returns the mean negative log density."""
    loss = Loss(net)
    pairs = to_backend(net, normals(sets, 1, context + targets, 2))[:, 0]
    small = batch(net, sets, context, buffer, targets)
    large = batch(net, sets, context, targets, targets, teacher_forced=True)
    known, x, y = pairs[:, :context], pairs[:, context:, 0], pairs[:, context:, 1]
    return {
        f"buffer of {buffer}": lambda: loss(small),
        f"buffer of {targets}": lambda: loss(large),
        "TNP-A": lambda: -tnp_a_log_prob(net, known, x, y).mean(),
    }


def flop_ratio(size: str, context: int, buffer: int, targets: int) -> float:
    """Operations of TNP-A over those of the way with a small buffer, which half of the targets see half of."""
    config = config_of(size)
    encoding = flops.encode(config, FUNCTION, context)
    entering = flops.tokens(config, FUNCTION, buffer, buffer * (context + 1) + buffer * (buffer + 1) // 2)
    reads = targets * (context + 1) + targets * (buffer + 1) // 4
    ours = encoding + entering + flops.targets(config, FUNCTION, targets, reads)
    return (encoding + flops.decode(config, FUNCTION, context, targets)) / ours


def step_times(net: Any, ways: dict[str, Callable[[], Tensor]], seconds: float) -> dict[str, Any]:
    """Time a training step with each of the losses."""
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4)

    def step(loss: Callable[[], Tensor]) -> Callable[[], None]:
        def call() -> None:
            optimizer.zero_grad()
            loss().backward()
            optimizer.step()
            if torch.cuda.is_available():
                torch.cuda.synchronize()

        return call

    return interleaved({name: step(loss) for name, loss in ways.items()}, repeats=9, warmup=1, seconds=seconds)


def trainable(size: str) -> Any:
    """A network of random weights that learns."""
    return random_network(config_of(size), "torch", FUNCTION).train().requires_grad_(True)


def measure_targets(
    size: str, sets: int, context: int, buffer: int, targets: int, seconds: float
) -> list[dict[str, Any]]:
    """Time a training step with a buffer of its own size, and with one as large as there are targets."""
    net = trainable(size)
    loss = Loss(net)
    batches = {trials: batch(net, sets, context, trials, targets) for trials in (buffer, targets)}
    ways = {str(trials): lambda data=data: loss(data) for trials, data in batches.items()}
    times = step_times(net, ways, seconds)
    return [
        {"size": size, "context": context, "trials": trials, "targets": targets, "data_sets": sets,
         "times": times[str(trials)]}
        for trials in batches
    ]  # fmt: skip


def measure(size: str, sets: int, context: int, buffer: int, targets: int, seconds: float) -> dict[str, Any]:
    """Time a training step in each way."""
    net = trainable(size)
    times = step_times(net, losses(net, sets, context, buffer, targets), seconds)
    return {
        "size": size,
        "context": context,
        "targets": targets,
        "data_sets": sets,
        "times": times,
        "ratio": times["TNP-A"]["median"] / times[f"buffer of {buffer}"]["median"],
        "flop_ratio": flop_ratio(size, context, buffer, targets),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    options = parse(__doc__, arguments, seconds=20.0)
    cells = [(size, BATCH, context, BUFFER, 256) for size in ("paper", "zoo") for context in (64, 256)]
    if options.quick:
        cells = [("tiny", 2, 5, 3, 7)]
    fewer = cells if options.quick else [("zoo", BATCH, 64, BUFFER, 64)]
    rows = [measure(*cell, options.seconds) for cell in cells]
    print_table(
        f"Training step of {cells[0][1]} data sets with {cells[0][4]} targets, torch",
        ["size", "N", "way", "milliseconds", "TNP-A takes ... times as long", "by operations"],
        [
            [row["size"], row["context"], name, 1e3 * taken["median"],
             row["times"]["TNP-A"]["median"] / taken["median"],
             row["flop_ratio"] if name == f"buffer of {cells[0][3]}" else None]
            for row in rows
            for name, taken in row["times"].items()
        ],
    )  # fmt: skip
    own = [row for cell in fewer for row in measure_targets(*cell, options.seconds)]
    print_table(
        f"Training step of {own[0]['data_sets']} data sets with {own[0]['targets']} targets, torch",
        ["size", "N", "buffer", "milliseconds", "of the processor"],
        [
            [row["size"], row["context"], row["trials"], 1e3 * row["times"]["median"], 1e3 * row["times"]["processor"]]
            for row in own
        ],
    )
    bars = [
        bar(f"training step over the TNP-A way, M={row['targets']}, N={row['context']}, {row['size']}'s size",
            row["ratio"], least=4)
        for row in rows
        if row["context"] != 256
    ]  # fmt: skip
    print_bars(bars)
    write_results("training_step", {"cells": rows, "targets": own, "bars": bars}, options.out)


if __name__ == "__main__":
    main()
