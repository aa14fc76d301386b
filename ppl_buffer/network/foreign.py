"""Columns of data frames and labelled arrays as plain arrays of numbers."""

from __future__ import annotations

import numpy as np

from ppl_buffer.network.backend import Array

# What both backends make arrays of by themselves.
_PLAIN = (np.generic, bool, int, float, complex, list, tuple)


def plain(value: Array) -> Array:
    """An array of NumPy in place of a column of pandas (of any type and index), an array of xarray, or of objects.

    Args:
        value: array-like that is none of the backend's own arrays.

    Raises:
        TypeError: if it holds anything but numbers, or hides some of them.
    """
    if np.ma.is_masked(value):
        raise TypeError("some values are masked; trial_mask says which trials exist")
    rows = isinstance(value, (list, tuple)) and bool(value) and isinstance(value[0], np.ndarray)
    if isinstance(value, _PLAIN) and not rows and not isinstance(value, np.longdouble):
        return value
    array = np.asarray(value)
    if array.dtype.kind in "biufc":
        # In this machine's order of bytes, forwards in memory, and of no more digits than the backends know.
        digits = np.dtype(float) if array.dtype == np.longdouble else array.dtype.newbyteorder("=")
        return array.astype(digits, order="C", copy=False)
    words = {item for item in array.ravel().tolist() if isinstance(item, str)}
    if array.dtype.kind != "O" or words:
        shown = f", such as {min(words)!r}" if words else f" of type {array.dtype}"
        raise TypeError(f"these are no numbers{shown}")
    return array.astype(float)
