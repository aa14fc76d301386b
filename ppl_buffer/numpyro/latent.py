"""Joint predictives as latent sites of NumPyro's samplers: from unbounded numbers to legal outcomes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from numpyro.distributions import constraints
from numpyro.distributions.transforms import Transform, biject_to

from ppl_buffer.numpyro.distribution import TrialSupport
from ppl_buffer.ppl.support import constrain_outcomes, require_continuous, unconstrained_slope


class OutcomeTransform(Transform):  # type: ignore[misc]
    """Unbounded numbers of the shape of a value to outcomes, each by the transform of its variable.

    Args:
        codomain: the support of the joint predictive.

    Raises:
        ValueError: if an outcome is discrete, or trials may be missing, whose outcomes nothing would keep in place.
    """

    def __init__(self, codomain: TrialSupport) -> None:
        require_continuous(codomain.schema, codomain.trial_mask)
        self._support = codomain

    @property
    def domain(self) -> constraints.Constraint:
        """Real numbers of the shape of a value."""
        return constraints.independent(constraints.real, self._support.event_dim)

    @property
    def codomain(self) -> TrialSupport:
        """The support of the joint predictive."""
        return self._support

    def __call__(self, x: jax.Array) -> jax.Array:
        """Outcomes (*batch, K) or (*batch, K, n_outcomes) of unbounded numbers of the same shape."""
        return constrain_outcomes(jnp, self._support.schema, x)

    def _inverse(self, y: jax.Array) -> jax.Array:
        return constrain_outcomes(jnp, self._support.schema, y, inverse=True)

    def log_abs_det_jacobian(self, x: jax.Array, y: jax.Array, intermediates: object = None) -> jax.Array:
        """Log volume by which outcomes y grow with x: (*batch,)."""
        slope = unconstrained_slope(jnp, self._support.schema, y)
        return -slope.sum(tuple(range(-self._support.event_dim, 0)))

    def tree_flatten(self) -> tuple[tuple[TrialSupport], tuple[tuple[str, ...], dict[str, object]]]:
        """The support is data."""
        return (self._support,), (("_support",), {})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OutcomeTransform) and self.codomain == other.codomain


biject_to.register(TrialSupport, OutcomeTransform)
