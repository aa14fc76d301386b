"""Tables in other units and codes than the network's: what is refused of whom, and what is written to mend it."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("pandas")

import pandas

from ppl_buffer import simulators
from ppl_buffer.datasets import read_trials
from ppl_buffer.findings import FindingWarning
from ppl_buffer.network import checkpoint
from ppl_buffer.network.config import Config
from ppl_buffer.network.record import TrainingRecord
from ppl_buffer.schema import Interval, Schema

SUBJECTS, TRIALS = 4, 30


def shipped(name):
    """A shipped network as a reader of tables sees it."""
    description, _ = checkpoint.read_description(checkpoint.shipped()[name])
    return SimpleNamespace(
        schema=Schema.from_dict(description["schema"]),
        config=Config.from_dict(description["config"]),
        preferred_likelihood="direct",
        standardization=description["standardization"],
        record=TrainingRecord.from_dict(description["record"]),
    )


RLDDM, PLACES = shipped("rlddm"), shipped("multisensory_rho1")
SIMULATORS = {id(RLDDM): simulators.RLDriftDiffusion(), id(PLACES): simulators.MultisensoryCausalInference(rho=1)}


def table_for(net):
    """Simulated subjects s0 to s3, a row a trial."""
    simulator, rng = SIMULATORS[id(net)], np.random.default_rng(3)
    inputs = simulator.inputs(rng, SUBJECTS, TRIALS)
    drawn = {**inputs, **simulator.simulate(rng, simulator.prior(rng, SUBJECTS), inputs)}
    labels = np.repeat([f"s{index}" for index in range(SUBJECTS)], TRIALS)
    return pandas.DataFrame({"subject": labels, **{name: np.ravel(x) for name, x in drawn.items()}})


def message(table, net=RLDDM, **more):
    with pytest.raises(ValueError) as error:
        read_trials(table, net, **more)
    return str(error.value)


def same(first, second):
    for name, values in {**first.inputs, **first.outcomes, **first.feedback}.items():
        np.testing.assert_allclose(values, {**second.inputs, **second.outcomes, **second.feedback}[name], rtol=1e-6)


@pytest.mark.parametrize("net", [RLDDM, PLACES], ids=["rlddm", "places"])
def test_simulated_tables_are_read_without_a_word(net):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_trials(table_for(net), net)


def test_milliseconds_of_everybody_and_of_one():
    table = table_for(RLDDM)
    right = read_trials(table, RLDDM)
    said = message(table.assign(rt=1000 * table["rt"]))
    assert "(rt) has a median of" in said and "milliseconds" in said and said.endswith("write: --scale rt=0.001")
    same(read_trials(table.assign(rt=1000 * table["rt"]), RLDDM, scale={"rt": 0.001}), right)
    one = table.assign(rt=np.where(table["subject"] == "s2", 1000 * table["rt"], table["rt"]))
    said = message(one)
    # A factor for the whole column would be wrong of the others.
    assert "(rt) of subject s2 has a median" in said and "Multiply them by 0.001 in the table" in said
    assert "--scale" not in said and "rows 60, 61, 62 and 27 more" in said
    # A factor that is wrong is told from one that is missing.
    said = message(table, scale={"rt": 0.001})
    assert "seconds, and the model reads milliseconds" not in said and said.endswith("leave out --scale rt=0.001")
    assert message(table.assign(rt=1e6 * table["rt"]), scale={"rt": 0.001}).endswith("write: --scale rt=1e-06")


@pytest.mark.parametrize("code", [999, -999, -1, 9999])
@pytest.mark.parametrize("name", ["rt", "reward", "choice", "pair"])
def test_codes_for_missing_values(name, code):
    table = table_for(RLDDM).astype({name: float})
    table.loc[[5, 70], name] = code
    said = message(table)
    assert f"({name})" in said and f"{code}" in said and "rows 5, 70" in said and "delete" in said.lower()
    assert "missed response" in said


@pytest.mark.parametrize("code", [999, -999])
@pytest.mark.parametrize("name", ["s_A", "response"])
def test_codes_in_places(name, code):
    table = table_for(PLACES)
    table.loc[7, name] = code
    assert f"({name}) is {code} in row 7 (subject s0)" in message(table, PLACES)


@pytest.mark.parametrize(
    "code, written",
    [
        (lambda x: 100 * x, "--recode reward:0=0,100=1"),
        (lambda x: 2 * x - 1, "--recode reward:-1=0,1=1"),
        (lambda x: 1 + x, "--recode reward:1=0,2=1"),
    ],
)
def test_rewards_of_another_code(code, written):
    table = table_for(RLDDM)
    right, other = read_trials(table, RLDDM), table.assign(reward=code(table["reward"]))
    said = message(other)
    assert "the model was trained with '0', '1' alone" in said and said.endswith(f"write: {written}")
    codes = dict(pair.split("=") for pair in written.split(":")[1].split(","))
    same(read_trials(other, RLDDM, recode={"reward": {key: float(x) for key, x in codes.items()}}), right)


def test_rewards_of_another_task():
    table = table_for(RLDDM)
    said = message(table.assign(reward=np.arange(len(table)) % 9 - 4))
    assert "holds '-4', '-3', '-2'" in said and "Is it the right model?" in said and "--recode" not in said


def test_rewards_of_one_subject_of_another_code():
    table = table_for(RLDDM)
    right, one = read_trials(table, RLDDM), table["subject"] == "s1"
    cents = table.assign(reward=np.where(one, 100, 1) * table["reward"])
    said = message(cents)
    assert "(reward) of subject s1 holds '0', '100'" in said
    assert said.endswith("write: --recode reward:0=0,100=1,1=1")
    same(read_trials(cents, RLDDM, recode={"reward": {"0": 0, "100": 1, "1": 1}}), right)
    # 1 means one thing for s1 and another for the others: no code for the column is right.
    said = message(table.assign(reward=table["reward"] + one))
    assert "of subject s1 holds '1', '2'" in said and "--recode" not in said and "others have '0', '1'" in said


def test_choices_of_one_subject_of_another_code():
    table = table_for(RLDDM)
    said = message(table.assign(choice=table["choice"] + (table["subject"] == "s1")))
    assert "(choice) holds '0', '1', '2'" in said and "Subject s1 alone has other codes" in said


def test_radians_and_pixels():
    table = table_for(PLACES)
    right = read_trials(table, PLACES)
    radians = table.assign(s_A=np.deg2rad(table["s_A"]))
    said = message(radians, PLACES)
    assert "(s_A) has a median" in said and "radians, and the model reads degrees; write: --scale s_A=57.2958" in said
    again = read_trials(radians, PLACES, scale={"s_A": 57.2958})
    np.testing.assert_allclose(again.inputs["s_A"], right.inputs["s_A"], rtol=1e-5)
    one = table.assign(response=np.where(table["subject"] == "s3", np.deg2rad(table["response"]), table["response"]))
    said = message(one, PLACES)
    assert "(response) of subject s3" in said and "radians" in said and "Multiply them by 57.2958 in the table" in said
    said = message(table.assign(s_V=40 * table["s_V"] + 960), PLACES)
    assert "(s_V) has a median" in said and "pixels" in said and "--scale s_V=FACTOR" in said


def test_what_is_outside_the_range_and_no_mistake_is_warned_of_and_read():
    table = table_for(PLACES)
    wider = table.assign(s_A=1.5 * table["s_A"])
    with pytest.warns(FindingWarning, match=r"\(s_A\).* trained on values from -15 to 15; predictions") as said:
        trials = read_trials(wider, PLACES)
    assert said[0].filename == __file__ and said[0].message.finding.kind == "outside_range"
    np.testing.assert_allclose(trials.inputs["s_A"][trials.trial_mask].max(), 22.5)


def test_a_user_who_knows_better_reads_all_the_same():
    table = table_for(RLDDM)
    table.loc[5, "rt"] = 999
    with pytest.warns(FindingWarning, match="rt.* is 999 in row 5"):
        assert read_trials(table, RLDDM, outside="warn").outcomes["rt"][0, 5] == 999
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_trials(table, RLDDM, outside="ignore")
    with pytest.raises(ValueError, match="outside: expected one of"):
        read_trials(table, RLDDM, outside="maybe")


def test_networks_from_before_ranges_were_kept():
    table = table_for(RLDDM)
    older = SimpleNamespace(schema=RLDDM.schema, config=Config(), standardization=RLDDM.standardization, record=None)
    slow = table.assign(rt=1000 * table["rt"])
    assert "milliseconds" in message(slow, older)
    codes = table.assign(reward=100 * table["reward"])
    read_trials(codes, older)
    assert "--recode reward:0=0,100=1" in message(codes, older, simulator=SIMULATORS[id(RLDDM)])


def test_per_cent_of_a_slider():
    slider = SimpleNamespace(schema=Schema(outcomes={"rating": Interval(0, 1)}), standardization={}, record=None)
    table = pandas.DataFrame({"subject": ["a", "a", "b", "b"], "rating": [12, 30, 45, 99]})
    assert "If these are per cent, write: --scale rating=0.01" in message(table, slider)
    assert read_trials(table, slider, scale={"rating": 0.01}).outcomes["rating"][1, 1] == pytest.approx(0.99)
    assert "per cent" not in message(table.assign(rating=[12, 30, 450, 99]), slider)
