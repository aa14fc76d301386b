"""Whether the priors that a simulator states are what it draws its parameters from."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
from scipy import special

from ppl_buffer.prior import Prior
from ppl_buffer.simulator import Arrays, Simulator
from ppl_buffer.training.abilities import priors_of
from ppl_buffer.training.draws import draw_params

# Draws to compare with.
DRAWS = 20_000
# Probability that a right prior is refused, for each comparison.
_CHANCE = 1e-7


def check_priors(simulator: Simulator, draws: Arrays | None = None) -> None:
    """Refuse stated priors that are not those of the draws: a posterior would be computed under the wrong one.

    Each is compared by the Kolmogorov-Smirnov distance, and their independence by correlations of normal scores. The
    probability that right priors are refused is below one in a million for a few parameters.

    Args:
        simulator: a checked simulator.
        draws: (size,) of its parameters, thousands; None = draw them.

    Raises:
        ValueError: naming the parameter and what was drawn.
    """
    stated = priors_of(simulator)
    if not stated:
        return
    params = draw_params(simulator, np.random.default_rng(0), DRAWS) if draws is None else draws
    usable = np.all([np.isfinite(x) for x in params.values()], axis=0)
    params = {name: x[usable] for name, x in params.items()}
    if not usable.any():
        return  # training says so, with the counts
    scores: Arrays = {}
    for name, prior in stated.items():
        values = params[name] if prior.relative_to is None else params[name] - params[prior.relative_to]
        _check_distribution(name, prior, values)
        scores[name] = special.ndtri(np.clip(prior.cdf(values), 1e-9, 1 - 1e-9))
    bound = -special.ndtri(_CHANCE / 2) / math.sqrt(int(usable.sum()))
    for first, second in combinations(scores, 2):
        correlation = float(np.mean(scores[first] * scores[second]))
        if abs(correlation) > bound:
            raise ValueError(
                f"simulator.priors: expected parameters that prior() draws independently, as these say, but {first!r} "
                f"and {second!r} correlate by {correlation:.2f}. State the one relative to the other, or neither"
            )


def _check_distribution(name: str, prior: Prior, values: np.ndarray) -> None:
    ordered = np.sort(values)
    stated = prior.cdf(ordered)
    count = len(ordered)
    above, below = np.arange(1, count + 1) / count - stated, stated - np.arange(count) / count
    distance = max(float(above.max()), float(below.max()))
    if distance <= math.sqrt(math.log(2 / _CHANCE) / (2 * count)):
        return
    place = int(np.argmax(np.maximum(above, below)))
    arguments = ", ".join(f"{key}={value:g}" for key, value in prior.arguments.items())
    what = "values" if prior.relative_to is None else f"differences from {prior.relative_to!r}"
    raise ValueError(
        f"simulator.priors[{name!r}]: expected what prior() draws from, got {prior.family}({arguments}): of {count} "
        f"drawn {what} {np.mean(ordered <= ordered[place]):.0%} are at most {ordered[place]:.4g}, where it has "
        f"{stated[place]:.0%}. State the prior that is drawn, or none"
    )
