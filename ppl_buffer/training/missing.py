"""What is lost of the data sets that teach a direct likelihood to follow trials with missing outcomes. NumPy alone."""

from __future__ import annotations

import math

import numpy as np

from ppl_buffer.checks import check_number
from ppl_buffer.network.config import Config, flagged
from ppl_buffer.schema import Schema
from ppl_buffer.simulator import Arrays

# Share of the data sets in which something is lost, where nobody states it.
_SHARE = 0.5
# Least and greatest share of a data set's trials that lost something; log-uniform between these.
_RATES = (0.02, 1.0)
# Share of such trials that lost everything; each variable of the others is lost with probability 1/2.
_WHOLE = 0.5


def choose_missing_fraction(share: float | None, schema: Schema, config: Config) -> float:
    """Share of the direct likelihood's data sets in which outcomes are lost; 0 for a network that could not read it.

    Args:
        share: as stated; None = nobody did.
        schema: the simulator's.
        config: the whole network's sizes.

    Raises:
        ValueError: if it is no share above 0, or stated for a network that does not read what is missing.
    """
    if not flagged(schema, config):
        if share is not None:
            raise ValueError(
                f"missing_fraction: expected None for a network that does not read which outcomes are missing (it "
                f"does with Config(likelihood_missing=True), where trials have an order), got {share!r}"
            )
        return 0.0
    if share is None:
        return _SHARE
    return check_number("missing_fraction", share, "a share above 0, at most 1", lambda x: 0 < x <= 1)


def draw_lost(rng: np.random.Generator, schema: Schema, share: float, size: int, trials: int) -> Arrays:
    """Which outcomes and feedback are lost, by chance: dict name -> (size, trials) bool.

    Args:
        rng: for the draws.
        schema: the simulator's.
        share: of the data sets in which any may be.
        size: data sets.
        trials: of each.
    """
    low, high = map(math.log, _RATES)
    rate = np.exp(rng.uniform(low, high, (size, 1))) * (rng.random((size, 1)) < share)
    some, whole = rng.random((size, trials)) < rate, rng.random((size, trials)) < _WHOLE
    return {name: some & (whole | (rng.random((size, trials)) < 0.5)) for name in (*schema.outcomes, *schema.feedback)}
