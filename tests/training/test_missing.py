"""Training of a direct likelihood that follows lost outcomes: what is lost, what is learnt, and that it is right."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch")

import torch

import ppl_buffer as pb
from ppl_buffer.network import heads
from ppl_buffer.network.likelihood import encode_conditions, prepare_sequence, read_sequence
from ppl_buffer.network.torch.weights import TorchNetwork
from ppl_buffer.predictive import density
from ppl_buffer.predictive.query import Query
from ppl_buffer.training.batch_options import BatchOptions
from ppl_buffer.training.batches import HELD_OUT, TRAINING
from ppl_buffer.training.likelihood_batches import make_likelihood_batches
from ppl_buffer.training.loop import train
from ppl_buffer.training.loss import Loss
from ppl_buffer.training.missing import draw_lost
from tests.training.cases import SMALL, TINY, ChoiceTime, Shift, same_batches, tensors

FLAGGED = pb.Config(depth=0, likelihood_width=8, components=5, likelihood_missing=True)


class Told(ChoiceTime):
    """Says how likely its outcomes are; the numbers are anybody's, but are not its draws'."""

    in_process = True

    def log_likelihood(self, params, data):
        return -1.0 - 0.1 * data["choice"] - 0.2 * data["rt"]


class ToldOfSeen(Told):
    """Says how likely its outcomes are given what was seen of the past, too: the numbers are anybody's again."""

    def seen_log_likelihood(self, rng, params, data, lost):
        return -2.0 - 0.1 * data["choice"] - 0.3 * lost["rt"]


class Chain:
    """A choice that is the last one again with probability `STAY`, and nothing else."""

    schema = pb.Schema(outcomes={"choice": pb.Categorical(2)}, ordered=True)
    STAY = 0.9
    in_process = True

    def prior(self, rng, size):
        return {}

    def inputs(self, rng, size, trials):
        return {}

    def simulate_with_probabilities(self, rng, params, inputs, size, trials):
        same = rng.random((size, trials)) < self.STAY
        same[:, 0] = rng.random(size) < 0.5
        choice = (~same).cumsum(1) % 2
        last = np.concatenate([np.zeros((size, 1), int), choice[:, :-1]], 1)
        one = np.where(last == 1, self.STAY, 1 - self.STAY)
        one[:, 0] = 0.5
        return {"choice": choice}, {"choice": np.stack([1 - one, one], -1)}

    def simulate(self, rng, params, inputs, size, trials):
        return self.simulate_with_probabilities(rng, params, inputs, size, trials)[0]


def batches(simulator=None, share=0.5, stream=TRAINING, **options):
    options = BatchOptions(batch_size=9, trials=(5, 13), missing_fraction=share, **options)
    return make_likelihood_batches(simulator or ChoiceTime(), options, 3, 2, stream, count=4)


def test_what_is_lost_is_a_group_beside_the_same_data():
    for with_gaps, whole in zip(batches(), batches(share=0.0), strict=True):
        lost = with_gaps.data["buffer"].pop("lost")
        assert list(lost) == ["choice", "rt", "reward"]
        assert {x.shape for x in lost.values()} == {whole.data["buffer"]["outcomes"]["choice"].shape}
        same_batches(with_gaps.data, whole.data)
    # The held-out loss stays what it is.
    same_batches(batches(stream=HELD_OUT)[0].data, batches(share=0.0, stream=HELD_OUT)[0].data)


def test_shares_and_rates_of_what_is_lost():
    lost = draw_lost(np.random.default_rng(1), ChoiceTime.schema, 0.3, 4000, 101)
    some, whole = (combine(list(lost.values()), axis=0) for combine in (np.any, np.all))
    rates = some.mean(1)
    assert abs((rates > 0).mean() - 0.3 * 0.95) < 0.03
    # Log-uniform from 2 to 100 %, of which seven in eight that are not lost as a whole lose one variable at least.
    kept = rates[rates > 0]
    assert 0.1 < np.median(kept) < 0.2 and kept.max() > 0.85
    assert abs(whole.sum() / some.sum() - (0.5 + 0.5 / 8) / (0.5 + 0.5 * 7 / 8)) < 0.01
    for name in lost:
        assert abs((lost[name] & ~whole).sum() / (some & ~whole).sum() - 3 / 6) < 0.09


def loss_and_parts(simulator):
    """The loss of a batch that lost much, log densities of its trials, its data, and what was lost: (size, trials)."""
    data = tensors(batches(simulator, share=1.0, use_log_likelihood=True)[0])
    net = TorchNetwork(simulator.schema, FLAGGED, dict.fromkeys(simulator.schema.standardized, (0.3, 1.7)), seed=2)
    buffer, outcomes = data["buffer"], data["targets"]["outcomes"]
    exists = torch.ones_like(buffer["lost"]["choice"])
    conditions = encode_conditions(net, {name: x[:, None] for name, x in data["params"].items()})
    representation = read_sequence(net, prepare_sequence(net, buffer, exists), conditions)
    log_prob = heads.trial_log_prob(net.likelihood, representation, outcomes)
    log_prob = log_prob.detach().numpy().astype(float)[:, 0]
    loss = float(Loss(net, None, "likelihood")(data).detach())
    return loss, log_prob, *({name: x.numpy()[:, 0] for name, x in each.items()} for each in (outcomes, buffer["lost"]))


def huber(error):
    error = np.abs(error)
    return np.where(error < 0.5, error**2, error - 0.25)


def test_after_a_loss_it_learns_from_draws_and_before_it_from_the_log_likelihood():
    loss, log_prob, outcomes, lost = loss_and_parts(Told())
    some = np.any(list(lost.values()), 0)
    error = huber(log_prob + 1 + 0.1 * outcomes["choice"] + 0.2 * outcomes["rt"])
    follows = (np.cumsum(some, 1) - some) > 0
    assert 0.1 < follows.mean() < 0.9
    assert loss == pytest.approx(np.where(follows, -log_prob, error).mean(), rel=1e-5)


def test_after_a_loss_it_learns_from_the_log_likelihood_given_what_was_seen_where_that_is_known():
    loss, log_prob, outcomes, lost = loss_and_parts(ToldOfSeen())
    assert 0.1 < lost["rt"].mean() < 0.9
    assert loss == pytest.approx(huber(log_prob + 2 + 0.1 * outcomes["choice"] + 0.3 * lost["rt"]).mean(), rel=1e-5)


def test_a_network_says_what_it_was_trained_with_and_files_keep_it(tmp_path):
    net = train(ChoiceTime(), FLAGGED, steps=3, missing_fraction=0.7, out=tmp_path, **SMALL)
    assert net.record.stages[-1].options["missing_fraction"] == 0.7
    assert (
        net.config.likelihood_missing and net.weights["likelihood.trial.pair.weight"].shape[1] == 3 + 2 + 1 + 1 + 6 + 3
    )
    pb.save(net, tmp_path / "mine.safetensors")
    again = pb.load(tmp_path / "mine.safetensors", backend="torch")
    assert again.digest == net.digest and again.config == net.config
    plain = train(ChoiceTime(), replace(FLAGGED, likelihood_missing=False), steps=3, out=tmp_path / "plain", **SMALL)
    assert "missing_fraction" not in plain.record.stages[-1].options
    assert "likelihood_missing" not in plain.config.to_dict()


@pytest.mark.slow
def test_of_two_parts_the_direct_likelihood_alone_learns_it(tmp_path):
    both = replace(TINY, likelihood_width=8, likelihood_missing=True)
    net = train(ChoiceTime(), both, steps=2, out=tmp_path / "both", **SMALL)
    assert net.config == both
    stages = {stage.part: stage.options for stage in net.record.stages}
    assert stages["likelihood"]["missing_fraction"] == 0.5 and "missing_fraction" not in stages["buffer"]


@pytest.mark.slow
def test_a_network_that_reads_nothing_missing_can_learn_to(tmp_path):
    plain = train(ChoiceTime(), replace(FLAGGED, likelihood_missing=False), steps=3, out=tmp_path / "plain", **SMALL)
    settings = {"learning_rate": 1e-12, "weight_decay": 0.0, "start": plain, **SMALL}
    grown = train(ChoiceTime(), FLAGGED, steps=1, out=tmp_path / "grown", **settings)
    batch = tensors(batches(share=0.0)[0])
    losses = [float(Loss(net, None, "likelihood")(batch)) for net in (plain, grown)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    # With finer scales as well: the flags stay behind everything else.
    more = train(ChoiceTime(), replace(FLAGGED, asinh_scales=1), steps=1, out=tmp_path / "more", **settings)
    assert float(Loss(more, None, "likelihood")(batch)) == pytest.approx(losses[0], abs=1e-6)
    settings |= {"start": more}
    finer = train(ChoiceTime(), replace(FLAGGED, asinh_scales=2), steps=1, out=tmp_path / "finer", **settings)
    with_gaps = tensors(batches()[0])
    losses = [float(Loss(net, None, "likelihood")(with_gaps)) for net in (more, finer)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    with pytest.raises(ValueError, match="config: expected none, or that of start"):
        train(ChoiceTime(), replace(FLAGGED, likelihood_missing=False), steps=1, out=tmp_path / "no", **settings)


@pytest.mark.parametrize(
    ("simulator", "config", "share", "message"),
    [
        (ChoiceTime(), FLAGGED, 0.0, "missing_fraction: expected a share above 0"),
        (ChoiceTime(), FLAGGED, 1.1, "missing_fraction: expected a share above 0"),
        (
            ChoiceTime(),
            replace(FLAGGED, likelihood_missing=False),
            0.5,
            "missing_fraction: expected None for a network",
        ),
        (Shift(), FLAGGED, 0.5, "missing_fraction: expected None for a network"),
    ],
)
def test_what_cannot_be_trained_is_refused(simulator, config, share, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        train(simulator, config, steps=1, missing_fraction=share, out=tmp_path, **SMALL)
    with pytest.raises(ValueError, match="likelihood_missing"):
        pb.Config(likelihood_missing=1)


def worst_of_chain(net):
    """Greatest error of a probability that a network gives a choice of a chain with gaps.

    After n lost trials the last choice that was seen comes again with (1 + (2 stay - 1)^(n + 1)) / 2.
    """
    value = np.array(
        [[0, 1, 1, 1, 1, 1, 1], [1, np.nan, 1, np.nan, np.nan, 1, 1], [0, 0, np.nan, np.nan, np.nan, 0, 0]]
    )
    query = Query.build(net, {}, trials=7, missing=pb.Missing())
    found = density.one_step_probabilities(query, torch.tensor(value, dtype=torch.float32))[..., 1].numpy()

    def after(lost):
        return (1 + 0.8 ** (lost + 1)) / 2

    right = np.array([
        [0.5, 1 - after(0), *[after(0)] * 5],
        [0.5, after(0), after(1), after(0), after(1), after(2), after(0)],
        [0.5, *[1 - after(lost) for lost in (0, 0, 1, 2, 3, 0)]],
    ])  # fmt: skip
    return np.abs(found - right).max()


CHAIN = {**SMALL, "batch_size": 32, "trials": (5, 8), "evaluate_every": 100}


def test_it_learns_the_probability_given_what_was_seen(tmp_path):
    net = train(Chain(), replace(FLAGGED, likelihood_width=12), steps=400, out=tmp_path, **CHAIN)
    assert worst_of_chain(net) < 0.05


def test_weights_are_judged_by_data_with_gaps_where_these_are_learnt(tmp_path):
    """Of complete data alone the start, which knows these and no others, would be the best that the training saw."""
    wide = replace(FLAGGED, likelihood_width=12)
    plain = train(Chain(), replace(wide, likelihood_missing=False), steps=300, out=tmp_path / "plain", **CHAIN)
    settings = {**CHAIN, "evaluate_every": 50, "learning_rate": 4e-3}
    net = train(Chain(), wide, start=plain, steps=250, out=tmp_path / "gaps", **settings)
    held_out = np.genfromtxt(tmp_path / "gaps" / "likelihood" / "log.csv", delimiter=",", names=True)["held_out"]
    assert np.nanargmin(held_out) == 0
    assert net.record.stages[-1].step > 0 and worst_of_chain(net) < 0.1
