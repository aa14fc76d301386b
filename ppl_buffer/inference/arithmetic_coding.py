"""Arithmetic coding with integer frequencies, exact in whole numbers (Witten, Neal & Cleary 1987, Comm. ACM 30(6)).

A code has two bits more than the sum of -log2 of its symbols' shares, whatever their number.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# Frequencies of an alphabet add up to this. The interval of a code is a quarter of 2^64 at least, so that rounding
# costs a share of 2^-30 of a bit a symbol.
TOTAL = 1 << 32
_BITS = 64
_HALF, _QUARTER = 1 << (_BITS - 1), 1 << (_BITS - 2)


class Encoder:
    """Writes symbols, each given as the part [low, high) of `TOTAL` that is its own."""

    def __init__(self) -> None:
        self._low, self._high = 0, (1 << _BITS) - 1
        # Bits that turn out to be the opposite of the one before them.
        self._pending = 0
        self._written: list[int] = []

    def encode(self, low: int, high: int) -> None:
        """Write a symbol."""
        span = self._high - self._low + 1
        self._low, self._high = self._low + span * low // TOTAL, self._low + span * high // TOTAL - 1
        while True:
            if self._high < _HALF:
                self._write(0)
            elif self._low >= _HALF:
                self._write(1)
                self._low, self._high = self._low - _HALF, self._high - _HALF
            elif self._low >= _QUARTER and self._high < _HALF + _QUARTER:
                self._pending += 1
                self._low, self._high = self._low - _QUARTER, self._high - _QUARTER
            else:
                return
            self._low, self._high = 2 * self._low, 2 * self._high + 1

    def finish(self) -> tuple[bytes, int]:
        """The code, filled up to whole bytes, and its length in bits."""
        self._pending += 1
        self._write(int(self._low >= _QUARTER))
        return np.packbits(np.array(self._written, np.uint8)).tobytes(), len(self._written)

    def _write(self, bit: int) -> None:
        self._written += [bit, *[1 - bit] * self._pending]
        self._pending = 0


class Decoder:
    """Reads what an `Encoder` wrote."""

    def __init__(self, code: bytes) -> None:
        self._bits = np.unpackbits(np.frombuffer(code, np.uint8)).tolist()
        self._next = 0
        self._low, self._high, self._value = 0, (1 << _BITS) - 1, 0
        for _ in range(_BITS):
            self._value = 2 * self._value + self._read()

    def decode(self, bounds: Sequence[int] | np.ndarray) -> int:
        """Read a symbol.

        Args:
            bounds: (n + 1,), from 0 to `TOTAL`: symbol i has the part from bounds[i] to bounds[i + 1].
        """
        span = self._high - self._low + 1
        place = ((self._value - self._low + 1) * TOTAL - 1) // span
        index = int(np.searchsorted(bounds, place, side="right")) - 1
        low, high = int(bounds[index]), int(bounds[index + 1])
        self._low, self._high = self._low + span * low // TOTAL, self._low + span * high // TOTAL - 1
        while True:
            if self._high < _HALF:
                less = 0
            elif self._low >= _HALF:
                less = _HALF
            elif self._low >= _QUARTER and self._high < _HALF + _QUARTER:
                less = _QUARTER
            else:
                return index
            self._low, self._high = 2 * (self._low - less), 2 * (self._high - less) + 1
            self._value = 2 * (self._value - less) + self._read()

    def _read(self) -> int:
        """The next bit; zeros behind the last."""
        self._next += 1
        return self._bits[self._next - 1] if self._next <= len(self._bits) else 0
