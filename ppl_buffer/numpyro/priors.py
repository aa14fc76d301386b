"""Training priors as distributions of NumPyro."""

from __future__ import annotations

from typing import Any

import numpyro.distributions as dist

from ppl_buffer.network.record import TrainingRecord
from ppl_buffer.prior import Prior


def prior_distributions(record: TrainingRecord) -> dict[str, Any]:
    """The training priors of a record as NumPyro distributions; see `ppl_buffer.predictive.NetworkVerbs.prior`."""
    priors = {name: record.priors.get(name) or Prior.uniform(*box) for name, box in record.box.items()}
    return {name: prior.distribution(dist) for name, prior in priors.items()}
