"""Memory that a command keeps between one call of a compiled program and the next."""

from __future__ import annotations

import ctypes
import platform
import sys

# Of glibc's `mallopt`: what is free at the top of the heap before it is given back, in bytes, and how many blocks are
# mapped apart.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_NEVER = 2**31 - 1


def keep_memory() -> bool:
    """Let the process keep the memory that it has freed, for the next call of the same program; whether it could.

    Blocks above 32 MB, such as what a gradient of many long sequences works in, are otherwise given back to the system
    after each call, and cleared anew by the system, page by page, in the next: up to two fifths of a gradient's time.
    With glibc.
    """
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, _NEVER))
