"""A simulator's own data sets, as the checks hand them to a network."""

import warnings

import numpy as np
import pytest

pytest.importorskip("torch", reason="networks are loaded in torch")

import ppl_buffer as pb
from ppl_buffer.diagnostics.simulations import observe_sets


def test_what_a_simulator_draws_is_in_no_other_unit():
    net = pb.load("ddm", backend="torch")
    data = {"choice": np.zeros((3, 7)), "rt": np.full((3, 7), 0.001)}
    # A person's data would be asked about.
    with pytest.warns(UserWarning, match="rt"):
        net.observe({}, np.stack([data["choice"], data["rt"]], -1).astype(np.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        seen = observe_sets(net, data, None, np.array([0, 2]))
    assert tuple(seen.value.shape) == (2, 7, 2)
