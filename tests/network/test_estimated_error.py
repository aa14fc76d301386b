"""The error that a network's record states: read, written, and that of the part that is nearer to the truth."""

import json

import pytest

import ppl_buffer as pb
from ppl_buffer.network.estimated_error import EstimatedError
from ppl_buffer.network.record import TrainingRecord
from tests.networks import Case, Record, network


def record(**errors):
    return Record(box={}, priors={}, trials=7, context=0, simulator="made", errors=errors)


def both(made):
    """A tiny network of both parts."""
    schema = pb.Schema(params={"alpha": pb.Interval(0, 1)}, outcomes={"choice": pb.Categorical(2)}, ordered=True)
    return network(
        Case("both", schema, config=pb.Config(width=4, depth=1, heads=1, mlp=4, param_depth=1, likelihood_width=4)),
        "jax",
        made,
    )


def test_the_error_of_a_record_is_that_of_the_nearer_part():
    direct = EstimatedError(0.004, 0.003, 0.006, "snapshots")
    buffer = EstimatedError(0.002, 0.001, 0.009, "likelihood", "buffer")
    equal = EstimatedError(0.004, 0.0, 0.1, "continuation", "buffer")
    assert record().estimated_error is None
    assert record(likelihood=direct).estimated_error == direct
    assert record(buffer=buffer).estimated_error == buffer
    assert record(likelihood=direct, buffer=buffer).estimated_error == buffer
    assert record(buffer=equal, likelihood=direct).estimated_error == direct


def test_auto_takes_the_part_that_was_measured_to_be_nearer():
    pytest.importorskip("jax")
    direct, buffer = (
        EstimatedError(nats, 0.0, 1.0, "snapshots", part) for nats, part in ((3e-3, "likelihood"), (2e-3, "buffer"))
    )
    net = both(record())
    assert net.parts == ("likelihood", "buffer") and net.preferred_likelihood == "direct"
    assert both(record(buffer=buffer)).preferred_likelihood == "direct"
    assert both(record(likelihood=direct)).preferred_likelihood == "direct"
    net = both(record(likelihood=direct, buffer=buffer))
    assert net.preferred_likelihood == "buffer" and net.estimated_error == buffer
    # Whoever takes the other part takes its error; that of one part says nothing of the other.
    assert net.preferring("direct").estimated_error == direct and net.preferring("direct").preferring("buffer") is net
    unmeasured = both(record(buffer=buffer))
    assert unmeasured.estimated_error is None and unmeasured.preferring("buffer").estimated_error == buffer


def test_a_network_prints_what_it_is():
    pytest.importorskip("jax")
    shown = repr(both(record(likelihood=EstimatedError(0.00612, 0.0041, 0.0093, "snapshots"))))
    assert "<made: direct likelihood and buffered transformer" in shown and "weights, in jax" in shown
    assert "about 0.0061 (0.0041 to 0.0093) nats a trial, direct likelihood" in shown
    assert "trials     in order, up to 7" in shown and "nobody has measured it" in repr(both(record()))
    assert "<untrained: direct" in repr(both(None))


def test_it_survives_json_and_older_records_have_none():
    made = record(likelihood=EstimatedError(1 / 300, 0.0, 0.5, "probabilities"))
    description = json.loads(json.dumps(made.to_dict()))
    assert Record.from_dict(description) == made
    del description["errors"]
    assert TrainingRecord.from_dict(description).errors == {}


def test_it_says_what_it_is():
    assert str(EstimatedError(0.00612, 0.0041, 0.0093, "snapshots")) == "about 0.0061 (0.0041 to 0.0093) nats a trial"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-0.1, 0.0, 0.1, "snapshots"), "nats_per_trial: expected a number of at least 0, got -0.1"),
        ((0.1, -0.1, 0.1, "snapshots"), "low: expected a number of at least 0, got -0.1"),
        ((0.1, 0.1, 0.05, "snapshots"), "high: expected a number of at least 0.1, got 0.05"),
        ((float("nan"), 0.0, 0.05, "snapshots"), "nats_per_trial: .* got nan"),
        ((0.1, 0.1, 0.1, "luck"), "method: expected one of .*got 'luck'"),
        ((0.1, 0.1, 0.1, "snapshots", "whole"), "part: expected one of .*got 'whole'"),
    ],
)
def test_what_is_no_error_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        EstimatedError(*arguments)
