"""The numbers behind the plots, against data whose statistics are known; and that every plot draws them."""

import warnings

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from ppl_buffer import plots  # noqa: E402
from ppl_buffer.datasets.trials import TrialData  # noqa: E402

NAN = np.nan


def test_quantiles_are_numpys_and_leave_out_missing_trials():
    rng = np.random.default_rng(0)
    values = rng.standard_normal((3, 5, 11))
    values[0, 1, 4:] = NAN
    values[2, 3] = NAN
    levels = (0.0, 0.13, 0.5, 1.0)
    result = plots.quantiles(values, levels)
    assert result.shape == (3, 5, 4)
    np.testing.assert_allclose(result[1], np.quantile(values[1], levels, axis=-1).T)
    np.testing.assert_allclose(result[0, 1], np.quantile(values[0, 1, :4], levels))
    assert np.isnan(result[2, 3]).all()


def test_areas_of_a_defective_density_are_the_shares_of_the_choices():
    rt = np.array([[0.15, 0.25, 0.35, 0.45, 5.0], [0.15, 0.15, 0.25, NAN, NAN]])
    choice = np.array([[1, 1, 0, 1, 1], [0, 1, 1, NAN, NAN]])
    edges = np.array([0.1, 0.2, 0.4, 0.8])
    density = plots.defective_density(rt, edges, choice)
    # Eight trials, of which one is later than the last edge.
    np.testing.assert_allclose(density * np.diff(edges), [[1 / 8, 1 / 8, 0], [2 / 8, 2 / 8, 1 / 8]])
    np.testing.assert_allclose(plots.defective_density(rt, edges) * np.diff(edges), [[3 / 8, 3 / 8, 1 / 8]])
    both = plots.defective_density(np.stack([rt, rt + 0.2]), edges, choice)
    assert both.shape == (2, 2, 3)
    np.testing.assert_allclose(both[0], density)


def test_quantile_probability_is_a_mean_over_people():
    rt = np.array([[1.0, 2.0, 3.0, 9.0], [3.0, 4.0, 5.0, NAN]])
    choice = np.array([[1, 1, 1, 0], [1, 1, 1, NAN]])
    shares, times = plots.quantile_probability(rt, choice, levels=(0.5,), least=2)
    np.testing.assert_allclose(shares, [1 / 8, 7 / 8])
    # One slow error is too few to have a quantile.
    assert np.isnan(times[0, 0])
    assert times[1, 0] == (2.0 + 4.0) / 2


def test_conditional_accuracy_sorts_each_persons_trials():
    # Fast responses are wrong, slow ones right, in the person's own time.
    rt = np.array([[4.0, 1.0, 2.0, 3.0, NAN], [40.0, 30.0, 20.0, 10.0, NAN]])
    correct = np.array([[1, 0, 0, 1, NAN], [1, 1, 0, 1, NAN]])
    time, accuracy = plots.conditional_accuracy(rt, correct, bins=2)
    np.testing.assert_allclose(time, [(1.5 + 15) / 2, (3.5 + 35) / 2])
    np.testing.assert_allclose(accuracy, [(0.0 + 0.5) / 2, 1.0])


def test_a_learning_curve_counts_presentations_of_the_cue():
    cue = np.array([[0, 1, 0, 1, 0, 0, 1, 1], [1, 1, 1, 1, 0, 0, 0, 0]])
    correct = np.array([[0, 1, 0, 1, 1, 1, 0, 0], [1, 0, 0, 0, 0, 1, 1, 1]], dtype=float)
    curve = plots.learning_curve(correct, cue, width=2)
    np.testing.assert_allclose(curve, [[(0 + 0 + 0 + 1) / 4, 1.0], [(1 + 1 + 1 + 0) / 4, 0.0]])
    replicated = plots.learning_curve(np.stack([correct, 1 - correct, correct]), cue, width=2)
    assert replicated.shape == (3, 2, 2)
    np.testing.assert_allclose(replicated[1], 1 - curve)
    with pytest.raises(ValueError, match="width"):
        plots.learning_curve(correct, cue, width=9)


def test_repetition_of_an_alternating_person_and_of_a_stubborn_one():
    choice = np.array([[0, 1, 0, 1, 0, 1, 0], [1, 1, 1, 1, 1, NAN, NAN]])
    np.testing.assert_allclose(plots.repetition(choice, 3), [0.5, 1.0, 0.5])
    # Within a cue the first person never changes.
    cue = np.array([[0, 1, 0, 1, 0, 1, 0], [0, 0, 0, 0, 0, NAN, NAN]])
    np.testing.assert_allclose(plots.repetition(choice, 2, cue), [1.0, 1.0])


def test_post_error_slowing_of_known_size():
    rng = np.random.default_rng(1)
    correct = rng.integers(0, 2, (5, 401)).astype(float)
    rt = np.full(correct.shape, 0.6)
    rt[:, 1:] += 0.07 * (correct[:, :-1] == 0)
    result = plots.post_error_slowing(rt, correct, 2)
    np.testing.assert_allclose(result[0], 0.07)
    assert abs(result[1]) < 0.01


def test_autocorrelation_of_an_autoregression():
    rng = np.random.default_rng(2)
    x = np.zeros((3, 20_001))
    for t in range(1, x.shape[1]):
        x[:, t] = 0.7 * x[:, t - 1] + rng.standard_normal(3)
    np.testing.assert_allclose(plots.autocorrelation(x, 3), [0.7, 0.49, 0.343], atol=0.02)


def test_recovery_of_a_conjugate_posterior():
    rng = np.random.default_rng(3)
    # Prior N(0, 1), one observation of variance 1/3: the posterior has variance 1/4.
    truth = rng.standard_normal(4001)
    seen = truth + rng.standard_normal(truth.size) / np.sqrt(3)
    draws = 0.75 * seen + 0.5 * rng.standard_normal((211, truth.size))
    result = plots.recovery(truth, draws)
    assert abs(result.contraction - 0.75) < 0.02
    assert abs(result.coverage - 0.9) < 0.02
    assert abs(result.correlation - np.sqrt(0.75)) < 0.02
    assert abs(result.error - 0.5) < 0.02
    with pytest.raises(ValueError, match="draws"):
        plots.recovery(truth, draws.T)


def test_padding_of_trial_data_is_no_trial():
    data = TrialData(
        subjects=np.array(["a", "b"]),
        trial_counts=np.array([2, 1]),
        inputs={"pair": np.array([[0, 1], [1, 0]])},
        outcomes={"choice": np.array([[1, 0], [1, 0]])},
        feedback={},
        trial_mask=np.array([[True, True], [True, False]]),
    )
    np.testing.assert_array_equal(plots.columns(data)["choice"], [[1, 0], [1, NAN]])


@pytest.fixture(scope="module")
def trials():
    """Data of 5 people, and 7 data sets that a model drew; the last trials of one person do not exist."""
    rng = np.random.default_rng(4)

    def draw(*lead):
        return {
            "choice": rng.integers(0, 2, (*lead, 5, 67)).astype(float),
            "rt": 0.3 + rng.gamma(2.0, 0.2, (*lead, 5, 67)),
        }

    data = {**draw(), "cue": rng.integers(0, 3, (5, 67)).astype(float)}
    for column in data.values():
        column[2, 50:] = NAN
    return data, draw(7)


@pytest.mark.parametrize("generated", [True, False])
def test_plots_show_the_statistics(trials, generated):
    data, replicated = trials
    again = replicated if generated else None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(plots.plot_response_times(data, again, condition="cue")) == 3
        assert len(plots.plot_response_times(data, again, choice=None)) == 1
        panels = plots.plot_learning_curves(data, again, cue="cue")
        accuracy = plots.plot_conditional_accuracy(data, again)
        quantile = plots.plot_quantile_probability(data, again, condition="cue")
        slowing = plots.plot_post_error_slowing(data, again)
        repeated = plots.plot_repetition(data, again, cue="cue")
        correlated = plots.plot_autocorrelation(data, again)
        for panel in (*panels, accuracy, quantile, slowing, repeated, correlated):
            panel.figure.canvas.draw()

    def data_line(panel):
        return next(line for line in panel.lines if line.get_label() == "data")

    np.testing.assert_allclose(data_line(panels[1]).get_ydata(), plots.learning_curve(data["choice"], data["cue"])[1])
    np.testing.assert_allclose(data_line(repeated).get_ydata(), plots.repetition(data["choice"], 8, data["cue"]))
    np.testing.assert_allclose(data_line(correlated).get_ydata(), plots.autocorrelation(np.log(data["rt"])))
    assert len(repeated.collections) == (2 if generated else 0)  # a band each for 50 % and 90 %


def test_ratings_have_a_bin_each():
    ratings = np.array([[1.0, 2.0, 2.0, 5.0], [7.0, 2.0, 1.0, NAN]])
    again = {"rating": ratings[None]}
    (panel,) = plots.plot_response_times({"rating": ratings}, again, rt="rating", choice=None)
    assert [text.get_text() for text in panel.get_legend().get_texts()] == ["model", "data"]
    (steps,) = panel.patches
    np.testing.assert_allclose(steps.get_data().values, np.array([2, 3, 0, 0, 1, 0, 1]) / 7)
    np.testing.assert_allclose(steps.get_data().edges, np.arange(0.5, 8))


def test_the_band_holds_half_of_the_draws():
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    curves = np.arange(101.0)[:, None] * np.ones(4)
    plots.bands(axes, np.arange(4), curves)
    reach = [collection.get_paths()[0].vertices[:, 1] for collection in axes.collections]
    assert (reach[0].min(), reach[0].max()) == (5, 95)
    assert (reach[1].min(), reach[1].max()) == (25, 75)


def test_people_are_sorted_and_truth_is_on_the_axis():
    rng = np.random.default_rng(5)
    draws = np.array([3.0, 1.0, 2.0]) + 0.01 * rng.standard_normal((200, 3))
    panel = plots.plot_subjects(draws, group=draws.mean(1), labels=["c", "a", "b"], name="alpha")
    assert [label.get_text() for label in panel.get_yticklabels()] == ["a", "b", "c"]
    panel = plots.plot_recovery(np.array([3.0, 1.0, 2.0]), draws, name="alpha")
    assert "contraction 1.00" in panel.texts[0].get_text()
    grid = plots.plot_traces({"alpha": draws.T})
    assert len(grid[0, 0].lines) == 3


def test_a_missing_column_and_too_few_axes_are_named(trials):
    with pytest.raises(ValueError, match="'response'"):
        plots.plot_repetition(trials[0], choice="response")
    with pytest.raises(ValueError, match="axes: expected 3"):
        from matplotlib.figure import Figure

        plots.plot_response_times(trials[0], condition="cue", axes=Figure().subplots(1, 2))
