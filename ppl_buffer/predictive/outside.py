"""Parameters that may not be what they were meant to be: outside the trained box, or crossed with the data sets."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from ppl_buffer.findings import Finding, warn_of
from ppl_buffer.network.arguments import refuse_empty
from ppl_buffer.network.backend import Array
from ppl_buffer.network.record import TrainingRecord


def trained_ranges(record: TrainingRecord, params: Mapping[str, Array]) -> list[tuple[str, Array, float, float]]:
    """Name, value and trained range of each parameter, and of the differences whose range the priors state."""
    ranges = []
    for name, value in params.items():
        if name in record.box:
            ranges.append((name, value, *record.box[name]))
        prior = record.priors.get(name)
        origin = None if prior is None else prior.relative_to
        if prior is not None and origin is not None and origin in params and "low" in prior.arguments:
            ranges.append((f"{name} - {origin}", value - params[origin], *prior.range()))
    return ranges


def check_range(
    record: TrainingRecord, numbers: Mapping[str, np.ndarray | None], outside: str, by_trial: Collection[str] = ()
) -> None:
    """Warn of parameters that the network was not trained on, or refuse them; what is not known yet passes.

    Args:
        record: of the network.
        numbers: dict name -> values, None where they are not known.
        outside: "warn" or "error".
        by_trial: names of those that vary by trial.
    """
    known = {name: value for name, value in numbers.items() if value is not None}
    for name, value, low, high in trained_ranges(record, known):
        share = float(((value < low) | (value > high)).mean())
        if share:
            argument = "trial_params" if name in by_trial else "params"
            message = (
                f"{argument}[{name!r}]: {share:.0%} of the values lie outside [{low:g}, {high:g}], where the network "
                f"was trained; its likelihood there is an extrapolation. Use a prior inside the range "
                f"(net.prior()), or train on a wider one"
            )
            if outside == "error":
                raise ValueError(message)
            # Between a user's line and `Query.build` are a distribution's constructor and its metaclass.
            warn_of(Finding("outside_box", message, parameter=name, share=share), stacklevel=5)


def check_batch(shape: tuple[int, ...], params: Mapping[str, Array], data: Sequence[Array | None]) -> None:
    """Refuse to have no data sets; say that parameters (P, 1) beside P data sets are P values for each.

    Args:
        shape: batch dimensions of all arguments together.
        params: dict name -> (*B,).
        data: arrays (*B, K), or None.
    """
    if 0 in shape:
        refuse_empty("arguments", shape)
    sets = max((tuple(x.shape[:-1]) for x in data if x is not None), key=len, default=())
    for name, value in params.items():
        if len(sets) == 1 and sets[0] > 1 and tuple(value.shape) == (*sets, 1):
            message = (
                f"params[{name!r}]: shape {(*sets, 1)} beside {sets[0]} data sets is {sets[0]} values for each, "
                f"{(*sets, *sets)} in all; where each data set has its own value, give shape {sets}"
            )
            warn_of(Finding("shape", message, parameter=name), stacklevel=5)
