"""Joint predictives as latent sites of Pyro's samplers and guides: from unbounded numbers to legal outcomes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import biject_to, constraints, transform_to
from torch.distributions.transforms import Transform

from ppl_buffer.ppl.support import constrain_outcomes, require_continuous, unconstrained_slope
from ppl_buffer.pyro.distribution import TrialSupport


class OutcomeTransform(Transform):
    """Unbounded numbers of the shape of a value to outcomes, each by the transform of its variable.

    Args:
        codomain: the support of the joint predictive.

    Raises:
        ValueError: if an outcome is discrete, or trials may be missing, whose outcomes nothing would keep in place.
    """

    bijective = True

    def __init__(self, codomain: TrialSupport) -> None:
        require_continuous(codomain.schema, codomain.trial_mask)
        self.codomain, self.schema = codomain, codomain.schema
        self.domain = constraints.independent(constraints.real, codomain.event_dim)
        super().__init__()

    def _call(self, x: Tensor) -> Tensor:
        outcomes: Tensor = constrain_outcomes(torch, self.schema, x)
        return outcomes

    def _inverse(self, y: Tensor) -> Tensor:
        numbers: Tensor = constrain_outcomes(torch, self.schema, y, inverse=True)
        return numbers

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Log volume by which outcomes y grow with x: (*batch,)."""
        slope: Tensor = unconstrained_slope(torch, self.schema, y)
        return -slope.sum(tuple(range(-self.codomain.event_dim, 0)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OutcomeTransform) and self.codomain is other.codomain

    __hash__ = Transform.__hash__


biject_to.register(TrialSupport, OutcomeTransform)
transform_to.register(TrialSupport, OutcomeTransform)
