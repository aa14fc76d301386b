"""What a backend offers, and the backend of a network."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any


def backend_of(net: Any) -> ModuleType:
    """The backend's `joint` module of a network."""
    backend = getattr(net, "backend", None)
    if backend not in ("torch", "jax"):
        raise ValueError(f"net: expected a network from ppl_buffer.load or ppl_buffer.train, got {type(net).__name__}")
    return importlib.import_module(f"ppl_buffer.network.{backend}.joint")


def execution_of(net: Any) -> ModuleType:
    """The backend's `execution` module of a network."""
    return importlib.import_module(f"ppl_buffer.network.{net.backend}.execution")
