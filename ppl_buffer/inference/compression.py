"""Lossless compression of trials by arithmetic coding with a network's predictions: a code is the evidence, in bits.

An outcome of probability p, predicted from the trials before it, takes -log2 p bits, so that all of them take
-log2 p(y_1, ..., y_K | what is given): the prequential code length (Dawid 1984), which is minus the log evidence where
no parameter is given. Encoder and decoder go through the same steps, trial by trial, and give each symbol an integer
share of 2^32, at least 1: both see the same numbers to the last bit. A decoder that does not, on another kind of
machine or with another version of a library, finds that the checksum is wrong, and refuses.
"""

from __future__ import annotations

import hashlib
import math
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ppl_buffer.checks import check_mapping, check_number
from ppl_buffer.files import to_numpy
from ppl_buffer.inference.arithmetic_coding import TOTAL, Decoder, Encoder
from ppl_buffer.network.arguments import (
    as_floating,
    check_outcomes,
    check_value_shape,
    require_feedback,
    trials_of_value,
)
from ppl_buffer.network.backend import Array, backend_of
from ppl_buffer.network.network import Network
from ppl_buffer.network.observed import EncodedContext
from ppl_buffer.predictive.query import Query
from ppl_buffer.predictive.stepping import Stepper
from ppl_buffer.schema import Discrete, Schema, Variable, split_value, stack_value

_MAGIC, _VERSION = b"pplz", 1
# Magic, version, backend, part, digests of the network and of what is given, checksum of the symbols, bits, dimensions.
_HEAD = struct.Struct("<4sBBB8s8sIQB")
# Step, first multiple and number of values of a continuous outcome; checksum of the stream.
_SCALE, _CHECKSUM = struct.Struct("<dqI"), struct.Struct("<I")
_BACKENDS, _PARTS = ("torch", "jax"), ("direct", "buffer")
# Values of an outcome beyond which a table of all of them is no way to code it.
_MOST_VALUES = 1 << 16


@dataclass(frozen=True)
class _Alphabet:
    """The values that an outcome can have: (low + i) * step for i = 0, ..., count - 1."""

    low: int
    count: int
    step: float = 1.0
    discrete: bool = True

    @cached_property
    def points(self) -> np.ndarray:
        """Where the distribution function parts one value from the next: (count - 1,)."""
        first = self.low + np.arange(self.count - 1)
        return first * self.step if self.discrete else (first + 0.5) * self.step

    def values(self, indices: np.ndarray) -> np.ndarray:
        """Values of indices, of any shape."""
        return (self.low + indices) * self.step

    def bounds(self, cdf: np.ndarray) -> np.ndarray:
        """Integer shares (..., count + 1), from 0 to `TOTAL`, of the distribution function at the points.

        The first and the last value have all that lies beyond.
        """
        if not np.isfinite(cdf).all():
            raise ValueError("value: expected parameters under which the network gives probabilities, got none")
        below = np.maximum.accumulate(np.clip(cdf.astype(float), 0.0, 1.0), -1)
        shares = np.empty((*cdf.shape[:-1], self.count + 1), np.int64)
        shares[..., 0], shares[..., -1] = 0, TOTAL
        shares[..., 1:-1] = np.floor(below * (TOTAL - self.count)).astype(np.int64) + np.arange(1, self.count)
        return shares


def compress(
    net: Network,
    inputs: Mapping[str, Array],
    value: Array,
    *,
    params: Mapping[str, Array] | None = None,
    context: Mapping[str, Array] | EncodedContext | None = None,
    feedback: Mapping[str, Array] | None = None,
    trial_mask: Array | None = None,
    resolution: Mapping[str, float] | None = None,
    likelihood: str = "auto",
) -> bytes:
    """Outcomes as a short stream of bytes, which `decompress` turns back, given everything else.

    The length of the code, `code_length`, is within a few bits of -log2 of the probability that the network gives the
    outcomes: of the evidence where no parameter is given. (Of a continuous outcome it is that of its bin, whose
    density times width it is for narrow ones.) The stream holds about 50 bytes more: versions, digests, a checksum.

    Args:
        net: a trained network of either backend. The same backend has to decompress.
        inputs: dict name -> (*B, K), {} where the schema has none. Not in the stream, and needed to decompress; so is
            everything below but `resolution` and `likelihood`.
        value: outcomes, (*B, K) or (*B, K, n_outcomes).
        params: the parameters that are conditioned on, dict name -> (*B,) in natural units.
        context: dict of inputs, outcomes and feedback, each (*B, N), or what ``net.encode(...)`` returned.
        feedback: dict name -> (*B, K).
        trial_mask: (*B, K) bool; False = no such trial, whose value is not kept.
        resolution: continuous outcome -> step, in its units, such as ``{"rt": 0.001}`` of times in milliseconds. Values
            are rounded to multiples of it, and come back as these.
        likelihood: the part of the network that computes where all parameters are given: "direct", "buffer" or "auto".

    Raises:
        ValueError: if a continuous outcome has no resolution, or one that makes values illegal or their number larger
            than 65,536; an outcome has more values than that; or an argument does not fit.
    """
    backend_of(net)
    value = as_floating(net, "value", value)
    query = Query.build(
        net, inputs, trials=trials_of_value(net, value), params=params, context=context, feedback=feedback,
        trial_mask=trial_mask, likelihood=likelihood,
    )  # fmt: skip
    check_value_shape(value, query.event_shape)
    check_outcomes(net, value, query.trial_mask)
    if not query.independent:
        require_feedback(net, query.feedback, "compress")
    lead = query.leading_shape(value)
    own = tuple(value.shape[: value.ndim - len(query.event_shape)])
    if own != lead:
        raise ValueError(f"value: expected the batch shape {lead} of everything that is given, got {own}")
    exists, columns = _exists(query, lead), split_value(net.schema, to_numpy(value).astype(float))
    columns = {name: np.broadcast_to(column, exists.shape) for name, column in columns.items()}
    alphabets = _alphabets_of(net.schema, columns, exists, resolution)
    indices = {
        name: np.where(exists, np.round(columns[name] / alphabet.step) - alphabet.low, 0).astype(np.int64)
        for name, alphabet in alphabets.items()
    }
    encoder = Encoder()

    def write(name: str, place: tuple[int, ...], bounds: np.ndarray) -> int:
        index = int(indices[name][place])
        encoder.encode(int(bounds[index]), int(bounds[index + 1]))
        return index

    _walk(query, alphabets, exists, write)
    code, bits = encoder.finish()
    part = "direct" if query.direct else "buffer"
    head = _HEAD.pack(
        _MAGIC, _VERSION, _BACKENDS.index(net.backend), _PARTS.index(part), bytes.fromhex(net.digest)[:8],
        _digest_of_given(query), _checksum(indices, exists), bits, len(lead),
    )  # fmt: skip
    shape = struct.pack(f"<{len(lead) + 1}I", *lead, query.trials)
    scales = [_SCALE.pack(a.step, a.low, a.count) for a in alphabets.values() if not a.discrete]
    stream = b"".join([head, shape, *scales, code])
    return stream + _CHECKSUM.pack(zlib.crc32(stream))


def decompress(
    net: Network,
    inputs: Mapping[str, Array],
    data: bytes,
    *,
    params: Mapping[str, Array] | None = None,
    context: Mapping[str, Array] | EncodedContext | None = None,
    feedback: Mapping[str, Array] | None = None,
    trial_mask: Array | None = None,
) -> np.ndarray:
    """The outcomes that `compress` wrote, given what it was given.

    Args:
        net: the network, in the same backend.
        inputs: as in `compress`.
        data: what it returned.
        params: as in `compress`; so is the rest.
        context: the same.
        feedback: the same.
        trial_mask: the same.

    Returns:
        outcomes, (*B, K) or (*B, K, n_outcomes), in double precision; NaN where there is no trial.

    Raises:
        ValueError: if the data are damaged, or none of `compress`; if they were written by another network, in another
            backend, or with other inputs, parameters or feedback; or if the network computes other numbers than it did
            then, with other versions of the libraries or on another kind of machine.
    """
    backend_of(net)
    stream = _Stream.read(net.schema, data)
    if stream.network != bytes.fromhex(net.digest)[:8]:
        raise ValueError("net: expected the network that compressed the data, got another one")
    if stream.backend != net.backend:
        raise ValueError(f"net: expected it in {stream.backend}, which compressed the data, got it in {net.backend}")
    query = Query.build(
        net, inputs, trials=stream.trials, params=params, context=context, feedback=feedback, trial_mask=trial_mask,
        likelihood=stream.part,
    )  # fmt: skip
    if _digest_of_given(query) != stream.given:
        raise ValueError(
            "inputs, params, context, feedback, trial_mask: expected what the data were compressed with, got something "
            "else"
        )
    exists, decoder = _exists(query, stream.lead), Decoder(stream.code)
    indices = _walk(query, stream.alphabets, exists, lambda name, place, bounds: decoder.decode(bounds))
    if _checksum(indices, exists) != stream.symbols:
        raise ValueError(
            "data: expected the numbers that compressed them; this network computes others, with other versions of the "
            "libraries or on another kind of machine"
        )
    columns = {
        name: np.where(exists, alphabet.values(indices[name]), math.nan) for name, alphabet in stream.alphabets.items()
    }
    return np.asarray(stack_value(np, net.schema, columns))  # type: ignore[arg-type]


def code_length(data: bytes) -> int:
    """Length in bits of the code in what `compress` returned: all but the stream's own description.

    Raises:
        ValueError: if it is none, or damaged.
    """
    return _checked_head(data).bits


class _Head(NamedTuple):
    """The fields of `_HEAD`."""

    magic: bytes
    version: int
    backend: int
    part: int
    network: bytes
    given: bytes
    symbols: int
    bits: int
    dimensions: int


def _checked_head(data: bytes) -> _Head:
    """The beginning of a stream that is not damaged."""
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise ValueError(f"data: expected bytes from ppl_buffer.compress, got {type(data).__name__}")
    whole = bytes(data)
    if len(whole) < _HEAD.size + _CHECKSUM.size or not whole.startswith(_MAGIC):
        raise ValueError("data: expected bytes from ppl_buffer.compress, got others")
    if whole[len(_MAGIC)] != _VERSION:
        raise ValueError(f"data: expected version {_VERSION} of the stream, got {whole[len(_MAGIC)]}")
    if _CHECKSUM.unpack(whole[-_CHECKSUM.size :])[0] != zlib.crc32(whole[: -_CHECKSUM.size]):
        raise ValueError("data: expected bytes from ppl_buffer.compress, got damaged ones")
    return _Head(*_HEAD.unpack_from(whole))


@dataclass(frozen=True)
class _Stream:
    """What a stream says of itself, and its code."""

    backend: str
    part: str
    network: bytes
    given: bytes
    symbols: int
    lead: tuple[int, ...]
    trials: int
    alphabets: dict[str, _Alphabet]
    code: bytes

    @classmethod
    def read(cls, schema: Schema, data: bytes) -> _Stream:
        """Take a stream apart; ValueError where it is none of this schema."""
        head = _checked_head(data)
        body = bytes(data)[_HEAD.size : -_CHECKSUM.size]
        shape = struct.Struct(f"<{head.dimensions + 1}I")
        continuous = [name for name, variable in schema.outcomes.items() if not isinstance(variable, Discrete)]
        start = shape.size + len(continuous) * _SCALE.size
        if len(body) != start + math.ceil(head.bits / 8):
            raise ValueError("net: expected the network that compressed the data, got one of other outcomes")
        *lead, trials = shape.unpack_from(body)
        alphabets = {name: _Alphabet(x.low, x.n) for name, x in schema.outcomes.items() if isinstance(x, Discrete)}
        for index, name in enumerate(continuous):
            step, low, count = _SCALE.unpack_from(body, shape.size + index * _SCALE.size)
            alphabets[name] = _Alphabet(low, count, step, discrete=False)
        return cls(
            _BACKENDS[head.backend], _PARTS[head.part], head.network, head.given, head.symbols, tuple(lead), trials,
            {name: alphabets[name] for name in schema.outcomes}, body[start:],
        )  # fmt: skip


def _walk(
    query: Query,
    alphabets: Mapping[str, _Alphabet],
    exists: np.ndarray,
    symbol: Callable[[str, tuple[int, ...], np.ndarray], int],
) -> dict[str, np.ndarray]:
    """Go from trial to trial, as an encoder and a decoder both do.

    Args:
        query: what is given.
        alphabets: of each outcome.
        exists: (*lead, K) bool, which trials there are.
        symbol: of an outcome, its place in (*lead, K) and the shares of its values, says which value it has.

    Returns:
        indices of the values of each outcome, (*lead, K); 0 where there is no trial.
    """
    lead, fills = exists.shape[:-1], {name: x.fill for name, x in query.net.schema.outcomes.items()}
    stepper = Stepper(query, lead)
    indices = {name: np.zeros(exists.shape, np.int64) for name in alphabets}
    for trial in range(query.trials):
        outcomes: dict[str, np.ndarray] = {}
        for name, alphabet in alphabets.items():
            bounds = alphabet.bounds(stepper.cdf(name, outcomes, alphabet.points))
            for place in np.ndindex(lead):
                if exists[(*place, trial)]:
                    indices[name][(*place, trial)] = symbol(name, (*place, trial), bounds[place])
            values = alphabet.values(indices[name][..., trial])
            outcomes[name] = np.where(exists[..., trial], values, fills[name])
        stepper.realise(outcomes)
    return indices


def _alphabets_of(
    schema: Schema, columns: Mapping[str, np.ndarray], exists: np.ndarray, resolution: Mapping[str, float] | None
) -> dict[str, _Alphabet]:
    """The values that each outcome may have; of a continuous one, those between its least and its largest."""
    steps = check_mapping("resolution", resolution)
    continuous = [name for name, variable in schema.outcomes.items() if not isinstance(variable, Discrete)]
    if sorted(steps) != sorted(continuous):
        raise ValueError(
            f"resolution: expected a step for each continuous outcome, {continuous}, whose values have no "
            f"probabilities otherwise, got {sorted(steps)}"
        )
    many = [name for name, x in schema.outcomes.items() if isinstance(x, Discrete) and x.n > _MOST_VALUES]
    if many:
        raise ValueError(f"value: expected outcomes of at most {_MOST_VALUES} values, got more of {many}")
    return {
        name: _Alphabet(variable.low, variable.n)
        if isinstance(variable, Discrete)
        else _multiples(name, variable, columns[name][exists], steps[name])
        for name, variable in schema.outcomes.items()
    }


def _multiples(name: str, variable: Variable, values: np.ndarray, step: float) -> _Alphabet:
    """The multiples of a step that values of a continuous outcome come to."""
    step = check_number(f"resolution[{name!r}]", step, "a number above 0", lambda x: x > 0)
    rounded = np.round(values / step)
    low, high = (float(x) for x in ((rounded.min(), rounded.max()) if rounded.size else (1.0, 1.0)))
    illegal = rounded[~np.asarray(variable.contains(np, rounded * step), bool)]
    if illegal.size:
        raise ValueError(
            f"resolution[{name!r}]: expected a step whose multiples are legal, but with {step:g} some values become "
            f"{illegal[0] * step:g}, where {variable.description} is expected"
        )
    if not high - low < _MOST_VALUES:
        raise ValueError(
            f"resolution[{name!r}]: expected a step with at most {_MOST_VALUES} multiples in the range of the values, "
            f"got {step:g}, which has {high - low + 1:g}"
        )
    return _Alphabet(int(low), int(high - low) + 1, step, discrete=False)


def _exists(query: Query, lead: Sequence[int]) -> np.ndarray:
    """Which trials (*lead, K) there are."""
    mask = np.ones(query.trials, bool) if query.trial_mask is None else to_numpy(query.trial_mask).astype(bool)
    try:
        return np.broadcast_to(mask, (*lead, query.trials))
    except ValueError:
        raise ValueError(
            f"trial_mask: expected a shape that broadcasts to {(*lead, query.trials)}, got {mask.shape}"
        ) from None


def _checksum(indices: Mapping[str, np.ndarray], exists: np.ndarray) -> int:
    """Of the symbols of all trials that exist."""
    return zlib.crc32(b"".join(x[exists].astype("<i8").tobytes() for x in indices.values()))


def _digest_of_given(query: Query) -> bytes:
    """Of everything that a decoder has to be given: as the network reads it, in single precision."""
    groups = {"inputs": query.inputs, "params": query.params, "feedback": query.feedback or {}}
    if query.trial_mask is not None:
        groups["trial_mask"] = {"": query.trial_mask}
    if query.context is not None:
        groups |= {f"context.{group}": named for group, named in query.context.trials.items()}
        groups["context.mask"] = {"": query.context.mask}
    digest = hashlib.sha256()
    for group, named in groups.items():
        for name, array in named.items():
            numbers = to_numpy(array).astype("<f4")
            digest.update(f"{group}.{name}{numbers.shape}".encode())
            digest.update(numbers.tobytes())
    return digest.digest()[:8]
