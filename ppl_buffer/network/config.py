"""The network's sizes, and the names and shapes of its weights: the contract that both backends share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from ppl_buffer.checks import check_choice, check_flag
from ppl_buffer.schema import Categorical, Real, Schema, Variable

# Layers of a direct likelihood of independent trials, behind what joins inputs and parameters.
INDEPENDENT_LAYERS = 2

# Combinations of categorical variables up to which the direct likelihood reads which of them a trial is.
_MOST_CELLS = 64

# Combinations of the inputs' categories up to which each has a state of its own.
_MOST_SLOTS = 16

# Sizes that say 0 of what is not there.
_MAY_BE_ZERO = ("depth", "contextual_positions", "asinh_scales", "likelihood_width", "latents", "buffer_rank")

# What a network was before there was a choice. It is not named in files and digests, which thus stay what they were.
_BEFORE_CHOICE = {
    "latents": 0, "buffer_rank": 0, "buffer_apart": False, "head": "normal", "likelihood_missing": False,
    "likelihood_trial_params": False,
}  # fmt: skip
# Sizes that are the direct likelihood's alone.
DIRECT_SIZES = ("likelihood_width", "likelihood_slots", "likelihood_missing", "likelihood_trial_params")


@dataclass(frozen=True)
class Config:
    """Sizes of a network: of its buffered transformer, and of its direct likelihood.

    Args:
        width: length of a token's vector; a multiple of `heads`.
        depth: number of layers; 0 = no transformer, a direct likelihood alone.
        heads: attention heads a layer.
        mlp: hidden units of each layer's two-layer perceptron, and of the heads and embeddings.
        components: of the mixture of a continuous outcome or an integer.
        param_depth: number of top layers in which targets read the parameters.
        contextual_positions: learned counts an attention layer keeps over an ordered buffer, beside the count of
            trials. A key loses weight with what has been counted since (contextual position encoding, Golovneva et al.
            2024, arXiv 2405.18719), at slopes as in ALiBi (Press et al. 2022).
        asinh_scales: finer scales at which a trial's continuous variables are read as well: beside the standardised
            value z also asinh(10 z), asinh(100 z) and so on, each divided by its value at z = 1. For data whose
            structure may be far smaller than their spread.
        likelihood_width: units of each layer of the direct likelihood, and of its recurrent state; 0 = none. A model
            whose trials depend on each other without an order has none, whatever this says.
        likelihood_slots: of these units of the state, keep three quarters anew for each combination of the inputs'
            categories, such as the pair of symbols that is shown: a slot each, which the other trials leave as it is.
            The rest is common to all trials. Of no effect where trials have no order, or the inputs have no category
            or more than 16 combinations.
        likelihood_missing: let the direct likelihood of an ordered model read which outcomes and feedback of the past
            are missing, and train it on such data: then trials may follow one whose outcome was lost
            (`ppl_buffer.Missing`). Of no effect where trials have no order.
        likelihood_trial_params: train the direct likelihood of an ordered model on parameters that change from trial to
            trial as well as on those that stay, so that `JointPredictive` takes them (``trial_params``). The simulator
            has to know how (`ppl_buffer.simulator.WithTrialParams`). Of no effect where trials have no order.
        latents: tokens that summarise a context of any size, for an exchangeable model: what is predicted reads these
            in its place, so that time grows with the size of the context and not with its square. 0 = none.
        buffer_rank: rank of what is added to the keys and values of buffer tokens alone (low-rank adaptation, Hu et
            al. 2022, arXiv 2106.09685); 0 = nothing. For exchangeable models.
        buffer_apart: buffer and target tokens read the buffer through maps and by a softmax of their own, whose result
            is added to what they read elsewhere: without a buffer nothing is added. For exchangeable models.
        head: "normal" or "logistic", what the components of a continuous outcome's mixture are. Logistic ones have
            exponential tails, and a distribution function without special functions. The mean of a `Positive` outcome
            is then infinite where a component's scale on log scale is 1 or more, its variance where it is 1/2 or more.
            Of no effect on integers, whose masses are always those of logistic ones.

    Raises:
        ValueError: if a size is not a positive integer, `heads` does not divide `width`, `param_depth` exceeds
            `depth`, there is neither a transformer nor a direct likelihood, `likelihood_slots`, `likelihood_missing`,
            `likelihood_trial_params` or `buffer_apart` is no truth value, a buffer that is read apart has a
            `buffer_rank`, or `head` is no such law.
    """

    width: int = 64
    depth: int = 4
    heads: int = 4
    mlp: int = 128
    components: int = 20
    param_depth: int = 2
    contextual_positions: int = 8
    asinh_scales: int = 0
    likelihood_width: int = 64
    likelihood_slots: bool = True
    likelihood_missing: bool = False
    likelihood_trial_params: bool = False
    latents: int = 0
    buffer_rank: int = 0
    buffer_apart: bool = False
    head: str = "normal"

    def __post_init__(self) -> None:
        sizes = asdict(self)
        check_choice("head", sizes.pop("head"), ("normal", "logistic"))
        for name in ("likelihood_slots", "likelihood_missing", "likelihood_trial_params", "buffer_apart"):
            check_flag(name, sizes.pop(name))
        for name, value in sizes.items():
            least = 0 if name in _MAY_BE_ZERO else 1
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name}: expected an integer of at least {least}, got {value!r}")
        if self.width % self.heads:
            raise ValueError(f"heads: expected a divisor of width={self.width}, got {self.heads}")
        if self.depth and self.param_depth > self.depth:
            raise ValueError(f"param_depth: expected at most depth={self.depth}, got {self.param_depth}")
        if self.buffer_apart and self.buffer_rank:
            raise ValueError(
                f"buffer_rank: expected 0 where the buffer is read apart, with keys of its own, got {self.buffer_rank}"
            )
        if not self.depth and not self.likelihood_width:
            raise ValueError("depth: expected at least 1 without a direct likelihood (likelihood_width=0), got 0")

    def to_dict(self) -> dict[str, int | str]:
        """A JSON-ready description."""
        return {name: value for name, value in asdict(self).items() if _BEFORE_CHOICE.get(name) != value}

    @classmethod
    def from_dict(cls, description: Mapping[str, Any]) -> Config:
        """Read what `to_dict` wrote."""
        # Files from before there were direct likelihoods, or slots, have none.
        return cls(**{"likelihood_width": 0, "likelihood_slots": False, **description})


def feature_size(variables: Mapping[str, Variable], config: Config) -> int:
    """Numbers that describe one trial's variables: one a category or a scale of any other, two a frequency."""
    continuous = 1 + config.asinh_scales
    waves = sum(2 * len(variable.waves(1.0)) for variable in variables.values() if isinstance(variable, Real))
    return waves + sum(
        variable.n if isinstance(variable, Categorical) else continuous for variable in variables.values()
    )


def crossed(variables: Mapping[str, Variable]) -> dict[str, Categorical]:
    """The categorical variables whose combinations the direct likelihood reads; none where one or too many exist."""
    categories = {name: x for name, x in variables.items() if isinstance(x, Categorical)}
    several = len(categories) > 1 and cells(categories) <= _MOST_CELLS
    return categories if several else {}


def cells(categories: Mapping[str, Categorical]) -> int:
    """Number of combinations of categories; 0 of none."""
    return math.prod(x.n for x in categories.values()) if categories else 0


def slotted(schema: Schema, config: Config) -> dict[str, Categorical]:
    """The categorical inputs for each combination of which the direct likelihood has a state; none = one for all."""
    categories = {name: x for name, x in schema.inputs.items() if isinstance(x, Categorical)}
    # Each part of the state has one unit at least.
    possible = schema.ordered and config.likelihood_slots and config.likelihood_width > 1
    return categories if possible and 2 <= cells(categories) <= _MOST_SLOTS else {}


def state_widths(schema: Schema, config: Config) -> tuple[int, int, int]:
    """Units of the recurrent state: those common to all trials, those of a slot, and how many slots there are."""
    slots = cells(slotted(schema, config))
    apart = max(config.likelihood_width * 3 // 4, 1) if slots else 0
    return config.likelihood_width - apart, apart, slots


def without_likelihood(config: Config) -> Config:
    """The sizes of the buffered transformer alone."""
    return replace(config, likelihood_width=0, likelihood_missing=False, likelihood_trial_params=False)


def flagged(schema: Schema, config: Config) -> tuple[str, ...]:
    """Outcomes and feedback of which the direct likelihood reads whether they are missing; none where it does not."""
    reads = schema.ordered and config.likelihood_missing and config.likelihood_width > 0
    return (*schema.outcomes, *schema.feedback) if reads else ()


def takes_trial_params(schema: Schema, config: Config) -> bool:
    """Whether the direct likelihood takes parameters that change from trial to trial."""
    learned = schema.ordered and config.likelihood_trial_params
    return config.likelihood_width > 0 and bool(schema.params) and (schema.independent or learned)


def head_size(variable: Variable, config: Config) -> int:
    """Numbers that an outcome's head puts out: logits, or weight, mean and scale of each component."""
    return variable.n if isinstance(variable, Categorical) else 3 * config.components


def parts_of(schema: Schema, config: Config) -> tuple[str, ...]:
    """The parts that a network has: "likelihood", where trials have an order or are independent, and "buffer"."""
    direct = config.likelihood_width > 0 and (schema.ordered or schema.independent)
    return ("likelihood",) * direct + ("buffer",) * (config.depth > 0)


def is_of_buffer(name: str) -> bool:
    """Whether a weight is one that nothing reads but the buffer's tokens, and tokens in what they read of these."""
    return name == "role.buffer" or ".buffer_" in name


def weight_shapes(schema: Schema, config: Config) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight. Matrices are (out, in), as torch stores them; both backends read these names.

    Raises:
        ValueError: if nothing would remain of the network: no transformer, and no direct likelihood of such a schema;
            or an ordered model is to have what is for exchangeable ones.
    """
    if schema.ordered and (config.latents or config.buffer_rank or config.buffer_apart):
        raise ValueError(
            "latents, buffer_rank, buffer_apart: expected 0, 0 and False for an ordered schema, whose past is all "
            "buffer"
        )
    parts = parts_of(schema, config)
    if not parts:
        raise ValueError(
            "config: expected depth of at least 1, since trials that depend on each other without an order have no "
            "direct likelihood"
        )
    shapes = _buffer_shapes(schema, config) if "buffer" in parts else {}
    return shapes | (_likelihood_shapes(schema, config) if "likelihood" in parts else {})


def _likelihood_shapes(schema: Schema, config: Config) -> dict[str, tuple[int, ...]]:
    """Weights of the direct likelihood."""
    width = config.likelihood_width
    shapes: dict[str, tuple[int, ...]] = {}

    def linear(name: str, inputs: int, outputs: int) -> None:
        shapes[f"likelihood.{name}.weight"] = (outputs, inputs)
        shapes[f"likelihood.{name}.bias"] = (outputs,)

    def described(variables: Mapping[str, Variable]) -> int:
        return feature_size(variables, config) + cells(crossed(variables))

    # A schema without parameters has one constant feature in their place.
    embedded = max(width // 2, 1)
    linear("params.hidden", max(len(schema.params), 1), embedded)
    linear("params.out", embedded, embedded)
    query = described(schema.inputs)
    if schema.ordered:
        pair = described({**schema.inputs, **schema.outcomes, **schema.feedback})
        linear("trial.pair", pair + len(flagged(schema, config)), width)
        linear("trial.params", embedded, width)
        common, apart, _ = state_widths(schema, config)
        linear("recurrent.input", width, 3 * common)
        linear("recurrent.state", common, 3 * common)
        if apart:
            linear("slots.input", width + common, 3 * apart)
            linear("slots.state", apart, 3 * apart)
        query += width
    if query:
        linear("read.trial", query, width)
        linear("read.scale", embedded, width)
    linear("read.shift", embedded, width)
    if not schema.ordered:
        for index in range(INDEPENDENT_LAYERS):
            linear(f"layers.{index}", width, width)
    earlier: dict[str, Variable] = {}
    for name, variable in schema.outcomes.items():
        linear(f"heads.{name}.hidden", width + feature_size(earlier, config), width)
        linear(f"heads.{name}.out", width, head_size(variable, config))
        earlier[name] = variable
    return shapes


def _buffer_shapes(schema: Schema, config: Config) -> dict[str, tuple[int, ...]]:
    """Weights of the buffered transformer."""
    width, hidden = config.width, config.mlp
    shapes: dict[str, tuple[int, ...]] = {}

    def linear(name: str, inputs: int, outputs: int) -> None:
        shapes[f"{name}.weight"] = (outputs, inputs)
        shapes[f"{name}.bias"] = (outputs,)

    def norm(name: str) -> None:
        shapes[f"{name}.weight"] = (width,)
        shapes[f"{name}.bias"] = (width,)

    def perceptron(name: str, inputs: int, outputs: int) -> None:
        linear(f"{name}.hidden", inputs, hidden)
        linear(f"{name}.out", hidden, outputs)

    # A schema without inputs still has targets: one constant feature stands in.
    query = max(feature_size(schema.inputs, config), 1)
    pair = feature_size({**schema.inputs, **schema.outcomes, **schema.feedback}, config)
    perceptron("embed.target", query, width)
    perceptron("embed.pair", pair, width)
    for role in ("target", "buffer", "context", "param"):
        shapes[f"role.{role}"] = (width,)
    if config.latents:
        shapes["latents"] = (config.latents, width)
    for name in schema.params:
        perceptron(f"embed.param.{name}", 1, width)
    for index in range(config.depth):
        layer = f"layers.{index}"
        norm(f"{layer}.norm_attention")
        linear(f"{layer}.query", width, width)
        linear(f"{layer}.key_value", width, 2 * width)
        linear(f"{layer}.merge", width, width)
        norm(f"{layer}.norm_mlp")
        perceptron(f"{layer}.mlp", width, width)
        shapes[f"{layer}.null_key"] = (config.heads, width // config.heads)
        shapes[f"{layer}.null_value"] = (config.heads, width // config.heads)
        if schema.ordered:
            linear(f"{layer}.counter", width, config.contextual_positions)
            linear(f"{layer}.slope", width, config.heads * (config.contextual_positions + 1))
        if config.buffer_rank:
            shapes[f"{layer}.buffer_adapter.down.weight"] = (config.buffer_rank, width)
            shapes[f"{layer}.buffer_adapter.up.weight"] = (2 * width, config.buffer_rank)
        if config.buffer_apart:
            linear(f"{layer}.buffer_query", width, width)
            linear(f"{layer}.buffer_key_value", width, 2 * width)
            shapes[f"{layer}.buffer_merge.weight"] = (width, width)
    norm("norm_out")
    earlier: dict[str, Variable] = {}
    for name, variable in schema.outcomes.items():
        perceptron(f"heads.{name}", width + feature_size(earlier, config), head_size(variable, config))
        earlier[name] = variable
    return shapes
