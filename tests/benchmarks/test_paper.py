"""The comparison of benchmarks/paper.py: batches, exact densities, the training loop, and the script."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from scipy import integrate, stats

torch = pytest.importorskip("torch")

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import paper  # noqa: E402
import paper_scores  # noqa: E402
import paper_tasks  # noqa: E402
import rivals  # noqa: E402
from rivals.training import Run, train  # noqa: E402


def test_batches_are_functions_of_seed_and_step():
    task = paper_tasks.TASKS["sawtooth"]
    first, again, other, seed = (task.batch(*at) for at in ((0, 3, 5), (0, 3, 5), (0, 3, 6), (1, 3, 5)))
    torch.testing.assert_close(first.whole, again.whole)
    torch.testing.assert_close(first.visible, again.visible)
    assert not torch.equal(first.rest[1], other.rest[1]) and not torch.equal(first.rest[1], seed.rest[1])
    assert first.buffer[0].shape == (3, 16) and first.targets[0].shape == first.visible.shape == (3, 32)


def test_half_of_the_targets_see_the_context_alone():
    visible = torch.cat([paper_tasks.TASKS["sawtooth"].batch(0, 16, step).visible for step in range(40)])
    count = visible.numel()
    assert abs((visible == 0).float().mean() - 0.5) < 4 * 0.5 / math.sqrt(count)
    seen = visible[visible > 0]
    assert stats.chisquare(np.bincount(seen, minlength=17)[1:]).pvalue > 1e-3


@pytest.mark.parametrize("name", paper_tasks.TASKS)
def test_tasks_are_standardised(name):
    task = paper_tasks.TASKS[name]
    x, y = task.standardised(*task.draw(np.random.default_rng(0), 700, 3))
    for values in (x, y):
        assert abs(values.mean()) < 0.1 and abs(values.std() - 1) < 0.1


@pytest.mark.parametrize("name", ["gp", "gp_precise"])
def test_the_exact_density_of_a_first_point_is_an_integral_over_variance_and_noise(name):
    task = paper_tasks.TASKS[name]
    noises = [10**-2.5] if name == "gp_precise" else np.linspace(0.05, 0.5, 101)
    expected = [
        integrate.quad(lambda v, n=n: stats.norm.pdf(0.7, scale=math.sqrt(v + n**2)), 0.5, 1.5)[0] for n in noises
    ]
    evidence = task.evidence(np.array([0.3, 1.9]), np.array([[0.7, -0.2]]), [1])
    mean = expected[0] if len(expected) == 1 else np.trapezoid(expected, noises) / 0.45
    assert math.exp(evidence[0, 0]) == pytest.approx(mean, rel=1e-4)


def test_scores_are_in_units_of_y_and_in_all_orders():
    """Of a predictor that knows the law: independent standard normal numbers, moved and scaled."""
    saw = paper_tasks.TASKS["sawtooth"]

    class Normal:
        def log_prob(self, context, x, y):
            # A place after another costs: so that orders differ.
            falls = torch.nn.functional.pad((x[:, 1:] < x[:, :-1]).float(), (1, 0))
            return -0.5 * y**2 - 0.5 * math.log(2 * math.pi) - falls

    quick = replace(saw, evidence=lambda x, y, sizes: np.ones((1, len(sizes))))
    sets = paper_tasks.test_sets(quick, 3, [4, 2], 5, 2)
    np.testing.assert_array_equal(sets[0].y[:, :7], sets[1].y)
    sets = replace(sets[0], exact=np.array([1.0, 2.0, 4.0]))
    scored = paper_scores.joint_log_densities(Normal(), sets)
    y = sets.y[:, 4:]
    for row, order in enumerate(sets.orders):
        falls = (np.diff(sets.x[:, 4:][:, order]) < 0).sum(1)
        expected = stats.norm.logpdf(y, 0.5, 0.3).sum(1) - falls
        np.testing.assert_allclose(scored[row], expected, rtol=1e-5)
    figures = paper_scores.figures([scored], [sets])
    assert figures["one order"]["below exact"] == pytest.approx((7 / 3 - scored[0].mean()) / 5)
    mixed = np.log(np.exp(scored).mean(0))
    assert figures["R orders"]["log density"] == pytest.approx(mixed.mean() / 5)


def test_shares_and_who_is_dominated():
    rows = {
        label: {"one order": {"log density": value, "below exact": 1 - value}}
        for label, value in (("ours, one pass", 0.8), ("ours, block 1", 0.9), ("ours, apart", 0.5), ("rival", 0.85))
    }
    assert paper_scores.share_kept(rows, "one order", rivals.OURS) == pytest.approx(0.75)
    assert paper_scores.share_kept(rows, "one order", rivals.OURS_IN_BLOCKS) is None
    seconds = {"ours, one pass": 1.0, "ours, block 1": 9.0, "ours, apart": 0.1, "rival": 0.9}
    expected = {"ours, one pass": ["rival"], "ours, block 1": [], "ours, apart": []}
    assert paper_scores.dominated(rows, seconds) == expected
    assert paper_scores.dominated(rows, {**seconds, "rival": 1.1})["ours, one pass"] == []


@pytest.mark.parametrize("name", ["ours", "lbanp_buffer"])
def test_an_interrupted_training_ends_where_the_other_does(name, tmp_path):
    batches = partial(paper_tasks.TASKS["gp"].batch, 0, 2)
    whole = rivals.make(name, paper.QUICK.sizes)
    begun = [weight.clone() for weight in whole.parameters()]
    assert train(whole, batches, tmp_path / "whole.safetensors", steps=6).step == 6
    run = Run(rivals.make(name, paper.QUICK.sizes), tmp_path / "parts.safetensors", 6, in_steps=True)
    for step in range(4):
        run.update(batches(step))
    run.save()
    parts = rivals.make(name, paper.QUICK.sizes)
    train(parts, batches, tmp_path / "parts.safetensors", steps=6)
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=0, rtol=0)
        assert not one.requires_grad
    assert sum(not torch.equal(one, before) for one, before in zip(whole.parameters(), begun, strict=True)) > 20


def test_a_training_by_time_ends(tmp_path):
    batches = partial(paper_tasks.TASKS["gp"].batch, 0, 2)
    progress = train(rivals.make("cnp", paper.QUICK.sizes), batches, tmp_path / "cnp.safetensors", seconds=0.05)
    assert progress.step >= 1 and progress.seconds >= 0.05


def test_a_block_is_one_pass_after_a_longer_context():
    """Of 19 targets: the first 16 after the context, the others after a context that these have joined."""
    net = rivals.make("ours", paper.QUICK.sizes)
    x, y = torch.tensor(np.random.default_rng(2).normal(size=(2, 3, 26)), dtype=torch.float32)
    use = rivals.uses("ours", net)
    assert paper_scores.as_trained(16) == rivals.OURS and paper_scores.as_trained(17) == rivals.OURS_IN_BLOCKS

    def scored(label, start, end):
        return use[label].log_prob((x[:, :start], y[:, :start]), x[:, start:end], y[:, start:end])

    blocks = torch.cat([scored(rivals.OURS, 7, 23), scored(rivals.OURS, 23, 26)], 1)
    torch.testing.assert_close(scored(rivals.OURS_IN_BLOCKS, 7, 26), blocks, atol=1e-5, rtol=1e-5)
    assert (scored(rivals.OURS, 7, 26) - blocks).abs().max() > 1e-4


def test_times_are_medians_of_rounds_in_turns(monkeypatch):
    calls = []

    def taken(label, use, task, context, targets, draws):
        calls.append((label, context))
        return {"density": float(len(calls)), "sampling": -float(len(calls))}

    monkeypatch.setattr(paper_scores, "times", taken)
    measured = paper_scores.times_in_rounds({"a": None, "b": None}, None, [(7, 5), (11, 5)], 3, 3)
    assert calls == [("a", 7), ("b", 7), ("a", 11), ("b", 11)] * 3
    assert measured["b"]["N=11, M=5"] == {"density": 8.0, "sampling": -8.0}


def test_implementations_of_others_are_timed_with_ours(tmp_path, capsys):
    class Theirs:
        def log_prob(self, context, x, y):
            return torch.zeros_like(x)

        def sample(self, context, x, noise):
            assert len(context[0]) == 7 and noise.shape == (3, 5, 2)
            return noise[..., 0], noise[..., 1]

    paper.main(["--quick", "--steps", "0", "--rivals", "cnp", "--out", str(tmp_path)], {"theirs": Theirs()})
    results = json.loads((tmp_path / "paper_times.json").read_text())["results"]
    assert set(results["seconds"]) == {"CNP, autoregressive", "theirs"}
    assert results["implementations of others"] == ["theirs"]
    assert 0 < results["seconds"]["theirs"]["N=7, M=5"]["density"] < 1 and "theirs" in capsys.readouterr().out


def test_the_script_runs(tmp_path, capsys):
    paper.main(["--quick", "--task", "gp", "--rivals", "ours,tnp_d,tnp_a", "--out", str(tmp_path)])
    results = json.loads((tmp_path / "paper_gp.json").read_text())["results"]
    by_targets = results["budgets"]["2 steps"]["targets"]
    assert set(by_targets) == {"5", "19"} and [paper.Settings().functions(m) for m in (16, 19, 128)] == [128, 107, 32]
    shown = capsys.readouterr().out
    for result in by_targets.values():
        scores = result["scores"]
        assert len(scores) == len(results["seconds"]) == 9 and all(label in shown for label in scores)
        for row in scores.values():
            assert math.isfinite(row["one order"]["below exact"]) and math.isfinite(row["R orders"]["log density"])
        # One order of what does not depend on it is all orders.
        assert scores["ours, apart"]["one order"]["log density"] == pytest.approx(
            scores["ours, apart"]["R orders"]["log density"], abs=1e-5
        )
    few, many = by_targets["5"], by_targets["19"]
    assert few["scores"][rivals.OURS] == few["scores"][rivals.OURS_IN_BLOCKS]
    assert many["scores"][rivals.OURS] != many["scores"][rivals.OURS_IN_BLOCKS]
    assert set(few["share kept"]) == {rivals.OURS} and set(many["share kept"]) == {rivals.OURS, rivals.OURS_IN_BLOCKS}
    assert [row["what"].split(":")[0] for row in results["bars"] if "below exact" in row["what"]] == [
        "5 targets, ours, one pass", "19 targets, ours, block 16",
        "5 targets, shipped gp, one pass", "19 targets, shipped gp, one pass",
    ]  # fmt: skip
    # The shipped network is nearer to the exact density than two steps of training.
    for targets, row in results["shipped"].items():
        assert row["one order"]["below exact"] < by_targets[targets]["scores"][rivals.OURS]["one order"]["below exact"]
    assert (tmp_path / "paper_gp.png").exists() and "Share of the gain" in shown


def test_equal_time_has_a_file_of_its_own_and_asks_no_distance(tmp_path):
    paper.main([
        "--quick", "--task", "gp", "--rivals", "ours,cnp", "--steps", "0", "--seconds", "1800", "--out", str(tmp_path),
    ])  # fmt: skip
    assert not (tmp_path / "paper_gp.json").exists() and (tmp_path / "paper_gp_seconds.png").exists()
    results = json.loads((tmp_path / "paper_gp_seconds.json").read_text())["results"]
    # As long as the quick run takes, whatever a step takes.
    training = results["budgets"]["0.3 seconds"]["training"]
    assert set(training) == {"ours", "cnp"} and all(row["seconds"] >= 0.3 for row in training.values())
    asked = [row["what"] for row in results["bars"] if "shipped" not in row["what"]]
    assert asked and all("rivals nearer and faster than" in what for what in asked)
