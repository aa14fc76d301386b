"""Density of choice and response time under exponentially collapsing boundaries, from a partial differential equation.

It takes no paths and shares no code with `ppl_buffer.simulators.collapsing_drift_diffusion`. With y the distance of the
evidence from the middle and b(t) = b0 exp(-c t) half the separation, z = y / b in the time s, where ds = dt / b^2, is a
diffusion with unit variance between boundaries at -1 and 1, and drift c b^2 z + v b. Girsanov's theorem removes this
drift. The density at which the upper (+) or lower (-) boundary is reached is

    b^-2 exp(c (b^2 - y0^2) / 2 + v (+-b - y0) - (c + v^2) t / 2) f(s),

where f is the flux of g out of that boundary, which solves

    dg/ds = g'' / 2 + w(s) z^2 g,    w = c^2 b^4 / 2,    g(+-1, s) = 0,    g(z, 0) = delta(z - y0 / b0).

The drift appears nowhere in the equation. g is a series of sines, advanced by Strang splitting, each part exactly; with
c = 0 nothing is approximated but for the length of the series.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.fft import dst, idst
from scipy.interpolate import CubicSpline

Array = np.ndarray
# The series is long enough at the first time for a start at a distance of 0.1 (as a share of the separation) or more
# from a boundary: what is left out is e**-48 of it, and nobody (e**-33) has arrived yet.
_SINES = 255
_FIRST, _LAST = 6e-4, 60.0
# A flux below this is rounding, or what the series leaves out.
_ROUNDING = 1e-9
_DECAY = np.pi**2 / 8


class CollapsingDensity:
    """The model's density, for many parameter values at once.

    Args:
        params: dict of ``drift``, ``boundary``, ``starting_point`` (0.1 to 0.9), ``non_decision_time`` and
            ``collapse``, each (size,).
        ratio: of successive times of the grid.
    """

    def __init__(self, params: Mapping[str, Array], ratio: float = 1.01) -> None:
        names = ("drift", "boundary", "starting_point", "non_decision_time", "collapse")
        columns = [np.asarray(params[name], dtype=float)[:, None] for name in names]
        self.drift, boundary, start, self.offset, self.collapse = columns
        self.half, self.start = 0.5 * boundary, 2 * start - 1
        # Axes from here on: time, size, choice.
        self.grid = np.geomspace(_FIRST, _LAST, round(np.log(_LAST / _FIRST) / np.log(ratio)) + 1)
        time = self.grid[:, None, None]
        upper = np.array([0, 1])
        flux = self._flux()
        single = self._log_single(time, upper)
        # The spline goes through the logarithm of the flux relative to that out of a single boundary without w. Early
        # on it is proportional to s, from the paths that go straight to the boundary, and the flux below rounding.
        rising = np.arange(len(self.grid))[:, None, None] < flux.argmax(0)
        first = np.where(rising & (flux < _ROUNDING), np.arange(1, len(self.grid) + 1)[:, None, None], 0).max(0)[None]
        sound = np.arange(len(self.grid))[:, None, None] >= first
        log_ratio = np.log(np.where(sound, flux, 1.0)) - single
        log_ratio = np.where(sound, log_ratio, np.take_along_axis(log_ratio, first, axis=0) * time / self.grid[first])
        self.log_ratio = CubicSpline(np.log(self.grid), log_ratio)
        share = np.exp(np.log(time) + log_ratio + single + self._log_tilt(time, upper))
        self.distribution = CubicSpline(np.log(self.grid), share).antiderivative()

    def log_density(self, choice: Array, rt: Array) -> Array:
        """Log density of choice and response time together, (size, trials).

        Args:
            choice: (size, trials), 1 = upper boundary, 0 = lower.
            rt: (size, trials) in seconds; the density is 0 up to the non-decision time.
        """
        possible = rt > self.offset
        scaled = self._scaled(np.where(possible, rt - self.offset, 1.0))
        # Beyond the grid w is 0: the slowest sine is left.
        inside = np.clip(scaled, _FIRST, _LAST)
        log_flux = self._look_up(self.log_ratio, inside, choice) + self._log_single(np.minimum(scaled, _LAST), choice)
        log_flux -= _DECAY * np.maximum(scaled - _LAST, 0.0)
        log_density = log_flux + self._log_tilt(scaled, choice) + np.log(self._rate(scaled))
        return np.where(possible, log_density, -np.inf)

    def distribution_function(self, choice: Array, rt: Array) -> Array:
        """Probability of this choice and a response time of at most `rt`; arguments as `log_density` takes them."""
        scaled = self._scaled(np.maximum(rt - self.offset, 0.0))
        return self._look_up(self.distribution, np.clip(scaled, _FIRST, _LAST), choice)

    def _flux(self) -> Array:
        """Flux of g out of either boundary, (times, size, 2)."""
        sine = np.arange(1, _SINES + 1)
        decay = 0.5 * (0.5 * np.pi * sine) ** 2
        square = np.linspace(-1, 1, _SINES + 2)[1:-1] ** 2
        # What w adds up to until s.
        weight = 0.25 * self.collapse * (self.half**2 - 1 / self._rate(np.append(0.0, self.grid)))
        series = np.sin(0.5 * np.pi * sine * (self.start + 1))
        slopes = 0.25 * np.pi * sine[:, None] * np.stack([np.ones(_SINES), -((-1.0) ** sine)], axis=1)
        flux = []
        for step, added in zip(np.diff(self.grid, prepend=0.0), np.diff(weight).T, strict=True):
            half = np.exp(-0.5 * decay * step)
            potential = np.exp(added[:, None] * square)
            series = half * dst(potential * idst(half * series, type=1), type=1)
            flux.append(series @ slopes)
        return np.stack(flux)

    def _rate(self, scaled: Array) -> Array:
        """b**-2, which is ds / dt."""
        return self.half**-2 + 2 * self.collapse * scaled

    def _scaled(self, time: Array) -> Array:
        """s of t."""
        twice = 2 * np.maximum(self.collapse, 1e-12)
        return np.expm1(np.minimum(twice * time, 600.0)) / twice / self.half**2

    def _log_single(self, scaled: Array, choice: Array) -> Array:
        """Log density of the time at which a single boundary is reached."""
        distance = np.where(choice == 1, 1 - self.start, 1 + self.start)
        return np.log(distance) - 0.5 * np.log(2 * np.pi * scaled**3) - 0.5 * distance**2 / scaled

    def _log_tilt(self, scaled: Array, choice: Array) -> Array:
        """Log of what the drift of z multiplies the flux by."""
        twice = 2 * np.maximum(self.collapse, 1e-12)
        time = np.log1p(twice * self.half**2 * scaled) / twice
        width, start = self._rate(scaled) ** -0.5, self.half * self.start
        gain = np.where(choice == 1, width, -width) - start
        rate = self.collapse + self.drift**2
        return 0.5 * self.collapse * (width**2 - start**2) + self.drift * gain - 0.5 * rate * time

    def _look_up(self, spline: CubicSpline, scaled: Array, choice: Array) -> Array:
        values = np.empty(scaled.shape)
        for row in range(len(scaled)):
            for option in (0, 1):
                mask = choice[row] == option
                own = type(spline).construct_fast(spline.c[:, :, row, option], spline.x)
                values[row, mask] = own(np.log(scaled[row, mask]))
        return values
