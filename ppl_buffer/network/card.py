"""The card of a network in Markdown: what it is for, its sizes, how its weights came about, where it can be trusted."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

from ppl_buffer.network.config import weight_shapes
from ppl_buffer.network.estimated_error import PART_NAMES
from ppl_buffer.network.network import Network
from ppl_buffer.network.ranges import ValueRange
from ppl_buffer.network.record import StageRecord, TrainingRecord
from ppl_buffer.schema import Schema

# What `likelihood=` takes -> the column of a card, and the part of a network.
WAYS = {"direct": "direct likelihood", "buffer": "buffered transformer"}


def wrapped(paragraph: str) -> str:
    """The paragraph in lines of at most 120 characters."""
    return textwrap.fill(paragraph, 120, break_long_words=False, break_on_hyphens=False)


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown."""
    lines = [f"| {' | '.join(row)} |" for row in (columns, *rows)]
    return "\n".join([lines[0], "|---" * len(columns) + "|", *lines[1:]])


def sizes(net: Network) -> str:
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


def lacks(net: Network) -> str:
    """What a network that has a direct likelihood alone cannot do, a paragraph; nothing of one with both parts."""
    if "buffer" in net.parts:
        return ""
    paragraph = """There is no buffered transformer: this network computes where all parameters are given, and nothing
else. It fits (NUTS, hierarchies, regressions on trials), draws new data, and has the evidence by importance sampling.
It refuses what hides parameters: the density with some or none of them given, evidence in one pass, and predictions
from a context in place of parameters."""
    return f"\n{wrapped(paragraph)}\n"


def stated_error(record: TrainingRecord) -> str:
    """What the record states of the error of each part, a paragraph; nothing where it states none."""
    errors = [(name, record.errors[part]) for part, name in PART_NAMES.items() if part in record.errors]
    stated = [f"the {name} is off by {error} (by {error.method})" for name, error in errors]
    if not stated:
        return ""
    paragraph = f"{' and '.join(stated)}, says its record."
    paragraph = f"Where all parameters are given, {paragraph}" if record.box else paragraph[0].upper() + paragraph[1:]
    return f"\n{wrapped(paragraph)}\n"


def part_of(stage: StageRecord) -> str:
    """What a stage trained, in a card's words."""
    return WAYS["direct" if stage.part == "likelihood" else "buffer"]


def lineage(record: TrainingRecord, data_sets: str) -> str:
    """The stages that the record knows, as a table."""
    rows = [
        [part_of(stage), f"{stage.step} of {stage.steps}", f"{stage.learning_rate:g}", str(stage.seed),
         f"{stage.data_sets:,}", "" if stage.seconds is None else f"{stage.seconds / 60:.1f}", stage.date[:10]]
        for stage in record.stages
    ]  # fmt: skip
    return markdown(("part", "step", "peak learning rate", "seed", data_sets, "minutes", "date"), rows)


def trained_range(record: TrainingRecord) -> str:
    """The range of each parameter, as a table; a sentence where there is none."""
    if not record.box:
        return "No parameters."
    rows = []
    for name, (low, high) in record.box.items():
        prior = record.priors.get(name)
        rows.append([f"`{name}`", prior.family if prior else "unknown", f"{low:g} to {high:g}"])
    return markdown(("parameter", "prior", "range"), rows)


def trained_data(record: TrainingRecord) -> str:
    """Where the values of the training data lay, as a table."""

    def described(seen: ValueRange) -> str:
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


def card(net: Network, address: str) -> str:
    """The card of a network of which nobody has measured more than its record says.

    Args:
        net: the network.
        address: what `ppl_buffer.load` takes to get it.
    """
    record = net.record
    title = "Network" if record is None else record.simulator
    observed = record is not None and record.observed
    what = "predictive" if observed else "likelihood"
    order = "depend on those before them" if net.schema.ordered else "may come in any order"
    introduction = (
        f"An amortized {what} for `ppl_buffer`: a distribution, in NumPyro, Pyro and PyMC, of the outcomes of all "
        f"trials of a data set together. Trials {order}."
    )
    sections = [f"# {title}", wrapped(introduction), f"```python\n{_usage(net.schema, address)}\n```"]
    sections += ["## What a data set holds", _variables(net.schema), sizes(net)]
    sections += [missing] if (missing := lacks(net).strip()) else []
    if record is None:
        sections += ["It carries no record of a training: nobody knows where it can be trusted."]
        return "\n\n".join(sections) + "\n"
    error = stated_error(record).strip() or "Nobody has measured how far it is from what it was trained on."
    reach = f"up to {record.trials} trials" + (f" and contexts of up to {record.context}" if record.context else "")
    sections += ["## How far it is from the truth", error]
    sections += ["## Training", wrapped(f"On {record.source}, with {reach}.")]
    sections += [lineage(record, "data sets")] if record.stages else []
    sections += ["## Trained range", trained_range(record)]
    sections += [trained_data(record)] if record.ranges else []
    return "\n\n".join([*sections, "Outside of it the network's numbers are extrapolations."]) + "\n"


def _usage(schema: Schema, address: str) -> str:
    """How to get at it, in a few lines."""
    inputs = "inputs" if schema.inputs else "{}"
    feedback = ", feedback=feedback" if schema.feedback else ""
    return f"""import ppl_buffer as pb

net = pb.load("{address}", backend="jax")  # or "torch"
seen = net.observe({inputs}, value{feedback})"""


def _variables(schema: Schema) -> str:
    """All variables of a schema, as a table."""
    groups = {
        "parameter": schema.params,
        "input of a trial": schema.inputs,
        "outcome": schema.outcomes,
        "feedback on a trial": schema.feedback,
    }
    rows = [
        (f"`{name}`", role, variable.description) for role, group in groups.items() for name, variable in group.items()
    ]
    return markdown(("variable", "what it is", "values"), rows)
