"""Outcomes drawn again, of the same parameters and past: what they change, and what not."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch")

import ppl_buffer as pb
from ppl_buffer.network.torch.weights import TorchNetwork
from ppl_buffer.training import standardization
from ppl_buffer.training.batch_options import BatchOptions
from ppl_buffer.training.batches import HELD_OUT, make_batch
from ppl_buffer.training.loop import train
from ppl_buffer.training.loss import Loss
from tests.training.cases import SMALL, TINY, ChoiceTime, Shift, loss_of, same_batches, tensors


class Counting:
    """Exchangeable trials that say which they are; a further outcome says what its target sees: count and last."""

    schema = pb.Schema(params={"mu": pb.Real()}, inputs={"x": pb.Real()}, outcomes={"y": pb.Real()}, ordered=False)

    def prior(self, rng, size):
        return {"mu": rng.normal(size=size)}

    def inputs(self, rng, size, trials):
        return {"x": np.arange(1.0, trials + 1) + np.zeros((size, 1))}

    def simulate(self, rng, params, inputs):
        return {"y": 100 * inputs["x"]}

    def predict_outcomes(self, rng, params, inputs, seen, visible, count):
        last = np.take_along_axis(seen["y"], np.maximum(visible - 1, 0), 1)
        return {"y": np.stack([visible, np.where(visible > 0, last, 0), inputs["x"]], -1)}


@pytest.mark.parametrize(
    "simulator",
    [Shift(), pb.simulators.RLDriftDiffusion(), pb.simulators.DriftDiffusion(), pb.simulators.GaussianProcess()],
)
def test_outcome_samples_change_nothing_else(simulator):
    once, often = (
        BatchOptions(batch_size=5, trials=(2, 11), context=(0, 3), outcome_samples=count) for count in (1, 4)
    )
    for step in range(3):
        plain, batch = (make_batch(simulator, settings, 2, step).data for settings in (once, often))
        again = batch.pop("resampled")
        same_batches(plain, batch)
        outcomes = batch["targets"]["outcomes"]
        assert list(again) == list(simulator.schema.outcomes)
        for name, x in outcomes.items():
            assert again[name].shape == (*x.shape, 3) and again[name].dtype == np.float32
        last = list(outcomes)[-1]  # a number: no two draws of it are the same
        together = np.concatenate([outcomes[last][..., None], again[last]], -1)
        assert all(len(set(row)) == 4 for row in together.reshape(-1, 4))


def test_outcome_samples_have_the_parameters_of_their_data_set_and_the_inputs_of_their_target():
    class Sum(Shift):
        """y = mu + x exactly, and a further sample in four is no number."""

        schema = pb.Schema(
            params={"mu": pb.Real()}, inputs={"x": pb.Real()}, outcomes={"y": pb.Real()}, independent=True
        )
        calls = 0

        def inputs(self, rng, size, trials):
            return {"x": rng.normal(size=(size, trials))}

        def simulate(self, rng, params, inputs):
            self.calls += 1
            y = params["mu"][:, None] + inputs["x"]
            return {"y": np.where((rng.random(y.shape) < 0.25) & (self.calls > 1), np.nan, y + self.calls - 1)}

    batch = make_batch(Sum(), BatchOptions(batch_size=7, trials=(5, 5), context=(3, 3), outcome_samples=41), 0, 0).data
    expected = batch["params"]["mu"][:, None, None] + batch["targets"]["inputs"]["x"]
    np.testing.assert_allclose(batch["targets"]["outcomes"]["y"], expected, rtol=1e-6)
    surplus = batch["resampled"]["y"] - expected[..., None]
    # Drawn by the second call, or where that is not legal, the target's own outcome.
    assert (np.isclose(surplus, 1, atol=1e-5) | np.isclose(surplus, 0, atol=1e-5)).all()
    assert abs(surplus.mean() - 0.75) < 0.06


@pytest.mark.parametrize("context", [0, 3])
def test_outcomes_are_predicted_from_what_their_targets_see(context):
    settings = BatchOptions(batch_size=7, trials=(5, 5), context=(context, context), targets=11, outcome_samples=4)
    batch = make_batch(Counting(), settings, 0, 0).data
    before = [batch[part]["outcomes"]["y"][:, 0] for part in ("context", "buffer") if part in batch]
    seen = np.concatenate([np.zeros((7, 1)), *before], axis=1)
    visible = context + batch["visible"][:, 0]
    count, last, x = np.moveaxis(batch["resampled"]["y"][:, 0], -1, 0)
    np.testing.assert_array_equal(count, visible)
    np.testing.assert_array_equal(last, np.take_along_axis(seen, visible, 1))
    np.testing.assert_array_equal(x, batch["targets"]["inputs"]["x"][:, 0])
    assert len(set(visible.ravel())) > 3


def test_outcome_samples_need_independent_trials_or_a_method(tmp_path):
    with pytest.raises(
        ValueError,
        match="outcome_samples: expected 1, or a simulator with a method resample_outcomes, since trials of C",
    ):
        train(ChoiceTime(), TINY, steps=2, out=tmp_path, outcome_samples=2, **SMALL)
    with pytest.raises(ValueError, match="outcome_samples: expected 1, or a simulator with a method predict_outcomes"):
        train(pb.simulators.Sawtooth(), TINY, steps=2, out=tmp_path, outcome_samples=2, **SMALL)
    wrong = type("Wrong", (pb.simulators.RLDriftDiffusion,), {"resample_outcomes": lambda self, *_: {"choice": 1}})
    with pytest.raises(ValueError, match=r"simulator.resample_outcomes: expected \['choice', 'rt'\], got \['choice'\]"):
        train(wrong(), TINY, steps=2, out=tmp_path, outcome_samples=2, **SMALL)


@pytest.mark.parametrize("simulator", [Shift(), pb.simulators.RLDriftDiffusion()])
def test_loss_of_outcome_samples_is_the_mean_over_them(simulator):
    settings = BatchOptions(batch_size=3, trials=(5, 7), context=(0, 2), outcome_samples=4)
    for step in range(2):
        data = tensors(make_batch(simulator, settings, 1, step, HELD_OUT))
        net = TorchNetwork(simulator.schema, TINY, standardization.standardize(simulator, settings)[0], seed=1)
        again = data.pop("resampled")
        losses = [loss_of(net, data)]
        for index in range(3):
            targets = {**data["targets"], "outcomes": {name: x[..., index] for name, x in again.items()}}
            losses.append(loss_of(net, {**data, "targets": targets}))
        assert max(losses) - min(losses) > 1e-3
        assert loss_of(net, {**data, "resampled": again}) == pytest.approx(np.mean(losses), rel=1e-5)


def test_outcome_samples_lessen_the_noise_of_the_gradient():
    class Same(pb.simulators.DriftDiffusion):
        """Where the parameters never change, all noise is that of the outcomes."""

        atoms = None

        def prior(self, rng, size):
            return {name: np.full(size, 0.7) for name in self.priors}

    simulator = Same()
    noise = []
    for outcome_samples in (1, 8):
        settings = BatchOptions(
            batch_size=4, trials=(7, 7), context=(0, 0), condition_masks=1, outcome_samples=outcome_samples
        )
        net = TorchNetwork(
            simulator.schema, TINY, standardization.standardize(simulator, settings)[0], seed=1
        ).requires_grad_(True)
        gradients = []
        for step in range(60):
            net.zero_grad()
            Loss(net)(tensors(make_batch(simulator, settings, 1, step))).backward()
            gradients.append(np.concatenate([x.grad.ravel() for x in net.parameters() if x.grad is not None]))
        noise.append(np.var(gradients, axis=0).sum())
    assert 0.08 < noise[1] / noise[0] < 0.19
