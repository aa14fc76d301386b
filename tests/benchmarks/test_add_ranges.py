"""The ranges in the shipped files are those that the script simulates."""

import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import ppl_buffer as pb

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import add_ranges  # noqa: E402


@pytest.mark.parametrize("name", add_ranges.older())
def test_shipped_ranges_are_simulated_anew(name):
    shipped, simulated = pb.load(name, backend="torch").record.ranges, add_ranges.ranges(name)
    assert simulated == shipped


def test_arrays_stay_as_they_are(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(add_ranges, "ranges", lambda name: pb.load(name, backend="torch").record.ranges)
    monkeypatch.setattr(sys, "argv", ["add_ranges.py", "noisy_q", "--out", str(tmp_path)])
    add_ranges.main()
    again, net = pb.load(tmp_path / "noisy_q.safetensors", backend="torch"), pb.load("noisy_q", backend="torch")
    assert again.record == net.record and again.digest == net.digest
    for name, weight in net.weights.items():
        np.testing.assert_array_equal(weight, again.weights[name])
