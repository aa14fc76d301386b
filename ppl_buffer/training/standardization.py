"""What must be known of a simulator before training: scale and range of its variables, range of its parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain

import numpy as np

from ppl_buffer.network.ranges import ValueRange, ranges_of
from ppl_buffer.prior import Prior
from ppl_buffer.schema import Categorical, Positive
from ppl_buffer.simulator import Arrays, Simulator, WithStoredSets
from ppl_buffer.training import abilities, draws
from ppl_buffer.training.batch_options import BatchOptions
from ppl_buffer.training.batches import STANDARDIZATION, draw, generator
from ppl_buffer.training.distillation import DistillationSets
from ppl_buffer.training.draws import RejectionCounts
from ppl_buffer.training.stated_priors import check_priors
from ppl_buffer.variables import Numeric

# Data sets behind the scales, and parameters behind a box whose prior is not stated.
_DATA_SETS, _PARAMS = 256, 20_000


@dataclass(frozen=True)
class Survey:
    """What a training has to know of its simulator before it begins, the same for all parts of the network.

    Args:
        standardization: mean and standard deviation of each variable but categories on its unconstrained scale.
        ranges: of inputs, outcomes and feedback.
        counts: data sets drawn and dropped.
        box: the range of each parameter.
        priors: of each parameter, where the simulator states them.
    """

    standardization: Mapping[str, tuple[float, float]]
    ranges: Mapping[str, ValueRange]
    counts: RejectionCounts
    box: Mapping[str, tuple[float, float]]
    priors: Mapping[str, Prior | None]


def survey(simulator: Simulator, options: BatchOptions, distillation: DistillationSets | None = None) -> Survey:
    """Look at a simulator.

    Raises:
        ValueError: if the simulator returns what it should not, too much that is not legal, or draws its parameters
            from other priors than it states.
    """
    standardization, ranges, counts = standardize(simulator, options, distillation)
    counts.check()
    return Survey(standardization, ranges, counts, *trained_box(simulator))


def standardize(
    simulator: Simulator, options: BatchOptions, distillation: DistillationSets | None = None
) -> tuple[dict[str, tuple[float, float]], dict[str, ValueRange], RejectionCounts]:
    """What simulated data sets say of the variables.

    Args:
        simulator: what draws.
        options: how many trials are typical.
        distillation: sets that are trained on as well; they count for the ranges alone.

    Returns:
        mean and standard deviation of each variable but categories on its unconstrained scale; range of each input,
        outcome and feedback; data sets drawn and dropped.

    Raises:
        ValueError: if the simulator returns what it should not, or no legal data set at all.
    """
    schema = simulator.schema
    data_sets, counts = draw(simulator, 0, 0, STANDARDIZATION, _DATA_SETS, options.typical_trials)
    counts.check()
    if data_sets is None:
        raise counts.exhausted("the standardization")
    params, data, _ = data_sets
    variables = {**schema.params, **schema.inputs, **schema.outcomes, **schema.feedback}
    out = {}
    for name, variable in variables.items():
        if isinstance(variable, Categorical):
            continue
        out[name] = _moments(variable, params[name] if name in params else data[name])
    for name, above in schema.lower_bounds.items():
        out[schema.scale_above(name)] = _moments(Positive(), data[name] - params[above][:, None])
    parts = [data] if distillation is None else [data, _distilled(simulator, distillation)]
    ranges = ranges_of(schema, {name: list(chain(*(part[name] for part in parts))) for name in data})
    return out, ranges, counts


def _distilled(simulator: Simulator, distillation: DistillationSets) -> Arrays:
    """Data of distillation sets as batches hold them, moved by the simulator's symmetries: name -> (sets, trials)."""
    sets = distillation[:_DATA_SETS]
    data = {name: np.stack([one.data[name] for one in sets]) for name in sets[0].data}
    return draws.augment_data(simulator, generator(0, STANDARDIZATION, 1), data)


def _moments(variable: Numeric, values: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation on the unconstrained scale."""
    unconstrained = variable.unconstrain(np, values.astype(np.float32))
    mean, std = float(unconstrained.mean(dtype=float)), float(unconstrained.std(dtype=float))
    # What never changes is left as it is.
    return mean, std if std > 1e-6 * max(1.0, abs(mean)) else 1.0


def trained_box(simulator: Simulator) -> tuple[dict[str, tuple[float, float]], dict[str, Prior | None]]:
    """The range of each parameter that training covers, and its prior where the simulator states it.

    Raises:
        ValueError: if a stated prior is not what the simulator draws from.
    """
    stated = abilities.priors_of(simulator)
    stored = simulator.stored_sets if isinstance(simulator, WithStoredSets) else None
    # Each stored one counts once: draws of them would look like more than there are.
    rows = None if stored is None else stored.indices(held_out=False)
    params = None if stored is None else {name: x[rows].astype(float) for name, x in stored.params.items()}
    check_priors(simulator, params)
    names = list(simulator.schema.params)
    box: dict[str, tuple[float, float]] = {}
    for name in names:
        if name in stated:
            low, high = stated[name].range()
            # A prior that is relative to another parameter covers what both together can reach.
            start = (0.0, 0.0) if stated[name].relative_to is None else box[str(stated[name].relative_to)]
            box[name] = (start[0] + low, start[1] + high)
    if len(box) < len(names):
        params = params or draws.draw_params(simulator, np.random.default_rng(0), _PARAMS)
        for name in names:
            values = params[name][draws.legal(simulator.schema.params[name], params[name].astype(np.float32))]
            box.setdefault(name, (float(values.min()), float(values.max())))
    for name, value in abilities.atoms_of(simulator).items():
        box[name] = (min(box[name][0], value), max(box[name][1], value))
    return {name: box[name] for name in names}, {name: stated.get(name) for name in names}
