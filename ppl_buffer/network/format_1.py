"""Checkpoints of format 1, which version 0.1 wrote, in the words of today. Read until version 0.3.

The arrays are the same in both formats; the description differs in words, and knows the last stage of training alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_CONFIG = {"counters": "contextual_positions", "fine_scales": "asinh_scales"}
_OPTIONS = {
    "special_values": "atoms",
    "told_sets": "condition_masks",
    "told_weight": "likelihood_weight",
    "told_prior": "proposal",
    "no_context": "context_free_fraction",
    "redraws": "outcome_samples",
    "known_density": "use_log_likelihood",
    "lessons": "distillation",
}
_FACTS = ("date", "versions", "seed", "steps", "step", "learning_rate", "held_out_loss", "data_sets",
          "dropped_data_sets", "skipped_updates")  # fmt: skip


def translate(description: Mapping[str, Any]) -> dict[str, Any]:
    """The description of a file of format 1 as format 2 has it.

    Raises:
        KeyError: if something is missing.
    """
    record = description["record"]
    return {
        **description,
        "format": 2,
        "schema": _schema(description["schema"]),
        "config": _renamed(description["config"], _CONFIG),
        "record": None if record is None else _record(record),
    }


def _renamed(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in values.items()}


def _schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """``lapse`` of a variable is its ``lapse_range``, ``contamination`` the ``lapse_rate``."""
    out = _renamed(schema, {"contamination": "lapse_rate"})
    for group in ("params", "inputs", "outcomes", "feedback"):
        out[group] = [[name, _renamed(variable, {"lapse": "lapse_range"})] for name, variable in schema[group]]
    return out


def _record(record: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of the run are those of the last stage."""
    out = {name: value for name, value in record.items() if name != "provenance"}
    facts = record["provenance"]
    stages = []
    if facts:
        options = {name: value for name, value in facts.items() if name not in (*_FACTS, "start")}
        stages.append(
            {
                **{name: facts[name] for name in _FACTS},
                "start": facts.get("start"),
                "options": _renamed(options, _OPTIONS),
            }
        )
    return {**out, "stages": stages}
