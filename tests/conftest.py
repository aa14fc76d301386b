"""What all tests share."""

import importlib.util
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="session")
def one_thread():
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
