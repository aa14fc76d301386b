"""A set predictor learns a buffer, and predicts the same without one as before."""

import math

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("pyro", reason="densities are asked of a distribution")

import torch
from scipy import stats

import ppl_buffer as pb
from ppl_buffer.network.config import is_of_buffer
from ppl_buffer.pyro import JointPredictive
from ppl_buffer.training.batch_options import BatchOptions
from ppl_buffer.training.batches import make_batch
from tests.training.cases import TINY, ChoiceTime, Shift

WAYS = ("apart", "low_rank", "all")
FEW = {"batch_size": 5, "trials": (3, 7), "context": (2, 11), "held_out": 8, "workers": 0, "progress": False}
# How many points the joint density is about, and how many are known before.
TARGETS, CONTEXT = 7, 3


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return pb.train(Shift(), TINY, steps=3, context_only=1.0, out=tmp_path_factory.mktemp("base"), **FEW)


def test_a_set_predictor_is_trained_without_a_buffer(base):
    options = BatchOptions(trials=(3, 7), context=(0, 11), context_only=1.0)
    for step in range(20):
        batch = make_batch(Shift(), options, 0, step).data
        assert "buffer" not in batch and not batch["visible"].any()
    # The weights that a buffer alone would have moved are where they were.
    fresh = type(base)(base.schema, base.config, base.standardization)
    moved = {name for name in base.weights if not torch.equal(base.weights[name], fresh.weights[name])}
    assert "role.buffer" not in moved and {"role.context", "role.target"} <= moved


@pytest.mark.parametrize("way", WAYS)
def test_what_is_predicted_without_a_buffer_stays_as_it_is(base, way, tmp_path):
    net = pb.add_buffer(base, Shift(), way, rank=2, steps=3, out=tmp_path, **FEW)
    new = {name for name in net.weights if name not in base.weights}
    assert bool(new) == (way != "all") and all(is_of_buffer(name) for name in new)
    kept = {name for name in base.weights if torch.equal(net.weights[name], base.weights[name])}
    rng = np.random.default_rng(0)
    points = torch.tensor(rng.normal(size=(5, TARGETS)), dtype=torch.float32)
    seen = {"y": torch.tensor(rng.normal(size=(5, CONTEXT)), dtype=torch.float32)}
    before, after = (JointPredictive(each, {}, trials=TARGETS, context=seen) for each in (base, net))
    if way == "all":
        assert "layers.0.query.weight" not in kept
        assert not torch.equal(before.marginals(points), after.marginals(points))
    else:
        assert kept == set(base.weights) - {"role.buffer"}
        assert torch.equal(before.marginals(points), after.marginals(points))
    assert not torch.equal(before.log_prob(points), after.log_prob(points))
    assert [stage.options.get("learns", "all") for stage in net.record.stages] == [
        "all", "all" if way == "all" else "buffer"
    ]  # fmt: skip


def test_a_stopped_run_goes_on(base, tmp_path):
    more = {"way": "low_rank", "rank": 2, "evaluate_every": 2, **FEW}
    whole = pb.add_buffer(base, Shift(), steps=4, out=tmp_path / "whole", **more)
    with pytest.warns(UserWarning, match="training stopped"):
        pb.add_buffer(base, Shift(), steps=4, minutes=1e-6, out=tmp_path / "stopped", **more)
    again = pb.add_buffer(base, Shift(), steps=4, out=tmp_path / "stopped", **more)
    assert all(torch.equal(whole.weights[name], again.weights[name]) for name in whole.weights)


def test_what_does_not_fit_is_refused(base, tmp_path):
    with pytest.raises(ValueError, match="way: expected one of"):
        pb.add_buffer(base, Shift(), "some")
    with pytest.raises(ValueError, match="rank: expected an integer of at least 1, got 0"):
        pb.add_buffer(base, Shift(), rank=0)
    with pytest.raises(ValueError, match="context_only: expected less than 1 where the buffer learns"):
        pb.add_buffer(base, Shift(), steps=1, out=tmp_path, context_only=1.0)
    with pytest.raises(ValueError, match="learns: expected 'all' for a network whose buffer has no weights"):
        pb.train(Shift(), TINY, steps=1, out=tmp_path, learns="buffer")
    with pytest.raises(ValueError, match="context_only: expected none for an ordered schema"):
        pb.train(ChoiceTime(), TINY, steps=1, out=tmp_path, context_only=1.0)
    added = type(base)(base.schema, pb.Config(**{**vars(base.config), "buffer_rank": 3}), base.standardization)
    with pytest.raises(ValueError, match="without weights for a buffer of its own, got .* buffer_rank=3"):
        pb.add_buffer(added, Shift())
    ordered = type(base)(ChoiceTime.schema, TINY, {name: (0.0, 1.0) for name in ChoiceTime.schema.standardized})
    with pytest.raises(ValueError, match="expected a network of an exchangeable model"):
        pb.add_buffer(ordered, ChoiceTime())


@pytest.mark.slow
def test_most_of_the_gain_of_joint_prediction_is_learnt(tmp_path):
    """Normal data with an unknown mean: what is independent given the context, and what is joint, are known."""
    simulator, sizes = Shift(), pb.Config(width=24, depth=2, heads=2, mlp=32, components=5, likelihood_width=0)
    options = {"trials": (TARGETS, TARGETS), "context": (1, 7), "held_out": 64, "workers": 0, "progress": False}
    options |= {"optimizer": "muon"}
    base = pb.train(simulator, sizes, steps=800, context_only=1.0, out=tmp_path / "base", **options)
    rng = np.random.default_rng(1)
    mu = rng.normal(0, 2, (2000, 1))
    seen, points = rng.normal(mu, 1, (2000, CONTEXT)), rng.normal(mu, 1, (2000, TARGETS))
    spread = 1 / (0.25 + CONTEXT)
    center = seen.sum(1) * spread
    exact = stats.multivariate_normal(cov=np.eye(TARGETS) + spread).logpdf(points - center[:, None])
    alone = stats.norm(center[:, None], math.sqrt(1 + spread)).logpdf(points).sum(1)
    context, value = {"y": torch.tensor(seen, dtype=torch.float32)}, torch.tensor(points, dtype=torch.float32)
    for way in WAYS:
        net = pb.add_buffer(base, simulator, way, steps=800, out=tmp_path / way, **options)
        joint = JointPredictive(net, {}, trials=TARGETS, context=context).log_prob(value).numpy()
        share = (joint - alone).mean() / (exact - alone).mean()
        print(f"\n{way}: {share:.3f} of the gain")
        assert share > 0.8
