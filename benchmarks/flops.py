"""How many floating-point operations an algorithm needs: what efficiency and theory's ratios are counted with.

Counted are the matrix products, two operations for each product of numbers and its sum; softmax, normalisation and
nonlinearities are not (less than a tenth at the sizes of the benchmarks, and no machine's matrix rate is for them).
Counted is what the algorithm needs and no more: a causal square counts its visible half, keys that are masked count
nothing, and the last layer computes tokens only if somebody reads them (of context and buffer it needs keys and
values alone). Every read includes the null token. Networks are exchangeable ones without parameters, but for the
gradient, which is of an ordered one.
"""

from __future__ import annotations

from dataclasses import replace

from ppl_buffer.network.config import Config, feature_size, head_size
from ppl_buffer.schema import Schema


def _perceptron(inputs: int, hidden: int, outputs: int) -> int:
    return 2 * hidden * (inputs + outputs)


def tokens(config: Config, schema: Schema, count: int, reads: int) -> int:
    """Context or buffer tokens, from embedding to the keys and values of the last layer.

    Args:
        config: the network's sizes.
        schema: what a data set holds.
        count: number of tokens.
        reads: number of keys that they read in each layer, summed over the tokens.
    """
    width, layers = config.width, config.depth - 1
    pair = feature_size({**schema.inputs, **schema.outcomes, **schema.feedback}, config)
    embedding = _perceptron(pair, config.mlp, width)
    key_value = 2 * width * 2 * width
    rest = 2 * 2 * width * width + _perceptron(width, config.mlp, width)
    return count * (embedding + config.depth * key_value + layers * rest) + layers * reads * 4 * width


def targets(config: Config, schema: Schema, count: int, reads: int) -> int:
    """Targets, from embedding to their outcomes' heads; `reads` is the number of keys read, summed over the targets."""
    width = config.width
    embedding = _perceptron(max(feature_size(schema.inputs, config), 1), config.mlp, width)
    layer = 2 * 2 * width * width + _perceptron(width, config.mlp, width)
    ends = embedding + _heads(config, schema)
    return count * (ends + config.depth * layer) + config.depth * reads * 4 * width


def _heads(config: Config, schema: Schema) -> int:
    """A target's heads, an outcome after the other."""
    total = earlier = 0
    for variable in schema.outcomes.values():
        total += _perceptron(config.width + earlier, config.mlp, head_size(variable, config))
        earlier += feature_size({"": variable}, config)
    return total


def observed_gradient(config: Config, schema: Schema, trials: int) -> int:
    """Value and gradient, by the parameters, of the joint density of K observed trials without a context.

    What does not depend on the parameters is computed already (R5): the targets up to the lowest of the top layers that
    read these, with what this layer reads of the buffer. Each product is then needed once for the value and once, with
    the same operations, for the slopes of what enters it; nobody asks for slopes of the weights or of the buffer.
    """
    width, count = config.width, len(schema.params)
    last = 2 * width * width + _perceptron(width, config.mlp, width)
    above = config.param_depth - 1
    forward = trials * (_heads(config, schema) + config.param_depth * last + above * 2 * width * width)
    forward += 4 * width * (config.param_depth * trials * count + above * _prefixes(0, trials))
    forward += tokens(replace(config, depth=config.param_depth), schema, count, count * (count + 1))
    return 2 * forward


def _prefixes(context: int, trials: int) -> int:
    """Keys that `trials` targets read, target k the context, k - 1 pairs and the null token."""
    return trials * (context + 1) + trials * (trials - 1) // 2


def encode(config: Config, schema: Schema, context: int) -> int:
    """Encode a context once."""
    return tokens(config, schema, context, context * (context + 1)) if context else 0


def decode(config: Config, schema: Schema, context: int, trials: int, draws: int = 1) -> int:
    """A joint density of K trials, or as many draws of them, given an encoded context: O(S (NK + K^2)).

    The last pair of a rollout enters no buffer that anybody reads.
    """
    reads = _prefixes(context, trials)
    # A buffer token also reads itself; the last one is not needed.
    own = reads - context - trials + trials - 1
    return draws * (targets(config, schema, trials, reads) + tokens(config, schema, trials - 1, own))


def rollout(config: Config, schema: Schema, context: int, trials: int, draws: int) -> int:
    """Encode once, then decode: O(N^2 + S (NK + K^2))."""
    return encode(config, schema, context) + decode(config, schema, context, trials, draws)


def reencode(config: Config, schema: Schema, context: int, trials: int, draws: int) -> int:
    """Re-encode the context and all pairs at every step: O(S K (N + K)^2); the first step's context is shared."""
    total = 0
    for k in range(trials):
        one = encode(config, schema, context + k) + targets(config, schema, 1, context + k + 1)
        total += one * (draws if k else 1)
    return total
