"""Peak memory of one call of rollout or re-encoding; run in a process of its own by `rollout.py`.

    python benchmarks/memory.py BACKEND rollout|reencoding SIZE N K S AT_ONCE

Prints the bytes beside those held before the call. AT_ONCE is the number of draws that the re-encoding computes
together; 0 = as many as is fastest. Its steps being alike, only the last and largest is run.
"""

from __future__ import annotations

import sys
from typing import Any

import reencoding
from harness import config_of, draws_of, highest_memory, normals, random_network, settled, to_backend, uniforms


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
