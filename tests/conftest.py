"""What all tests share."""

import importlib.util

import pytest


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """One thread: sums keep their order, so that equal computations are equal to the last bit."""
    if importlib.util.find_spec("torch") is not None:
        import torch

        torch.set_num_threads(1)
