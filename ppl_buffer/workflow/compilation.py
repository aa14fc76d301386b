"""Programs of a fit compiled in as short a time as they can be without running any longer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

# On a processor XLA's older emitters of fused loops: compiled in 0.7 of the time, and as fast
# (benchmarks/compiler_options.py).
SHORT_COMPILATION: dict[str, bool | str] = {"xla_cpu_use_fusion_emitters": False}


def compile_lowered(program: jax.stages.Lowered) -> jax.stages.Compiled:
    """A lowered program, compiled."""
    if jax.default_backend() == "cpu":
        try:
            return program.compile(compiler_options=SHORT_COMPILATION)
        except RuntimeError as error:
            # Options come and go with the versions of XLA, which looks at them first.
            if "No such compile option" not in str(error):
                raise
    return program.compile()


def compiled_at_first(function: jax.stages.Wrapped) -> Callable[..., Any]:
    """What `jax.jit` returned, compiled so with the arguments of its first call; later ones have the same shapes."""
    compiled: list[jax.stages.Compiled] = []

    def call(*arguments: Any) -> Any:
        if not compiled:
            compiled.append(compile_lowered(function.lower(*arguments)))
        return compiled[0](*arguments)

    return call
