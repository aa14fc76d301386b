"""How long a training has been at work."""

from __future__ import annotations

import time
from collections.abc import Callable

# A pause between two looks at the clock counts as work up to so many seconds, or up to the longest one before:
# whoever trains looks at the clock in every step, and once a second while it waits for the simulator.
_LONGEST_PAUSE = 60.0


class Stopwatch:
    """Seconds at work: those of a laptop's sleep, and of a process that was halted, do not count.

    Args:
        clock: seconds from any moment on.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._looked, self._seconds, self._longest = clock, clock(), 0.0, _LONGEST_PAUSE

    def seconds(self) -> float:
        """Seconds at work since it was made."""
        now = self._clock()
        pause = now - self._looked
        self._seconds += min(pause, self._longest)
        # Steps of a slow simulator may take longer: from the second one on they count in full.
        self._looked, self._longest = now, max(self._longest, pause)
        return self._seconds
