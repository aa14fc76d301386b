"""A buffer for a set predictor that was trained without one: a network of ours, or any torch module."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from tqdm.auto import tqdm

from ppl_buffer.checks import check_choice, check_integer, check_number, check_seed
from ppl_buffer.network.network import Network
from ppl_buffer.network.torch.weights import TorchNetwork
from ppl_buffer.simulator import Simulator
from ppl_buffer.training.buffered_module import APART, LOW_RANK, BufferedModule, check_pairs
from ppl_buffer.training.loop import train
from ppl_buffer.training.optimizers import set_learning_rate
from ppl_buffer.training.parts import BUFFER
from ppl_buffer.training.schedule import Schedule, warm_up
from ppl_buffer.training.set_predictor import Pairs, SetPredictor, check_members
from ppl_buffer.training.start import grow, load_start

ALL = "all"
WAYS = (APART, LOW_RANK, ALL)
_WARMUP, _LARGEST_NORM = 100, 1.0

# (random numbers, data sets, points) -> inputs and outcomes, (data sets, points, ...) each.
DrawPairs = Callable[[np.random.Generator, int, int], tuple[ArrayLike, ArrayLike]]


def add_buffer(
    net: Network | str | os.PathLike[str], simulator: Simulator, way: str = LOW_RANK, *, rank: int = 8, **options: Any
) -> TorchNetwork:
    """Teach a network that predicts each target alone, given a context, to predict targets jointly.

    Such a network is a set predictor, or prior-data fitted network: `train(context_only=1.0)` trains one. Realised
    targets then enter a causal buffer (Hassan et al. 2026), whose tokens begin as those of the context.

    Args:
        net: a torch network of an exchangeable model, or what `load` takes.
        simulator: what draws the data sets.
        way: what learns.

            - ``"apart"``: a read of the buffer of its own in each layer, whose result is added and starts at zero;
            - ``"low_rank"``: an addition of rank `rank` to the keys and values of the buffer's tokens (low-rank
              adaptation, Hu et al. 2022, arXiv 2106.09685), which are read beside the others in one softmax;
            - ``"all"``: no new weights, and all of them learn.

            In the first two ways nothing else learns: what the network predicts without a buffer stays as it is, to
            the last bit.
        rank: of ``"low_rank"``.
        options: of `train`, such as `steps`, `minutes`, `out`, `trials`. Targets that see the context alone teach a
            buffer nothing: in the first two ways there are none by default.

    Returns:
        what `train` returns.

    Raises:
        ValueError: if the network is of an ordered model, or has weights for its buffer already, or an argument does
            not fit.
    """
    check_choice("way", way, WAYS)
    check_integer("rank", rank, 1)
    _refuse_others(net)
    start = load_start(net, simulator, None)
    if start.schema.ordered:
        raise ValueError("net: expected a network of an exchangeable model; in an ordered one the past is all buffer")
    if BUFFER not in start.parts or start.config.buffer_rank or start.config.buffer_apart:
        raise ValueError(
            f"net: expected a transformer without weights for a buffer of its own, got parts {start.parts} with "
            f"buffer_rank={start.config.buffer_rank}, buffer_apart={start.config.buffer_apart}"
        )
    config = replace(start.config, buffer_rank=rank if way == LOW_RANK else 0, buffer_apart=way == APART)
    grown = TorchNetwork(start.schema, config, start.standardization, seed=options.get("seed", 0), record=start.record)
    grow(start, grown)
    with torch.no_grad():
        grown.weights["role.buffer"].copy_(grown.weights["role.context"])
        for index in range(config.depth if way == APART else 0):
            for leaf in ("query.weight", "query.bias", "key_value.weight", "key_value.bias"):
                grown.weights[f"layers.{index}.buffer_{leaf}"].copy_(grown.weights[f"layers.{index}.{leaf}"])
    if way != ALL:
        options = {"learns": "buffer", "context_only": 0.0, **options}
    return train(simulator, start=grown, parts=BUFFER, **options)


def _refuse_others(net: object) -> None:
    if isinstance(net, torch.nn.Module) and not isinstance(net, TorchNetwork):
        raise ValueError(
            f"net: expected a network of ppl_buffer, got {type(net).__name__}, a torch module of yours: "
            "`add_buffer_to_module` adds a buffer to one"
        )


def _refuse_ours(module: object) -> None:
    if isinstance(module, TorchNetwork):
        raise ValueError(
            "module: expected a torch module of yours; `add_buffer` adds a buffer to a network of ppl_buffer"
        )


@torch.enable_grad()
def add_buffer_to_module(
    module: SetPredictor,
    draw: DrawPairs,
    way: str = LOW_RANK,
    *,
    rank: int = 8,
    steps: int = 2000,
    context: tuple[int, int] = (1, 64),
    targets: int = 16,
    batch_size: int = 16,
    learning_rate: float = 2e-3,
    seed: int = 0,
) -> BufferedModule:
    """Teach a torch module that is not ours, and predicts each target alone, to predict targets jointly.

    The module is frozen: what it predicts without a buffer stays as it is, to the last bit. The new weights maximise
    the joint log density of targets after contexts of random size, by AdamW (Loshchilov & Hutter 2019, arXiv
    1711.05101) at a rate that is constant and falls to zero in the end.

    Args:
        module: a set predictor: a transformer neural process, a prior-data fitted network or the like.
            `ppl_buffer.training.set_predictor.SetPredictor` says what methods it has to have.
        draw: function (rng, data sets, points) -> inputs and outcomes, of shape (data sets, points) or (data sets,
            points, ...), on the scale that the module reads. Points are exchangeable: context and targets alike.
        way: what learns.

            - ``"low_rank"``: an addition of rank `rank` to the keys and values of the buffer's tokens (low-rank
              adaptation, Hu et al. 2022, arXiv 2106.09685), which are read beside the context's in one softmax;
            - ``"apart"``: a read of the buffer of its own in each layer, whose result is added and starts at zero.
        rank: of ``"low_rank"``.
        steps: of the training.
        context: the least and the largest number of points before the targets.
        targets: how many points learn to be predicted jointly.
        batch_size: data sets of a step.
        learning_rate: its peak.
        seed: of the new weights and of all data.

    Returns:
        the module with a buffer. Its `added` is the module of the new weights.

    Raises:
        ValueError: if the module lacks a method, or one returns something of another shape, or `draw` does; or if a
            loss is not finite, or an argument does not fit.
    """
    _refuse_ours(module)
    check_members(module)
    if not callable(draw):
        raise ValueError(f"draw: expected a function (rng, data sets, points), got {type(draw).__name__}")
    for name, value in (("steps", steps), ("targets", targets), ("batch_size", batch_size)):
        check_integer(name, value)
    rate = check_number("learning_rate", learning_rate, "a number above 0, at most 1", lambda x: 0 < x <= 1)
    least, most = _check_context(context)
    check_seed(seed)

    def batch(step: int) -> tuple[Pairs, Pairs]:
        """Context and targets."""
        rng = np.random.default_rng([seed, step])
        count = int(rng.integers(least, most + 1))
        data = _as_tensors(draw(rng, batch_size, count + targets), module, (batch_size, count + targets))
        known, new = ([part[:, a:b] for part in data] for a, b in ((0, count), (count, count + targets)))
        return (known[0], known[1]), (new[0], new[1])

    buffered = BufferedModule(module, batch(0)[1], way, rank=rank, seed=seed)
    weights, schedule = list(buffered.added.parameters()), Schedule(steps)
    optimizer = torch.optim.AdamW(weights, rate, betas=(0.9, 0.99), weight_decay=0.0)
    buffered.train()
    # None: a bar where someone looks, nothing in a file.
    for step in tqdm(range(steps), desc="buffer", disable=None):
        set_learning_rate([optimizer], rate * schedule.factor(step) * warm_up(step, min(_WARMUP, steps // 10)))
        known, new = batch(step)
        loss = -buffered.conditionals(known, *new).mean()
        if not loss.requires_grad:
            raise ValueError(
                "module: expected methods through which the densities depend on what the buffer adds, got none; are "
                "they under torch.no_grad, or does `finish` leave out the tokens, which a buffer read apart adds to?"
            )
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(weights, _LARGEST_NORM)
        if not (loss.isfinite() and norm.isfinite()):
            raise ValueError(
                f"draw: expected data whose density has a finite gradient, got a loss of {float(loss.detach()):g} and "
                f"a gradient of length {float(norm):g} in step {step}"
            )
        optimizer.step()
    return buffered.eval()


def _check_context(context: tuple[int, int]) -> tuple[int, int]:
    if not isinstance(context, (tuple, list)) or len(context) != 2:
        raise ValueError(f"context: expected the least and the largest number of points, got {context!r}")
    least, most = (check_integer("context", size, 0) for size in context)
    if least > most:
        raise ValueError(f"context: expected a least number of points and one as large or larger, got {context!r}")
    return least, most


def _as_tensors(data: tuple[ArrayLike, ArrayLike], module: SetPredictor, shape: tuple[int, int]) -> Pairs:
    """What `draw` gave, where the module is, real numbers in its precision."""
    try:
        x, y = data
    except (TypeError, ValueError):
        raise ValueError(f"draw: expected to return inputs and outcomes, got {type(data).__name__}") from None
    assert isinstance(module, torch.nn.Module)
    like = next(module.parameters(), torch.empty(0))
    tensors = [torch.as_tensor(part, device=like.device) for part in (x, y)]
    inputs, outcomes = (x.to(like.dtype) if x.is_floating_point() else x for x in tensors)
    check_pairs("draw", (inputs, outcomes))
    if inputs.shape[:2] != shape:
        raise ValueError(f"draw: expected {shape[0]} data sets of {shape[1]} points, got {tuple(inputs.shape[:2])}")
    if not outcomes.isfinite().all():
        raise ValueError("draw: expected outcomes that are finite numbers, got some that are not")
    return inputs, outcomes
