"""Random sawtooth waves seen with noise: functions that jump, whose period must be told from few points.

The task of Bruinsma et al. (ICLR 2023, arXiv 2303.14468), in the ranges of Hassan et al. (ICLR 2026, arXiv
2510.09477), appendix D.2.
"""

from __future__ import annotations

import numpy as np

from ppl_buffer.prior import Prior
from ppl_buffer.schema import Interval, Positive, Real, Schema
from ppl_buffer.simulator import Arrays

# Waves a unit of x as a network reads them beside x itself: those of the sawtooths, without which it hardly tells where
# in a period a point lies.
_FREQUENCIES = (2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 5.5)


class Sawtooth:
    """Sawtooth waves of one input, rising or falling, observed with Gaussian noise.

    Each data set draws its direction u, 1 or -1 with probability 1/2, and at the inputs x its outcomes are

        y = (u * frequency * x - phase) mod 1 + noise * Normal(0, 1).

    Inputs are uniform on [-2, 2]. The points are exchangeable. The direction is no parameter: a parameter is a number
    from a range, and of this one nothing lies between its two values. So the points depend on each other given all
    parameters, and the density given these is the mixture over both directions.

    Parameters: ``frequency``, uniform on [3, 5] in periods a unit of x; ``phase``, uniform on [0, 1] in periods, 0 and
    1 being the same; ``noise``, the standard deviation of the observation noise, uniform on [0.05, 0.1].
    """

    schema = Schema(
        params={"frequency": Positive(), "phase": Interval(0.0, 1.0, closed=True), "noise": Positive()},
        inputs={"x": Real(frequencies=_FREQUENCIES)},
        outcomes={"y": Real()},
        ordered=False,
        independent=False,
    )
    priors = {
        "frequency": Prior.uniform(3.0, 5.0),
        "phase": Prior.uniform(0.0, 1.0),
        "noise": Prior.uniform(0.05, 0.1),
    }

    def prior(self, rng: np.random.Generator, size: int) -> Arrays:
        """Draw parameters: dict name -> (size,)."""
        return {name: prior.sample(rng, size) for name, prior in self.priors.items()}

    def inputs(self, rng: np.random.Generator, size: int, trials: int) -> Arrays:
        """Draw where the wave is seen: {"x": (size, trials)}, uniform on [-2, 2]."""
        return {"x": rng.uniform(-2.0, 2.0, (size, trials))}

    def simulate(self, rng: np.random.Generator, params: Arrays, inputs: Arrays) -> Arrays:
        """Draw a direction for each data set and observe the wave: {"y": (size, trials)}.

        Args:
            rng: the only source of randomness.
            params: dict name -> (size,).
            inputs: {"x": (size, trials)}; any numbers, not only those of `inputs`.
        """
        x = np.asarray(inputs["x"], dtype=float)
        frequency, phase, noise = (np.asarray(params[name], dtype=float)[:, None] for name in self.schema.params)
        direction = rng.choice([-1.0, 1.0], (len(x), 1))
        return {"y": (direction * frequency * x - phase) % 1.0 + noise * rng.standard_normal(x.shape)}
