"""Training on data sets that exist already: who is drawn, how long, and when it ends."""

import csv
import warnings

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch")

import ppl_buffer as pb
from ppl_buffer import diagnostics
from ppl_buffer.findings import FindingWarning
from ppl_buffer.training.batch_options import BatchOptions
from ppl_buffer.training.batches import HELD_OUT, REHEARSAL, STANDARDIZATION, TRAINING, make_batch
from ppl_buffer.training.likelihood_batches import make_likelihood_batches
from ppl_buffer.training.snapshots import HeldOut, Snapshots
from ppl_buffer.training.standardization import survey
from ppl_buffer.training.stored_lengths import choose_lengths
from tests.training.cases import TINY, Known, Shift, same_batches

SETS, TRIALS = 29, 23
# Every value says whose it is, and which trial: 1000 x data set + trial.
CODES = 1000.0 * np.arange(SETS)[:, None] + np.arange(TRIALS)
PEOPLE = np.arange(SETS) // 2


def coded(ordered, **options):
    return pb.DatasetSimulator({"y": CODES}, {"x": CODES}, ordered=ordered, group=PEOPLE, seed=3, **options)


def codes_of(batch):
    """Data sets and trials of everything that a batch shows, by part; inputs and outcomes are of the same trials."""
    parts = {}
    for part in ("context", "buffer", "targets"):
        if part in batch.data:
            values = batch.data[part]["outcomes"]["y"][:, 0]
            np.testing.assert_array_equal(values, batch.data[part]["inputs"]["x"][:, 0])
            parts[part] = (values // 1000).astype(int), (values % 1000).astype(int)
    return parts


@pytest.mark.parametrize("ordered", [True, False])
def test_no_person_is_both_trained_on_and_held_out(ordered):
    simulator = coded(ordered)
    away = set(simulator.held_out_groups.tolist())
    assert len(away) == 3 and simulator.stored_sets.summary.held_out_data_sets == np.isin(PEOPLE, list(away)).sum()
    options = BatchOptions(batch_size=5, trials=(3, 7), context=(0, 9))
    seen = {True: set(), False: set()}
    for step in range(60):
        for stream in (TRAINING, STANDARDIZATION, HELD_OUT, REHEARSAL):
            for sets, _ in codes_of(make_batch(simulator, options, 11, step, stream)).values():
                seen[stream in (HELD_OUT, REHEARSAL)] |= set(PEOPLE[sets].ravel().tolist())
    assert seen[True] == away and seen[False] == set(PEOPLE.tolist()) - away


def test_a_batch_of_exchangeable_trials_is_disjoint_and_of_one_data_set_a_row():
    options = BatchOptions(batch_size=5, trials=(3, 7), context=(2, 9))
    for step in range(40):
        parts = codes_of(make_batch(coded(False), options, 0, step))
        sets, trials = (np.concatenate([part[index] for part in parts.values()], 1) for index in (0, 1))
        assert (sets == sets[:, :1]).all()
        assert all(len(set(row)) == len(row) for row in trials.tolist())
        # No data set twice, while there are others.
        assert len(set(sets[:, 0])) == len(sets)


def test_a_batch_of_ordered_trials_begins_where_the_data_set_begins():
    options = BatchOptions(batch_size=5, trials=(3, 7))
    for step in range(10):
        sets, trials = codes_of(make_batch(coded(True), options, 0, step))["targets"]
        assert (sets == sets[:, :1]).all() and (trials == np.arange(trials.shape[1])).all()


def test_every_trial_of_an_exchangeable_data_set_is_drawn():
    rng = np.random.default_rng(0)
    stored = coded(False).stored_sets
    counts = np.zeros(TRIALS)
    for _ in range(200):
        np.add.at(counts, stored.draw(rng, 7, 5, False)[1]["y"].astype(int).ravel() % 1000, 1)
    expected = 200 * 7 * 5 / TRIALS
    assert (np.abs(counts - expected) < 5 * np.sqrt(expected)).all()


def test_each_data_set_is_drawn_once_before_any_is_drawn_again():
    stored = coded(True).stored_sets
    drawn = stored.draw(np.random.default_rng(1), 60, 2, False)[1]["y"][:, 0] // 1000
    _, counts = np.unique(drawn, return_counts=True)
    assert len(counts) == stored.summary.data_sets and set(counts) <= {2, 3}


def test_a_batch_is_a_function_of_seed_and_step():
    options = BatchOptions(batch_size=5, trials=(3, 7), context=(0, 3))
    first, again = (make_batch(coded(False), options, 5, 2).data for _ in range(2))
    same_batches(first, again)
    other = make_batch(coded(False), options, 6, 2).data
    assert not np.array_equal(first["buffer"]["outcomes"]["y"], other["buffer"]["outcomes"]["y"])


class Moved(pb.DatasetSimulator):
    """Data sets that are as likely a quarter or half of a unit further."""

    def augment(self, rng, data):
        step = rng.integers(0, 3, (len(data["y"]), 1)) / 4
        return {name: x + step for name, x in data.items()}


@pytest.mark.parametrize("ordered", [True, False])
def test_symmetries_move_data_sets_in_the_training_and_leave_those_that_are_held_out(ordered):
    simulator = Moved({"y": CODES}, {"x": CODES}, ordered=ordered, group=PEOPLE, seed=3)
    options = BatchOptions(batch_size=5, trials=(3, 7), context=(2, 9))
    plain, moves = coded(ordered), {TRAINING: set(), STANDARDIZATION: set(), HELD_OUT: set(), REHEARSAL: set()}
    for stream, steps in moves.items():
        for step in range(12):
            batch, still = (make_batch(one, options, 11, step, stream) for one in (simulator, plain))
            for (_, trials), (_, unmoved) in zip(codes_of(batch).values(), codes_of(still).values(), strict=True):
                assert trials.shape == unmoved.shape
            y, x = batch.data["targets"]["outcomes"]["y"], still.data["targets"]["outcomes"]["y"]
            # All of a data set by the same step, and no other trials than without.
            np.testing.assert_array_equal(y - x, np.broadcast_to((y - x)[..., :1], y.shape))
            steps |= set((y - x).ravel().tolist())
    assert moves[TRAINING] == moves[STANDARDIZATION] == {0.0, 0.25, 0.5}
    assert moves[HELD_OUT] == moves[REHEARSAL] == {0.0}


def test_long_batches_come_from_data_sets_that_are_long_enough():
    values = CODES.copy()
    values[::3, 5:] = np.nan
    simulator = pb.DatasetSimulator({"y": values}, ordered=True, held_out=[1, 2, 9])
    lengths = simulator.stored_sets.lengths
    assert set(lengths[::3]) == {5} and set(lengths[1::3]) == {TRIALS}
    options = BatchOptions(batch_size=5, trials=(2, 11))
    drawn = {False: set(), True: set()}
    for step in range(60):
        targets = make_batch(simulator, options, 0, step).data["targets"]["outcomes"]["y"][:, 0]
        drawn[targets.shape[1] > 5] |= set((targets[:, 0] // 1000).astype(int).tolist())
    training = set(range(SETS)) - {1, 2, 9}
    assert drawn[True] == training - set(range(0, SETS, 3)) and drawn[False] == training
    with pytest.raises(ValueError, match=r"trials: expected at most 23, those of the longest data sets, got 24"):
        simulator.stored_sets.draw(np.random.default_rng(0), 3, 24, False)


def pairs(size=211, **options):
    rng = np.random.default_rng(4)
    mu = rng.normal(0, 2, size)
    return pb.StoredSimulations({"mu": mu}, {"y": mu[:, None] + rng.normal(size=(size, 13))}, **options)


def test_a_stored_simulation_keeps_its_parameters():
    mu = np.arange(103.0)
    simulator = pb.StoredSimulations({"mu": mu}, {"y": np.tile(mu[:, None], 13)}, schema=Shift.schema)
    options = BatchOptions(batch_size=5, trials=(2, 4), context=(0, 3))
    held_out = set(simulator.stored_sets.indices(held_out=True).tolist())
    assert len(held_out) == 10
    for step in range(30):
        for stream in (TRAINING, HELD_OUT):
            batches = [make_batch(simulator, options, 0, step, stream)]
            batches += make_likelihood_batches(simulator, options, 0, step, stream, count=2)
            for batch in batches:
                y = batch.data["targets"]["outcomes"]["y"]
                np.testing.assert_array_equal(y, np.broadcast_to(batch.data["params"]["mu"][:, None, None], y.shape))
                assert (set(y.astype(int).ravel().tolist()) <= held_out) == (stream == HELD_OUT)


def test_the_box_is_that_of_the_prior_or_of_the_parameters_that_are_trained_on():
    prior = {"mu": pb.Prior("Normal", {"loc": 0.0, "scale": 2.0})}
    options = BatchOptions(trials=(2, 3), context=(0, 3))
    stated, ranged = (survey(pairs(schema=Shift.schema, prior=x), options) for x in (prior, None))
    assert stated.priors == prior and stated.box["mu"] == prior["mu"].range()
    simulator = pairs(schema=Shift.schema)
    rows = simulator.stored_sets.indices(held_out=False)
    trained = simulator.stored_sets.params["mu"][rows]
    assert ranged.box["mu"] == (trained.min(), trained.max()) and ranged.priors == {"mu": None}
    wrong = pairs(schema=Shift.schema, prior={"mu": pb.Prior("Normal", {"loc": 2.0, "scale": 2.0})})
    with pytest.raises(ValueError, match=r"simulator.priors\['mu'\]: expected what prior\(\) draws from"):
        survey(wrong, options)


def test_lengths_that_nobody_stated_are_those_of_the_data():
    usual = {"trials": (32, 128), "context": (0, 64)}
    assert choose_lengths(Shift(), None, None) == usual
    long = pb.DatasetSimulator({"y": np.zeros((5, 400)) + np.arange(5)[:, None]}, ordered=False)
    assert choose_lengths(long, None, None) == usual
    assert choose_lengths(coded(True), None, None)["trials"] == (11, TRIALS)
    assert choose_lengths(coded(False), None, None) == {"trials": (4, 8), "context": (0, 7)}
    assert choose_lengths(coded(False), None, (0, 3)) == {"trials": (5, 10), "context": (0, 3)}
    assert choose_lengths(coded(False), None, None, targets=5) == {"trials": (4, 9), "context": (0, 9)}
    assert choose_lengths(coded(False), (2, 10), None) == {"trials": (2, 10), "context": (0, 3)}
    assert choose_lengths(coded(False), (2, 5), (1, 4)) == {"trials": (2, 5), "context": (1, 4)}


def test_lengths_that_no_data_set_reaches_are_refused(tmp_path):
    options = {"steps": 1, "out": tmp_path, "progress": False}
    with pytest.raises(ValueError, match=r"trials: expected sizes that stored data sets reach.* 23 trials, got 24"):
        pb.train(coded(True), TINY, trials=(2, 24), **options)
    with pytest.raises(ValueError, match=r"trials, context: expected sizes .* 23 trials, got 25, context, buffer and"):
        pb.train(coded(False), TINY, trials=(2, 10), context=(0, 5), **options)
    with pytest.raises(ValueError, match=r"outcome_samples: expected 1 with StoredSimulations"):
        pb.train(pairs(schema=Shift.schema), TINY, outcome_samples=2, **options)


def test_over_fitting_is_a_loss_that_stays_clearly_above_its_least():
    rng = np.random.default_rng(2)
    noise, sets = 0.1, 40
    shared = rng.normal(size=sets)

    def overfits(means, patience=3, spread=noise):
        losses = np.asarray(means)[:, None] + shared + spread * rng.normal(size=(len(means), sets))
        count = len(means)
        return Snapshots(
            "buffer", np.arange(count), np.arange(count), np.ones(count), losses, HeldOut(np.full(sets, 7.0))
        ).overfits(patience)

    assert overfits([2.0, 1.0, 1.3, 1.3, 1.4]) and not overfits([2.0, 1.0, 1.3, 1.3, 1.4], patience=4)
    assert not overfits([2.0, 1.0, 1.3, 1.0, 1.4]) and not overfits([2.0, 1.5, 1.2, 1.1, 1.0])
    # A standard error of 0.07, of the difference.
    assert not overfits([2.0, 1.0, 1.03, 1.03, 1.03], spread=0.3)


def test_a_training_that_only_makes_held_out_people_worse_ends(tmp_path):
    """Those that are held out are others: what is learned of the training people is wrong of them."""
    rng = np.random.default_rng(0)
    y = rng.normal(size=(40, 24))
    y[30:] += 4
    simulator = pb.DatasetSimulator({"y": y}, ordered=False, held_out=list(range(30, 40)))
    options = {
        "evaluate_every": 4, "patience": 2, "held_out": 20, "out": tmp_path, "batch_size": 4, "progress": False,
        "workers": 0, "trials": (2, 5), "context": (0, 5),
    }  # fmt: skip
    with pytest.warns(FindingWarning, match=r"over-fitted stored data of 30 people \(10 more held out\)"):
        net = pb.train(simulator, TINY, steps=300, **options)
    with open(tmp_path / "buffer" / "log.csv") as file:
        rows = [row for row in csv.DictReader(file) if row["held_out"]]
    losses = [float(row["held_out"]) for row in rows]
    assert len(losses) < 12 and net.record.stages[-1].held_out_loss == min(losses) < losses[-1]
    assert net.record.stages[-1].step == int(rows[int(np.argmin(losses))]["step"])
    assert net.record.errors == {} and net.record.stages[-1].options["stored"]["groups"] == 30
    log = (tmp_path / "buffer" / "log.csv").read_text()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = pb.train(simulator, TINY, steps=400, **options)
    assert (tmp_path / "buffer" / "log.csv").read_text() == log
    assert again.digest == net.digest


def beta_bernoulli_loss(batches):
    """The mean negative log probability of the targets after what each sees, of a person's rate from Beta(1/2, 1/2)."""
    terms = []
    for batch in batches:
        y = batch["targets"]["outcomes"]["y"].astype(float)
        ones = np.concatenate([np.zeros((len(y), 1, 1)), batch["buffer"]["outcomes"]["y"].cumsum(-1)], -1)
        context = batch.get("context", {"outcomes": {"y": np.zeros((len(y), 1, 0))}})["outcomes"]["y"]
        seen = np.take_along_axis(ones, batch["visible"], -1) + context.sum(-1, keepdims=True)
        one = (seen + 0.5) / (batch["visible"] + context.shape[-1] + 1)
        terms.append(-np.log(np.where(y == 1, one, 1 - one)).ravel())
    return np.concatenate(terms).mean()


def test_people_who_were_never_seen_are_predicted_from_some_of_their_trials(tmp_path):
    rng = np.random.default_rng(1)
    rates = rng.beta(0.5, 0.5, 301)
    y = (rng.random((301, 24)) < rates[:, None]).astype(int)
    simulator = pb.DatasetSimulator({"y": y}, ordered=False, held_out=0.3)
    assert simulator.schema.outcomes == {"y": pb.Categorical(2)}
    net = pb.train(
        simulator,
        TINY,
        steps=40,
        evaluate_every=20,
        held_out=60,
        out=tmp_path,
        batch_size=16,
        progress=False,
        workers=0,
    )
    stage = net.record.stages[-1]
    options = BatchOptions(batch_size=16, trials=stage.options["trials"], context=stage.options["context"])
    exact = beta_bernoulli_loss([make_batch(simulator, options, 0, step, HELD_OUT).data for step in range(20)])
    assert exact < 0.55 and stage.held_out_loss < exact + 0.4 * (np.log(2) - exact)


@pytest.mark.slow
def test_stored_simulations_teach_the_likelihood(tmp_path):
    """Divergence a trial from the model, which is known, on new data; from so many pairs it cannot be nought."""
    rng = np.random.default_rng(1)
    mu = rng.normal(0, 2, 5000)
    simulator = pb.StoredSimulations(
        {"mu": mu}, {"y": mu[:, None] + rng.normal(size=(5000, 20))}, schema=Known.schema, prior=Known.priors
    )
    net = pb.train(simulator, steps=700, parts="likelihood", out=tmp_path, progress=False, workers=0)
    compared = diagnostics.compare_likelihood(net, Known(), sets=200, trials=20, progress=False)
    assert compared.errors["direct"].nats_per_trial < 0.003
    check = diagnostics.check_likelihood(net, simulator, trials=20, progress=False)
    assert check.passed and set(check.params["mu"]) <= set(simulator.stored_sets.params["mu"])
