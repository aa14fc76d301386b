"""The buffered transformer in torch: embeddings, the layer, and the three verbs encode, extend and predict.

Tokens are (B, R, T, W): B data sets, R replicas of each (draws, orders, parameter values), T tokens of width W.
What replicas share (a context, an observed buffer) is stored once, with R = 1, and read by all of them through one
matrix product. Every mode of use is one call of `run`, which pushes tokens through the layers while they read
`Segment`s of keys and values that are already there; who may see whom is the list of segments and their masks.
`ppl_buffer/jax/network.py` mirrors this file function by function.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from ppl_buffer.config import Config, weight_shapes
from ppl_buffer.masks import prefix_mask
from ppl_buffer.predictive import NetworkVerbs
from ppl_buffer.schema import Categorical, Schema, Variable

if TYPE_CHECKING:
    from ppl_buffer.checkpoint import TrainingRecord


class Network(NetworkVerbs, torch.nn.Module):
    """The weights of a buffered transformer, and what they were trained on.

    Args:
        schema: what a data set holds.
        config: sizes.
        standardization: name -> (mean, standard deviation) of each continuous variable on its unconstrained scale.
        seed: of the initial weights.
        record: what the training covered; None for a network that was not trained.
    """

    def __init__(
        self,
        schema: Schema,
        config: Config,
        standardization: Mapping[str, tuple[float, float]],
        seed: int = 0,
        record: TrainingRecord | None = None,
    ) -> None:
        super().__init__()
        self.record = record
        self.schema = schema
        self.config = config
        self.standardization = dict(standardization)
        generator = torch.Generator().manual_seed(seed)
        self.weights: dict[str, Tensor] = {}
        for name, shape in weight_shapes(schema, config).items():
            parameter = torch.nn.Parameter(_initial(name, shape, schema, config, generator))
            *path, leaf = name.split(".")
            module: torch.nn.Module = self
            for part in path:
                if part not in module._modules:
                    # Not add_module, which refuses the names of a module's own attributes.
                    module._modules[part] = torch.nn.Module()
                module = module._modules[part]  # type: ignore[assignment]
            module.register_parameter(leaf, parameter)
            self.weights[name] = parameter

    backend = "torch"

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Number type of the weights: data are cast to it."""
        return next(self.parameters()).dtype


def _initial(
    name: str, shape: tuple[int, ...], schema: Schema, config: Config, generator: torch.Generator
) -> Tensor:
    if ".norm_" in name or name.startswith("norm_"):
        return torch.ones(shape) if name.endswith("weight") else torch.zeros(shape)
    if name.endswith("slope.bias"):
        # ALiBi's geometric slopes on the count of trials, a spread of slopes on the learned counters: an optimiser
        # that moves a bias by its learning rate would take thousands of steps to spread them itself. The bias is the
        # inverse of the softplus that it goes through.
        slopes = 0.003 * 100 ** torch.rand((config.heads, config.counters + 1), generator=generator)
        slopes[:, 0] = 2.0 ** -torch.linspace(1, 8, config.heads)
        return slopes.expm1().log().reshape(shape)
    if name.endswith("counter.bias"):
        return torch.full(shape, -1.0)
    if name.endswith("counter.weight"):
        return torch.randn(shape, generator=generator) * 2 / math.sqrt(shape[1])
    if name.endswith("bias"):
        bias = torch.zeros(shape)
        outcome = name.split(".")[1] if name.startswith("heads.") and name.endswith("out.bias") else None
        if outcome is not None and not isinstance(schema.outcomes[outcome], Categorical):
            # The mixture starts spread over the standardised scale: equal Gaussians would never part.
            count = config.components
            bias[count : 2 * count] = torch.linspace(-1.5, 1.5, count)
        return bias
    if name.startswith("role.") or name.endswith(("null_key", "null_value")):
        return torch.randn(shape, generator=generator) * 0.02
    scale = 1 / math.sqrt(shape[1])
    if name.endswith(("merge.weight", "mlp.out.weight")):
        scale /= math.sqrt(2 * config.depth)
    if name.startswith("heads.") and name.endswith("out.weight"):
        scale *= 0.1
    return torch.randn(shape, generator=generator) * scale


# Queries of a causal read that are computed together.
_QUERIES_AT_ONCE = 64


@dataclass
class Segment:
    """Keys and values of one kind of token at one layer, as other tokens read them.

    Attributes:
        keys: (B, H, r, N, E), r = R or 1. E is the head's size, and counters + 2 more in an ordered buffer.
        values: (B, H, r, N, D).
        mask: who sees what, broadcast against (B, 1, R, T, N); None = everybody sees everything.
        counts: (B, r, N, G), what the counters say at each token, itself included; an ordered buffer only.
        stairs: if not None, query t sees none but the first `stairs` + t keys. The mask says so too; this lets `read`
            skip what is hidden.
    """

    keys: Tensor
    values: Tensor
    mask: Tensor | None = None
    counts: Tensor | None = None
    stairs: int | None = field(default=None, metadata={"static": True})


@dataclass
class Reading:
    """Attention over some segments, before it is joined with the rest inside the same softmax.

    Attributes:
        top: largest score, (B, H, R, T, 1).
        total: sum of exp(score - top), (B, H, R, T, 1).
        weighted: sum of exp(score - top) * value, (B, H, R, T, D).
    """

    top: Tensor
    total: Tensor
    weighted: Tensor


@dataclass
class Cache:
    """What predictions read: segments of context and buffer, a pair a layer.

    Attributes:
        context: one segment a layer; empty without a context.
        buffer: one segment a layer; empty as long as nothing was realised.
        valid: (B, r, K), which buffer tokens stand for a trial.
    """

    context: list[Segment] = field(default_factory=list)
    buffer: list[Segment] = field(default_factory=list)
    valid: Tensor | None = None

    @property
    def size(self) -> int:
        """Number of buffer tokens."""
        return self.buffer[0].keys.shape[3] if self.buffer else 0


def linear(net: Network, name: str, x: Tensor) -> Tensor:
    """Affine map of the last axis."""
    return functional.linear(x, net.weights[f"{name}.weight"], net.weights[f"{name}.bias"])


def perceptron(net: Network, name: str, x: Tensor) -> Tensor:
    """One hidden layer with the SiLU nonlinearity, smooth as a gradient sampler wants it."""
    return linear(net, f"{name}.out", functional.silu(linear(net, f"{name}.hidden", x)))


def norm(net: Network, name: str, x: Tensor) -> Tensor:
    """Layer normalisation over the last axis."""
    return functional.layer_norm(
        x, x.shape[-1:], net.weights[f"{name}.weight"], net.weights[f"{name}.bias"], eps=1e-5
    )


def standardize(net: Network, name: str, variable: Any, value: Tensor) -> Tensor:
    """A continuous variable on the standardised unconstrained scale."""
    mean, deviation = net.standardization[name]
    return (variable.unconstrain(torch, value) - mean) / deviation


def features(net: Network, variables: Mapping[str, Variable], values: Mapping[str, Tensor]) -> list[Tensor]:
    """Numbers that describe the variables: one-hot categories and standardised values, each (..., size)."""
    out = []
    for name, variable in variables.items():
        if isinstance(variable, Categorical):
            categories = torch.arange(variable.n, device=net.device)
            out.append((values[name][..., None] == categories).to(net.dtype))
        else:
            out.append(standardize(net, name, variable, values[name].to(net.dtype))[..., None])
    return out


def embed_targets(net: Network, inputs: Mapping[str, Tensor], shape: Sequence[int]) -> Tensor:
    """Target tokens (B, R, T, W) of inputs (B, R, T); `shape` (B, R, T) serves a schema without inputs."""
    described = features(net, net.schema.inputs, inputs)
    x = torch.cat(described, -1) if described else torch.ones((*shape, 1), device=net.device, dtype=net.dtype)
    return perceptron(net, "embed.target", x) + net.weights["role.target"]


def embed_pairs(net: Network, trials: Mapping[str, Mapping[str, Tensor]], role: str) -> Tensor:
    """Context or buffer tokens (B, R, T, W) of realised trials: inputs, outcomes and feedback, each (B, R, T)."""
    schema = net.schema
    described = [
        *features(net, schema.inputs, trials["inputs"]),
        *features(net, schema.outcomes, trials["outcomes"]),
        *features(net, schema.feedback, trials["feedback"]),
    ]
    return perceptron(net, "embed.pair", torch.cat(described, -1)) + net.weights[f"role.{role}"]


def embed_params(net: Network, params: Mapping[str, Tensor]) -> Tensor:
    """Parameter tokens (B, R, P, W), one for each given parameter (B, R), in the schema's order."""
    tokens = []
    for name, variable in net.schema.params.items():
        if name not in params:
            continue
        value = standardize(net, name, variable, params[name].to(net.dtype))
        tokens.append(perceptron(net, f"embed.param.{name}", value[..., None]))
    return torch.stack(tokens, -2) + net.weights["role.param"]


def _heads(net: Network, x: Tensor) -> Tensor:
    """(B, R, T, H * D) -> (B, H, R, T, D)."""
    return x.unflatten(-1, (net.config.heads, -1)).movedim(-2, 1)


def counts_before(segment: Segment, visible: Tensor) -> Tensor:
    """What the counters say to a token that sees the first `visible` (T,) buffer tokens: (B, r, T, G)."""
    assert segment.counts is not None
    padded = functional.pad(segment.counts, (0, 0, 1, 0))
    return padded[:, :, visible]


def read(query: Tensor, segment: Segment) -> Reading:
    """Let queries (B, H, R, T, E) read one segment. Shared keys are read by all replicas in one product a head."""
    count = query.shape[3]
    if segment.stairs is None or count <= _QUERIES_AT_ONCE:
        return _read(query, segment)
    # Half of a causal square is hidden. In strips of queries most of that half is never computed, and the scores of
    # a strip stay in the processor's cache.
    parts = []
    for start in range(0, count, _QUERIES_AT_ONCE):
        stop = min(start + _QUERIES_AT_ONCE, count)
        seen = segment.stairs + stop - 1
        mask = segment.mask
        if mask is not None:
            mask = (mask if mask.shape[3] == 1 else mask[:, :, :, start:stop])[..., :seen]
        strip = Segment(segment.keys[:, :, :, :seen], segment.values[:, :, :, :seen], mask)
        parts.append(_read(query[:, :, :, start:stop], strip))
    return Reading(
        torch.cat([part.top for part in parts], 3),
        torch.cat([part.total for part in parts], 3),
        torch.cat([part.weighted for part in parts], 3),
    )


def _read(query: Tensor, segment: Segment) -> Reading:
    keys, values = segment.keys, segment.values
    query = query[..., : keys.shape[-1]]
    replicas, count = query.shape[2:4]
    shared = keys.shape[2] == 1 and replicas > 1
    if shared:
        query = query.flatten(2, 3)[:, :, None]
    scores = query @ keys.mT
    if shared:
        scores = scores.squeeze(2).unflatten(2, (replicas, count))
    if segment.mask is not None:
        scores = scores.masked_fill(~segment.mask, -math.inf)
    # Any finite shift gives the same result, so no gradient goes through it; the clamp serves rows that see nothing.
    top = scores.detach().amax(-1, keepdim=True).clamp(min=-1e30)
    weights = (scores - top).exp()
    total = weights.sum(-1, keepdim=True)
    if shared:
        weighted = (weights.flatten(2, 3)[:, :, None] @ values).squeeze(2).unflatten(2, (replicas, count))
    else:
        weighted = weights @ values
    return Reading(top, total, weighted)


def join(readings: Sequence[Reading]) -> Reading:
    """Bring readings of several segments into one softmax."""
    top = readings[0].top
    for reading in readings[1:]:
        top = torch.maximum(top, reading.top)
    scales = [(reading.top - top).exp() for reading in readings]
    total = sum(reading.total * scale for reading, scale in zip(readings, scales, strict=True))
    weighted = sum(reading.weighted * scale for reading, scale in zip(readings, scales, strict=True))
    return Reading(top, total, weighted)  # type: ignore[arg-type]


def query_keys(net: Network, layer: str, x: Tensor, reference: Tensor | None) -> Tensor:
    """Queries (B, H, R, T, E) of normalised tokens x (B, R, T, W).

    In an ordered model a query carries slopes s and its own counts c: against a key with counts c' the score gains
    s * (c' - c), which is at most zero; see `docs/design.md`, "Distances that count".
    """
    query = _heads(net, linear(net, f"{layer}.query", x)) / math.sqrt(net.config.width // net.config.heads)
    if reference is None:
        return query
    slopes = _heads(net, functional.softplus(linear(net, f"{layer}.slope", x)))
    here = (slopes * reference[:, None]).sum(-1, keepdim=True)
    return torch.cat([query, slopes, -here], -1)


def own_segment(
    net: Network, layer: str, x: Tensor, counts: Tensor | None, mask: Tensor | None, stairs: int | None
) -> Segment:
    """Keys and values of normalised tokens x (B, R, T, W)."""
    keys, values = linear(net, f"{layer}.key_value", x).chunk(2, -1)
    keys, values = _heads(net, keys), _heads(net, values)
    if counts is not None:
        spread = counts[:, None].expand(-1, net.config.heads, -1, -1, -1)
        keys = torch.cat([keys, spread, torch.ones_like(spread[..., :1])], -1)
    return Segment(keys, values, mask, counts, stairs)


def null_segment(net: Network, layer: str) -> Segment:
    """The learned token that everybody sees. In an ordered model it stands before the first trial: all counts 0."""
    keys, values = net.weights[f"{layer}.null_key"], net.weights[f"{layer}.null_value"]
    if net.schema.ordered:
        counts = keys.new_zeros((keys.shape[0], net.config.counters + 1))
        keys = torch.cat([keys, counts, torch.ones_like(counts[:, :1])], -1)
    return Segment(keys[None, :, None, None, :], values[None, :, None, None, :])


def read_null(net: Network, layer: str, query: Tensor) -> Reading:
    """Let queries read the null token: a single key needs no matrix product."""
    null = null_segment(net, layer)
    score = (query * null.keys).sum(-1, keepdim=True)
    top = score.detach()
    weight = (score - top).exp()
    return Reading(top, weight, weight * null.values)


def finish_layer(net: Network, layer: str, tokens: Tensor, reading: Reading) -> Tensor:
    """Merge what the heads read into the tokens, then the layer's perceptron."""
    heads = reading.weighted / reading.total
    tokens = tokens + linear(net, f"{layer}.merge", heads.movedim(1, -2).flatten(-2))
    return tokens + perceptron(net, f"{layer}.mlp", norm(net, f"{layer}.norm_mlp", tokens))


def run(
    net: Network,
    tokens: Tensor,
    reads: Mapping[int, Sequence[Segment]],
    layers: Iterable[int],
    *,
    own: Tensor | None = None,
    causal: bool = False,
    keep: bool = False,
    count_from: Mapping[int, Tensor] | None = None,
    valid: Tensor | None = None,
) -> tuple[Tensor, list[Segment]]:
    """Push tokens (B, R, T, W) through layers.

    Args:
        net: the network.
        tokens: (B, R, T, W).
        reads: layer -> segments that the tokens read.
        layers: indices of the layers to run.
        own: mask of the tokens' attention to each other, broadcast against (B, 1, R, T, T); None = none.
        causal: `own` lets no token see a later one.
        keep: return the segments that the tokens themselves make.
        count_from: layer -> counts (B, r, T or 1, G) that an ordered buffer had reached before these tokens.
        valid: (B, r, T) buffer tokens that count; given where `tokens` are buffer tokens of an ordered model.

    Returns:
        the tokens, and their segments (empty without `keep`).
    """
    segments = []
    for index in layers:
        layer = f"layers.{index}"
        x = norm(net, f"{layer}.norm_attention", tokens)
        reference = None if count_from is None else count_from[index]
        counts = None
        if valid is not None:
            learned = linear(net, f"{layer}.counter", x).sigmoid()
            steps = torch.cat([torch.ones_like(x[..., :1]), learned], -1) * valid[..., None]
            counts = steps.cumsum(-2) if reference is None else steps.cumsum(-2) + reference
            reference = counts
        elif net.schema.ordered and reference is None:
            reference = x.new_zeros((1, 1, 1, net.config.counters + 1))
        query = query_keys(net, layer, x, reference)
        readings = [read_null(net, layer, query)]
        readings += [read(query, segment) for segment in reads.get(index, ())]
        if own is not None or keep:
            mine = own_segment(net, layer, x, counts, own, 1 if causal else None)
            segments.append(mine)
            if own is not None:
                readings.append(read(query, mine))
        tokens = finish_layer(net, layer, tokens, join(readings))
    return tokens, segments


def encode(net: Network, context: Mapping[str, Mapping[str, Tensor]], valid: Tensor) -> Cache:
    """Encode a context (arrays (B, r, N)) of which `valid` (B, r, N) exist (R1, R3): every token sees every other."""
    tokens = _replicate(embed_pairs(net, context, "context"), valid.shape[1], 1)
    mask = valid[:, None, :, None, :]
    _, segments = run(net, tokens, {}, range(net.config.depth), own=mask, keep=True)
    return Cache(context=segments)


def allocate(net: Network, cache: Cache, shape: Sequence[int]) -> Cache:
    """Add room for K more trials to the buffer, `shape` = (B, R, K); `extend(..., at=k)` fills it."""
    batch, replicas, count = shape
    heads, size = net.config.heads, net.config.width // net.config.heads
    counters = net.config.counters + 1

    def empty(*shape: int) -> Tensor:
        return torch.zeros(shape, device=net.device, dtype=net.dtype)

    segments = []
    for index in range(net.config.depth):
        room = Segment(
            empty(batch, heads, replicas, count, size + (counters + 1) * net.schema.ordered),
            empty(batch, heads, replicas, count, size),
            None,
            empty(batch, replicas, count, counters) if net.schema.ordered else None,
        )
        segments.append(_enter(cache.buffer[index], room, None) if cache.buffer else room)
    valid = torch.zeros((batch, replicas, count), dtype=torch.bool, device=net.device)
    return Cache(cache.context, segments, _place(cache.valid, valid, None, 1) if cache.buffer else valid)


def extend(
    net: Network, cache: Cache, pairs: Mapping[str, Mapping[str, Tensor]], valid: Tensor, at: int | None = None
) -> Cache:
    """Let realised trials enter the buffer, causally (R2).

    Args:
        net: the network.
        cache: what was encoded and realised before.
        pairs: inputs, outcomes and feedback, each dict name -> (B, R, T).
        valid: (B, R, T) bool, which of them stand for a trial.
        at: where to write them in an allocated buffer whose later places are empty; None = append them.
    """
    tokens = embed_pairs(net, pairs, "buffer")
    depth, count = net.config.depth, tokens.shape[2]
    reads: dict[int, list[Segment]] = {index: [] for index in range(depth)}
    count_from = None
    if cache.context:
        for index in range(depth):
            reads[index].append(cache.context[index])
    if cache.buffer:
        assert cache.valid is not None
        for index in range(depth):
            before = cache.buffer[index]
            reads[index].append(Segment(before.keys, before.values, cache.valid[:, None, :, None, :]))
        if net.schema.ordered:
            last = torch.tensor([cache.size if at is None else at], device=tokens.device)
            count_from = {index: counts_before(cache.buffer[index], last) for index in range(depth)}
    visible = torch.arange(1, count + 1, device=tokens.device)
    own = prefix_mask(torch, visible, valid)
    _, new = run(
        net,
        tokens,
        reads,
        range(depth),
        own=own,
        causal=True,
        keep=True,
        count_from=count_from,
        valid=valid.to(tokens.dtype) if net.schema.ordered else None,
    )
    if cache.buffer:
        new = [_enter(old, segment, at) for old, segment in zip(cache.buffer, new, strict=True)]
        valid = _place(cache.valid, valid, at, 1)
    return Cache(cache.context, [Segment(x.keys, x.values, None, x.counts) for x in new], valid)


def _replicate(x: Tensor, replicas: int, axis: int) -> Tensor:
    shape = list(x.shape)
    shape[axis] = max(replicas, shape[axis])
    return x.expand(shape)


def _place(old: Any, new: Tensor, at: int | None, replicas: int) -> Tensor:
    """Write `new` into `old` at index `at` of the token axis, which follows the `replicas` axis, or append it."""
    axis = replicas + 1
    if at is None:
        return torch.cat([_replicate(old, new.shape[replicas], replicas), new], axis)
    old.narrow(axis, at, new.shape[axis]).copy_(new)
    return old


def _enter(old: Segment, new: Segment, at: int | None) -> Segment:
    counts = None if new.counts is None else _place(old.counts, new.counts, at, 1)
    return Segment(_place(old.keys, new.keys, at, 2), _place(old.values, new.values, at, 2), None, counts)


@dataclass
class Prepared:
    """Target tokens as far as they do not depend on the parameters (R5).

    Attributes:
        tokens: (B, R, T, W), what enters the lowest layer that reads the parameters.
        reading: that layer's attention over everything but the parameters.
        reads: segments that the layers above read, a list a layer.
        count_from: counts that ordered targets refer to, by layer.
    """

    tokens: Tensor
    reading: Reading
    reads: dict[int, list[Segment]]
    count_from: dict[int, Tensor] | None


def prepare(
    net: Network,
    cache: Cache,
    inputs: Mapping[str, Tensor],
    visible: Tensor,
    shape: Sequence[int],
    stairs: int | None = None,
) -> Prepared:
    """Push targets with inputs (B, R, T) through the layers that do not read the parameters (R4, R5).

    Args:
        net: the network.
        cache: what was encoded and realised.
        inputs: dict name -> (B, R, T).
        visible: how many buffer tokens each target sees: (T,), or (B, R, T) in an exchangeable model.
        shape: (B, R, T).
        stairs: where `visible` is `stairs`, `stairs` + 1, ...: this number, which saves time.
    """
    depth = net.config.depth
    first = depth - net.config.param_depth
    tokens = embed_targets(net, inputs, shape)
    reads: dict[int, list[Segment]] = {index: [] for index in range(depth)}
    count_from = None
    if cache.context:
        for index in range(depth):
            reads[index].append(cache.context[index])
    if cache.buffer:
        assert cache.valid is not None
        mask = prefix_mask(torch, visible, cache.valid)
        for index in range(depth):
            before = cache.buffer[index]
            reads[index].append(Segment(before.keys, before.values, mask, before.counts, stairs))
        if net.schema.ordered:
            count_from = {index: counts_before(cache.buffer[index], visible) for index in range(depth)}
    tokens, _ = run(net, tokens, reads, range(first), count_from=count_from)
    query = _first_query(net, tokens, count_from)
    layer = f"layers.{first}"
    reading = join([read_null(net, layer, query), *(read(query, segment) for segment in reads[first])])
    above = {index: reads[index] for index in range(first + 1, depth)}
    return Prepared(tokens, reading, above, count_from)


def _first_query(net: Network, tokens: Tensor, count_from: dict[int, Tensor] | None) -> Tensor:
    first = net.config.depth - net.config.param_depth
    layer = f"layers.{first}"
    x = norm(net, f"{layer}.norm_attention", tokens)
    reference = count_from[first] if count_from is not None else None
    if net.schema.ordered and reference is None:
        reference = x.new_zeros((1, 1, 1, net.config.counters + 1))
    return query_keys(net, layer, x, reference)


def encode_params(net: Network, params: Mapping[str, Tensor], told: Tensor | None = None) -> list[Segment]:
    """Segments of the told parameters for the top `param_depth` layers; empty where none is told.

    Args:
        net: the network.
        params: dict name -> (B, R), in natural units. One that is left out has no token.
        told: (B, R, P) bool, which of the given ones are told; None = all.
    """
    if not params:
        return []
    tokens = embed_params(net, params)
    mask = torch.ones((1, 1, 1, 1, 1), dtype=torch.bool, device=net.device)
    if told is not None:
        mask = told[:, None, :, None, :]
    layers = range(net.config.depth - net.config.param_depth, net.config.depth)
    return run(net, tokens, {}, layers, own=mask, keep=True)[1]


def predict(net: Network, prepared: Prepared, params: Sequence[Segment]) -> Tensor:
    """Let prepared targets read the parameters in the top layers: their representation (B, R, T, W) for the heads.

    Args:
        net: the network.
        prepared: from `prepare`.
        params: from `encode_params`.
    """
    depth, config = net.config.depth, net.config
    first = depth - config.param_depth
    tokens, reading, reads = prepared.tokens, prepared.reading, prepared.reads
    if params:
        replicas = params[0].keys.shape[2]
        # Only the first D numbers of a query meet a parameter's key: no counts, hence no slopes.
        query = _replicate(_first_query(net, tokens, prepared.count_from), replicas, 2)
        tokens = _replicate(tokens, replicas, 1)
        reading = join([reading, read(query, params[0])])
        reads = {index: [*reads[index], params[index - first]] for index in range(first + 1, depth)}
    tokens = finish_layer(net, f"layers.{first}", tokens, reading)
    tokens, _ = run(net, tokens, reads, range(first + 1, depth), count_from=prepared.count_from)
    return norm(net, "norm_out", tokens)
