"""The comparison of training methods: its arithmetic, and a run at tiny sizes."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

for _library in ("jax", "torch"):
    pytest.importorskip(_library)

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import training_methods  # noqa: E402


def test_seconds_to_a_divergence_follow_the_power_law_and_promise_little_before_the_first_run():
    rows = [{"seconds": seconds, "kl": 3.0 / seconds**1.5} for seconds in (40.0, 10.0)]
    for seconds in (10.0, 25.0, 80.0):
        assert training_methods.seconds_to(rows, 3.0 / seconds**1.5) == pytest.approx(seconds)
    assert training_methods.seconds_to(rows, 1.0) == 5.0


def test_divergence_is_that_of_the_densities(monkeypatch):
    rng = np.random.default_rng(0)
    chance, other = rng.uniform(0.2, 0.8, (2, 500, 200))
    choice = rng.random(chance.shape) < chance
    exact, network = (np.log(np.where(choice, p, 1 - p)) for p in (chance, other))
    monkeypatch.setattr(training_methods, "conditionals", lambda *_: network)
    expected = (chance * np.log(chance / other) + (1 - chance) * np.log((1 - chance) / (1 - other))).mean()
    kl, error = training_methods.divergence(None, training_methods.Case(None, {}, {}, exact))
    assert abs(kl - expected) < 4 * error < 0.02 * expected


@pytest.mark.slow
def test_a_run_at_tiny_sizes(tmp_path, capsys):
    training_methods.main(["--quick", "--only", "ddm", "--out", str(tmp_path)])
    results = json.loads((tmp_path / "training_methods.json").read_text())["results"]
    assert [row["how"] for row in results["rows"]] == ["transformer", *["direct likelihood"] * 2]
    assert "times less time" in capsys.readouterr().out
