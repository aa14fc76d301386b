"""Sections of a card that read the recipe of a shipped network: how the weights came about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ppl_buffer.network.card import WAYS, lineage, markdown, wrapped
from ppl_buffer.schema import Discrete
from ppl_buffer.training.draws import gives_probabilities
from ppl_buffer.workflow.recipes import make_simulator


def span(pair: Sequence[int] | None) -> str:
    """A range in words."""
    return "" if pair is None else f"{pair[0]} to {pair[1]}" if pair[0] < pair[1] else str(pair[0])


def learns_from(stage: Mapping[str, Any], probabilities: bool) -> str:
    """What a stage of a recipe learns from, in words; probabilities where a simulator knows those of all outcomes."""
    samples = stage.get("outcome_samples", 1)
    sources = ["outcomes" if samples == 1 else f"{samples} outcomes of each target"]
    if probabilities:
        sources = ["the simulator's probabilities of outcomes"]
    if stage.get("use_log_likelihood"):
        sources = ["the simulator's log likelihood given all parameters", f"{sources[0]} elsewhere"]
    if "distillation" in stage:
        share, count = stage["distillation_share"], stage["distillation"]["sets"]
        sources.append(f"in {share:.0%} of the batches {count} distillation sets")
    practised = {
        "forecasting": "of the data sets forecast", "gap_filling": "fill a gap", "in_order": "with the buffer in order"
    }  # fmt: skip
    sources += [f"{stage[name]:.0%} {words}" for name, words in practised.items() if name in stage]
    sizes = ", ".join(f"{name} {size}" for name, size in stage.get("config", {}).items())
    ends = [f"after the network has grown to {sizes}"] if sizes else []
    ends += ["then averaged with the weights before"] if stage.get("mean_with_start") else []
    return ", ".join(sources + ends)


def tells_probabilities(description: Mapping[str, Any]) -> bool:
    """Whether a simulator knows the probabilities of all outcomes, so that no draw is noise."""
    simulator = make_simulator(description)
    discrete = all(isinstance(variable, Discrete) for variable in simulator.schema.outcomes.values())
    return discrete and gives_probabilities(simulator)


def stages(recipe: dict[str, Any]) -> str:
    """The trainings of the recipe, as a table."""
    probabilities = tells_probabilities(recipe["simulator"])
    trained = [(WAYS["buffer"], stage) for stage in recipe.get("stages", ())]
    trained += [(WAYS["direct"], stage) for stage in recipe.get("likelihood", ())]

    def rate(stage: Mapping[str, Any]) -> str:
        return f"{stage['learning_rate']:g}" if "learning_rate" in stage else ""

    rows = [
        [part, f"{stage['steps']:,}", rate(stage), str(stage["seed"]), span(stage["trials"]),
         span(stage.get("context")), learns_from(stage, probabilities)]
        for part, stage in trained
    ]  # fmt: skip
    return markdown(("part", "steps", "peak learning rate", "seed", "trials", "context", "learns from"), rows)


def training(name: str, record: Any, recipe: dict[str, Any]) -> str:
    """How the weights came about, part by part, and how to train such a network anew."""
    stored = "" if record.stored is None else f"on {record.stored}, "
    reach = f"{stored}with up to {record.trials} trials" + (
        f" and contexts of up to {record.context}" if record.context else ""
    )
    command, earlier = f"`ppl-buffer zoo --train {name}`", recipe.get("earlier", {}).get("parts", ())
    known = "these stages" if len(record.stages) > 1 else "this stage"
    if "buffer" in earlier:
        origin = "The buffered transformer has weights of an earlier recipe, until it is trained anew."
        anew = f"{command} trains such a network, not these weights:"
        if any(stage.part == "likelihood" for stage in record.stages):
            origin += (
                f" The direct likelihood beside it is of this recipe: {command[:-1]} --parts likelihood` trained it."
            )
    else:
        origin = ""
        if "start" in recipe:
            origin = f"Both parts began with the weights of `{recipe['start']}`, whose stages come first."
        anew = f"{command} {'' if 'machine' in recipe else 'trained it, and '}trains it anew:"
    return f"""{wrapped(f"{origin} The record of the weights knows {known}, {reach}:".strip())}

{lineage(record, recipe["data_sets"])}

{wrapped(f"{recipe.get('machine', '').strip()} {anew}".strip())}

{stages(recipe)}"""
