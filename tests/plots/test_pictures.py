"""What a picture shows is what its words say: intervals, sides, joined points, against numbers from NumPy."""

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from ppl_buffer import plots  # noqa: E402

NAN = np.nan


@pytest.fixture(scope="module")
def trials():
    """Data of 4 people, and 9 data sets that a model drew; 7 trials of one person do not exist."""
    rng = np.random.default_rng(1)

    def draw(*lead):
        return {"choice": (rng.random((*lead, 60)) < 0.7) * 1.0, "rt": 0.3 + rng.gamma(2.0, 0.2, (*lead, 60))}

    data = {**draw(4), "cue": rng.integers(0, 2, (4, 60)).astype(float)}
    for column in data.values():
        column[2, 53:] = NAN
    return data, draw(9, 4)


def data_line(panel):
    return next(line for line in panel.lines if line.get_label() == "data")


def band(panel, index=0):
    """Lowest and highest value of a shaded band: the first is that of 90 %, the second of 50 %."""
    drawn = [collection for collection in panel.collections if len(collection.get_paths())]
    vertices = drawn[index].get_paths()[0].vertices[:, 1]
    return vertices.min(), vertices.max()


def missing_like(data, again):
    """What was generated, without trials that the data lack."""
    return {name: np.where(np.isfinite(data[name]), x, NAN) for name, x in again.items()}


def test_intervals_of_people_are_of_50_and_90_percent():
    rng = np.random.default_rng(0)
    draws, group = rng.gamma(2.0, 1.0, (501, 3)) + [3.0, 1.0, 2.0], rng.gamma(2.0, 1.0, 400)
    panel = plots.plot_subjects(draws, group=group)
    order = np.argsort(np.median(draws, 0))
    span, (wide, narrow) = panel.patches[0], panel.collections
    for lines, levels in ((wide, [5, 95]), (narrow, [25, 75])):
        ends = np.stack([segment[:, 0] for segment in lines.get_segments()])
        np.testing.assert_allclose(ends, np.percentile(draws, levels, axis=0).T[order])
    np.testing.assert_allclose(panel.lines[-1].get_xdata(), np.median(draws, 0)[order])
    np.testing.assert_allclose([span.get_x(), span.get_x() + span.get_width()], np.percentile(group, [5, 95]))
    np.testing.assert_allclose(panel.lines[0].get_xdata(), np.median(group))


def test_recovery_draws_central_intervals_and_says_its_figures():
    rng = np.random.default_rng(2)
    truth = np.array([0.0, 1.0, 2.0])
    draws = truth + rng.gamma(2.0, 0.3, (801, 3))
    panel = plots.plot_recovery(truth, draws)
    (intervals,) = panel.collections
    ends = np.stack([segment[:, 1] for segment in intervals.get_segments()])
    np.testing.assert_allclose(ends, np.percentile(draws, [5, 95], axis=0).T)
    np.testing.assert_allclose(panel.lines[1].get_ydata(), draws.mean(0))
    assert f"{((truth > ends[:, 0]) & (truth < ends[:, 1])).mean():.0%} of 90 %" in panel.texts[0].get_text()


def test_the_first_of_two_choices_hangs_below(trials):
    data, again = trials
    (panel,) = plots.plot_response_times(data, again, bins=20)
    below, above = (patch.get_data().values for patch in panel.patches)
    assert (below <= 0).all() and below.min() < 0 and (above >= 0).all() and above.max() > 0
    # The areas are the shares of choices and trials up to the 99th percentile.
    edges = panel.patches[0].get_data().edges
    shares = [
        ((data["choice"] == kind) & (data["rt"] < edges[-1])).sum() / np.isfinite(data["rt"]).sum() for kind in (0, 1)
    ]
    np.testing.assert_allclose([-(below * np.diff(edges)).sum(), (above * np.diff(edges)).sum()], shares)
    assert edges[-1] == pytest.approx(np.nanpercentile(data["rt"], 99))
    # Bands lie on the side of their choice; each of two choices has one of 90 % and one of 50 %.
    sides = [np.sign(band(panel, index)).sum() for index in range(4)]
    assert sides[0] < 0 and sides[-1] > 0


def test_learning_curves_have_a_band_of_each_cue_at_the_middle_of_each_bin(trials):
    data, again = trials
    panels = plots.plot_learning_curves(data, again, cue="cue", width=5)
    curves = plots.learning_curve(missing_like(data, again)["choice"], data["cue"], 5)
    for index, panel in enumerate(panels):
        np.testing.assert_allclose(data_line(panel).get_xdata(), 2.5 + 5 * np.arange(curves.shape[-1]))
        low, high = np.percentile(curves[:, index], [5, 95], axis=0)
        np.testing.assert_allclose(band(panel), (low.min(), high.max()))


def test_a_cue_is_seen_as_often_as_by_the_median_person():
    # Three people see the cue 4, 4 and 12 times: bins of 2 are there for two of them, not for the one alone.
    cue = np.array([[0] * 4 + [1] * 8, [0] * 4 + [1] * 8, [0] * 12])
    correct = np.ones(cue.shape)
    assert plots.learning_curve(correct, cue, 2).shape == (2, 2)


def test_other_plots_draw_the_statistics_of_what_was_generated(trials):
    data, again = trials
    kept = missing_like(data, again)
    slowing = plots.plot_post_error_slowing(data, again, lags=3)
    expected = np.percentile(plots.post_error_slowing(kept["rt"], kept["choice"], 3), [5, 95], axis=0)
    np.testing.assert_allclose(band(slowing), (expected[0].min(), expected[1].max()))
    accuracy = plots.plot_conditional_accuracy(data, again, bins=4)
    time, share = plots.conditional_accuracy(kept["rt"], kept["choice"], 4)
    expected = np.percentile(share, [5, 95], axis=0)
    np.testing.assert_allclose(band(accuracy), (expected[0].min(), expected[1].max()))
    places = accuracy.collections[0].get_paths()[0].vertices[:, 0]
    np.testing.assert_allclose([places.min(), places.max()], np.median(time, 0)[[0, -1]])


def test_quantiles_are_drawn_at_the_share_of_their_response(trials):
    data, again = trials
    levels = (0.1, 0.5)
    panel = plots.plot_quantile_probability(data, again, condition="cue", levels=levels)
    points = [plots.quantile_probability(np.where(data["cue"] == cue, data["rt"], NAN), data["choice"], 2, levels)
              for cue in (0, 1)]  # fmt: skip
    shares, times = np.concatenate([x for x, _ in points]), np.concatenate([y for _, y in points])
    # Circles are the first choice of each condition, squares the second.
    for choice, marker in enumerate("os"):
        lines = [line for line in panel.lines if line.get_marker() == marker and len(line.get_xdata())]
        assert len(lines) == len(levels)
        for level, line in enumerate(lines):
            np.testing.assert_allclose(line.get_xdata(), shares[choice::2])
            np.testing.assert_allclose(line.get_ydata(), times[choice::2, level])
    clouds = [collection.get_offsets() for collection in panel.collections if len(collection.get_offsets())]
    kept = missing_like(data, again)
    for level, cloud in enumerate(clouds):
        first = plots.quantile_probability(np.where(data["cue"] == 0, kept["rt"], NAN), kept["choice"], 2, levels)
        np.testing.assert_allclose(cloud[:2, 0], first[0][0])
        np.testing.assert_allclose(cloud[:2, 1], first[1][0, :, level])


def test_chains_have_histograms_of_their_own():
    chains = np.stack([np.linspace(0, 1, 50), np.linspace(0.5, 1, 50)])
    grid = plots.plot_traces({"mu": chains})
    outlines = [patch.get_xy() for patch in grid[0, 1].patches]
    assert len(outlines) == 2 and not np.allclose(outlines[0], outlines[1])
    filled = [xy[xy[:, 1] > 0, 0].min() for xy in outlines]
    assert filled[0] == pytest.approx(0) and filled[1] == pytest.approx(0.5, abs=0.04)


def test_edges_of_bins_and_the_least_number_of_responses_belong():
    edges = np.array([0.0, 1.0, 2.0])
    np.testing.assert_array_equal(plots.defective_density(np.array([[0.0, 1.0, 1.0, 2.0]]), edges), [[0.25, 0.5]])
    rt, choice = np.array([[1.0, 2.0, 3.0, 4.0]]), np.array([[1, 1, 0, 0]])
    _, times = plots.quantile_probability(rt, choice, levels=(0.5,), least=2)
    np.testing.assert_array_equal(times[:, 0], [3.5, 1.5])
    _, times = plots.quantile_probability(rt, choice, levels=(0.5,), least=3)
    assert np.isnan(times).all()


def test_autocorrelation_divides_by_the_variance_of_all_trials():
    value = np.array([[1.0, 2.0, 4.0, 1.0]])
    centered = value[0] - 2.0
    expected = (centered[1:] * centered[:-1]).mean() / (centered**2).mean()
    np.testing.assert_allclose(plots.autocorrelation(value, 1), [expected])


def test_names_of_people_are_no_formulas_and_leave_room_for_the_picture(tmp_path):
    pytest.importorskip("matplotlib")
    draws = np.random.default_rng(0).normal(size=(50, 3))
    panel = plots.plot_subjects(draws, labels=["$\\foo$", "b" * 300, "c"], name="alpha")
    # A warning is an error here: none of a layout without room.
    panel.figure.savefig(tmp_path / "people.png")
    assert {label.get_text() for label in panel.get_yticklabels()} == {"$\\foo$", "b" * 19 + "…", "c"}


def test_pairs_show_draws_below_and_correlations_above():
    rng = np.random.default_rng(5)
    one = rng.normal(size=(2, 101))
    grid = plots.plot_pairs({"mu": one, "nu": one + 0.5 * rng.normal(size=(2, 101)), "flat": np.ones((2, 101))})
    assert grid.shape == (3, 3)
    np.testing.assert_allclose(np.sort(grid[1, 0].lines[0].get_xdata()), np.sort(one.ravel()))
    (text,) = grid[0, 1].texts
    nu = grid[1, 0].lines[0].get_ydata()
    assert float(text.get_text()) == pytest.approx(np.corrcoef(one.ravel(), nu)[0, 1], abs=0.006)
    assert grid[0, 2].texts[0].get_text() == "–"
    with pytest.raises(ValueError, match="draws: expected a dict of two or more"):
        plots.plot_pairs({"mu": one})
    with pytest.raises(ValueError, match="draws: expected one shape"):
        plots.plot_pairs({"mu": one, "nu": one[:, :7]})
