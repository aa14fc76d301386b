"""The hybrid model of the two-step task, one trial of one person after another, as Daw et al. (2011) write it.

Written from the equations with a table of values, and sharing no code with `ppl_buffer.simulators.two_step`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence


def log_probabilities(
    params: Mapping[str, float],
    common: Sequence[int],
    choice_1: Sequence[int],
    choice_2: Sequence[int],
    reward: Sequence[float],
) -> list[tuple[float, float]]:
    """Of each trial of one person, the log probabilities of its first and of its second choice, given all before."""
    first = {"a": 0.0, "b": 0.0}
    second = {("A", 0): 0.0, ("A", 1): 0.0, ("B", 0): 0.0, ("B", 1): 0.0}
    transition = {("a", "A"): 0.7, ("a", "B"): 0.3, ("b", "A"): 0.3, ("b", "B"): 0.7}
    out = []
    last = None
    for shared, option, choice, gain in zip(common, choice_1, choice_2, reward, strict=True):
        action = "ab"[option]
        utility = {}
        for a in "ab":
            planned = sum(transition[a, s] * max(second[s, 0], second[s, 1]) for s in "AB")
            hybrid = params["model_based"] * planned + (1 - params["model_based"]) * first[a]
            # The stickiness is split between the options, so that it changes the log-odds by itself, not twice.
            stay = 0.0 if last is None else 0.5 * params["perseveration"] * (1 if a == last else -1)
            utility[a] = params["beta_1"] * hybrid + stay
        log_first = utility[action] - math.log(sum(math.exp(u) for u in utility.values()))
        state = {"a": "A", "b": "B"}[action] if shared else {"a": "B", "b": "A"}[action]
        values = [params["beta_2"] * second[state, c] for c in (0, 1)]
        log_second = values[choice] - math.log(sum(math.exp(v) for v in values))
        out.append((log_first, log_second))
        to_second = second[state, choice] - first[action]
        to_reward = gain - second[state, choice]
        first[action] += params["alpha_1"] * to_second
        second[state, choice] += params["alpha_2"] * to_reward
        first[action] += params["alpha_1"] * params["eligibility"] * to_reward
        last = action
    return out
