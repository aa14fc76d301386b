"""From the numbers of a trial to tokens: written once, over the array operations of either backend.

Arrays are (B, R, T): B data sets, R replicas of each, T trials. Tokens are (B, R, T, W), of width W.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from ppl_buffer.network.backend import Array, Named, Trials
from ppl_buffer.network.bounds import nearest_legal
from ppl_buffer.network.parts import Part
from ppl_buffer.schema import Categorical, Real, Variable
from ppl_buffer.variables import Numeric

# Larger standardised values overflow on their way through the layers.
_LARGEST = 1e12


def standardize(net: Part, variables: Mapping[str, Numeric], values: Named) -> Named:
    """Variables but categories on the standardised unconstrained scale; any shape."""
    xp, scales = net.ops.xp, net.standardization
    unconstrained = {name: variable.unconstrain(xp, values[name]) for name, variable in variables.items()}
    return {name: (x - scales[name][0]) / scales[name][1] for name, x in unconstrained.items()}


def within_range(net: Part, value: Array) -> Array:
    """Standardised values, those cut off that would overflow on their way through the layers."""
    return net.ops.xp.clip(value, -_LARGEST, _LARGEST)


def features(
    net: Part,
    variables: Mapping[str, Variable],
    values: Mapping[str, Array],
    lost: Mapping[str, Array] | None = None,
) -> list[Array]:
    """Numbers that describe the variables, each (..., size).

    One-hot categories and standardised values; behind all of them sines, then cosines, of the inputs that have
    frequencies; then the values at finer scales, the coarsest first. All of them are 0 where a variable is `lost`,
    dict name -> (...) bool.
    """
    ops, lost = net.ops, lost or {}

    def known(name: str, x: Array) -> Array:
        return ops.xp.where(lost[name][..., None], 0.0, x) if name in lost else x

    real = {name: variable for name, variable in variables.items() if not isinstance(variable, Categorical)}
    continuous = standardize(net, real, ops.number_each(net, {name: values[name] for name in real}))
    columns, described = {name: known(name, x[..., None]) for name, x in continuous.items()}, []
    for name, variable in variables.items():
        if isinstance(variable, Categorical):
            described.append(known(name, ops.number(net, values[name][..., None] == ops.arange(net, variable.n))))
        else:
            described.append(columns[name])
    for name, variable in real.items():
        if isinstance(variable, Real) and variable.frequencies is not None:
            waves = ops.number(net, np.asarray(variable.waves(net.standardization[name][1])))
            angles = 2 * math.pi * within_range(net, columns[name]) * waves
            described += [ops.xp.sin(angles), ops.xp.cos(angles)]
    for power in range(1, net.config.asinh_scales + 1):
        described += [ops.xp.arcsinh(10**power * x) / math.asinh(10**power) for x in columns.values()]
    return [within_range(net, x) for x in described]


def join(net: Part, numbers: Sequence[Array]) -> Array:
    """Numbers (..., n) of the same trials behind each other, leading dimensions broadcast."""
    xp = net.ops.xp
    lead = xp.broadcast_shapes(*(tuple(x.shape[:-1]) for x in numbers))
    return xp.concatenate([xp.broadcast_to(x, (*lead, x.shape[-1])) for x in numbers], -1)


def combination(net: Part, sizes: Sequence[int], categories: Sequence[Array]) -> Array:
    """Which combination of categories trials are: the cell of the table of all of them, counted row by row."""
    cell: Array = 0
    for size, category in zip(sizes, categories, strict=True):
        cell = cell * size + net.ops.number(net, category)
    return cell


def embed_targets(net: Part, inputs: Mapping[str, Array], shape: Sequence[int]) -> Array:
    """Target tokens (B, R, T, W) of inputs (B, R, T); `shape` (B, R, T) serves a schema without inputs."""
    described = features(net, net.schema.inputs, inputs)
    if described:
        x = net.ops.xp.concatenate(described, -1)
    else:
        # Known while compiling, and so would be all that targets are before they read anything.
        x = net.ops.no_constant_folding(net.ops.ones(net, (*shape, 1)))
    return net.ops.perceptron(net, "embed.target", x) + net.weights["role.target"]


def embed_pairs(net: Part, trials: Trials, role: str) -> Array:
    """Tokens (B, R, T, W) of realised trials: inputs, outcomes and feedback, each (B, R, T).

    Args:
        net: the network.
        trials: the realised trials.
        role: "context" or "buffer".
    """
    schema = net.schema
    variables = {**schema.inputs, **schema.outcomes, **schema.feedback}
    values = {**trials["inputs"], **trials["outcomes"], **trials["feedback"]}
    described = features(net, variables, values)
    return net.ops.perceptron(net, "embed.pair", net.ops.xp.concatenate(described, -1)) + net.weights[f"role.{role}"]


def embed_params(net: Part, params: Mapping[str, Array]) -> Array:
    """Parameter tokens (B, R, P, W), one for each given parameter (B, R), in the schema's order."""
    given = {name: variable for name, variable in net.schema.params.items() if name in params}
    legal = nearest_legal(net, net.ops.number_each(net, {name: params[name] for name in given}))
    values = standardize(net, given, legal)
    values = {name: within_range(net, value) for name, value in values.items()}
    tokens = [net.ops.perceptron(net, f"embed.param.{name}", value[..., None]) for name, value in values.items()]
    return net.ops.xp.stack(tokens, -2) + net.weights["role.param"]


def lower_bounds_of(net: Part, params: Mapping[str, Array], conditioned: Array | None) -> Array | None:
    """Lower bounds (B, R, 1 or K, 2 F) of the F outcomes that stay above a parameter: its value and 1, or 0 and 0.

    Args:
        net: the network.
        params: dict name -> (B, R), in natural units; or (B, R, K), by trial.
        conditioned: (B, R, P) bool, which of them are given, the others being hidden; None = all.

    Returns:
        None without such outcomes.
    """
    ops, given, columns = net.ops, [name for name in net.schema.params if name in params], []
    for name in net.schema.lower_bounds.values():
        value = known = ops.zeros(net, (1, 1))
        if name in params:
            value = ops.number(net, params[name])
            known = ops.xp.ones_like(value)
            if conditioned is not None:
                known = ops.number(net, conditioned[..., given.index(name)])
        columns += [value * known, known]
    if not columns:
        return None
    shape = ops.xp.broadcast_shapes(*(x.shape for x in columns))
    stacked = ops.xp.stack([ops.xp.broadcast_to(x, shape) for x in columns], -1)
    return stacked if stacked.ndim == 4 else stacked[:, :, None]


def with_lower_bounds(net: Part, representation: Array, lower_bounds: Array | None) -> Array:
    """A representation (B, R, T, W) with the lower bounds of its trials behind, where the heads find them."""
    if lower_bounds is None:
        return representation
    xp = net.ops.xp
    wide = xp.broadcast_to(lower_bounds, (*representation.shape[:-1], lower_bounds.shape[-1]))
    return xp.concatenate([representation, wide], -1)
