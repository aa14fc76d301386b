"""Programs that JAX compiled, kept from one command to the next: a second fit of the same shape begins at once."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

import typer

# What JAX reads when it is imported.
_FOLDER = "JAX_COMPILATION_CACHE_DIR"
_DEFAULTS = {
    # However short a compilation was: to read the dozen small programs of a fit takes less than to compile them.
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    # Bytes; those that were used least recently go.
    "JAX_COMPILATION_CACHE_MAX_SIZE": str(2**30),
}


def compiled_folder() -> Path:
    """Where they are kept: of each machine by itself, since programs are made for its processor."""
    return Path(typer.get_app_dir("ppl-buffer")) / "compiled" / platform.node()


def keep_compiled(keep: bool) -> None:
    """Let JAX keep compiled programs, before it is imported; what the environment says already stays."""
    if not keep or _FOLDER in os.environ or "jax" in sys.modules:
        return
    os.environ[_FOLDER] = str(compiled_folder())
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
