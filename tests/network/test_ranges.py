"""What a network has seen of each variable."""

import json

import numpy as np
import pytest

import ppl_buffer as pb
from ppl_buffer.network import checkpoint
from ppl_buffer.network.ranges import ValueRange, ranges_of
from ppl_buffer.network.record import TrainingRecord


def shipped(name):
    """The record of a shipped network."""
    description, _ = checkpoint.read_description(checkpoint.shipped()[name])
    return TrainingRecord.from_dict(description["record"])


def test_a_range_is_that_of_the_values():
    rng = np.random.default_rng(0)
    values = rng.exponential(size=(40, 50)) * np.linspace(1, 2, 40)[:, None]
    made = ValueRange.of(pb.Positive(), values)
    flat = np.sort(values.ravel())
    assert (made.low, made.high) == (flat[0], flat[-1]) and made.values == ()
    # 999.5 places from the lowest to the middle of 2000.
    assert dict(made.quantiles)[0.5] == pytest.approx((flat[999] + flat[1000]) / 2)
    assert made.medians == pytest.approx((np.median(values, 1).min(), np.median(values, 1).max()))
    straight = np.linspace(0, 1, 11) * np.array([[10.0], [40.0]])
    assert ValueRange.of(pb.Real(), straight).spreads == pytest.approx((8, 32))
    # Data sets may be of different lengths.
    assert ValueRange.of(pb.Positive(), [*values[:7], values[7:].ravel()[:91]]).low >= flat[0]


def test_few_values_and_categories_are_counted():
    codes = ValueRange.of(pb.Categorical(3), np.array([[0, 0, 1], [0, 1, 1]]))
    assert codes.values == (0, 1, 2) and codes.shares == (0.5, 0.5, 0) and codes.medians is None
    rewards = ValueRange.of(pb.Real(), np.array([[-1.0, 0.5, 0.5, 0.5]]))
    assert rewards.values == (-1, 0.5) and rewards.shares == (0.25, 0.75)


def test_ranges_survive_json_and_older_records_have_none():
    made = ranges_of(pb.Schema(outcomes={"y": pb.Real(), "c": pb.Categorical(2)}),
                     {"y": np.random.default_rng(0).normal(size=(5, 7)), "c": np.eye(2)})  # fmt: skip
    record = TrainingRecord({}, {}, 7, 0, "made", ranges=made)
    description = json.loads(json.dumps(record.to_dict()))
    assert TrainingRecord.from_dict(description) == record
    del description["ranges"]
    assert TrainingRecord.from_dict(description).ranges == {}


@pytest.mark.parametrize("name", sorted(checkpoint.shipped()))
def test_shipped_files_know_the_range_of_every_variable(name):
    description, _ = checkpoint.read_description(checkpoint.shipped()[name])
    schema, ranges = pb.Schema.from_dict(description["schema"]), shipped(name).ranges
    assert list(ranges) == [*schema.inputs, *schema.outcomes, *schema.feedback]
    assert all(x.low < x.high for x in ranges.values())


def test_shipped_ranges_are_those_of_the_tasks():
    # As the descriptions of the simulators say: rewards 0 or -1 and 1, x uniform in (-2, 2), flashes within 20 degrees.
    assert shipped("noisy_q").ranges["reward"].values == (-1, 0, 1)
    assert shipped("rlddm").ranges["reward"].values == (0, 1)
    np.testing.assert_allclose(shipped("rlddm").ranges["pair"].shares, 1 / 3, atol=0.01)
    x = shipped("gp").ranges["x"]
    np.testing.assert_allclose([value for _, value in x.quantiles], [4 * p - 2 for p, _ in x.quantiles], atol=0.03)
    places = shipped("multisensory_rho1").ranges
    assert places["s_V"].low == pytest.approx(-20, abs=0.1) and places["s_V"].high == pytest.approx(20, abs=0.1)
    assert 0.5 < dict(shipped("ddm").ranges["rt"].quantiles)[0.05] + 0.2 < 0.7
