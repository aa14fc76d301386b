"""Calibration checks: what is right passes, what is wrong fails and is named; bands hold what they promise."""

from __future__ import annotations

import json
import types
from pathlib import Path

import numpy as np
import pytest

import ppl_buffer as pb
from ppl_buffer import diagnostics
from ppl_buffer.network.config import weight_shapes
from ppl_buffer.predictive import density
from ppl_buffer.predictive.query import Query
from ppl_buffer.prior import Prior
from ppl_buffer.schema import split_value
from tests.networks import (
    CONTAMINATED,
    FUNCTION_RECORD,
    SLIDER,
    Record,
    draw_group,
    network,
    quick_compilation,  # noqa: F401
    standardization,
    weights,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")
PRIORS = {"mu": Prior.uniform(-2.0, 2.0)}
RECORD = Record(box={"mu": (-2.0, 2.0)}, priors=PRIORS, trials=23, context=0, simulator="own")


class Own:
    """The simulator of which a network is exactly the likelihood: its own rollouts, parameters shifted if asked."""

    def __init__(self, net, priors, shift=None, environment=None):
        self.net, self.schema, self.priors, self.shift = net, net.schema, priors, shift or {}
        self.environment = environment
        self.calls = 0

    def prior(self, rng, size):
        return {name: prior.sample(rng, size) for name, prior in self.priors.items()}

    def inputs(self, rng, size, trials):
        return draw_group(rng, self.schema.inputs, (size, trials))

    def simulate(self, rng, params, inputs, trials=None):
        self.calls += 1
        conditioned = {name: np.asarray(x + self.shift.get(name, 0.0), np.float32)[None] for name, x in params.items()}
        trials = trials or next(iter(inputs.values())).shape[1]
        drawn = pb.posterior_predictive(
            self.net, inputs, conditioned, trials=trials, environment=self.environment, seed=int(rng.integers(2**31)),
            progress=False,
        )  # fmt: skip
        return split_value(self.schema, drawn.value[0]) | {name: x[0] for name, x in drawn.feedback.items()}


def telling(backend: str):
    """A tiny network whose outcomes say something about its parameter."""
    known = {name: x * (3 if name.endswith("position.out.weight") else 1) for name, x in weights(SLIDER).items()}
    if backend == "jax":
        from ppl_buffer.network.jax.weights import JaxNetwork

        return JaxNetwork(SLIDER.schema, SLIDER.config, standardization(SLIDER.schema), known, RECORD)
    import torch

    from ppl_buffer.network.torch.weights import TorchNetwork

    net = TorchNetwork(SLIDER.schema, SLIDER.config, standardization(SLIDER.schema), record=RECORD)
    assert set(known) == set(weight_shapes(SLIDER.schema, SLIDER.config))
    with torch.no_grad():
        for name, value in known.items():
            net.weights[name].copy_(torch.as_tensor(value))
    return net.eval().requires_grad_(False)


# Bands -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "steps"), [(53, None), (199, 20), (12_007, None)])
def test_a_band_holds_as_many_uniform_samples_as_it_says(count: int, steps: int | None) -> None:
    rng = np.random.default_rng(0)
    passed = []
    for _ in range(400):
        values = rng.random(count) if steps is None else (rng.integers(0, steps, count) + 0.5) / steps
        result = diagnostics.uniformity(values, steps=steps, level=0.8)
        inside = ((result.ecdf >= result.lower - 1e-12) & (result.ecdf <= result.upper + 1e-12)).all()
        assert inside == result.passed
        # Both come from one simulation, of 10,000 samples.
        assert result.passed == (result.p > 0.2) or abs(result.p - 0.2) < 0.01
        passed.append(result.passed)
    # A share of 400 trials at 0.8 has a standard deviation of 0.02; with few values the level can only be exceeded.
    assert abs(np.mean(passed) - 0.8) < 0.07


def test_a_band_finds_what_is_not_uniform() -> None:
    rng = np.random.default_rng(1)
    assert not diagnostics.uniformity(rng.beta(1.2, 1.0, 5000)).passed
    assert not diagnostics.uniformity(np.full(20, 0.5)).passed
    # Of one number the function is a single step: no place of it is out of the ordinary but the very ends.
    assert diagnostics.uniformity([0.37]).passed


@pytest.mark.parametrize("values", [[], [0.2, 1.2], [np.nan]])
def test_a_band_refuses_what_no_probability_can_be(values: list[float]) -> None:
    with pytest.raises(ValueError, match="values: expected numbers in"):
        diagnostics.uniformity(values)


# Likelihood --------------------------------------------------------------------------------------------------------


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
    assert not wrong.passed
    failed = list(wrong.table.loc[~wrong.table["passed"], "what"])
    assert "preference for larger kappa" in failed and "preference for larger beta" not in failed
    # What the simulator did more often than the network, by hand.
    effect = wrong.table.set_index("what").loc["stays", "effect"]
    difference = wrong.simulated["stays"] - wrong.rollouts["stays"]
    assert effect == pytest.approx(difference.mean() / wrong.simulated["stays"].std()) and effect > 0.2
    assert right.pit["choice"].shape == (50, 37)
    figure = wrong.plot()
    assert [axes.get_title() for axes in figure.axes] == ["PIT of choice", "coverage", "simulator minus rollouts"]
    # One label a parameter: one for each of its parts would not fit.
    assert [label.get_text() for label in figure.axes[1].get_xticklabels()] == list(net.schema.params)
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
    assert right.rows[0]["coverage_50"] == pytest.approx(np.mean(np.abs(right.pit["position"] - 0.5) <= 0.25))


def test_a_context_is_told_beside_the_trials() -> None:
    pytest.importorskip("torch")
    net = pb.load("gp", backend="torch")
    simulator = pb.simulators.GaussianProcess()
    check = diagnostics.check_likelihood(net, simulator, sets=40, trials=7, context=5, progress=False)
    assert check.passed
    assert check.pit["y"].shape == (40, 7)
    # Told points make the rest predictable: their log density is higher than without.
    alone = diagnostics.check_likelihood(net, simulator, sets=40, trials=7, rollouts=False, progress=False)
    assert check.simulated["log density"].mean() > alone.simulated["log density"].mean() + 1
    assert not alone.rollouts and {row["comparison"] for row in alone.rows} == {"PIT", "coverage"}


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


# Posterior ---------------------------------------------------------------------------------------------------------

FITS = {"sets": 60, "trials": 17, "draws": 19, "thin": 3, "warmup": 30, "batch": 30, "progress": False}


@pytest.fixture(scope="module")
def learner():
    pytest.importorskip("numpyro")
    return telling("jax")


@pytest.fixture(scope="module")
def own():
    """The simulator, by the same network in torch, which needs no compilation."""
    pytest.importorskip("torch")
    return Own(telling("torch"), PRIORS)


@pytest.fixture(scope="module")
def finished(learner, own, tmp_path_factory):
    """A finished check of the right network, and its folder."""
    folder = tmp_path_factory.mktemp("check")
    return diagnostics.check_posterior(learner, own, out=folder, **FITS), folder


# A few transitions between draws are not enough for every network; the check says so.
@pytest.mark.filterwarnings("ignore:check_posterior:UserWarning")
def test_right_posteriors_pass_and_shifted_ones_fail(learner, own, finished, tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    right = finished[0]
    assert right.passed and list(right.table["quantity"]) == ["mu", "log_likelihood"]
    # The data say something: posteriors are narrower than the prior, and independent of each other.
    assert right.table["contraction"][0] > 0.2
    wrong = diagnostics.check_posterior(learner, Own(own.net, PRIORS, {"mu": -1.5}), **FITS)
    assert not wrong.passed
    # Data look as if the parameter were smaller than it was, so that the truth ranks high.
    assert wrong.table["mean_rank"][0] > right.table["mean_rank"][0] + 0.1
    right.plot().savefig(tmp_path / "ranks.png")


def test_ranks_are_counts_of_smaller_draws(finished) -> None:
    check = finished[0]
    assert check.draws["mu"].shape == (19, 60)
    np.testing.assert_array_equal(check.ranks["mu"], (check.draws["mu"] < check.truth["mu"]).sum(0))
    assert (np.abs(check.draws["mu"]) <= 2).all()


def test_a_chain_that_never_moved_is_worth_one_draw() -> None:
    pytest.importorskip("numpyro")
    draws = np.random.default_rng(0).normal(size=(19, 3, 1))
    draws[:, 1] = 0.25
    joined = {"truth": np.zeros((3, 1)), "draws": draws, "log_likelihood": np.zeros(3),
              "log_likelihoods": np.arange(57.0).reshape(19, 3), "divergences": np.zeros(3)}  # fmt: skip
    check = diagnostics._ranked(joined, ["mu"], 3, 0.95, 3.0, 0)
    assert check.effective["mu"][1] < 1.1 and check.effective["mu"][0] > 5
    assert check.ranks["mu"][1] == 0


@pytest.mark.filterwarnings("ignore:check_posterior:UserWarning")
def test_an_interrupted_check_goes_on_where_it_was(learner, own, finished, tmp_path: Path) -> None:
    class Interrupted(Own):
        def simulate(self, *arguments, **keywords):
            if self.calls == 1:
                raise KeyboardInterrupt
            return super().simulate(*arguments, **keywords)

    with pytest.raises(KeyboardInterrupt):
        diagnostics.check_posterior(learner, Interrupted(own.net, PRIORS), out=tmp_path, **FITS)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["batch-0000.npz", "settings.json"]
    # The first batch stands in the other folder too; the second would be drawn again from the same numbers.
    first, second = (np.load(folder / "batch-0000.npz") for folder in (tmp_path, finished[1]))
    assert sorted(first) == sorted(second)
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])
    never = Own(own.net, PRIORS)
    again = diagnostics.check_posterior(learner, never, out=finished[1], **FITS)
    assert never.calls == 0
    np.testing.assert_array_equal(again.draws["mu"], finished[0].draws["mu"])
    # Fewer data sets are the first ones.
    fewer = diagnostics.check_posterior(learner, never, out=finished[1], **{**FITS, "sets": 7})
    np.testing.assert_array_equal(fewer.ranks["mu"], finished[0].ranks["mu"][:7])


def test_a_torch_network_is_the_same_network(finished) -> None:
    pytest.importorskip("torch")
    net = telling("torch")
    never = Own(net, PRIORS)
    again = diagnostics.check_posterior(net, never, out=finished[1], **FITS)
    assert never.calls == 0
    np.testing.assert_array_equal(again.draws["mu"], finished[0].draws["mu"])


def test_a_folder_of_another_check_is_refused(learner, own, finished) -> None:
    with pytest.raises(ValueError, match="batches of other thin; take another folder"):
        diagnostics.check_posterior(learner, own, out=finished[1], **{**FITS, "thin": 2})
    assert json.loads((finished[1] / "settings.json").read_text())["thin"] == 3


def test_priors_are_the_same_in_numpy_and_on_the_normal_scale() -> None:
    stats = pytest.importorskip("scipy.stats")
    scale = diagnostics._NormalScale(
        {
            "rate": Prior("Gamma", {"concentration": 2.0, "rate": 3.0}),
            "low": Prior("TruncatedNormal", {"loc": 0.0, "scale": 1.0, "low": -1.0, "high": 2.0}),
            "high": Prior("Uniform", {"low": 0.5, "high": 1.5}, relative_to="low"),
        }
    )
    scores = np.random.default_rng(0).normal(size=(11, 3))
    params = scale.params(np, scores)
    np.testing.assert_allclose(params["rate"], stats.gamma(2, scale=1 / 3).ppf(stats.norm.cdf(scores[:, 0])), rtol=1e-3)
    low = stats.truncnorm(-1, 2).ppf(stats.norm.cdf(scores[:, 1]))
    np.testing.assert_allclose(params["low"], low, atol=1e-4)
    np.testing.assert_allclose(params["high"], params["low"] + 0.5 + stats.norm.cdf(scores[:, 2]), atol=1e-4)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tarp_by_sbi_tells_right_posteriors_from_narrow_ones() -> None:
    pytest.importorskip("ppl_buffer.sbi", exc_type=ImportError)
    rng = np.random.default_rng(0)
    sets, draws = 300, 99
    truth = rng.normal(size=(2, sets))
    # A normal mean of one observation with unit variances: the posterior has half the prior's variance.
    middle = (truth + rng.normal(size=truth.shape)) / 2
    results = []
    for width in (1.0, 0.4):
        drawn = middle[:, None] + width * np.sqrt(0.5) * rng.normal(size=(2, draws, sets))
        check = diagnostics.PosteriorCheck(
            dict(zip("ab", truth, strict=True)), dict(zip("ab", drawn, strict=True)), {}, {}, np.zeros(sets), 3.0, 0.95
        )
        results.append(check.tarp())
    assert abs(results[0][0]) < 0.03 and results[0][1] > 0.05
    assert results[1][0] < -0.06


# Out of its depth --------------------------------------------------------------------------------------------------


def trained(name: str, **more):
    """A network as `outside` sees it."""
    record = Record(**{**FUNCTION_RECORD.__dict__, **more})
    return types.SimpleNamespace(schema=pb.Schema(params={"mu": pb.Real(), "sigma": pb.Positive()},
                                 outcomes={"y": pb.Real()}), box=dict(record.box), record=record)  # fmt: skip


def test_draws_outside_the_box_are_counted_and_named() -> None:
    net = trained("function")
    mu = np.zeros((10, 3))
    mu[:4, 2] = 2.5
    mu[0, 0] = -2.5
    with pytest.warns(UserWarning, match=r"16.7% of the draws of 'mu' \(most at index 2: 40%\) lie outside \[-2, 2\].*"
                                         r"mostly above.*Use a prior inside the range"):  # fmt: skip
        shares = diagnostics.outside(net, {"mu": mu, "sigma": np.ones((10, 3)), "other": np.zeros(10)})
    assert shares == {"mu": pytest.approx(5 / 30), "sigma": 0.0}


def test_a_difference_has_a_box_of_its_own() -> None:
    net = trained("function", priors={"mu": None, "sigma": Prior("Uniform", {"low": 0, "high": 1}, relative_to="mu")})
    draws = {"mu": np.zeros(8), "sigma": np.array([0.6, 0.7, 0.8, 0.9, 0.9, 0.9, 1.5, 1.6])}
    with pytest.warns(UserWarning, match="of 'sigma - mu' lie outside"):
        shares = diagnostics.outside(net, draws)
    assert shares["sigma - mu"] == 0.25 and shares["sigma"] == 0.0


def test_arviz_posteriors_are_read_with_their_chains() -> None:
    xarray = pytest.importorskip("xarray")
    draws = xarray.Dataset({"sigma": (("chain", "draw", "person"), np.full((2, 5, 3), 4.0))})
    for posterior in (draws, types.SimpleNamespace(posterior=draws)):
        with pytest.warns(UserWarning, match="100.0% of the draws of 'sigma'"):
            assert diagnostics.outside(trained("function"), posterior) == {"sigma": 1.0}


def test_outside_needs_a_box_and_its_parameters() -> None:
    with pytest.raises(ValueError, match=r"expected draws of some of \['mu', 'sigma'\]"):
        diagnostics.outside(trained("function"), {"nu": np.zeros(3)})
    pytest.importorskip("torch")
    with pytest.raises(ValueError, match="expected a trained network"):
        diagnostics.outside(network(SLIDER, "torch"), {"mu": np.zeros(3)})


def test_data_of_the_model_pass_and_others_are_named(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("pandas")
    net = telling("torch")
    rng = np.random.default_rng(2)
    people, trials = 13, 19
    mu = rng.uniform(-1, 1, people)
    value = Own(net, PRIORS).simulate(rng, {"mu": mu}, {}, trials=trials)["position"]
    mask = np.arange(trials) < rng.integers(11, trials + 1, people)[:, None]
    draws = {"mu": mu + 0.1 * rng.normal(size=(40, people))}

    def low(trials):
        below = np.where(np.isnan(trials["position"]), np.nan, trials["position"] < 0)
        return np.nanmean(below, -1)

    seen = net.observe({}, value.astype(np.float32), trial_mask=mask)
    right = diagnostics.check_data(net, seen, draws, statistics={"low": low}, progress=False)
    assert right.passed
    assert right.observed["low"].shape == right.replicated["low"].shape == (40, people)
    np.testing.assert_allclose(right.observed["low"][0], [np.mean(x[m] < 0) for x, m in zip(value, mask, strict=True)])
    # A p-value by hand, ties counted half.
    more, tied = (op(right.replicated["low"], right.observed["low"]) for op in (np.greater, np.equal))
    np.testing.assert_allclose(right.p_values("low"), (more + 0.5 * tied).mean(0))
    # The log density of each draw at the observed trials is the distribution's own.
    first = {"mu": np.asarray(draws["mu"][:1], np.float32)}
    expected = density.log_prob(Query.build(net, seen, params=first), seen.value)
    np.testing.assert_allclose(right.observed["log density"][:1], expected.numpy(), atol=1e-4)
    wrong = net.observe({}, np.clip(-value, -1.9, 2.9).astype(np.float32), trial_mask=mask)
    with pytest.warns(UserWarning) as caught:
        check = diagnostics.check_data(net, wrong, draws, statistics={"low": low}, progress=False)
    assert any("'low' is" in str(one.message) and "extend the model" in str(one.message) for one in caught)
    assert not check.passed
    check.plot().savefig(tmp_path / "data.png")


def test_a_data_check_wants_every_parameter_of_everybody() -> None:
    pytest.importorskip("torch")
    net = telling("torch")
    seen = net.observe({}, np.zeros((3, 5), np.float32))
    with pytest.raises(ValueError, match=r"posterior: expected shapes \(4, 3\), draws and people"):
        diagnostics.check_data(net, seen, {"mu": np.zeros((4, 2))}, progress=False)
    with pytest.raises(ValueError, match="data: expected what net.observe"):
        diagnostics.check_data(net, {}, {"mu": np.zeros((4, 3))}, progress=False)


def test_importing_needs_no_backend() -> None:
    import subprocess
    import sys

    script = "import sys, ppl_buffer.diagnostics; assert not {'torch', 'jax', 'numpyro', 'sbi'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)
