"""What a torch module that predicts sets has to show, so that it can be given a buffer."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

# Inputs (B, N, ...) and outcomes (B, N, ...) of the same points.
Pairs = tuple[Tensor, Tensor]


class OutcomeDistribution(Protocol):
    """Of B data sets and T targets; a distribution of `torch.distributions` of batch shape (B, T) is one."""

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density (B, T) of outcomes (B, T, ...)."""
        ...

    def sample(self) -> Tensor:
        """Draw outcomes (B, T, ...), all independently."""
        ...


class SetPredictor(Protocol):
    """A torch module that predicts each target alone, given a context: a transformer neural process or the like.

    Points are tokens of one width W, targets are tokens that nobody reads. A layer is an attention, by one softmax of
    scores q k / sqrt(E) over H heads, and what is made of its result; targets read in it what the context shows there.
    Inputs and outcomes are (B, N) or (B, N, ...), of whatever numbers the module reads.
    """

    def encode(self, inputs: Tensor, outcomes: Tensor) -> Sequence[tuple[Tensor, Tensor]]:
        """Keys (B, H, M, E) and values (B, H, M, D) of each layer that targets read there, of a context (B, N)."""
        ...

    def embed_pairs(self, inputs: Tensor, outcomes: Tensor) -> Tensor:
        """Tokens (B, K, W) of points with their outcomes, as those of a context enter the first layer."""
        ...

    def embed_targets(self, inputs: Tensor) -> Tensor:
        """Tokens (B, T, W) of targets, as they enter the first layer."""
        ...

    def queries(self, layer: int, tokens: Tensor) -> Tensor:
        """Queries (B, H, T, E) of tokens (B, T, W), as torch's `scaled_dot_product_attention` takes them."""
        ...

    def keys_values(self, layer: int, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Keys (B, H, K, E) and values (B, H, K, D) that tokens (B, K, W) show, as those of a context do."""
        ...

    def finish(self, layer: int, tokens: Tensor, read: Tensor) -> Tensor:
        """Tokens (B, T, W) after the layer, of tokens before it that have read values (B, H, T, D)."""
        ...

    def predict(self, tokens: Tensor) -> OutcomeDistribution:
        """Predict the outcomes of targets, from their tokens (B, T, W) after the last layer: a distribution."""
        ...


_MEMBERS = (
    SetPredictor.encode, SetPredictor.embed_pairs, SetPredictor.embed_targets, SetPredictor.queries,
    SetPredictor.keys_values, SetPredictor.finish, SetPredictor.predict,
)  # fmt: skip


@dataclass(frozen=True)
class LayerSizes:
    """Of one layer.

    Attributes:
        width: numbers of a token.
        heads: of the attention.
        key: numbers of a key.
        value: numbers of a value.
    """

    width: int
    heads: int
    key: int
    value: int


def check_members(module: SetPredictor) -> None:
    """Refuse what is no torch module, or lacks a method of a set predictor.

    Raises:
        ValueError: which names what is missing, and what it should do.
    """
    if not isinstance(module, nn.Module):
        raise ValueError(f"module: expected a torch module, got {type(module).__name__}")
    for member in _MEMBERS:
        name = member.__name__
        if not callable(getattr(module, name, None)):
            arguments = ", ".join(list(inspect.signature(member).parameters)[1:])
            raise ValueError(
                f"module: expected a set predictor, got {type(module).__name__}, which has no method `{name}`; write "
                f"{name}({arguments}), in the module or in one that holds it: {inspect.getdoc(member)}"
            )


@torch.no_grad()
def layer_sizes(module: SetPredictor, example: Pairs) -> list[LayerSizes]:
    """Sizes of each layer, by trying all methods on some points.

    Args:
        module: has the methods.
        example: inputs and outcomes of a data set or more, which are context and targets alike.

    Raises:
        ValueError: if a method returns something of another shape than it should.
    """
    inputs, outcomes = example
    batch, count = inputs.shape[:2]
    shown = module.encode(inputs, outcomes)
    tokens, pairs = module.embed_targets(inputs), module.embed_pairs(inputs, outcomes)
    _expect("embed_pairs", pairs, (batch, count, None))
    width = pairs.shape[-1]
    _expect("embed_targets", tokens, (batch, count, width))
    if not isinstance(shown, Sequence) or not shown or any(not _is_two(each) for each in shown):
        raise ValueError("module.encode: expected a list of keys and values, two tensors for each layer")
    sizes = []
    for layer, (keys, values) in enumerate(shown):
        _expect("encode", keys, (batch, None, None, None))
        heads, seen, size = keys.shape[1:]
        _expect("encode", values, (batch, heads, seen, None))
        sizes.append(LayerSizes(width, heads, size, values.shape[-1]))
        _expect("queries", module.queries(layer, tokens), (batch, heads, count, size))
        own = module.keys_values(layer, pairs)
        if not _is_two(own):
            raise ValueError(f"module.keys_values: expected keys and values, two tensors, got {type(own).__name__}")
        _expect("keys_values", own[0], (batch, heads, count, size))
        _expect("keys_values", own[1], (batch, heads, count, values.shape[-1]))
        tokens, pairs = (
            module.finish(layer, x, scaled_dot_product_attention(module.queries(layer, x), keys, values))
            for x in (tokens, pairs)
        )
        _expect("finish", tokens, (batch, count, width))
    predicted = module.predict(tokens)
    try:
        log_probs = predicted.log_prob(outcomes)
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"module.predict: expected a distribution of outcomes of shape {tuple(outcomes.shape)}; log_prob says: "
            f"{error}"
        ) from error
    _expect("predict(tokens).log_prob", log_probs, (batch, count))
    return sizes


def _is_two(value: object) -> bool:
    return isinstance(value, Sequence) and len(value) == 2 and all(isinstance(part, Tensor) for part in value)


def _expect(method: str, value: object, shape: tuple[int | None, ...]) -> None:
    """Refuse a tensor of another shape; None stands for any size."""
    got = tuple(value.shape) if isinstance(value, Tensor) else None
    fits = got is not None and len(got) == len(shape)
    if got is None or not fits or any(size not in (None, n) for n, size in zip(got, shape, strict=True)):
        expected = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(f"module.{method}: expected a tensor of shape ({expected}), got {got or type(value).__name__}")
