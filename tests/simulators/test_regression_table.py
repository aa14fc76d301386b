"""Random tables against what is said of them: kernels, kept cells, scales, and what can be predicted at all."""

import math

import numpy as np
import pytest
from scipy import stats

from ppl_buffer.simulators import RegressionTable, gaussian_process, random_columns, random_functions
from ppl_buffer.simulators.regression_table import draw_outcome

NAMES = [f"x{index}" for index in range(1, 6)]


def drawn(size, rows, seed):
    """Features (size, rows, 5), flags likewise, and outcomes (size, rows)."""
    simulator, rng = RegressionTable(), np.random.default_rng(seed)
    inputs = simulator.inputs(rng, size, rows)
    y = simulator.simulate(rng, simulator.prior(rng, size), inputs)["y"]
    x, missing = (np.stack([inputs[name + end] for name in NAMES], -1) for end in ("", "_missing"))
    return x, missing, y


def as_inputs(x, missing):
    values = {name: x[..., index] for index, name in enumerate(NAMES)}
    return values | {f"{name}_missing": missing[..., index] for index, name in enumerate(NAMES)}


@pytest.fixture(scope="module")
def tables():
    return drawn(809, 61, seed=1)


def test_tables_have_one_to_five_features_and_half_of_them_gaps(tables):
    x, missing, y = tables
    assert {*np.unique(missing)} == {0, 1} and (x[missing == 1] == 0).all()
    present = (missing == 0).any(1)
    # The last features are those that are absent.
    assert (np.diff(present.astype(int), axis=1) <= 0).all() and present[:, 0].mean() > 0.99
    shares = np.bincount(present.sum(1), minlength=6)[1:] / len(x)
    np.testing.assert_allclose(shares, [0.15, 0.15, 0.2, 0.2, 0.3], atol=4.5 * math.sqrt(0.21 / len(x)))
    gaps = (missing * present[:, None]).any((1, 2))
    # Of the tables that may have gaps, some have none by chance.
    assert 0.3 < gaps.mean() < 0.5
    rate = missing.mean(1)[present & gaps[:, None]]
    assert 0.05 < rate.mean() < 0.3 and rate.max() > 0.5
    assert np.isfinite(y).all() and np.abs(y).max() <= 20 and np.abs(x).max() <= 10


def test_features_are_of_many_kinds(tables):
    x, missing, _ = tables
    whole = x.transpose(0, 2, 1)[(missing == 0).all(1)]
    levels = np.array([len(np.unique(column)) for column in whole])
    assert 0.05 < (levels < 25).mean() < 0.25
    skewness, excess = stats.skew(whole, axis=1), stats.kurtosis(whole, axis=1)
    for shape in (skewness > 1, skewness < -1, excess > 3, excess < -1):
        assert shape.mean() > 0.01
    both = (missing[..., :2] == 0).all((1, 2)) & (np.ptp(x[..., :2], axis=1) > 0).all(1)
    dependence = [abs(stats.spearmanr(table[:, :2])[0]) for table in x[both][:200]]
    assert np.quantile(dependence, 0.2) < 0.2 and np.quantile(dependence, 0.9) > 0.5


@pytest.mark.parametrize("rows", [1, 7, 61])
def test_no_outcome_depends_on_a_cell_that_is_missing(rows):
    x, missing, _ = drawn(17, rows, seed=2)
    simulator = RegressionTable()
    y = [
        simulator.simulate(np.random.default_rng(3), {}, as_inputs(values, missing))["y"]
        for values in (x, np.where(missing == 1, 5.0, x), np.where(missing == 0, np.roll(x, 1, 0), x))
    ]
    np.testing.assert_array_equal(y[0], y[1])
    assert (y[0] != y[2]).mean() > 0.9


def test_seeds():
    state = np.random.get_state()[1].copy()
    (first, _, y), (second, _, same), (other, _, _) = (drawn(11, 5, seed) for seed in (8, 8, 9))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(y, same)
    assert (first[..., 0] != other[..., 0]).mean() > 0.9
    np.testing.assert_array_equal(np.random.get_state()[1], state)


def test_noise_is_what_rows_of_equal_features_differ_by():
    """And no regression predicts better than that, of functions simple enough for one it does as well."""
    pairs, size = 307, 211
    rng = np.random.default_rng(4)
    x = np.repeat(random_columns.draw_columns(rng, size, pairs, 5), 2, axis=1)
    y = draw_outcome(rng, x, np.arange(5) < np.ones((size, 1)))
    noise = ((y[:, ::2] - y[:, 1::2]) ** 2).mean(1) / 2
    ceiling = 1 - noise / y.var(1)
    # A median noise of a quarter of the function's standard deviation, and what is not shown beside it.
    assert 0.8 < np.median(ceiling) < 0.97
    assert np.quantile(ceiling, 0.05) < 0.3 and np.quantile(ceiling, 0.9) > 0.98
    # The mean of a row's neighbours in its only feature; its own pair is in neither half.
    reached = np.empty(size)
    for table in range(size):
        order = rng.permutation(pairs)
        places = np.concatenate([2 * order, 2 * order + 1])
        known, new = (part[np.argsort(x[table, part, 0])] for part in (places[: pairs + 100], places[pairs + 100 :]))
        knots = np.quantile(x[table, known, 0], np.linspace(0, 1, 25))
        bins = [np.searchsorted(knots, x[table, part, 0]) for part in (known, new)]
        means = {one: y[table, known][bins[0] == one].mean() for one in {*bins[0]}}
        predicted = [means.get(one, y[table, known].mean()) for one in bins[1]]
        reached[table] = 1 - ((y[table, new] - predicted) ** 2).mean() / y[table].var()
    assert np.median(reached - ceiling) < 0.02
    assert np.median(reached) > 0.7 * np.median(ceiling)


@pytest.mark.parametrize("present", [(True, False, True, False, False), (False,) * 5])
def test_outcomes_depend_on_features_that_are_there(present):
    rng = np.random.default_rng(5)
    x = random_columns.draw_columns(rng, 13, 53, 5)
    present = np.broadcast_to(present, (13, 5))
    other = np.where(present[:, None], x, x[::-1])
    first, second = (draw_outcome(np.random.default_rng(6), values, present) for values in (x, other))
    np.testing.assert_array_equal(first, second)
    assert (first.std(1) > 0.005).all()


def test_smooth_functions_have_the_kernels_of_gaussian_processes():
    size, distances = 20_011, np.array([0.0, 0.2, 0.7, 2.3])
    x = np.broadcast_to(distances[:, None], (size, 4, 1))
    f = random_functions._smooth(np.random.default_rng(7), x, np.ones((size, 1)))
    products = f * f[:, :1] / (random_functions._FEATURES / 2)
    lengthscale = np.exp(np.linspace(math.log(0.25), math.log(4.0), 2001))
    kernels = gaussian_process._CORRELATIONS.values()
    expected = [np.mean([kernel(r / lengthscale) for kernel in kernels]) for r in distances]
    error = products.std(0) / math.sqrt(size)
    np.testing.assert_array_less(np.abs(products.mean(0) - expected), 4.5 * error)
    assert error.max() < 0.02


def test_steps_are_flat_and_others_are_not():
    rng = np.random.default_rng(8)
    x = rng.standard_normal((7, 101, 3))
    for _, kind in random_functions._KINDS:
        # Of each row a copy that lies beside it.
        f = kind(np.random.default_rng(9), np.concatenate([x, x + 1e-7], 1), np.ones((7, 3)))
        moved = np.abs(f[:, 101:] - f[:, :101])
        assert np.ptp(f, axis=1).min() > 0 and np.median(moved) < 1e-5 * np.ptp(f)
        # But for the rows at which a tree splits.
        assert ((moved == 0).mean() > 0.85) == (kind is random_functions._steps)


def test_functions_of_irrelevant_features_do_not_change():
    rng = np.random.default_rng(10)
    x, relevance = rng.standard_normal((31, 43, 3)), np.array([1.0, 0.0, 0.3])
    other = x * np.array([1, -2, 1])
    first, second = (
        random_functions.draw_function(np.random.default_rng(11), values, np.tile(relevance, (31, 1)))
        for values in (x, other)
    )
    np.testing.assert_allclose(first, second, atol=1e-5)
    np.testing.assert_allclose(first.std(1), 1)


def test_missing_cells_are_filled_from_rows_that_are_alike():
    rng = np.random.default_rng(12)
    x = rng.standard_normal((3, 401, 1)) * [1, 1, 0] + 0.1 * rng.standard_normal((3, 401, 3))
    observed = rng.random(x.shape) < [1.0, 0.7, 0.0]
    filled = random_columns.fill_cells(rng, x, observed)
    np.testing.assert_array_equal(filled[observed], x[observed])
    assert (filled[..., 2] == 0).all()
    gaps = ~observed[..., 1]
    assert np.isin(filled[..., 1][gaps], x[..., 1][~gaps]).all()
    assert np.corrcoef(filled[..., 1][gaps], x[..., 1][gaps])[0, 1] > 0.8


def test_columns_are_on_the_scale_of_some_rows():
    rng = np.random.default_rng(13)
    x, observed = 3 + 2 * rng.standard_normal((5, 37, 2)), rng.random((5, 37, 2)) < 0.8
    rows = random_columns.scale_rows(rng, x[..., 0])
    rows[4] = False  # nothing is known: all rows count
    scaled = random_columns.on_scale_of(x, observed, rows, np.inf)
    for table in range(5):
        for column in range(2):
            seen = observed[table, :, column] & (rows[table] if table < 4 else True)
            known = x[table, seen, column]
            np.testing.assert_allclose(
                scaled[table, :, column],
                np.where(observed[table, :, column], (x[table, :, column] - known.mean()) / known.std(), 0),
            )
    assert np.abs(random_columns.on_scale_of(x, observed, rows, 1.5)).max() <= 1.5 + 1e-12


def test_rows_behind_a_scale_come_first_in_a_quarter_of_the_tables():
    first = np.random.default_rng(14).random((4001, 29))
    rows = random_columns.scale_rows(np.random.default_rng(15), first)
    assert rows.sum(1).min() >= 6 and rows.all(1).any()
    comes_first = np.where(rows, first, 0).max(1) < np.where(rows, 1, first).min(1)
    several = rows.sum(1) < 20
    assert abs(comes_first[several].mean() - 0.25) < 0.08
