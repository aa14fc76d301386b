"""Training priors as distributions of NumPyro."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist

from ppl_buffer.network.backend import Array
from ppl_buffer.network.priors import bounded_above
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


def prior_distributions(record: TrainingRecord, below: Mapping[str, Array] | None = None) -> dict[str, Any]:
    """The training priors of a record as NumPyro distributions; see `ppl_buffer.network.network.Network.prior`.

    Args:
        record: of the training.
        below: parameter -> numbers (*B,) at which its prior ends.

    Raises:
        ValueError: if a prior cannot be bounded.
    """
    priors = {name: prior_distribution(record.prior(name)) for name in record.box}
    for name, bound in (below or {}).items():
        family, given = bounded_above(record, name)
        high = jnp.minimum(bound, given.pop("high"))
        # Some families of NumPyro want all arguments of one shape.
        arguments = {key: jnp.broadcast_to(x, high.shape) for key, x in given.items()}
        priors[name] = getattr(dist, family)(**arguments, high=high)
    return priors
