"""The conditions of a fit by formula, by whose levels it is compared with the data."""

from __future__ import annotations

from ppl_buffer.datasets.trials import TrialData
from ppl_buffer.diagnostics.conditions import Condition, condition_of
from ppl_buffer.diagnostics.curves import shown_cue
from ppl_buffer.formulas.tables import SUBJECT_COLUMN
from ppl_buffer.formulas.terms import Design
from ppl_buffer.schema import Schema


def conditions_of(schema: Schema, design: Design | None, trials: TrialData) -> dict[str, Condition]:
    """The covariates and inputs that formulas name, and that have a few levels: name -> levels.

    Args:
        schema: of the network; what its pictures show anyway is left out.
        design: what formulas made, or None.
        trials: what was fitted.
    """
    conditions = {}
    values = {**trials.covariates, **trials.inputs}
    for name in [] if design is None else design.levels:
        if name in (SUBJECT_COLUMN, shown_cue(schema)) or name not in values:
            continue
        condition = condition_of(values[name], trials.trial_mask, trials.words.get(name))
        if condition is not None:
            conditions[name] = condition
    return conditions
