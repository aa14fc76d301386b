"""The error that a training estimates: by a law of learning, and by what the simulator offers."""

import math

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch")

import ppl_buffer as pb
from ppl_buffer.network.estimated_error import EstimatedError
from ppl_buffer.training.error import estimate_error, learning_law, measured_error, summary
from ppl_buffer.training.snapshots import HeldOut, Snapshots

STEPS = np.array([0, 250, 500, 750, 1000, 1250, 1400, 1500, 1600, 1700, 1800, 1900, 2000])
RATES = np.clip((STEPS[-1] - STEPS) / 600, 0, 1)


def training(seed, divergences, last, sets=800, trials=80, entropy=0.5, **known):
    """Snapshots of networks that are so far from the truth: the noise of a difference is what such networks have."""
    rng = np.random.default_rng(seed)
    every = np.append(divergences, last)
    # Log densities of networks on the way from one to the next differ by steps of a random walk: variance 2 KL.
    closer = np.abs(np.diff(every))
    noise = rng.standard_normal((len(every) - 1, sets)) * np.sqrt(2 * closer / trials)[:, None]
    apart = np.concatenate([noise[::-1].cumsum(0)[::-1], np.zeros((1, sets))])
    shared = entropy + 0.3 * rng.standard_normal(sets) / np.sqrt(trials)
    losses = shared + every[:, None] + apart
    held_out = HeldOut(np.full(sets, trials), **known)
    return Snapshots("likelihood", STEPS, STEPS * 0.3, RATES, losses, held_out, finished=True), shared


def power_law(last, exponent):
    return last * (STEPS[-1] / np.maximum(STEPS[:-1], 60)) ** exponent


@pytest.mark.parametrize("last", [0.03, 0.004, 0.0008])
@pytest.mark.parametrize("exponent", [0.75, 0.9, 1.1])
def test_a_power_law_is_found_within_a_factor_of_two(last, exponent):
    errors = [estimate_error(training(seed, power_law(last, exponent), last)[0]) for seed in range(6)]
    ratios = np.array([error.nats_per_trial / last for error in errors])
    assert np.mean((ratios > 0.5) & (ratios < 2)) >= 0.8
    assert np.mean([error.low / 1.3 <= last <= 1.3 * error.high for error in errors]) >= 0.7
    assert {error.method for error in errors} == {"snapshots"}


def test_a_training_that_has_just_come_off_a_plateau_is_seen():
    """Nats that were gained at once do not mean that as many are left."""
    plateau = 0.1 / (1 + np.exp((STEPS[:-1] - 1350) / 40))
    ratios = []
    for seed in range(6):
        error = estimate_error(training(seed, power_law(0.004, 0.9) + plateau, 0.004)[0])
        ratios.append(error.nats_per_trial / 0.004)
    assert 0.5 < np.median(ratios) < 3


def test_what_the_decay_gains_beyond_learning_is_seen():
    """Noise of the learning rate, in the averaged weights until the rate falls."""
    noise = 0.006 * RATES[:-1] ** 2
    stated = [estimate_error(training(seed, power_law(0.002, 0.9) + noise, 0.002)[0]) for seed in range(6)]
    assert 0.5 < np.median([error.nats_per_trial / 0.002 for error in stated]) < 2


def test_a_run_that_gains_nothing_any_more_has_little_left():
    flat = training(1, np.full(len(STEPS) - 1, 1e-6), 1e-6)[0]
    error = estimate_error(flat)
    assert error.low < 1e-4 and error.high < 4e-4


def test_what_the_start_was_off_by_less_what_was_gained_is_left():
    """A training that goes on from the end of another gains little, and is not done for that."""
    divergences = np.append(0.0036, 0.0031 + 0.0004 * RATES[1:-1])
    bare, known, wrong = [], [], []
    for seed in range(6):
        snapshots = training(seed, divergences, 0.003, entropy=0.5)[0]
        bare.append(estimate_error(snapshots).nats_per_trial)
        known.append(estimate_error(snapshots, EstimatedError(0.0036, 0.003, 0.004, "snapshots")))
        # Whoever began with less than was gained since cannot have known it.
        wrong.append(estimate_error(snapshots, EstimatedError(1e-4, 0.0, 2e-4, "snapshots")).nats_per_trial)
    assert np.median(bare) < 0.002
    assert all(abs(error.nats_per_trial / 0.003 - 1) < 0.1 and error.low < 0.003 < error.high for error in known)
    assert wrong == bare


def test_the_longer_the_less():
    snapshots = training(2, power_law(0.004, 0.75), 0.004)[0]
    law = learning_law(snapshots)
    assert law.after(1.0) == pytest.approx(law.quantiles(0.5)[0], rel=0.05)
    assert 0.45 < law.after(2.0) / law.after(1.0) < 0.75
    text = summary(estimate_error(snapshots), snapshots, trials=80, parameters=5)
    assert text.startswith("likelihood: about 0.00") and "nats a trial; a data set of 80 trials is off by" in text
    assert "10 minutes more would give about 0.00" in text


def test_a_training_says_what_its_error_means_for_data_sets_as_long_as_its_record_says(tmp_path, capsys):
    simulator, config = pb.simulators.DriftDiffusion(), pb.Config(width=8, depth=2, heads=2, mlp=8, likelihood_width=8)
    net = pb.train(
        simulator, config, parts="likelihood", steps=12, trials=(19, 41), batch_size=2, held_out=16, workers=0,
        evaluate_every=4, out=tmp_path, progress=True,
    )  # fmt: skip
    # It learnt from a few trials of each of many parameter values.
    assert net.record.trials == 41 and net.record.errors["likelihood"].nats_per_trial > 0
    assert "a data set of 41 trials is off by" in capsys.readouterr().out


def test_too_little_is_known_of_a_training_that_has_just_begun():
    snapshots = training(3, power_law(0.004, 0.75), 0.004)[0]
    begun = Snapshots("buffer", STEPS[:2], STEPS[:2] * 1.0, RATES[:2], snapshots.losses[:2], snapshots.held_out)
    assert estimate_error(begun) is None and learning_law(begun) is None
    few = Snapshots("buffer", STEPS, STEPS, RATES, snapshots.losses[:, :4], HeldOut(np.full(4, 80)), finished=True)
    assert estimate_error(few) is None


def test_before_the_rate_falls_the_error_is_that_of_the_averaged_weights():
    snapshots = training(4, power_law(0.004, 0.75), 0.004)[0]
    at = 6
    now = Snapshots("likelihood", STEPS[: at + 1], STEPS[: at + 1], RATES[: at + 1], snapshots.losses[: at + 1],
                    snapshots.held_out)  # fmt: skip
    true = power_law(0.004, 0.75)[at]
    assert true / 2 < estimate_error(now).nats_per_trial < 2 * true


def test_a_known_likelihood_measures_the_error():
    rng, trials, true = np.random.default_rng(5), np.full(400, 80), 0.002
    # Two normal densities of variance 1 whose means are so far apart.
    apart = np.sqrt(2 * true)
    y = rng.standard_normal((400, 80))
    excess = (-0.5 * y**2 + 0.5 * (y - apart) ** 2).mean(1)
    error, spread = measured_error(excess, trials)
    assert abs(error - true) < 3 * spread and spread < 0.1 * true < excess.std() / 20
    assert measured_error(np.zeros(400), trials) == (0.0, 0.0)
    assert measured_error(np.append(excess, -np.inf), np.append(trials, 80)) == (error, spread)
    snapshots, shared = training(6, power_law(true, 0.75), true)
    held_out = HeldOut(trials, log_likelihood=-snapshots.losses[-1, :400] + excess)
    known = Snapshots("buffer", STEPS, STEPS, RATES, snapshots.losses[:, :400], held_out, finished=True)
    estimate = estimate_error(known)
    assert (estimate.method, estimate.part) == ("likelihood", "buffer")
    assert estimate.nats_per_trial == pytest.approx(error)
    # The noise of these data sets, and a tenth of the error for others.
    half = 1.28 * np.hypot(spread, 0.1 * error)
    assert (estimate.low, estimate.high) == pytest.approx((error - half, error + half))


def test_probabilities_measure_the_error_unless_states_are_hidden():
    true = 0.003
    snapshots, _ = training(7, power_law(true, 0.8), true)
    sets, trials = snapshots.losses.shape[1], snapshots.held_out.trials
    for hidden, likelihood in ((0.0, None), (0.05, None), (0.0, np.zeros(sets))):
        entropy = snapshots.losses[-1] - true - hidden
        held_out = HeldOut(trials, entropy, likelihood)
        error = estimate_error(Snapshots("likelihood", STEPS, STEPS, RATES, snapshots.losses, held_out, finished=True))
        assert error.method == "probabilities" and error.low / 1.001 <= true <= 1.001 * error.high
        if hidden:
            assert true / 2 < error.nats_per_trial < 2 * true
        else:
            assert error.nats_per_trial == pytest.approx(true)


@pytest.mark.parametrize(("worse", "as_good"), [(0.0005, True), (0.01, False), (math.nan, False)])
def test_the_last_weights_are_as_good_unless_they_are_clearly_worse(worse, as_good):
    """The loss of a trial is 0.6; of 500 sets of 80 trials the difference has a standard error of 0.0005."""
    rng = np.random.default_rng(2)
    before = 0.6 + 0.05 * rng.normal(size=500)
    losses = np.stack([before + 0.3, before, before + worse + 0.011 * rng.normal(size=500)])
    few = np.array([10, 20, 30])
    snapshots = Snapshots("likelihood", few, few, np.ones(3), losses, HeldOut(np.full(500, 80)), finished=True)
    assert snapshots.ends_as_good() == as_good
