"""benchmarks/added_buffer.py: what it measures, and that an interrupted script goes on."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import added_buffer  # noqa: E402
import harness  # noqa: E402
import paper_tasks  # noqa: E402
import rivals  # noqa: E402
from rivals.added import Shown  # noqa: E402
from rivals.layers import Sizes  # noqa: E402
from rivals.tnp_d import Reencoding  # noqa: E402

import ppl_buffer as pb  # noqa: E402
from ppl_buffer.predictive import density  # noqa: E402
from ppl_buffer.predictive.query import Query  # noqa: E402
from ppl_buffer.training import trainer  # noqa: E402

CONTEXT, TARGETS, SIZE = 5, 3, 2


@pytest.fixture
def net():
    return harness.random_network(harness.config_of("tiny"), "torch")


@pytest.fixture
def sets():
    x, y = np.random.default_rng(0).normal(size=(2, SIZE, CONTEXT + TARGETS))
    exact = np.array([0.3, -0.5])
    return [paper_tasks.TestSets(paper_tasks.TASKS["gp"], x, y, CONTEXT, np.array([[2, 0, 1]]), exact)]


def test_re_encoding_is_marginals_after_longer_contexts(net, sets):
    x, y = (torch.as_tensor(part[:, [0, 1, 2, 3, 4, 7, 5, 6]], dtype=torch.float32) for part in (sets[0].x, sets[0].y))
    alone, reencoded = (added_buffer.log_densities(net, sets, way) for way in ("alone", "re-encoding"))
    for scored, grows in ((alone, 0), (reencoded, 1)):
        for k in range(TARGETS):
            known = CONTEXT + grows * k
            query = Query.build(net, {"x": x[:, CONTEXT + k :][:, :1]}, context={"x": x[:, :known], "y": y[:, :known]})
            expected = density.marginals(query, y[:, CONTEXT + k :][:, :1])[:, 0]
            np.testing.assert_allclose(scored[0, :, k], expected, atol=1e-5)


def test_shares_are_of_the_gain_of_re_encoding(net, sets, monkeypatch):
    gains = {"alone": [0.0, 0.0], "re-encoding": [2.0, 4.0], "one pass": [1.0, 3.0]}
    monkeypatch.setattr(
        added_buffer, "log_densities", lambda _, sets, way: np.full((1, SIZE, TARGETS), 7.0) + np.c_[gains[way]]
    )
    rows = {row["way"]: row for row in added_buffer.measure(net, {"apart": {5: net}}, sets)}
    assert rows["each alone"]["share kept"] == 0 and rows["re-encoding"]["share kept"] == 1
    one = rows["apart"]
    assert one["share kept"] == pytest.approx(2 / 3) and one["log density"] == pytest.approx(9)
    # Of two functions: residuals 1 - 4/3 and 3 - 8/3.
    assert one["standard error"] == pytest.approx(math.sqrt(2 * (1 / 3) ** 2) / math.sqrt(2) / 3)
    assert one["below exact"] == pytest.approx((0.3 - 0.5) / 2 / TARGETS - 9)
    assert one["weights that learn"] == net.weights["role.buffer"].numel()


def test_the_script_runs_and_goes_on(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(trainer, "loss_curve", lambda *_: b"")  # a second of drawing
    added_buffer.main(["--quick", "--out", str(tmp_path)])
    first = json.loads((tmp_path / "added_buffer.json").read_text())["results"]
    shown = capsys.readouterr().out
    rows = {(row["way"], row["steps"]): row for row in first["rows"]}
    assert {way for way, steps in rows if steps == 2} == set(added_buffer.WAYS)
    for (way, steps), row in rows.items():
        assert way in shown and math.isfinite(row["below exact"])
        assert (row["change without a buffer"] > 0) == (way == "all" and steps > 0)
    assert rows["low rank, 4", 2]["weights that learn"] < rows["low rank, 8", 2]["weights that learn"]
    assert rows["all", 2]["weights that learn"] == first["weights"]
    # What is there is not trained again.
    monkeypatch.setattr(pb, "train", None)
    monkeypatch.setattr(pb, "add_buffer", None)
    added_buffer.main(["--quick", "--out", str(tmp_path)])
    assert json.loads((tmp_path / "added_buffer.json").read_text())["results"] == first


def pairs(count, seed):
    x, y = np.random.default_rng(seed).normal(size=(2, SIZE, count))
    return torch.as_tensor(x, dtype=torch.float32), torch.as_tensor(y, dtype=torch.float32)


@pytest.mark.parametrize(("network", "depth"), [("tnp_d", 1), ("tnp_d", 2), ("lbanp_8", 2)])
def test_a_rival_shows_a_buffer_what_it_reads(network, depth):
    """Without one its own densities, to the last bit; of one layer, a buffer that has learnt nothing re-encodes."""
    # A root of the heads' size that is a power of two: dividing by it, sooner or later, is exact.
    net = rivals.make(network, Sizes(width=32, depth=depth, heads=2, mlp=17, components=5))
    with torch.no_grad():
        for weight in net.parameters():
            weight += torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)) / weight.shape[-1] ** 0.5
    known, targets = pairs(CONTEXT, 1), pairs(TARGETS, 2)
    buffered = pb.BufferedModule(Shown(net), known)
    assert torch.equal(buffered.marginals(known, *targets), net.log_prob(known, *targets))
    joint = buffered.conditionals(known, *targets)
    away = (joint - Reencoding(net).log_prob(known, *targets)).abs().max()
    assert away < 1e-4 if depth == 1 else away > 1e-3
    draws, log_probs = buffered.rollout(known, targets[0], 5)
    again = buffered.conditionals(tuple(x.repeat(5, 1) for x in known), targets[0].repeat(5, 1), draws.flatten(0, 1))
    torch.testing.assert_close(again.unflatten(0, (5, SIZE)), log_probs, atol=1e-4, rtol=1e-4)
