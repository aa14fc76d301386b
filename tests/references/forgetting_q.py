"""Forgetting Q-learning, one trial of one person after another.

Written from the equations, and sharing no code with `ppl_buffer.simulators.forgetting_q`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence


def log_probabilities(params: Mapping[str, float], choice: Sequence[int], reward: Sequence[float]) -> list[float]:
    """Log probability of each choice of one person given all before."""
    left = right = 0.5
    out = []
    last = None
    for chosen, gain in zip(choice, reward, strict=True):
        odds = params["beta"] * (right - left)
        if last is not None:
            odds += params["perseveration"] if last == 1 else -params["perseveration"]
        out.append(-math.log1p(math.exp(-odds if chosen == 1 else odds)))
        learned = right if chosen == 1 else left
        rate = params["alpha_positive"] if gain > learned else params["alpha_negative"]
        learned = (1 - rate) * learned + rate * gain
        if chosen == 1:
            right, left = learned, left + params["forgetting"] * (0.5 - left)
        else:
            left, right = learned, right + params["forgetting"] * (0.5 - right)
        last = chosen
    return out
