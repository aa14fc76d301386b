"""The loss, against one trial at a time."""

import math
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch")

import torch

import ppl_buffer as pb
from ppl_buffer.network import heads
from ppl_buffer.network.torch.cache import Cache
from ppl_buffer.network.torch.network import encode, encode_params, extend, predict, prepare
from ppl_buffer.network.torch.weights import TorchNetwork
from ppl_buffer.simulators import TwoStep
from ppl_buffer.training import standardization
from ppl_buffer.training.batch_options import BatchOptions
from ppl_buffer.training.batches import make_batch, map_arrays
from ppl_buffer.training.loss import Loss
from tests.training.cases import (
    TINY,
    ChoiceTime,
    Shift,
    loss_of,
    network,
    tensors,
)


def rows(group, where):
    return {kind: {name: x[..., where] for name, x in values.items()} for kind, values in group.items()}


def test_ordered_loss_is_that_of_one_trial_at_a_time():
    class Plain(ChoiceTime):
        simulate_with_probabilities = None

    simulator = Plain()
    net = network(simulator)
    batch = make_batch(simulator, BatchOptions(batch_size=5, trials=(4, 4)), 0, 0)
    data = tensors(batch)
    terms = []
    with torch.no_grad():
        for b in range(len(batch.data["conditioned"])):
            for conditioned in batch.data["conditioned"][b]:
                # Only what is conditioned on is given at all.
                params = {
                    name: data["params"][name][b].reshape(1, 1)
                    for name, known in zip(simulator.schema.params, conditioned, strict=True)
                    if known
                }
                one = {kind: {name: x[b : b + 1] for name, x in v.items()} for kind, v in data["buffer"].items()}
                for k in range(4):
                    cache = Cache()
                    if k:
                        cache = extend(net, cache, rows(one, slice(k)), torch.ones(1, 1, k, dtype=torch.bool))
                    target = rows(one, slice(k, k + 1))
                    prepared = prepare(net, cache, target["inputs"], torch.tensor([k]), (1, 1, 1))
                    representation = predict(net, prepared, encode_params(net, params))
                    terms.append(-heads.trial_log_prob(net, representation, target["outcomes"]).item())
        assert loss_of(net, data) == pytest.approx(np.mean(terms), rel=1e-5)


def test_exchangeable_loss_is_that_of_one_target_at_a_time():
    simulator = Shift()
    net = network(simulator)
    settings = BatchOptions(batch_size=5, trials=(3, 3), context=(2, 2))
    data = tensors(make_batch(simulator, settings, 0, 1))
    terms = []
    with torch.no_grad():
        for b, sets in enumerate(data["conditioned"]):
            one = {
                part: {kind: {name: x[b : b + 1] for name, x in v.items()} for kind, v in data[part].items()}
                for part in ("context", "buffer", "targets")
            }
            for r, conditioned in enumerate(sets):
                params = {"mu": data["params"]["mu"][b].reshape(1, 1)} if conditioned[0] else {}
                for m in range(3):
                    k = int(data["visible"][b, r, m])
                    cache = encode(net, one["context"], torch.ones(1, 1, 2, dtype=torch.bool))
                    if k:
                        cache = extend(net, cache, rows(one["buffer"], slice(k)), torch.ones(1, 1, k, dtype=torch.bool))
                    prepared = prepare(net, cache, {}, torch.tensor([k]), (1, 1, 1))
                    representation = predict(net, prepared, encode_params(net, params))
                    y = rows(one["targets"], slice(m, m + 1))["outcomes"]
                    terms.append(-heads.trial_log_prob(net, representation, y).item())
        assert loss_of(net, data) == pytest.approx(np.mean(terms), rel=1e-5)


def test_certain_probabilities_are_the_drawn_category():
    simulator = ChoiceTime()
    net = network(simulator)
    data = tensors(make_batch(simulator, BatchOptions(batch_size=5, trials=(4, 4)), 0, 0))
    soft = loss_of(net, data)
    choice = data["targets"]["outcomes"]["choice"].long()
    data["probabilities"] = {"choice": torch.nn.functional.one_hot(choice, 2).float()}
    certain = loss_of(net, data)
    del data["probabilities"]
    assert certain == pytest.approx(loss_of(net, data), rel=1e-6)
    assert abs(soft - certain) > 1e-4


@pytest.mark.parametrize("samples", [1, 3])
def test_probabilities_of_later_outcomes_are_those_after_what_was_drawn(samples):
    simulator = TwoStep()
    options = BatchOptions(batch_size=3, trials=(4, 4), outcome_samples=samples)
    net = TorchNetwork(
        simulator.schema, TINY, {"reward": (0.5, 0.5)} | dict.fromkeys(simulator.schema.params, (0.0, 1.0))
    )
    data = tensors(make_batch(simulator, options, 0, 0))
    soft, outcomes = loss_of(net, data), data["targets"]["outcomes"]
    assert set(data["probabilities"]) == set(outcomes)
    later = {"choice_2": data["probabilities"]["choice_2"]}
    certain = torch.nn.functional.one_hot(outcomes["choice_2"].long(), 2).float()
    drawn = loss_of(net, {name: x for name, x in data.items() if name != "probabilities"})
    assert loss_of(net, {**data, "probabilities": {"choice_2": certain}}) == pytest.approx(drawn, rel=1e-6)
    assert abs(loss_of(net, {**data, "probabilities": later}) - drawn) > 1e-4
    assert abs(soft - drawn) > 1e-4


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("part", ["buffer", "likelihood"])
def test_lapses_that_the_schema_states_are_part_of_what_is_learnt(samples, part):
    rate, (low, high) = 0.3, (-7.0, 9.0)

    class Lapsing(Shift):
        def __init__(self, lapse_rate):
            outcomes = {"y": pb.Real(lapse_range=(low, high))}
            self.schema = replace(Shift.schema, outcomes=outcomes, lapse_rate=lapse_rate)

    options = BatchOptions(batch_size=7, trials=(5, 5), outcome_samples=samples)
    data = tensors(make_batch(Lapsing(rate), options, 0, 0))
    config = replace(TINY, likelihood_width=11)
    log_probs = {}
    for each in (rate, 0.0):
        net = TorchNetwork(Lapsing(each).schema, config, {"mu": (0.0, 2.0), "y": (0.0, 2.2)}, seed=3)
        loss = Loss(net, part=part)
        with torch.no_grad():
            log_probs[each] = loss._log_prob(data, loss._read(data))
            log_probs["loss", each] = float(loss(data))
    mixed = (1 - rate) * log_probs[0.0].exp() + rate / (high - low)
    torch.testing.assert_close(log_probs[rate], mixed.log(), rtol=1e-5, atol=1e-5)
    assert log_probs["loss", rate] == pytest.approx(-float(mixed.log().mean()), rel=1e-5)
    assert abs(log_probs["loss", rate] - log_probs["loss", 0.0]) > 0.01


def test_likelihood_weight_weighs_the_mask_that_holds_all():
    simulator = ChoiceTime()
    settings = BatchOptions(batch_size=5, trials=(5, 7), condition_masks=3)
    data = tensors(make_batch(simulator, settings, 1, 0))
    net = TorchNetwork(simulator.schema, TINY, standardization.standardize(simulator, settings)[0], seed=1)
    parts = [loss_of(net, {**data, "conditioned": data["conditioned"][:, index : index + 1]}) for index in range(3)]
    assert loss_of(net, data) == pytest.approx(np.mean(parts), rel=1e-6)
    with torch.no_grad():
        weighted = float(Loss(net, 0.9)(data))
        alone = float(Loss(net, 0.9)({**data, "conditioned": data["conditioned"][:, :1]}))
    assert weighted == pytest.approx(0.9 * parts[0] + 0.05 * (parts[1] + parts[2]), rel=1e-6)
    assert alone == pytest.approx(parts[0], rel=1e-6)


def test_loss_given_all_parameters_is_the_error_of_the_known_likelihood():
    scales = {"a": (0.1, 1.1), "b": (0.0, 1.0), "rt": (0.2, 0.7), "rt - b": (0.1, 0.8), "reward": (0.1, 0.9)}
    net = TorchNetwork(ChoiceTime.schema, TINY, scales, seed=2)
    data = tensors(make_batch(ChoiceTime(), BatchOptions(batch_size=7, trials=(5, 5), condition_masks=3), 1, 0))
    with torch.no_grad():
        likelihood_alone = {**data, "conditioned": data["conditioned"][:, :1]}
        likelihood_alone.pop("probabilities")
        rows = []
        for row in range(len(data["conditioned"])):
            one = map_arrays(lambda x, row=row: x[row : row + 1], likelihood_alone)
            # The mean of the first n trials gives the conditionals.
            totals = [0.0]
            for count in range(1, 6):
                shorter = {**one, **{group: map_arrays(lambda x, n=count: x[..., :n], one[group]) for group in
                                     ("buffer", "targets")}}  # fmt: skip
                totals.append(-count * float(Loss(net)(shorter)))
            rows.append(np.diff(totals))
        own = np.array(rows)
        shift = np.array([0.3, -0.1, 0.2, 0.05, -0.7])
        truth = torch.as_tensor((own - shift).astype(np.float32))[:, None]
        known = {**data, "conditioned_log_likelihood": truth}
        weighted = float(Loss(net, 0.9)(known))
        hidden = float(Loss(net, 0.0)(data))
        without_error = float(Loss(net, 0.0)(known))
        truth = truth.clone()
        truth[:, :, 2:] = -math.inf
        partly = float(Loss(net, 1.0)({**data, "conditioned_log_likelihood": truth}))
        mean_of_all = float(Loss(net)(known))

    def huber(x):
        return np.where(np.abs(x) < 0.5, 0.5 * x**2, 0.5 * (np.abs(x) - 0.25))

    def expected(error):
        return (huber(error) + huber(error.cumsum() / np.sqrt(np.arange(1, 6)))).mean()

    assert without_error == pytest.approx(hidden, rel=1e-5)
    assert weighted == pytest.approx(0.9 * expected(shift) + 0.1 * hidden, rel=1e-4)
    assert mean_of_all == pytest.approx((expected(shift) + 2 * hidden) / 3, rel=1e-4)
    # What has no density teaches nothing.
    assert partly == pytest.approx(expected(np.where(np.arange(5) < 2, shift, 0.0)), rel=1e-4)
