"""Observed data and stored simulations as a user has them: arrays, tables and files, read or refused."""

import json

import numpy as np
import pytest

import ppl_buffer as pb
from ppl_buffer.datasets import TrialData
from ppl_buffer.simulator import Simulator, WithEnvironment, WithPriors, WithStoredSets
from ppl_buffer.training.abilities import check_simulator

SETS, TRIALS = 103, 7
LEARNER = pb.Schema(
    params={"alpha": pb.Interval(0, 1)},
    inputs={"cue": pb.Categorical(3)},
    outcomes={"choice": pb.Categorical(2), "rt": pb.Positive()},
    feedback={"reward": pb.Real()},
    ordered=True,
)


def arrays(sets=SETS):
    rng = np.random.default_rng(5)
    shape = (sets, TRIALS)
    return {
        "params": {"alpha": rng.uniform(0.1, 0.9, sets)},
        "inputs": {"cue": rng.integers(0, 3, shape)},
        "outcomes": {"choice": rng.integers(0, 2, shape), "rt": rng.lognormal(size=shape)},
        "feedback": {"reward": rng.normal(size=shape)},
    }


def observed(**options):
    data = arrays()
    return pb.DatasetSimulator(data["outcomes"], data["inputs"], data["feedback"], **options)


def same_sets(first, second):
    assert first.schema == second.schema
    for one, other in (
        (first.stored_sets.params, second.stored_sets.params),
        (first.stored_sets.data, second.stored_sets.data),
    ):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])
    np.testing.assert_array_equal(first.stored_sets.lengths, second.stored_sets.lengths)
    assert first.stored_sets.summary == second.stored_sets.summary


@pytest.mark.parametrize("simulator", [observed(ordered=True), pb.StoredSimulations(**arrays(), ordered=True)])
def test_both_are_simulators_that_simulate_nothing(simulator):
    assert isinstance(simulator, Simulator) and isinstance(simulator, WithStoredSets)
    assert not isinstance(simulator, WithEnvironment)
    check_simulator(simulator)
    rng = np.random.default_rng(0)
    params, inputs = simulator.prior(rng, 5), simulator.inputs(rng, 5, 3)
    assert set(params) == set(simulator.schema.params) and inputs["cue"].shape == (5, 3)
    with pytest.raises(ValueError, match=rf"simulator: {simulator.name} holds .* more held out\)"):
        simulator.simulate(rng, params, inputs, trials=3)


def test_a_schema_is_derived_from_the_types_of_the_arrays():
    schema = pb.StoredSimulations(**arrays(), ordered=True).schema
    assert schema == pb.Schema(
        {"alpha": pb.Real()}, {"cue": pb.Categorical(3)}, {"choice": pb.Categorical(2), "rt": pb.Real()},
        {"reward": pb.Real()}, ordered=True,
    )  # fmt: skip
    values = np.arange(12).reshape(4, 3)
    kinds = {"few": values, "many": 5 * values, "negative": values - 1, "float": 1.0 * values, "flag": values % 2 == 0}
    derived = pb.DatasetSimulator(kinds, ordered=False).schema.outcomes
    assert derived == {
        "few": pb.Categorical(12), "many": pb.Real(), "negative": pb.Real(), "float": pb.Real(),
        "flag": pb.Categorical(2),
    }  # fmt: skip
    with pytest.raises(ValueError, match="ordered: expected True or False where no schema"):
        pb.DatasetSimulator(kinds)


def test_people_are_held_out_by_share_or_by_name_and_never_divided():
    group = np.array(list("abcdefghij"))[np.arange(SETS) % 10]
    by_name = observed(ordered=True, group=group, held_out=["c", "j"])
    assert by_name.held_out_groups.tolist() == ["c", "j"]
    np.testing.assert_array_equal(by_name.stored_sets.held_out, (group == "c") | (group == "j"))
    shares = {tuple(observed(ordered=True, group=group, held_out=0.3, seed=seed).held_out_groups) for seed in range(6)}
    assert {len(labels) for labels in shares} == {3} and len(shares) > 2
    again = observed(ordered=True, group=group, held_out=0.3, seed=4)
    assert again.stored_sets.summary == observed(ordered=True, group=group, held_out=0.3, seed=4).stored_sets.summary
    assert (
        again.stored_sets.summary.digest != observed(ordered=True, group=group, held_out=0.3).stored_sets.summary.digest
    )
    for one in (by_name, again):
        apart = one.stored_sets.held_out
        assert not set(group[apart]) & set(group[~apart])
    assert str(by_name.stored_sets.summary) == "stored data of 8 people (2 more held out)"


def test_data_sets_end_where_every_variable_is_nan():
    rng = np.random.default_rng(1)
    y, x = rng.normal(size=(2, 5, 6))
    y[1, 4:], x[1, 3:] = np.nan, np.nan
    y[3, 2:], x[3, 2:] = np.nan, np.nan
    with pytest.raises(
        ValueError, match=r"inputs\['x'\]: expected a finite real number throughout, got nan in data set 1, and such"
    ):
        pb.DatasetSimulator({"y": y}, {"x": x}, ordered=True)
    x[1, 3] = 0.5
    simulator = pb.DatasetSimulator({"y": y}, {"x": x}, ordered=True)
    assert simulator.stored_sets.lengths.tolist() == [6, 4, 6, 2, 6]
    y[2], x[2] = np.nan, np.nan
    with pytest.raises(ValueError, match="outcomes: expected data sets with a trial at least, got none in data set 2"):
        pb.DatasetSimulator({"y": y}, {"x": x}, ordered=True)


def test_a_table_of_trials_is_a_data_set_a_subject():
    rng = np.random.default_rng(2)
    subject = np.repeat(["eve", "adam", "seth", "abel"], [5, 3, 6, 4])
    columns = {"inputs": {"cue": rng.integers(0, 3, 18)}, "outcomes": {"choice": rng.integers(0, 2, 18)}}
    trials = TrialData.from_rows(subject, **columns, feedback={"reward": rng.normal(size=18)}, fill={})
    simulator = pb.DatasetSimulator.from_trials(trials, ordered=True, held_out=["adam"])
    assert simulator.schema.outcomes == {"choice": pb.Categorical(2)} and simulator.schema.ordered
    assert simulator.stored_sets.lengths.tolist() == [5, 3, 6, 4]
    _, data = simulator.stored_sets.draw(np.random.default_rng(0), 1, 3, True)
    np.testing.assert_array_equal(data["choice"][0], columns["outcomes"]["choice"][5:8])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"outcomes": {"choice": np.zeros(7)}}, r"outcomes: expected a dict of arrays \(103, trials\)"),
        ({"params": {}}, "params: expected a dict of arrays .* are for DatasetSimulator"),
        ({"params": {"alpha": np.zeros((103, 2))}}, "params: expected a dict of arrays"),
        (
            {"params": {"alpha": np.full(103, 2.0)}},
            r"params\['alpha'\]: expected .* got 2 in data set 0, and such .* 103",
        ),
        ({"params": {"beta": np.zeros(103)}}, r"params: expected \['alpha'\], as the schema says, got \['beta'\]"),
        ({"inputs": None}, r"inputs: expected \['cue'\]"),
        ({"inputs": {"cue": np.zeros((103, 8))}}, r"inputs\['cue'\]: expected shape \(103, 7\), got \(103, 8\)"),
        ({"inputs": {"cue": np.full((103, 7), 3)}}, r"inputs\['cue'\]: expected .* got 3 in data set 0"),
        ({"inputs": {"cue": np.full((103, 7), "a")}}, r"inputs\['cue'\]: expected an array of numbers"),
        ({"schema": "learner"}, "schema: expected a ppl_buffer.Schema or None"),
        ({"ordered": False}, "ordered: expected True, as the schema says, or None, got False"),
        ({"held_out": 1.0}, "held_out: expected a share between 0 and 1, got 1.0"),
        ({"prior": [1]}, "prior: expected a dict of names"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        pb.StoredSimulations(**{**arrays(), "schema": LEARNER, **change})


def test_too_few_are_refused():
    with pytest.raises(ValueError, match="params: expected 100 simulations at least, and better thousands, got 99"):
        pb.StoredSimulations(**arrays(99), schema=LEARNER)
    with pytest.raises(ValueError, match="group: expected 3 people at least, some to hold out, got 2"):
        observed(ordered=True, group=np.arange(SETS) % 2)
    with pytest.raises(
        ValueError, match="held_out: expected labels of some of the 103 people, not of all, got \\[103\\]"
    ):
        observed(ordered=True, held_out=[1, 103])
    with pytest.raises(ValueError, match="group: expected a label for each of 103 data sets"):
        observed(ordered=True, group=[1, 2, 3])


def test_a_file_of_arrays_is_read(tmp_path):
    data = arrays()
    expected = pb.StoredSimulations(**data, schema=LEARNER)
    flat = {f"{group}/{name}": x for group, columns in data.items() for name, x in columns.items()}
    np.savez(tmp_path / "task.npz", **flat, schema=json.dumps(LEARNER.to_dict()))
    read = pb.StoredSimulations.from_npz(tmp_path / "task.npz")
    same_sets(read, expected)
    assert read.name == "task"
    np.savez(tmp_path / "plain.npz", **flat, ordered=1)
    same_sets(pb.StoredSimulations.from_npz(tmp_path / "plain.npz", schema=LEARNER), expected)
    assert pb.StoredSimulations.from_npz(tmp_path / "plain.npz").schema.ordered
    prior = {"alpha": pb.Prior("Uniform", {"low": 0.1, "high": 0.9})}
    stated = pb.StoredSimulations.from_npz(tmp_path / "task.npz", prior=prior)
    assert isinstance(stated, WithPriors) and stated.priors == prior


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "task.npz"
    with pytest.raises(ValueError, match="path: expected a file, but there is none"):
        pb.StoredSimulations.from_npz(path)
    path.write_text("alpha,choice")
    with pytest.raises(ValueError, match="path: expected a whole .npz file of numbers"):
        pb.StoredSimulations.from_npz(path)
    np.savez(path, alpha=np.zeros(3))
    with pytest.raises(ValueError, match=r"path: expected arrays called GROUP/NAME.* got 'alpha'"):
        pb.StoredSimulations.from_npz(path)
    np.savez(path, **{"params/alpha": np.array(["a", None], dtype=object)})
    with pytest.raises(ValueError, match="path: expected a whole .npz file of numbers"):
        pb.StoredSimulations.from_npz(path)
    np.savez(path, **{"params/alpha": np.zeros(3), "schema": "{"})
    with pytest.raises(ValueError, match="path: expected the JSON of a schema"):
        pb.StoredSimulations.from_npz(path)


def test_a_folder_of_two_tables_is_read(tmp_path):
    pandas = pytest.importorskip("pandas")
    data = arrays()
    for name, x in {**data["inputs"], **data["outcomes"], **data["feedback"]}.items():
        data_group = next(group for group in ("inputs", "outcomes", "feedback") if name in data[group])
        data[data_group][name] = np.where(np.arange(TRIALS) < 4 + np.arange(SETS)[:, None] % 4, x, np.nan)
    expected = pb.StoredSimulations(**data, schema=LEARNER)
    labels = np.array([f"run {index}" for index in range(SETS)])
    pandas.DataFrame({"data_set": labels, **data["params"], "more": 1}).to_csv(tmp_path / "params.csv")
    long = {name: x.ravel() for group in ("inputs", "outcomes", "feedback") for name, x in data[group].items()}
    table = pandas.DataFrame({"data_set": np.repeat(labels, TRIALS), **long}).dropna()
    table.to_csv(tmp_path / "trials.csv")
    same_sets(pb.StoredSimulations.from_folder(tmp_path, LEARNER), expected)
    table[table.data_set != "run 3"].to_csv(tmp_path / "trials.csv")
    with pytest.raises(ValueError, match="folder: expected a row of params for each data set of trials"):
        pb.StoredSimulations.from_folder(tmp_path, LEARNER)
    table.drop(columns="rt").to_csv(tmp_path / "trials.csv")
    with pytest.raises(ValueError, match=r"folder: expected the columns \['rt'\] in trials"):
        pb.StoredSimulations.from_folder(tmp_path, LEARNER)
    (tmp_path / "params.csv").unlink()
    with pytest.raises(ValueError, match=r"folder: expected params.csv or params.parquet in"):
        pb.StoredSimulations.from_folder(tmp_path, LEARNER)
