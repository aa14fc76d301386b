"""Sections of a card: sizes, how the weights came about, and where the training data lay."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from ppl_buffer.network.config import weight_shapes
from ppl_buffer.network.estimated_error import PART_NAMES

# What `likelihood=` takes -> the column of a card, and the part of a network.
WAYS = {"direct": "direct likelihood", "buffer": "buffered transformer"}


def wrapped(paragraph: str) -> str:
    """The paragraph in lines of at most 120 characters."""
    return textwrap.fill(paragraph, 120, break_long_words=False, break_on_hyphens=False)


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown."""
    lines = [f"| {' | '.join(row)} |" for row in (columns, *rows)]
    return "\n".join([lines[0], "|---" * len(columns) + "|", *lines[1:]])


def sizes(net: Any) -> str:
    """How many weights of each part, and of what sizes."""
    shapes, config = weight_shapes(net.schema, net.config), net.config
    count = {"likelihood": 0, "buffer": 0}
    for name, shape in shapes.items():
        count["likelihood" if name.startswith("likelihood.") else "buffer"] += math.prod(shape)
    scales = f", {config.asinh_scales} asinh scales" if config.asinh_scales else ""
    described = {
        "likelihood": f"Direct likelihood: {count['likelihood']:,} weights, width {config.likelihood_width}.",
        "buffer": f"Buffered transformer: {count['buffer']:,} weights; width {config.width}, depth {config.depth}, "
        f"{config.heads} heads{scales}.",
    }
    return " ".join(described[part] for part in net.parts)


def lacks(net: Any) -> str:
    """What a network that has a direct likelihood alone cannot do, a paragraph; nothing of one with both parts."""
    if "buffer" in net.parts:
        return ""
    paragraph = """There is no buffered transformer: this network computes where all parameters are given, and nothing
else. It fits (NUTS, hierarchies, regressions on trials), draws new data, and has the evidence by importance sampling.
It refuses what hides parameters: the density with some or none of them given, evidence in one pass, and predictions
from a context in place of parameters."""
    return f"\n{wrapped(paragraph)}\n"


def stated_error(record: Any) -> str:
    """What the record states of the error of each part, a paragraph; nothing where it states none."""
    errors = [(name, record.errors[part]) for part, name in PART_NAMES.items() if part in record.errors]
    stated = [f"the {name} is off by {error} (by {error.method})" for name, error in errors]
    if not stated:
        return ""
    paragraph = f"{' and '.join(stated)}, says its record."
    paragraph = f"Where all parameters are given, {paragraph}" if record.box else paragraph[0].upper() + paragraph[1:]
    return f"\n{wrapped(paragraph)}\n"


def part_of(stage: Any) -> str:
    """What a stage trained, in a card's words."""
    return WAYS["direct" if stage.part == "likelihood" else "buffer"]


def lineage(record: Any, data_sets: str) -> str:
    """The stages that the record knows, as a table."""
    rows = [
        [part_of(stage), f"{stage.step} of {stage.steps}", f"{stage.learning_rate:g}", str(stage.seed),
         f"{stage.data_sets:,}", "" if stage.seconds is None else f"{stage.seconds / 60:.1f}", stage.date[:10]]
        for stage in record.stages
    ]  # fmt: skip
    return markdown(("part", "step", "peak learning rate", "seed", data_sets, "minutes", "date"), rows)


def span(pair: Sequence[int] | None) -> str:
    """A range in words."""
    return "" if pair is None else f"{pair[0]} to {pair[1]}" if pair[0] < pair[1] else str(pair[0])


def learns_from(stage: Mapping[str, Any]) -> str:
    """What a stage of a recipe learns from, in words."""
    samples = stage.get("outcome_samples", 1)
    sources = ["outcomes" if samples == 1 else f"{samples} outcomes of each target"]
    if stage.get("use_log_likelihood"):
        sources = ["the simulator's log likelihood given all parameters", f"{sources[0]} elsewhere"]
    if "distillation" in stage:
        share, count = stage["distillation_share"], stage["distillation"]["sets"]
        sources.append(f"in {share:.0%} of the batches {count} distillation sets")
    sizes = ", ".join(f"{name} {size}" for name, size in stage.get("config", {}).items())
    ends = [f"after the network has grown to {sizes}"] if sizes else []
    ends += ["then averaged with the weights before"] if stage.get("mean_with_start") else []
    return ", ".join(sources + ends)


def stages(recipe: dict[str, Any]) -> str:
    """The trainings of the recipe, as a table."""
    trained = [(WAYS["buffer"], stage) for stage in recipe.get("stages", ())]
    trained += [(WAYS["direct"], stage) for stage in recipe.get("likelihood", ())]

    def rate(stage: Mapping[str, Any]) -> str:
        return f"{stage['learning_rate']:g}" if "learning_rate" in stage else ""

    rows = [
        [part, f"{stage['steps']:,}", rate(stage), str(stage["seed"]), span(stage["trials"]),
         span(stage.get("context")), learns_from(stage)]
        for part, stage in trained
    ]  # fmt: skip
    return markdown(("part", "steps", "peak learning rate", "seed", "trials", "context", "learns from"), rows)


def described_simulator(description: Mapping[str, Any]) -> str:
    """A simulator as one writes it."""
    arguments = ", ".join(f"{name}={value}" for name, value in description.items() if name != "name")
    return f"`{description['name']}({arguments})`"


def training(name: str, record: Any, recipe: dict[str, Any]) -> str:
    """How the weights came about, part by part, and how to train such a network anew."""
    stored = "" if record.stored is None else f"on {record.stored}, "
    reach = f"{stored}with up to {record.trials} trials" + (
        f" and contexts of up to {record.context}" if record.context else ""
    )
    command, earlier = f"`ppl-buffer zoo --train {name}`", recipe.get("earlier", {})
    known = "these stages" if len(record.stages) > 1 else "this stage"
    if "buffer" in earlier.get("parts", ()):
        origin = "The buffered transformer has weights of an earlier recipe, until it is trained anew."
        anew = f"{command} trains such a network, not these weights"
        if any(stage.part == "likelihood" for stage in record.stages):
            origin += (
                f" The direct likelihood beside it is of this recipe: {command[:-1]} --parts likelihood` trained it."
            )
        if "simulator" in earlier:
            wider = described_simulator(recipe["simulator"])
            anew += f", and on {wider} in place of {described_simulator(earlier['simulator'])}"
        anew += ":"
    else:
        origin, anew = "", f"{command} trained it, and trains it anew:"
    return f"""{wrapped(f"{origin} The record of the weights knows {known}, {reach}:".strip())}

{lineage(record, recipe["data_sets"])}

{wrapped(anew)}

{stages(recipe)}"""


def trained_range(record: Any) -> str:
    """The range of each parameter, as a table; a sentence where there is none."""
    if not record.box:
        return "No parameters."
    rows = [
        [f"`{name}`", record.priors[name].family if record.priors.get(name) else "unknown", f"{low:g} to {high:g}"]
        for name, (low, high) in record.box.items()
    ]
    return markdown(("parameter", "prior", "range"), rows)


def trained_data(record: Any) -> str:
    """Where the values of the training data lay, as a table."""

    def described(seen: Any) -> str:
        if seen.values:
            pairs = zip(seen.values, seen.shares, strict=True)
            return ", ".join(f"{value:g} ({share:.0%})" for value, share in pairs)
        middle = dict(seen.quantiles)
        return f"{seen.low:.3g} to {seen.high:.3g}, 98% of them {middle[0.01]:.3g} to {middle[0.99]:.3g}"

    columns = {"values": record.ranges}
    if record.likelihood_ranges:
        columns = {"buffered transformer": record.ranges, "direct likelihood": record.likelihood_ranges}
    rows = [[f"`{name}`", *(described(seen[name]) for seen in columns.values())] for name in record.ranges]
    return markdown(("variable", *columns), rows)
