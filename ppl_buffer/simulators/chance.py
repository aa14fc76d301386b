"""What several tasks share: chance events that leave their random number for the next one. Any backend's arrays."""

from __future__ import annotations

from ppl_buffer.simulator import AnyArray


def happens(uniform: AnyArray, probability: AnyArray) -> tuple[AnyArray, AnyArray]:
    """Let an event happen with a probability, and make the number that decided it uniform again.

    An environment is given one random number for each feedback variable; a task in which more than the feedback is
    left to chance draws one after another from it. Given the event, the number is uniform in an interval that is as
    long as the event is likely, and independent of everything else: stretched, it serves again. Each use costs as many
    binary digits as the event tells, of the 24 that single precision has.

    Args:
        uniform: numbers uniform in (0, 1), (...).
        probability: of the event, in (0, 1), a number or (...).

    Returns:
        whether it happens, 1.0 or 0.0, and numbers that are uniform whether it did or not: both (...).
    """
    happened = 1.0 * (uniform < probability)
    stretched = happened * uniform / probability + (1 - happened) * (uniform - probability) / (1 - probability)
    return happened, stretched


def digit(uniform: AnyArray, base: AnyArray) -> tuple[AnyArray, AnyArray]:
    """A number in 0, ..., base - 1, each as likely, and uniform numbers that are independent of it.

    Args:
        uniform: numbers uniform in (0, 1), (...).
        base: an integer, or (...) of them.
    """
    scaled = base * uniform
    number = scaled // 1
    return number, scaled - number
