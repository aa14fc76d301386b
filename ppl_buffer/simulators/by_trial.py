"""Parameters that may change from trial to trial, as the simulators of learners read them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ppl_buffer.simulator import Arrays


def by_trial(params: Arrays, names: Iterable[str], trials: int) -> Arrays:
    """Parameters with a trial axis, dict name -> (size, trials) of floats, whether they change or not.

    Those that stay are views, and not to be written to.

    Args:
        params: dict name -> (size,), or (size, trials) of those that change.
        names: which of them, in this order.
        trials: of each data set.
    """
    values = {name: np.asarray(params[name], dtype=float) for name in names}
    return {name: np.broadcast_to(x if x.ndim == 2 else x[:, None], (len(x), trials)) for name, x in values.items()}
