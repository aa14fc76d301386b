"""An ordered outcome of a simulator: drawn and checked as whole numbers, learned, read from tables."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

pytest.importorskip("torch", reason="training needs torch")

import torch

import ppl_buffer as pb
from ppl_buffer.datasets import read_trials
from ppl_buffer.diagnostics.residual import find_residuals
from ppl_buffer.network.unfamiliar import find_unfamiliar
from ppl_buffer.predictive import density
from ppl_buffer.predictive.query import Query
from ppl_buffer.training.batch_options import BatchOptions
from ppl_buffer.training.batches import make_batch
from ppl_buffer.training.draws import draw_data
from tests.training.cases import TINY, TorchNetwork, loss_of, tensors

VALUES = np.arange(1, 8)


class Rating:
    """Ratings from 1 to 7 of a level from 0 to 5, between the cuts of a normal variable; it knows its probabilities."""

    schema = pb.Schema(
        params={"bias": pb.Real()},
        inputs={"level": pb.Integer(0, 5)},
        outcomes={"rating": pb.Integer(1, 7)},
        independent=True,
    )
    in_process = True
    illegal = 0

    def prior(self, rng, size):
        return {"bias": rng.normal(0, 1, size)}

    def inputs(self, rng, size, trials):
        return {"level": rng.integers(0, 6, (size, trials))}

    def probabilities(self, bias, level):
        cuts = np.append(VALUES[:-1] + 0.5, np.inf)
        below = stats.norm.cdf(cuts, (2.0 + bias + 0.7 * level)[..., None], 1.1)
        return np.diff(below, axis=-1, prepend=0.0)

    def simulate_with_probabilities(self, rng, params, inputs):
        assert inputs["level"].dtype.kind == "i"
        chances = self.probabilities(params["bias"][:, None], inputs["level"])
        rating = 1 + (rng.random(chances.shape[:2])[..., None] > chances.cumsum(-1)).sum(-1)
        return {"rating": rating + self.illegal}, {"rating": chances}

    def simulate(self, rng, params, inputs):
        return self.simulate_with_probabilities(rng, params, inputs)[0]


def test_a_trained_network_has_the_probabilities_of_the_simulator(tmp_path):
    config = pb.Config(depth=0, likelihood_width=16, components=4)
    options = {"steps": 100, "batch_size": 8, "trials": (20, 20), "held_out": 16, "progress": False, "workers": 0}
    net = pb.train(Rating(), config, parts="likelihood", out=tmp_path, learning_rate=1e-2, **options)
    level, bias = np.repeat(np.arange(6), 7), np.array([-1.0, 0.0, 1.5], np.float32)
    query = Query.build(net, {"level": torch.as_tensor(level)}, params={"bias": torch.as_tensor(bias)})
    value = torch.as_tensor(np.tile(VALUES, 6)).float()
    log_q = density.conditionals(query, value.expand(3, -1)).detach().numpy().reshape(3, 6, 7)
    p = Rating().probabilities(bias[:, None], np.arange(6))
    np.testing.assert_allclose(np.exp(log_q).sum(-1), 1, atol=1e-5)
    divergence = (p * (np.log(p) - log_q)).sum(-1)
    # The frequencies of all trials together are 0.52 nats away.
    assert divergence.mean() < 0.01
    mean, variance = (x.detach().numpy()[:, ::7] for x in density.marginal_moments(query))
    np.testing.assert_allclose(mean.reshape(3, 6), (p * VALUES).sum(-1), atol=0.3)
    assert (variance > 0).all()
    # The range of what was seen is one of numbers, which have no unit.
    seen = net.record.ranges
    assert (seen["rating"].low, seen["rating"].high, seen["rating"].values) == (1.0, 7.0, ())
    trials = np.array([[1.0, 1.0, 2.0, 2.0, 1.0, 2.0, 1.0, 3.0] * 4])
    assert find_unfamiliar(net.schema, seen, {"rating": trials}, np.ones(trials.shape, bool)) == []


def test_certain_probabilities_are_the_drawn_value():
    simulator = Rating()
    net = TorchNetwork(simulator.schema, TINY, {"bias": (0.0, 1.0), "level": (2.5, 1.7), "rating": (3.7, 1.8)})
    data = tensors(make_batch(simulator, BatchOptions(batch_size=5, trials=(3, 3), context=(2, 2)), 0, 0))
    soft, rating = loss_of(net, data), data["targets"]["outcomes"]["rating"].long()
    assert data["probabilities"]["rating"].shape == (*rating.shape, 7)
    data["probabilities"] = {"rating": torch.nn.functional.one_hot(rating - 1, 7).float()}
    certain = loss_of(net, data)
    del data["probabilities"]
    assert certain == pytest.approx(loss_of(net, data), rel=1e-6) and abs(soft - certain) > 1e-4


@pytest.mark.parametrize(("illegal", "got"), [(0.5, "[1-7].5"), (7, "(8|9|1.)")])
def test_a_simulator_of_other_values_is_refused(illegal, got):
    simulator, rng = Rating(), np.random.default_rng(0)
    simulator.illegal = illegal
    with pytest.raises(ValueError, match=f"'rating' to be an integer from 1 to 7, got {got}"):
        draw_data(simulator, rng, simulator.prior(rng, 3), 3, 11)


def test_a_table_holds_whole_numbers_within_the_bounds():
    pandas = pytest.importorskip("pandas")
    net = SimpleNamespace(schema=Rating.schema, standardization={}, record=None)
    table = pandas.DataFrame(
        {"subject": [1] * 5 + [2] * 5, "level": [0, 5, 1, 2, 3] * 2, "rating": [1, 7, 2, 3, 4] * 2}
    )
    trials = read_trials(table, net, order="file", outside="warn")
    assert trials.outcomes["rating"].dtype.kind == trials.inputs["level"].dtype.kind == "i"
    assert trials.outcomes["rating"].tolist() == [[1, 7, 2, 3, 4]] * 2
    for wrong in (0, 8, 2.5):
        with pytest.raises(ValueError, match=f"should be an integer from 1 to 7, but is {wrong}"):
            read_trials(table.assign(rating=[*table["rating"][:9], wrong]), net, order="file", outside="warn")


def test_residuals_of_ratings_show_a_network_that_is_wrong():
    simulator, rng = Rating(), np.random.default_rng(1)
    params = simulator.prior(rng, 200)
    inputs = simulator.inputs(rng, 200, 30)
    rating = simulator.simulate(rng, params, inputs)["rating"]

    def gain(error):
        chances = simulator.probabilities(params["bias"][:, None] * (1 + error), inputs["level"])
        upper = np.take_along_axis(chances.cumsum(-1), rating[..., None] - 1, -1)[..., 0]
        lower = upper - np.take_along_axis(chances, rating[..., None] - 1, -1)[..., 0]
        test = find_residuals(
            simulator.schema, params, {**inputs, "rating": rating}, {"rating": lower}, {"rating": upper}
        )
        return min(residual.p for residual in test.residuals)

    assert gain(0.3) < 1e-6 < 1e-3 < gain(0.0)
