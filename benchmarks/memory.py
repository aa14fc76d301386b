"""Peak memory of one call of rollout or re-encoding; run in a process of its own by `rollout.py`.

    python benchmarks/memory.py BACKEND rollout|reencoding SIZE N K S AT_ONCE

Prints the bytes beside those held before the call. AT_ONCE is the number of draws that the re-encoding computes
together; 0 = as many as is fastest. Its steps being alike, only the last and largest is run.
"""

from __future__ import annotations

import gc
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import reencoding
from harness import config_of, draws_of, normals, random_network, settled, to_backend, uniforms


def highest_memory(backend: str, function: Callable[[], Any]) -> int:
    """Bytes that a call needs beside what is held before it. The function must be compiled already.

    On a GPU the backend's allocator counts. On a CPU it is the highest resident memory of this process during the
    call, less that before it; call it in a process of its own (`harness.in_own_process`), where nothing
    freed lies about.
    """
    gc.collect()
    if backend == "torch":
        import torch

        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            function()
            return torch.cuda.max_memory_allocated() - before
    else:
        import jax

        if jax.default_backend() == "gpu":
            # The allocator's peak cannot be reset: compilation must not have run the function.
            before = jax.devices()[0].memory_stats()["bytes_in_use"]
            function()
            return jax.devices()[0].memory_stats()["peak_bytes_in_use"] - before
    return _resident_peak(function)


def _resident_peak(function: Callable[[], Any]) -> int:
    import ctypes
    import resource

    if sys.platform != "linux":
        unit = 1 if sys.platform == "darwin" else 1024
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        function()
        return max(0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit

    def status(field: str) -> int:
        match = re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
        assert match is not None
        return 1024 * int(match[1])

    # Compilation needs more memory than what it compiles: give back what it freed, and forget its peak. (`getrusage`
    # would not forget: it also remembers the peak of the process that started this one.)
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    function()
    return max(0, status("VmHWM") - before)


def main() -> None:
    """Measure and print."""
    backend, way, size = sys.argv[1:4]
    context, trials, draws, at_once = map(int, sys.argv[4:])
    net = random_network(config_of(size), backend)
    arrays: tuple[Any, ...]
    if way == "rollout":
        function, arrays = draws_of(net), (normals(context, 2), normals(trials), uniforms(draws, trials, 3))
    else:
        last = reencoding.step_sizes(backend, context, trials)[-1]
        function = reencoding.one_step(net, at_once or None)
        arrays = normals(draws, last, 2), normals(draws), uniforms(draws, 2)
    arrays = tuple(to_backend(net, array) for array in arrays)
    if backend == "jax":
        function = function.lower(*arrays).compile()  # type: ignore[attr-defined]
    print(highest_memory(backend, settled(backend, function, *arrays)))


if __name__ == "__main__":
    main()
