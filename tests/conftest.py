"""What all tests share: one thread a process, one cache of compiled programs."""

import importlib.util
import os
from collections.abc import Iterator

import pytest

# Before torch or JAX are imported; workers of pytest-xdist and interpreters that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_configure(config: pytest.Config) -> None:
    """Let JAX keep what it compiles in pytest's cache: workers share it, and the next run starts from it."""
    if config.pluginmanager.has_plugin("cacheprovider"):
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(config.cache.mkdir("jax")))
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """One thread: sums keep their order, so that equal computations are equal to the last bit."""
    if importlib.util.find_spec("torch") is not None:
        import torch

        torch.set_num_threads(1)


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
