"""Parameters that change from trial to trial, for a direct likelihood that is to take such. NumPy alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ppl_buffer.checks import check_number
from ppl_buffer.network.config import Config, takes_trial_params
from ppl_buffer.simulator import Arrays, Simulator, WithTrialParams
from ppl_buffer.training.abilities import priors_of

# Share of the batches in which parameters change, where nobody states it.
_SHARE = 0.25
# Values that a parameter takes in turn: as a design does that comes back to its conditions.
VALUES = 3
# Greatest probability of a change before a trial; log-uniform from one change a data set.
_OFTEN = 0.3
# Probability that a parameter changes at all in such a data set, where parameters do not depend on each other.
_CHANGES = 0.5


def choose_changing_fraction(share: float | None, simulator: Simulator, config: Config) -> float:
    """Share of the direct likelihood's batches in which parameters change; 0 for a network that takes no such.

    Args:
        share: as stated; None = nobody did.
        simulator: what draws.
        config: the whole network's sizes.

    Raises:
        ValueError: if it is no share above 0, stated for a network that takes parameters that stay alone, or the
            simulator cannot.
    """
    if not (simulator.schema.ordered and takes_trial_params(simulator.schema, config)):
        if share is not None:
            raise ValueError(
                f"changing_fraction: expected None for a network that is not to take parameters that change from trial "
                f"to trial (it is with Config(likelihood_trial_params=True), where trials have an order), got {share!r}"
            )
        return 0.0
    if not (isinstance(simulator, WithTrialParams) and simulator.trial_params):
        raise ValueError(
            f"config: expected likelihood_trial_params=False for {type(simulator).__name__}, which does not say that "
            f"its methods take parameters (size, trials): trial_params = True (ppl_buffer.simulator.WithTrialParams)"
        )
    if share is None:
        return _SHARE
    return check_number("changing_fraction", share, "a share above 0, at most 1", lambda x: 0 < x <= 1)


def mix(simulator: Simulator, rng: np.random.Generator, draws: Sequence[Arrays], trials: int) -> Arrays:
    """Parameters that change between the values of several draws: dict name -> (size, trials).

    Blocks of trials have any of the draws' values, of each parameter by itself where the simulator's stated priors do
    not depend on each other, else of all together. Blocks are long or short: before a trial one begins with a
    probability that is log-uniform between one in all trials and 0.3.

    Args:
        simulator: what drew.
        rng: of the blocks.
        draws: `VALUES` times dict name -> (size,).
        trials: of each data set.
    """
    names = list(simulator.schema.params)
    size, priors = len(draws[0][names[0]]), priors_of(simulator)
    apart = set(priors) == set(names) and all(prior.relative_to is None for prior in priors.values())
    often = np.exp(rng.uniform(math.log(min(1 / trials, _OFTEN)), math.log(_OFTEN), (size, 1)))
    begins = rng.random((size, trials)) < often
    begin = np.maximum.accumulate(np.where(begins, np.arange(trials), 0), axis=1)
    count = len(names) if apart else 1
    which = rng.integers(len(draws), size=(size, trials, count))
    which = np.take_along_axis(which, begin[..., None], 1)
    if apart:
        which = np.where(rng.random((size, 1, count)) < _CHANGES, which, 0)
    values = {name: np.stack([one[name] for one in draws], 1) for name in names}
    return {
        name: np.take_along_axis(values[name], which[..., index if apart else 0], 1) for index, name in enumerate(names)
    }
