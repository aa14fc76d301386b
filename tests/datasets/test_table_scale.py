"""A table on the scale of its known rows, and back."""

import math

import numpy as np
import pytest
from scipy.stats import zscore

from ppl_buffer.datasets import TableScale
from ppl_buffer.simulators import RegressionTable
from tests import networks

RNG = np.random.default_rng(0)
X = RNG.normal(50, 7, (23, 3))
X[4, 1] = X[9, 0] = X[9, 1] = np.nan
Y = RNG.normal(-3, 0.2, 23)


def test_known_rows_are_standardised_and_gaps_flagged():
    context = TableScale.of(X, Y).context(X, Y)
    assert [*context] == [*RegressionTable.schema.inputs, "y"]
    for index in range(3):
        np.testing.assert_allclose(
            context[f"x{index + 1}"], np.nan_to_num(zscore(X[:, index], nan_policy="omit")), atol=1e-12
        )
        np.testing.assert_array_equal(context[f"x{index + 1}_missing"], np.isnan(X[:, index]))
    for index in (4, 5):
        assert (context[f"x{index}"] == 0).all() and (context[f"x{index}_missing"] == 1).all()
    np.testing.assert_allclose(context["y"], zscore(Y))


def test_new_rows_change_nothing():
    scale = TableScale.of(X[:11], Y[:11])
    whole, alone = scale.inputs(X), scale.inputs(X[17:18])
    for name, values in whole.items():
        assert alone[name] == values[17]
    far = scale.inputs(np.array([[1e4, -1e4, np.nan]]))
    assert [far[f"x{index}"][0] for index in (1, 2, 3)] == [10, -10, 0]


def test_a_feature_that_tells_nothing_counts_as_missing():
    x = np.stack([X[:, 2], np.full(23, 0.1), np.full(23, np.nan)], 1)
    inputs = TableScale.of(x, Y).inputs(np.array([[50.0, 0.3, 4.0]]))
    assert [inputs[f"x{index}_missing"][0] for index in range(1, 6)] == [0, 1, 1, 1, 1]
    assert inputs["x2"] == inputs["x3"] == 0 and inputs["x1"] != 0


def test_outcomes_go_back_into_units():
    scale = TableScale.of(X, Y)
    value = RNG.normal(size=(2, 5))
    np.testing.assert_allclose(scale.standardise(scale.in_units(value)), value)
    near = (scale.standardise(1.001) - scale.standardise(1.0)) / 0.001
    assert abs(math.log(near) - scale.log_slope) < 1e-6


def test_a_density_in_units_is_that_of_a_transformed_distribution():
    torch = pytest.importorskip("torch")
    transformed = pytest.importorskip("pyro.distributions").TransformedDistribution
    from ppl_buffer.pyro import JointPredictive

    scale = TableScale.of(X[:7], Y[:7])
    net = networks.network(networks.Case("table", RegressionTable.schema), "torch")
    joint = JointPredictive(net, scale.inputs(X[7:]), context=scale.context(X[:7], Y[:7]))
    in_units = transformed(joint, torch.distributions.AffineTransform(scale.outcome_mean, scale.outcome_std))
    y = torch.as_tensor(Y[7:], dtype=torch.float32)
    expected = joint.log_prob(torch.as_tensor(scale.standardise(Y[7:]), dtype=torch.float32)) + 16 * scale.log_slope
    torch.testing.assert_close(in_units.log_prob(y), expected, rtol=1e-4, atol=1e-3)
    assert in_units.sample((3,)).shape == (3, 16)


def test_data_frames_are_read_by_their_columns():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=["age", "dose", "weight"])
    frame["dose"] = frame["dose"].round().astype("Int64")
    frame["old"] = X[:, 2] > 50
    scale = TableScale.of(frame, pandas.Series(Y))
    assert scale.columns == ("age", "dose", "weight", "old")
    plain = np.column_stack([X[:, 0], np.round(X[:, 1]), X[:, 2:], X[:, 2] > 50])
    for name, values in TableScale.of(plain, Y).inputs(plain).items():
        np.testing.assert_array_equal(scale.inputs(frame)[name], values)
    with pytest.raises(
        ValueError, match=r"features: expected those of the known rows, \['age', 'dose', .*got \['dose'"
    ):
        scale.inputs(frame[["dose", "age", "weight", "old"]])
    with pytest.raises(ValueError, match=r"features: expected numbers in the column 'group', got .*category"):
        TableScale.of(frame.assign(group="a"), Y)


@pytest.mark.parametrize(
    ("features", "outcome", "message"),
    [
        (RNG.normal(size=(4, 6)), np.arange(4), r"features: .* one to 5 features, got shape \(4, 6\)"),
        (RNG.normal(size=4), np.arange(4), r"features: expected \(rows, features\)"),
        (np.full((4, 1), np.inf), np.arange(4), r"features: expected finite numbers, and NaN"),
        ([["a"]], np.arange(1), r"features: expected an array of numbers"),
        (np.ones((4, 1)), np.arange(3), r"outcome: expected a finite number for each of 4 rows, got shape \(3,\)"),
        (np.ones((3, 1)), [0, np.nan, 1], r"outcome: .*got one that is missing; leave such rows out"),
        (np.ones((3, 1)), [2, 2, 2], r"outcome: expected values that differ"),
    ],
)
def test_what_is_no_table_is_refused(features, outcome, message):
    with pytest.raises(ValueError, match=message):
        TableScale.of(features, outcome)


def test_other_columns_are_refused():
    with pytest.raises(ValueError, match=r"features: expected those of the known rows, 3 columns, got \(23, 2\)"):
        TableScale.of(X, Y).inputs(X[:, :2])
