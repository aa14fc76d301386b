"""Training priors as distributions of Pyro."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all

from ppl_buffer.network.backend import Array
from ppl_buffer.network.priors import bounded_above
from ppl_buffer.network.record import TrainingRecord
from ppl_buffer.prior import Prior


class TruncatedNormal(dist.TorchDistribution):
    """A normal distribution between two bounds, which Pyro lacks.

    Args:
        loc: mean of the whole normal distribution.
        scale: its standard deviation.
        low: lower bound.
        high: upper bound.
        validate_args: as in every distribution.
    """

    arg_constraints = {name: constraints.real for name in ("loc", "low", "high")} | {"scale": constraints.positive}
    has_rsample = True

    def __init__(self, loc: Any, scale: Any, low: Any, high: Any, validate_args: bool | None = None) -> None:
        self.loc, self.scale, self.low, self.high = broadcast_all(loc, scale, low, high)
        super().__init__(self.loc.shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> constraints.Constraint:
        """The interval between the bounds."""
        return constraints.interval(self.low, self.high)

    def _masses(self) -> tuple[Tensor, Tensor]:
        """Probability that the whole normal distribution lies below `low`, and below `high`."""
        below_low, below_high = (torch.special.ndtr((x - self.loc) / self.scale) for x in (self.low, self.high))
        return below_low, below_high

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draw values, through which gradients reach the arguments."""
        below_low, below_high = self._masses()
        shape = self._extended_shape(torch.Size(sample_shape))
        uniform = torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device)
        standard = torch.special.ndtri(below_low + (below_high - below_low) * uniform)
        # Rounding may go beyond a bound.
        return (self.loc + self.scale * standard).clamp(self.low, self.high)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density; -inf beyond the bounds."""
        if self._validate_args:
            self._validate_sample(value)
        below_low, below_high = self._masses()
        standard = (value - self.loc) / self.scale
        whole = -0.5 * standard**2 - self.scale.log() - 0.5 * math.log(2 * math.pi)
        inside = (value >= self.low) & (value <= self.high)
        return torch.where(inside, whole - (below_high - below_low).log(), -torch.inf)

    def expand(self, batch_shape: Any, _instance: Any = None) -> TruncatedNormal:
        """The same distribution over more batch dimensions."""
        expanded = self._get_checked_instance(TruncatedNormal, _instance)
        for name in ("loc", "scale", "low", "high"):
            setattr(expanded, name, getattr(self, name).expand(batch_shape))
        super(TruncatedNormal, expanded).__init__(torch.Size(batch_shape), validate_args=False)
        expanded._validate_args = self._validate_args
        return expanded


def _family(name: str) -> Callable[..., dist.TorchDistribution]:
    return TruncatedNormal if name == "TruncatedNormal" else getattr(dist, name)


def prior_distribution(prior: Prior) -> Any:
    """A prior as a Pyro distribution.

    Where it is relative to a parameter: a function of that parameter's value that returns the distribution.
    """
    family = _family(prior.family)
    if prior.relative_to is None:
        return family(**prior.arguments)
    return lambda origin: family(**prior.moved(origin))


def prior_distributions(record: TrainingRecord, below: Mapping[str, Array] | None = None) -> dict[str, Any]:
    """The training priors of a record as Pyro distributions; see `ppl_buffer.network.network.Network.prior`.

    Args:
        record: of the training.
        below: parameter -> numbers (*B,) at which its prior ends.

    Raises:
        ValueError: if a prior cannot be bounded.
    """
    priors = {name: prior_distribution(record.prior(name)) for name in record.box}
    for name, bound in (below or {}).items():
        family, arguments = bounded_above(record, name)
        high = torch.clamp(bound, max=arguments.pop("high"))
        priors[name] = _family(family)(**arguments, high=high)
    return priors
