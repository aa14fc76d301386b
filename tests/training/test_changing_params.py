"""Training of a direct likelihood on parameters that change from trial to trial."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch")

import torch

import ppl_buffer as pb
from ppl_buffer.predictive import density
from ppl_buffer.predictive.query import Query
from ppl_buffer.prior import Prior
from ppl_buffer.simulators import ForgettingQ, NoisyQ
from ppl_buffer.training.batch_options import BatchOptions
from ppl_buffer.training.batches import HELD_OUT, TRAINING
from ppl_buffer.training.changing_params import mix
from ppl_buffer.training.likelihood_batches import make_likelihood_batches
from ppl_buffer.training.loop import train
from tests.training.cases import SMALL, TINY, ChoiceTime, Shift, same_batches

TAKING = pb.Config(depth=0, likelihood_width=8, components=5, likelihood_trial_params=True)


def batches(share, stream=TRAINING, simulator=None, block=2, **options):
    options = BatchOptions(batch_size=9, trials=(5, 13), changing_fraction=share, **options)
    return make_likelihood_batches(simulator or ForgettingQ(), options, 3, block, stream, count=4)


def test_parameters_get_an_axis_of_trials_in_that_share_of_the_batches():
    for batch in batches(1.0):
        size, _, trials = batch.data["targets"]["outcomes"]["choice"].shape
        assert {x.shape for x in batch.data["params"].values()} == {(size, trials)}
    shapes = [batches(0.3, block=block)[0].data["params"]["beta"].ndim for block in range(200)]
    assert 0.2 < np.mean(np.array(shapes) == 2) < 0.4
    # The held-out loss stays what it is, and so does a training without.
    same_batches(batches(1.0, HELD_OUT)[0].data, batches(0.0, HELD_OUT)[0].data)
    assert {x.ndim for x in batches(0.0)[0].data["params"].values()} == {1}


def test_the_probabilities_are_those_of_the_parameters_that_changed():
    batch = batches(1.0)[0].data
    params = {name: x.astype(float) for name, x in batch["params"].items()}
    data = {name: x[:, 0] for group in batch["buffer"].values() for name, x in group.items()}
    exact = np.exp(ForgettingQ().log_likelihood(params, data))
    known = np.take_along_axis(batch["probabilities"]["choice"][:, 0], data["choice"].astype(int)[..., None], -1)
    np.testing.assert_allclose(known[..., 0], exact, rtol=1e-4)


def test_values_come_back_and_parameters_change_by_themselves():
    rng, simulator, trials = np.random.default_rng(1), ForgettingQ(), 59
    drawn = [simulator.prior(rng, 997) for _ in range(3)]
    params = mix(simulator, rng, drawn, trials)
    changes = np.stack([(np.diff(x, axis=1) != 0) for x in params.values()], -1)
    for name, x in params.items():
        # Its own three values and no others, the first of them where it stays.
        assert max(len(set(row)) for row in x) == 3
        assert np.isin(x, np.stack([one[name] for one in drawn])).all()
    stays = ~changes.any(1)
    assert (np.abs(stays.mean(0) - 0.5) < 0.12).all() and 0.01 < stays.all(1).mean() < 0.2
    per_trial = changes.any(-1).mean(1)
    assert np.quantile(per_trial, 0.1) < 2 / trials and np.quantile(per_trial, 0.95) > 0.1
    # Where a prior counts from another parameter, or none is stated, all change together.
    simulator.priors = {
        **simulator.priors,
        "perseveration": Prior("Normal", {"loc": 0.0, "scale": 1.0}, relative_to="beta"),
    }
    together = mix(simulator, rng, drawn, trials)
    moved = np.stack([np.diff(x, axis=1) != 0 for x in together.values()], -1)
    assert (moved.all(-1) == moved.any(-1)).all() and moved.any()


def test_atoms_are_kept_in_blocks():
    noise = np.concatenate(
        [batches(1.0, simulator=NoisyQ(), block=block)[0].data["params"]["zeta"].ravel() for block in range(20)]
    )
    assert 0.35 < (noise == 0).mean() < 0.65


def test_it_is_recorded_and_both_parts_train(tmp_path):
    net = train(ForgettingQ(), TAKING, steps=3, changing_fraction=0.7, out=tmp_path, **SMALL)
    assert net.record.stages[-1].options["changing_fraction"] == 0.7 and net.config.likelihood_trial_params
    plain = train(
        ForgettingQ(), replace(TAKING, likelihood_trial_params=False), steps=3, out=tmp_path / "plain", **SMALL
    )
    assert "changing_fraction" not in plain.record.stages[-1].options
    both = train(
        ForgettingQ(), replace(TINY, likelihood_width=8, likelihood_trial_params=True), steps=2, out=tmp_path / "both",
        **SMALL,
    )  # fmt: skip
    stages = {stage.part: stage.options for stage in both.record.stages}
    assert stages["likelihood"]["changing_fraction"] == 0.25 and "changing_fraction" not in stages["buffer"]
    grown = train(
        ForgettingQ(), replace(plain.config, likelihood_trial_params=True), start=plain, steps=1,
        out=tmp_path / "grown", **SMALL,
    )  # fmt: skip
    assert grown.config.likelihood_trial_params and len(grown.record.stages) == 2


@pytest.mark.parametrize(
    ("simulator", "config", "share", "message"),
    [
        (ForgettingQ(), TAKING, 0.0, "changing_fraction: expected a share above 0"),
        (ForgettingQ(), TAKING, 1.1, "changing_fraction: expected a share above 0"),
        (
            ForgettingQ(),
            replace(TAKING, likelihood_trial_params=False),
            0.5,
            "changing_fraction: expected None for a network",
        ),
        (Shift(), TAKING, 0.5, "changing_fraction: expected None for a network"),
        (ChoiceTime(), TAKING, None, "config: expected likelihood_trial_params=False for ChoiceTime"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, simulator, config, share, message):
    with pytest.raises(ValueError, match=message):
        train(simulator, config, steps=1, changing_fraction=share, out=tmp_path, **SMALL)
    with pytest.raises(ValueError, match="likelihood_trial_params"):
        pb.Config(likelihood_trial_params=1)


@pytest.mark.slow
def test_what_is_learnt_holds_where_parameters_change(tmp_path):
    """Divergence from the exact probabilities, nats a trial: with and without such batches, after the same steps."""
    rng, simulator, late = np.random.default_rng(2), ForgettingQ(), np.arange(90) >= 45
    first, second = simulator.prior(rng, 300), simulator.prior(rng, 300)
    params = {name: np.where(late, second[name][:, None], x[:, None]) for name, x in first.items()}
    data, chances = simulator.simulate_with_probabilities(rng, params, {}, 90)
    exact, found = chances["choice"][..., 1], {}
    settings = {**SMALL, "trials": (20, 100), "batch_size": 32, "held_out": 16, "evaluate_every": 100}
    for takes in (True, False):
        config = pb.Config(depth=0, likelihood_width=32, likelihood_trial_params=takes)
        net = train(simulator, config, steps=1500, out=tmp_path / str(takes), **settings)
        # Asked all the same, the network that knows parameters that stay.
        net.config = replace(net.config, likelihood_trial_params=True)
        arrays = {name: torch.tensor(x, dtype=torch.float32) for name, x in params.items()}
        query = Query.build(
            net, {}, trials=90, trial_params=arrays, outside="ignore",
            feedback={"reward": torch.tensor(data["reward"], dtype=torch.float32)},
        )  # fmt: skip
        score = (
            density.conditionals(query, torch.tensor(data["choice"], dtype=torch.float32), reuse=False).exp().numpy()
        )
        one = np.where(data["choice"] == 1, score, 1 - score)
        divergence = exact * np.log(exact / one) + (1 - exact) * np.log((1 - exact) / (1 - one))
        found[takes] = divergence[:, :45].mean(1), divergence[:, 45:].mean(1)
    assert max(x.mean() for x in found[True]) < 0.002
    # Behind the change, of the same data sets: beyond chance.
    gain = found[False][1] - found[True][1]
    assert gain.mean() > 4 * gain.std(ddof=1) / np.sqrt(len(gain))
