"""Training priors as distributions of NumPyro."""

from __future__ import annotations

from typing import Any

import numpyro.distributions as dist

from ppl_buffer.network.record import TrainingRecord
from ppl_buffer.prior import Prior


def prior_distribution(prior: Prior) -> Any:
    """A prior as a NumPyro distribution.

    Where it is relative to a parameter: a function of that parameter's value that returns the distribution.
    """
    family = getattr(dist, prior.family)
    if prior.relative_to is None:
        return family(**prior.arguments)
    return lambda origin: family(**prior.moved(origin))


def prior_distributions(record: TrainingRecord) -> dict[str, Any]:
    """The training priors of a record as NumPyro distributions; see `ppl_buffer.network.network.Network.prior`."""
    return {name: prior_distribution(record.prior(name)) for name in record.box}
