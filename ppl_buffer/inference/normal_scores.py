"""Parameters as functions of normal scores: the scale on which their prior is standard normal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.special import ndtr

from ppl_buffer.prior import Prior

# In the tails of the prior that this leaves out no float32 parameter can be told from the edge of its range.
_TAIL = 1e-6
# The same as normal scores, and the number of scores at which quantiles are tabulated.
REACH = 4.75
_GRID = 2001


class NormalScores:
    """The scores (..., P) of P parameters, under which their joint prior is standard normal.

    Args:
        priors: of the parameters, in the order of the scores: one that is relative to another comes after it.
    """

    def __init__(self, priors: Mapping[str, Prior]) -> None:
        self.priors = dict(priors)
        self._grid = np.linspace(-REACH, REACH, _GRID)
        self._tables: dict[str, np.ndarray] | None = None

    def params(
        self,
        scores: np.ndarray,
        batch: tuple[int, ...],
        conditioned: Mapping[str, np.ndarray] | None = None,
        below: Mapping[str, np.ndarray] | None = None,
    ) -> dict[str, np.ndarray]:
        """Parameters (n, *batch) at scores (n, size, P), by the priors' own quantile functions.

        Args:
            scores: (n, size, P).
            batch: shape of `size` data sets.
            conditioned: parameters that a prior may be relative to, beside those of the scores: name -> (*batch).
            below: name -> (size,), the lower part of its prior that the scores range over, a probability.
        """
        params: dict[str, np.ndarray] = {}
        for index, (name, prior) in enumerate(self.priors.items()):
            probability = np.clip(ndtr(scores[..., index]) * (below or {}).get(name, 1.0), _TAIL, 1 - _TAIL)
            values = prior.quantile(probability).reshape(len(scores), *batch)
            if prior.relative_to is not None:
                values = values + np.asarray({**(conditioned or {}), **params}[prior.relative_to])
            params[name] = values.astype(np.float32)
        return params

    def interpolate(self, xp: Any, scores: Any) -> dict[str, Any]:
        """Parameters (...) at scores (..., P), by a table for each of them, which serves every family in NumPy and JAX.

        Args:
            xp: `numpy` or `jax.numpy`.
            scores: an array of `xp`.
        """
        if self._tables is None:
            self._tables = {name: prior.quantile(ndtr(self._grid)) for name, prior in self.priors.items()}
        params: dict[str, Any] = {}
        for index, (name, prior) in enumerate(self.priors.items()):
            params[name] = xp.interp(scores[..., index], self._grid, self._tables[name])
            if prior.relative_to is not None:
                params[name] = params[name] + params[prior.relative_to]
        return params
