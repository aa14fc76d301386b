"""What all tests share: one thread a process, short compilations, one cache of compiled programs."""

import ctypes
import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before torch or JAX are imported; workers of pytest-xdist and interpreters that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_configure(config: pytest.Config) -> None:
    """Let JAX keep what it compiles in pytest's cache: workers share it, and the next run starts from it."""
    if config.pluginmanager.has_plugin("cacheprovider"):
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(config.cache.mkdir("jax")))
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
    # XLA's newer emitters of fused loops take half as long again to compile programs that run for a moment. A version
    # that did not know the flag would end the process.
    if importlib.util.find_spec("jaxlib") is not None and importlib.metadata.version("jaxlib").startswith("0.10."):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_use_fusion_emitters=false".strip()


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """One thread: sums keep their order, so that equal computations are equal to the last bit."""
    if importlib.util.find_spec("torch") is not None:
        import torch

        torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="module")
def little_memory() -> Iterator[None]:
    """Forget compiled programs once they take gigabytes: several workers share a machine. (Linux alone tells.)"""
    yield
    status = Path("/proc/self/statm")
    if "jax" in sys.modules and status.exists():
        resident = int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        if resident > 2 * 2**30:
            sys.modules["jax"].clear_caches()
            # Hand the freed memory back, where the C library is glibc.
            getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)(0)


@pytest.fixture(scope="module")
def quick_compilation() -> Iterator[None]:
    """Compile for a short compilation, not for a fast program: arrays are tiny."""
    if importlib.util.find_spec("jax") is None:
        yield
        return
    import jax

    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture
def compilations() -> Iterator[list[float]]:
    """Seconds that each program took to compile, or to be read from the cache, as it happens."""
    jax = pytest.importorskip("jax")
    seconds: list[float] = []

    def listen(event: str, duration: float, **_: object) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            seconds.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield seconds
    # JAX 0.5 cannot forget a listener: there it goes on writing to a list that nobody reads.
    forget = getattr(jax.monitoring, "unregister_event_duration_listener", None)
    if forget is not None:
        forget(listen)
