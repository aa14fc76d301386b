"""Calibration of likelihoods: what is right passes, what is wrong fails and is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import ppl_buffer as pb
from ppl_buffer import diagnostics
from ppl_buffer.diagnostics.data_sets import DataSets
from ppl_buffer.prior import Prior
from tests.diagnostics.own import PRIORS, Own, telling
from tests.networks import CONTAMINATED, network

pytestmark = pytest.mark.usefixtures("quick_compilation")


class ShiftedQ(pb.simulators.NoisyQ):
    """People a little more repetitive than their parameter says."""

    def simulate(self, rng, params, inputs, trials=None):
        return super().simulate(rng, {**params, "kappa": params["kappa"] + 0.8}, inputs, trials)


def test_the_shipped_network_passes_and_a_shifted_parameter_is_named(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("pandas")
    net = pb.load("noisy_q", backend="torch")

    def stays(trials):
        return (trials["choice"][..., 1:] == trials["choice"][..., :-1])[..., ::2].mean(-1)

    right, wrong = (
        diagnostics.check_likelihood(
            net, simulator, sets=50, trials=37, statistics={"stays": stays}, seed=3, progress=False
        )
        for simulator in (pb.simulators.NoisyQ(), ShiftedQ())
    )
    assert right.passed and right.table["passed"].all()
    assert not wrong.passed and right.verdict.startswith(
        "passed; error: none found; the training's own estimate: about "
    )
    assert repr(wrong).startswith("LikelihoodCheck(FAILED; error: ") and "preference for larger kappa" in repr(wrong)
    failed = list(wrong.table.loc[~wrong.table["passed"], "what"])
    assert "preference for larger kappa" in failed and "preference for larger beta" not in failed
    # What the simulator did more often than the network, by hand.
    effect = wrong.table.set_index("what").loc["stays", "effect"]
    difference = wrong.simulated["stays"] - wrong.rollouts["stays"]
    assert effect == pytest.approx(difference.mean() / wrong.simulated["stays"].std()) and effect > 0.2
    assert right.pit["choice"].shape == (50, 37)
    figure = wrong.plot()
    titles = ["error", "PIT of choice", "coverage", "simulator minus rollouts"]
    assert [axes.get_title() for axes in figure.axes] == titles
    # One label a parameter: one for each of its parts would not fit.
    assert [label.get_text() for label in figure.axes[2].get_xticklabels()] == list(net.schema.params)
    figure.savefig(tmp_path / "check.png")


def test_distribution_functions_see_a_wrong_continuous_outcome() -> None:
    pytest.importorskip("torch")
    net = telling("torch")
    right, wrong = (
        diagnostics.check_likelihood(net, Own(net, PRIORS, shift), sets=60, progress=False)
        for shift in (None, {"mu": 1.0})
    )
    assert right.passed
    # As many trials as the training covered.
    assert right.pit["position"].shape == (60, 23)
    assert not [row for row in wrong.rows if row["comparison"] == "PIT"][0]["passed"]
    # The coverage that the table states, counted by hand.
    row = next(row for row in right.rows if row["comparison"] == "PIT")
    assert row["coverage_50"] == pytest.approx(np.mean(np.abs(right.pit["position"] - 0.5) <= 0.25))


def test_a_known_error_is_tolerated_or_not() -> None:
    pytest.importorskip("torch")
    net = telling("torch")

    class Known(Own):
        """Knows its likelihood, by the network's own; and states 0.004 nats a trial more if asked."""

        more = 0.0

        def log_likelihood(self, params, data):
            return DataSets(net, params, data).log_densities() + self.more

    simulator = Known(net, PRIORS)
    checks = []
    for simulator.more in (0.0, 0.0015, 0.004):
        checks.append(diagnostics.check_likelihood(net, simulator, sets=20, rollouts=False, progress=False))
    assert [check.rows[0]["comparison"] for check in checks] == 3 * ["error"]
    assert [check.passed for check in checks] == [True, True, False]
    assert checks[2].error.nats_per_trial == pytest.approx(0.004, abs=1e-5)
    assert "FAILED; error: 0.004 (0.004 to 0.004) nats a trial" in checks[2].verdict
    strict = diagnostics.check_likelihood(net, simulator, sets=20, rollouts=False, tolerance=0.005, progress=False)
    assert strict.passed
    with pytest.raises(ValueError, match="tolerance: expected a number of nats a trial"):
        diagnostics.check_likelihood(net, simulator, tolerance=-1, progress=False)


def test_a_context_is_told_beside_the_trials() -> None:
    pytest.importorskip("torch")
    net = pb.load("gp", backend="torch")
    simulator = pb.simulators.GaussianProcess()
    check = diagnostics.check_likelihood(net, simulator, sets=40, trials=7, context=5, progress=False)
    assert check.passed
    assert check.pit["y"].shape == (40, 7)
    # Told points make the rest predictable: their log density is higher than without.
    alone = diagnostics.check_likelihood(net, simulator, sets=40, trials=7, progress=False)
    assert check.simulated["log density"].mean() > alone.simulated["log density"].mean() + 1
    bare = diagnostics.check_likelihood(net, simulator, sets=10, trials=7, rollouts=False, progress=False)
    assert not bare.rollouts and {row["comparison"] for row in bare.rows} == {"residual", "PIT", "coverage"}


def test_a_likelihood_check_says_what_does_not_fit() -> None:
    pytest.importorskip("torch")
    net = network(CONTAMINATED, "torch")
    own = Own(net, {"speed": Prior("Gamma", {"concentration": 2.0, "rate": 1.0})})
    with pytest.raises(ValueError, match=r"environment: expected a function that gives \['points'\]"):
        diagnostics.check_likelihood(net, own, progress=False)
    with pytest.raises(ValueError, match="simulator: expected the network's schema"):
        diagnostics.check_likelihood(net, pb.simulators.NoisyQ(), progress=False)
    slider = telling("torch")
    with pytest.raises(ValueError, match="level: expected a probability"):
        diagnostics.check_likelihood(slider, Own(slider, PRIORS), level=95, progress=False)
    with pytest.raises(ValueError, match=r"statistics\['odd'\]: expected an array of shape \(10,\)"):
        diagnostics.check_likelihood(
            slider, Own(slider, PRIORS), sets=10, statistics={"odd": lambda trials: 1.0}, progress=False
        )


def test_a_non_decision_time_goes_no_further_than_the_data_allow() -> None:
    pytest.importorskip("torch")
    net, task, rng = pb.load("ddm", backend="torch"), pb.simulators.DriftDiffusion(), np.random.default_rng(2)
    params = task.prior(rng, 23)
    data = task.simulate(rng, params, task.inputs(rng, 23, 31), 31)
    base, fastest = params["non_decision_time"], data["rt"].min(-1)
    low, high = net.box["non_decision_time"]
    step = 0.05 * (high - low)
    assert (base + step > fastest).any()  # there the step itself would be impossible under any network
    up = np.minimum(np.minimum(base + step, high - 1e-3 * (high - low)), (base + fastest) / 2)
    down = np.maximum(base - step, low + 1e-3 * (high - low))
    sets = DataSets(net, params, data)
    at = [replace(sets, params={**params, "non_decision_time": x}).log_densities().sum(-1) for x in (up, down)]
    scores = sets.scores()
    np.testing.assert_allclose(scores["preference for larger non_decision_time"], at[0] - at[1], rtol=1e-3, atol=0.02)
    assert all(np.isfinite(x).all() and np.abs(x).max() < 1e6 for x in scores.values())
