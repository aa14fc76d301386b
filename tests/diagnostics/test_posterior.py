"""Simulation-based calibration: right posteriors pass, shifted ones fail; a check goes on where it was interrupted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ppl_buffer import diagnostics
from ppl_buffer.diagnostics.chains import possible_starts
from ppl_buffer.diagnostics.posterior import _rank
from tests.diagnostics.own import PRIORS, Own, telling

pytestmark = pytest.mark.usefixtures("quick_compilation")
# At a level that the right network meets whatever the random numbers of the installed JAX are.
FITS = {
    "sets": 60,
    "trials": 17,
    "draws": 19,
    "thin": 3,
    "warmup": 30,
    "batch": 30,
    "level": 0.999,
    "likelihood_sets": 60,
    "progress": False,
}


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
    shapes = ("location", "spread", "skewness", "tails")
    tested = [f"likelihood, residual: {shape} of position" for shape in shapes]
    assert right.passed and list(right.table["quantity"]) == ["mu", "log_likelihood", *tested]
    assert repr(right) == "PosteriorCheck(passed; error of the likelihood: none found)"
    # The data say something: posteriors are narrower than the prior, and independent of each other.
    assert right.table["contraction"][0] > 0.2
    wrong = diagnostics.check_posterior(learner, Own(own.net, PRIORS, {"mu": -1.5}), **FITS)
    assert not wrong.passed and not wrong.rows[2]["passed"] and wrong.error.nats_per_trial > 0.01
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
    result = {"truth": np.zeros((3, 1)), "draws": draws, "log_likelihood": np.zeros(3),
              "log_likelihoods": np.arange(57.0).reshape(19, 3), "divergences": np.zeros(3), "steps": 3.0}  # fmt: skip
    check = _rank([result], ["mu"], 3, 0.95, 0)
    assert check.effective["mu"][1] < 1.1 and check.effective["mu"][0] > 5
    assert check.ranks["mu"][1] == 0


@pytest.mark.filterwarnings("ignore:check_posterior:UserWarning")
def test_an_interrupted_check_goes_on_where_it_was(learner, own, finished, tmp_path: Path) -> None:
    class Interrupted(Own):
        def simulate(self, *arguments, **keywords):
            if self.calls == 2:  # the first is compared with later ones
                raise KeyboardInterrupt
            return super().simulate(*arguments, **keywords)

    with pytest.raises(KeyboardInterrupt):
        diagnostics.check_posterior(learner, Interrupted(own.net, PRIORS), out=tmp_path, **FITS)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["batch-0000.npz", "settings.json", "sketch.json"]
    # The first batch stands in the other folder too; the second would be drawn again from the same numbers.
    first, second = (np.load(folder / "batch-0000.npz") for folder in (tmp_path, finished[1]))
    assert sorted(first) == sorted(second)
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])
    never = Own(own.net, PRIORS)
    again = diagnostics.check_posterior(learner, never, out=finished[1], **FITS)
    assert never.calls == 1  # nothing is fitted again
    np.testing.assert_array_equal(again.draws["mu"], finished[0].draws["mu"])
    # Fewer data sets are the first ones.
    fewer = diagnostics.check_posterior(learner, never, out=finished[1], **{**FITS, "sets": 7})
    np.testing.assert_array_equal(fewer.ranks["mu"], finished[0].ranks["mu"][:7])


def test_a_torch_network_is_the_same_network(finished) -> None:
    pytest.importorskip("torch")
    net = telling("torch")
    never = Own(net, PRIORS)
    again = diagnostics.check_posterior(net, never, out=finished[1], **FITS)
    assert never.calls == 1
    np.testing.assert_array_equal(again.draws["mu"], finished[0].draws["mu"])


def test_a_folder_of_another_check_is_refused(learner, own, finished) -> None:
    with pytest.raises(ValueError, match="batches of other thin; take another folder"):
        diagnostics.check_posterior(learner, own, out=finished[1], **{**FITS, "thin": 2})
    corrected = Own(own.net, PRIORS, {"mu": -0.1})
    with pytest.raises(ValueError, match="out: the simulator draws other data .* differ.*; take another folder, or"):
        diagnostics.check_posterior(learner, corrected, out=finished[1], **FITS)
    assert json.loads((finished[1] / "settings.json").read_text())["thin"] == 3


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


def test_chains_begin_where_the_data_are_possible():
    """Three starts: one that is possible, one beyond a bound, and one for which nothing is possible."""
    first = np.array([[0.5, -2.0], [3.0, 1.0], [2.0, 2.0]])
    asked = []

    def possible(white: np.ndarray) -> np.ndarray:
        asked.append(len(white))
        return np.array([True, white[1, 0] < 1.0, False])

    np.testing.assert_array_equal(possible_starts(first, possible)[:2], [[0.5, -2.0], [0.75, 0.25]])
    assert len(asked) < 50 and first[1, 0] == 3.0
