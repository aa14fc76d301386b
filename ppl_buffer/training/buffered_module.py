"""A set predictor that is not ours, with a causal buffer.

Realised targets enter the buffer as tokens of the context would, and each reads the context and those before it (Hassan
et al. 2026, requirements R1 to R4): so K targets are predicted jointly with one encoding of the context. The module's
own weights are frozen, and what is computed without a buffer reads no new weight.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from ppl_buffer.checks import check_choice, check_integer, check_seed
from ppl_buffer.extras import needs
from ppl_buffer.network.torch.attention import KVSegment, attention
from ppl_buffer.training.set_predictor import LayerSizes, Pairs, SetPredictor, check_members, layer_sizes

if TYPE_CHECKING:
    from ppl_buffer.pyro.distribution import ModulePredictive

APART, LOW_RANK = FROZEN_WAYS = ("apart", "low_rank")


@dataclass
class _Cache:
    """What later tokens read, a segment a layer: of the context (B, H, 1, N, E), of the buffer (B, H, R, K, E)."""

    context: list[KVSegment]
    buffer: list[KVSegment] = field(default_factory=list)


class LowRank(nn.Module):
    """Adds to the keys and values of the buffer's tokens, which are read beside the context's in one softmax."""

    def __init__(self, sizes: LayerSizes, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        self.down = nn.Linear(sizes.width, rank, bias=False)
        self.up = nn.Linear(rank, sizes.heads * (sizes.key + sizes.value), bias=False)
        nn.init.normal_(self.down.weight, std=1 / math.sqrt(sizes.width), generator=generator)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Of normalised tokens (B, K, W): (B, K, H (E + D))."""
        return self.up(self.down(x))


class Apart(nn.Module):
    """Adds to queries, keys and values by which the buffer is read by itself, and maps what is read to the tokens."""

    def __init__(self, sizes: LayerSizes) -> None:
        super().__init__()
        self.query = nn.Linear(sizes.width, sizes.heads * sizes.key)
        self.key_value = nn.Linear(sizes.width, sizes.heads * (sizes.key + sizes.value))
        self.merge = nn.Linear(sizes.heads * sizes.value, sizes.width, bias=False)
        for weight in self.parameters():
            nn.init.zeros_(weight)

    def forward(self, x: Tensor) -> Tensor:
        """Of normalised tokens (B, K, W): (B, K, H (E + D))."""
        return self.key_value(x)

    def read(self, x: Tensor, queries: Tensor, buffer: Sequence[KVSegment], replicas: int) -> Tensor:
        """What normalised tokens (B R, T, W) with the module's queries (B R, H, T, E) read: (B R, T, W).

        A key of zeros with a value of zeros stands before the buffer: who sees nothing of it reads exact zeros.
        """
        queries = queries + self.query(x).unflatten(-1, (queries.shape[1], -1)).transpose(1, 2)
        zero = [part.new_zeros((*part.shape[:3], 1, part.shape[4])) for part in (buffer[0].keys, buffer[0].values)]
        read = attention(
            _by_replica(queries, replicas) / math.sqrt(queries.shape[-1]), [KVSegment(zero[0], zero[1]), *buffer]
        )
        # (B, H, R, T, D) -> (B R, T, H D)
        return self.merge(read.permute(0, 2, 3, 1, 4).flatten(3).flatten(0, 1))


class AddedWeights(nn.Module):
    """All that learns."""

    def __init__(self, sizes: Sequence[LayerSizes], way: str, rank: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.role = nn.Parameter(torch.zeros(sizes[0].width))
        self.layers = nn.ModuleList(Apart(x) if way == APART else LowRank(x, rank, generator) for x in sizes)


class BufferedModule(nn.Module):
    """A set predictor with a causal buffer, which predicts targets jointly.

    The module is frozen where it stands: set to evaluation, without gradients. As long as nothing has been learnt,
    "low_rank" reads realised targets as a causal context, and "apart" reads nothing of them.

    Args:
        module: a set predictor; `SetPredictor` says what it has to show.
        example: inputs and outcomes of some points, (B, N, ...) each, to try the module's methods on.
        way: "low_rank" or "apart", as of `add_buffer_to_module`.
        rank: of "low_rank".
        seed: of the new weights.

    Attributes:
        module: the set predictor.
        added: the module of the new weights, all that learns.

    Raises:
        ValueError: if the module lacks a method or one returns something of another shape, or an argument does not fit.
    """

    def __init__(
        self, module: SetPredictor, example: Pairs, way: str = LOW_RANK, *, rank: int = 8, seed: int = 0
    ) -> None:
        super().__init__()
        check_choice("way", way, FROZEN_WAYS)
        check_members(module)
        assert isinstance(module, nn.Module)
        module.eval().requires_grad_(False)
        self.module: SetPredictor = module
        sizes = layer_sizes(module, check_pairs("example", example))
        like = next(module.parameters(), torch.empty(0))
        self.added = AddedWeights(sizes, way, check_integer("rank", rank), check_seed(seed)).to(like.device, like.dtype)

    def train(self, mode: bool = True) -> Self:
        """Set the new weights to training; the module stays in evaluation, and its marginals what they are."""
        super().train(mode)
        self.get_submodule("module").eval()
        return self

    def log_prob(self, context: Pairs, inputs: Tensor, outcomes: Tensor, block: int | None = None) -> Tensor:
        """Joint log density (B,) of outcomes given the context, in one pass, or one of each block of `conditionals`."""
        return self.conditionals(context, inputs, outcomes, block).sum(1)

    def conditionals(self, context: Pairs, inputs: Tensor, outcomes: Tensor, block: int | None = None) -> Tensor:
        """Log density (B, K) of each outcome given the context and those before it, in one pass.

        Args:
            context: inputs and outcomes of what is known, (B, N, ...) each.
            inputs: (B, K, ...).
            outcomes: (B, K, ...).
            block: targets that enter the buffer before they join the context, which is then encoded anew (Hassan et
                al. 2026): more than in training are better predicted so. 1 is the module's own autoregression, without
                a buffer. None = all.

        Raises:
            ValueError: if shapes do not go together, or the module shows nothing of an empty context.
        """
        check_pairs("context", context)
        check_pairs("targets", (inputs, outcomes), len(context[0]))
        if block is not None and check_integer("block", block) < inputs.shape[1]:
            parts = zip(inputs.split(block, 1), outcomes.split(block, 1), strict=True)
            made = []
            for part in parts:
                made.append(self.conditionals(context, *part))
                context = _join(context, part)
            return torch.cat(made, 1)
        cache = self._extend(self._encode(context), inputs[:, None], outcomes[:, None])
        causal = [replace(segment, causal_offset=0) for segment in cache.buffer]
        tokens = self._represent(_Cache(cache.context, causal), inputs)
        return self.module.predict(tokens.squeeze(1)).log_prob(outcomes)

    def marginals(self, context: Pairs, inputs: Tensor, outcomes: Tensor) -> Tensor:
        """Log density (B, T) of each outcome given the context alone: the module's own, to the last bit.

        Args: as of `conditionals`.
        """
        check_pairs("context", context)
        check_pairs("targets", (inputs, outcomes), len(context[0]))
        tokens = self._represent(self._encode(context), inputs)
        return self.module.predict(tokens.squeeze(1)).log_prob(outcomes)

    def sample(self, context: Pairs, inputs: Tensor, draws: int = 1, block: int | None = None) -> Tensor:
        """Joint draws of outcomes: (S, B, K, ...); as `rollout`, which says more."""
        return self.rollout(context, inputs, draws, block)[0]

    def distribution(self, context: Pairs, inputs: Tensor, block: int | None = None) -> ModulePredictive:
        """Joint distribution of the outcomes at these inputs, for models in Pyro.

        Batch shape is (B,), the data sets; event shape that of a data set's outcomes, (K,) or (K, ...). Its `log_prob`
        has gradients by values, inputs and context; its `sample` is the rollout, which has none.

        Args:
            context: inputs and outcomes of what is known, (B, N, ...) each.
            inputs: (B, K, ...) of the targets.
            block: as of `conditionals`.

        Raises:
            ValueError: if shapes do not go together.
            ImportError: if Pyro is not installed.
        """
        with needs("BufferedModule.distribution", "pyro"):
            from ppl_buffer.pyro.distribution import ModulePredictive
        return ModulePredictive(self, context, inputs, block=block)

    @torch.no_grad()
    def rollout(self, context: Pairs, inputs: Tensor, draws: int = 1, block: int | None = None) -> Pairs:
        """Draw outcomes one after another: the context is encoded once, and each drawn outcome enters the buffer.

        Random numbers are torch's, as of `torch.distributions`: `torch.manual_seed` makes draws reproducible.

        Args:
            context: inputs and outcomes of what is known, (B, N, ...) each.
            inputs: (B, K, ...) of the targets, in the order in which they are drawn.
            draws: S.
            block: as of `conditionals`; each draw then has a context of its own.

        Returns:
            outcomes (S, B, K, ...), and the log densities that they were drawn from, (S, B, K).
        """
        check_pairs("context", context)
        check_integer("draws", draws)
        if not isinstance(inputs, Tensor) or inputs.ndim < 2 or len(inputs) != len(context[0]) or not inputs.shape[1]:
            expected = f"({len(context[0])}, K, ...) with K of at least 1"
            got = tuple(inputs.shape) if isinstance(inputs, Tensor) else type(inputs).__name__
            raise ValueError(f"inputs: expected a tensor of shape {expected}, got {got}")
        if block is not None and check_integer("block", block) < inputs.shape[1]:
            return self._rollout_blocks(context, inputs, draws, block)
        cache, batch, steps = self._encode(context), len(inputs), []
        for k in range(inputs.shape[1]):
            # Draws are the same before anything is drawn.
            tokens = self._represent(cache, inputs[:, k : k + 1], draws if k else 1).expand(-1, draws, -1, -1)
            predicted = self.module.predict(tokens.flatten(0, 1))
            outcome = predicted.sample()
            steps.append(tuple(x.unflatten(0, (batch, draws)) for x in (outcome, predicted.log_prob(outcome))))
            if k + 1 < inputs.shape[1]:
                realised = inputs[:, None, k : k + 1].expand(-1, draws, *inputs[:, k : k + 1].shape[1:])
                cache = self._extend(cache, realised, steps[-1][0])
        outcomes, log_probs = (torch.cat(parts, 2).transpose(0, 1) for parts in zip(*steps, strict=True))
        return outcomes, log_probs

    def _rollout_blocks(self, context: Pairs, inputs: Tensor, draws: int, block: int) -> Pairs:
        """`rollout` by blocks, each draw a data set of its own after the first."""
        known = (context[0].repeat_interleave(draws, 0), context[1].repeat_interleave(draws, 0))
        made = []
        for part in inputs.repeat_interleave(draws, 0).split(block, 1):
            outcomes, log_probs = self.rollout(known, part)
            made.append((outcomes[0], log_probs[0]))
            known = _join(known, (part, outcomes[0]))
        both = (torch.cat(parts, 1) for parts in zip(*made, strict=True))
        outcomes, log_probs = (x.unflatten(0, (-1, draws)).transpose(0, 1) for x in both)
        return outcomes, log_probs

    def _encode(self, context: Pairs) -> _Cache:
        shown = [KVSegment(keys[:, :, None], values[:, :, None]) for keys, values in self.module.encode(*context)]
        if not shown[0].keys.shape[3]:
            raise ValueError(
                "context: expected at least one point, since module.encode shows no keys without one; a module that "
                "predicts without a context shows a key that is always there"
            )
        return _Cache(shown)

    def _extend(self, cache: _Cache, inputs: Tensor, outcomes: Tensor) -> _Cache:
        """Let realised targets (B, R, K, ...) enter the buffer, causally (R2)."""
        replicas = inputs.shape[1]
        tokens = self.module.embed_pairs(inputs.flatten(0, 1), outcomes.flatten(0, 1)) + self.added.role
        made = []
        for layer in range(len(cache.context)):
            new = self._show(layer, tokens, replicas)
            if layer + 1 < len(cache.context):
                before = cache.buffer[layer : layer + 1]
                tokens = self._read(layer, tokens, cache.context[layer], [*before, new], replicas)
            new = replace(new, causal_offset=None)
            made.append(_behind(cache.buffer[layer], new) if cache.buffer else new)
        return _Cache(cache.context, made)

    def _represent(self, cache: _Cache, inputs: Tensor, replicas: int = 1) -> Tensor:
        """Tokens (B, R, T, W) of targets (B, T, ...) after the last layer."""
        tokens = self.module.embed_targets(inputs).repeat_interleave(replicas, 0)
        for layer, context in enumerate(cache.context):
            tokens = self._read(layer, tokens, context, cache.buffer[layer : layer + 1], replicas)
        return tokens.unflatten(0, (-1, replicas))

    def _show(self, layer: int, tokens: Tensor, replicas: int) -> KVSegment:
        """What tokens (B R, K, W) that enter the buffer show to each other and to targets."""
        keys, values = self.module.keys_values(layer, tokens)
        both = self.added.layers[layer](_normalised(tokens)).unflatten(-1, (keys.shape[1], -1)).transpose(1, 2)
        more_keys, more_values = both.split((keys.shape[-1], values.shape[-1]), -1)
        return KVSegment(
            _by_replica(keys + more_keys, replicas), _by_replica(values + more_values, replicas), causal_offset=1
        )

    def _read(
        self, layer: int, tokens: Tensor, context: KVSegment, buffer: Sequence[KVSegment], replicas: int
    ) -> Tensor:
        """Tokens (B R, T, W) that have read the context, and of the buffer what they may see."""
        queries = self.module.queries(layer, tokens)
        added = self.added.layers[layer]
        if not buffer:
            # As the module reads, by torch's own attention: its rounding is the module's.
            read = functional.scaled_dot_product_attention(queries, context.keys[:, :, 0], context.values[:, :, 0])
            return self.module.finish(layer, tokens, read)
        together = [context] if isinstance(added, Apart) else [context, *buffer]
        read = attention(_by_replica(queries, replicas) / math.sqrt(queries.shape[-1]), together)
        after = tokens
        if isinstance(added, Apart):
            after = tokens + added.read(_normalised(tokens), queries, buffer, replicas)
        return self.module.finish(layer, after, read.transpose(1, 2).flatten(0, 1))


def check_pairs(name: str, pairs: Pairs, batch: int | None = None) -> Pairs:
    """Inputs and outcomes of the same points.

    Raises:
        ValueError: if they are no tensors of the same data sets and points.
    """
    if not isinstance(pairs, (tuple, list)) or len(pairs) != 2:
        raise ValueError(f"{name}: expected inputs and outcomes, two tensors, got {type(pairs).__name__}")
    for part, value in zip(("inputs", "outcomes"), pairs, strict=True):
        if not isinstance(value, Tensor) or value.ndim < 2 or batch not in (None, len(value)):
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            sets = "data sets" if batch is None else batch
            raise ValueError(f"{name}: expected {part} as a tensor of shape ({sets}, points, ...), got {got}")
    inputs, outcomes = pairs
    if inputs.shape[:2] != outcomes.shape[:2]:
        raise ValueError(
            f"{name}: expected inputs and outcomes of the same points, got {tuple(inputs.shape)} and "
            f"{tuple(outcomes.shape)}"
        )
    return inputs, outcomes


def _join(context: Pairs, more: Pairs) -> Pairs:
    """Context points with more behind them."""
    return torch.cat([context[0], more[0]], 1), torch.cat([context[1], more[1]], 1)


def _normalised(tokens: Tensor) -> Tensor:
    return functional.layer_norm(tokens, tokens.shape[-1:])


def _by_replica(x: Tensor, replicas: int) -> Tensor:
    """(B R, H, T, E) as (B, H, R, T, E)."""
    return x.unflatten(0, (-1, replicas)).transpose(1, 2)


def _behind(first: KVSegment, second: KVSegment) -> KVSegment:
    """Keys and values of two segments behind each other."""
    return KVSegment(torch.cat([first.keys, second.keys], 3), torch.cat([first.values, second.values], 3))
