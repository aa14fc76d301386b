"""What a backend offers, and which one a network belongs to. Looked up here, never imported from here."""

from __future__ import annotations

from types import ModuleType
from typing import Any

_BACKENDS: dict[str, ModuleType] = {}


def register_backend(name: str, backend: ModuleType) -> None:
    """Make a backend known. Its package does so when it is imported, and whoever has a network has imported it."""
    _BACKENDS[name] = backend


def backend_of(net: Any) -> ModuleType:
    """The backend that a network belongs to.

    Raises:
        ValueError: if `net` is no network.
    """
    backend = _BACKENDS.get(getattr(net, "backend", ""))
    if backend is None:
        raise ValueError(f"net: expected a network from ppl_buffer.load or ppl_buffer.train, got {type(net).__name__}")
    return backend


def execution_of(net: Any) -> ModuleType:
    """How a network's backend compiles, and on which devices it runs."""
    return backend_of(net).execution
