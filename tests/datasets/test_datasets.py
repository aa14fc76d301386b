import dataclasses
import functools
import hashlib
import http.server
import os
import threading
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pandas")

from ppl_buffer import datasets
from ppl_buffer.datasets import audiovisual_localization, conflict_task, selection_task

# Three people, 3, 1 and 2 trials, the first two interleaved and not in the order of their ids.
RENAMED = """subject,cond,split_by,trial,response,rt,feedback
42,CD,1,1,0,1.255,0
42,EF,2,1,1,0.778,1
7,AB,0,1,1,0.5,1
42,AB,0,1,1,0.647,0
59,EF,2,1,0,2.25,1
59,EF,2,2,1,0.3,0
"""
ORIGINAL = """subj_idx,response,cond,rt,trial,split_by,feedback,q_init
42,0.0,CD,1.255,1.0,1,0.0,0.5
42,1.0,EF,0.778,1.0,2,1.0,0.5
7,1.0,AB,0.5,1.0,0,1.0,0.5
42,1.0,AB,0.647,1.0,0,0.0,0.5
59,0.0,EF,2.25,1.0,2,1.0,0.5
59,1.0,EF,0.3,2.0,2,0.0,0.5
"""


def assert_is_the_example(data):
    assert data.subjects.tolist() == [42, 7, 59]
    assert data.trial_counts.tolist() == [3, 1, 2]
    assert data.trial_mask.tolist() == [[True, True, True], [True, False, False], [True, True, False]]
    assert {name: array.tolist() for name, array in data.inputs.items()} == {"pair": [[1, 2, 0], [0, 0, 0], [2, 2, 0]]}
    assert {name: array.tolist() for name, array in data.outcomes.items()} == {
        "choice": [[0, 1, 1], [1, 0, 0], [0, 1, 0]],
        "rt": [[1.255, 0.778, 0.647], [0.5, 1.0, 1.0], [2.25, 0.3, 1.0]],
    }
    assert list(data.feedback) == ["reward"]
    assert data.feedback["reward"].tolist() == [[0, 1, 0], [1, 0, 0], [1, 0, 0]]


@pytest.fixture(autouse=True)
def no_folder_of_data(monkeypatch):
    monkeypatch.setenv("PPL_BUFFER_DATA", "")


@pytest.mark.parametrize("text", [RENAMED, ORIGINAL], ids=["renamed", "original"])
def test_reads_a_file_with_either_set_of_column_names(tmp_path, text):
    (tmp_path / "any name.csv").write_text(text)
    assert_is_the_example(selection_task(tmp_path / "any name.csv"))
    assert_is_the_example(selection_task(str(tmp_path / "any name.csv")))


@pytest.mark.parametrize("place", ["rlddm_pst_hddm/pst_learning.csv", "pst_learning.csv", "rlddm_data.csv"])
def test_finds_the_file_in_a_folder(tmp_path, monkeypatch, place):
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text(RENAMED)
    assert_is_the_example(selection_task(tmp_path))
    monkeypatch.setenv("PPL_BUFFER_DATA", str(tmp_path))
    assert_is_the_example(selection_task())


def test_says_where_the_data_are_to_be_had_when_they_are_missing(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"^path: .*rlddm_pst_hddm/pst_learning.csv, got .*https://.*hddm"):
        selection_task(tmp_path)
    # A folder that was named is not passed over in silence.
    monkeypatch.setenv("PPL_BUFFER_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match=r"^PPL_BUFFER_DATA: .*nowhere"):
        selection_task()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("rt", "latency"), r"expected a column 'rt', got .* with the columns .*'latency'"),
        (("subject", "who"), "expected a column 'subject'"),
        (("EF,2,1,1", "EF,3,1,1"), r"expected 0, 1 or 2 in column 'split_by', got .*3.* in row 2"),
        (("AB,0,1,1,0.5", "AB,0,1,2,0.5"), "expected 0 or 1 in column 'response', got .*2.* in row 3"),
        (("0.647", "-0.647"), "expected numbers above 0 in column 'rt', got .*-0.647.* in row 4"),
        (("0.647", ""), "expected numbers above 0 in column 'rt', got .*nan.* in row 4"),
        (("0.647", "fast"), "expected numbers above 0 in column 'rt', got 'fast' in row 4"),
        (("2.25,1", "2.25,0.5"), "expected 0 or 1 in column 'feedback', got .*0.5.* in row 5"),
        (("59,EF,2,2", "x,EF,2,2"), "expected integers in column 'subject', got 'x' in row 6"),
        ((RENAMED[RENAMED.index("42") :], ""), "expected at least one trial"),
        ((RENAMED, ""), "expected the CSV file of the selection task"),
        (("0.3,0", "0.3,0,0,0,0,0"), "expected the CSV file of the selection task"),
    ],
)
def test_refuses_a_file_that_is_not_the_selection_task(tmp_path, change, message):
    assert change[0] in RENAMED
    (tmp_path / "pst_learning.csv").write_text(RENAMED.replace(*change))
    with pytest.raises(ValueError, match=f"(?s)^path: {message}"):
        selection_task(tmp_path)


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A server that holds the example in place of the original, and an empty cache folder."""
    pooch = pytest.importorskip("pooch")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format, *args):
            pass

    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "rlddm_data.csv").write_text(ORIGINAL)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    served = dataclasses.replace(
        datasets._SELECTION_TASK,
        url=f"http://127.0.0.1:{server.server_port}/rlddm_data.csv",
        sha256=hashlib.sha256(ORIGINAL.encode()).hexdigest(),
    )
    monkeypatch.setattr(datasets, "_SELECTION_TASK", served)
    yield folder / "rlddm_data.csv"
    server.shutdown()
    thread.join()
    server.server_close()


def test_fetches_the_original_once(source):
    assert_is_the_example(selection_task())
    source.unlink()
    assert_is_the_example(selection_task())


def test_refuses_to_fetch_what_does_not_have_the_checksum(source):
    source.write_text(ORIGINAL.replace("1.255", "1.256"))
    with pytest.raises(ValueError, match="hash"):
        selection_task()


def test_says_what_to_do_where_the_original_cannot_be_fetched(source):
    source.unlink()
    with pytest.raises(FileNotFoundError, match="could not be fetched .* download http.* or set PPL_BUFFER_DATA"):
        selection_task()


BESIDE_THE_PROJECT = Path(__file__).resolve().parents[3] / "shared" / "data"
FOLDER = Path(os.environ.get("PPL_BUFFER_DATA") or BESIDE_THE_PROJECT)


@pytest.mark.skipif(
    not (FOLDER / "rlddm_pst_hddm" / "pst_learning.csv").is_file(),
    reason="the selection task is not on this machine: set PPL_BUFFER_DATA to the folder that holds rlddm_pst_hddm",
)
def test_the_real_data_are_what_their_description_says():
    data = selection_task(FOLDER)
    assert data.subjects.shape == (28,)
    assert len(set(data.subjects)) == 28
    assert (data.subjects.min(), data.subjects.max()) == (3, 80)
    assert data.trial_mask.shape == (28, 360)
    assert data.trial_mask.sum() == 5280
    assert (data.trial_counts.min(), data.trial_counts.max()) == (113, 360)
    np.testing.assert_array_equal(data.trial_mask.sum(1), data.trial_counts)
    assert np.all(np.diff(data.trial_mask.astype(int), axis=1) <= 0)
    rt = data.outcomes["rt"][data.trial_mask]
    assert (rt.min(), rt.max()) == (0.201, 5.849)
    # The better symbol of each pair is rewarded with 0.8, 0.7 and 0.6, the other with the complement.
    for pair, probability in enumerate((0.8, 0.7, 0.6)):
        for choice, expected in ((1, probability), (0, 1 - probability)):
            chosen = data.trial_mask & (data.inputs["pair"] == pair) & (data.outcomes["choice"] == choice)
            error = 4 * np.sqrt(expected * (1 - expected) / chosen.sum())
            assert abs(data.feedback["reward"][chosen].mean() - expected) < error


# The audio-visual task -----------------------------------------------------------------------------------------------


def audiovisual_table(counts):
    """Rows of people with so many trials in each stratum (task BV or BA, reliability 1 to 3), shuffled; others' too."""
    rng, rows = np.random.default_rng(0), []
    for subject, strata in counts.items():
        for stratum, count in enumerate(strata):
            task, reliability = ("BV", "BA")[stratum // 3], stratum % 3 + 1
            for _ in range(count):
                # Every response is unlike the others.
                rows.append(f"{subject},{task},{reliability},5,{rng.uniform(-20, 20):.4f},{len(rows) / 1000}")
        rows += [f"{subject},UA,,-10,,3.0", f"{subject},BC,1,-10,4.0,1.0"]
    return "subject,task,reliability,s_A,s_V,response\n" + "\n".join(rng.permutation(rows)) + "\n"


# A person with trials to spare but few in one stratum, and one with just enough, who has four strata of odd size.
PEOPLE = {3: (200, 201, 200, 100, 200, 199), 8: (131, 132, 131, 147, 129, 130)}


@pytest.fixture
def audiovisual(tmp_path):
    (tmp_path / "av.csv").write_text(audiovisual_table(PEOPLE))
    return tmp_path


def strata_counts(data):
    return [np.bincount(row, minlength=6).tolist() for row in 3 * data.inputs["r_type"] + data.inputs["V_level"]]


def test_audiovisual_sets_are_disjoint_and_stratified(audiovisual):
    data = audiovisual_localization(audiovisual)
    assert sorted(data.subjects.tolist()) == [3, 3, 8, 8] and data.trial_mask.all() and data.feedback == {}
    assert {name: x.shape for name, x in {**data.inputs, **data.outcomes}.items()} == dict.fromkeys(
        ("r_type", "s_A", "s_V", "V_level", "response"), (4, 400)
    )
    for person in (3, 8):
        first, second = data.outcomes["response"][data.subjects == person]
        assert len(set(first) | set(second)) == 800
    counts = strata_counts(data)
    plenty = data.subjects.tolist().index(3)
    # As even as fifty pairs in the fourth stratum allow, and the same in both sets.
    assert counts[plenty] == counts[plenty + 1] == [70, 70, 70, 50, 70, 70]
    scarce = data.subjects.tolist().index(8)
    difference = np.abs(np.subtract(counts[scarce], counts[scarce + 1]))
    assert np.add(counts[scarce], counts[scarce + 1]).tolist() == list(PEOPLE[8]) and difference.max() == 1


def rows_of(folder, responses):
    """The rows of the file that hold these responses, all of them different, and their places among its trials."""
    table = pytest.importorskip("pandas").read_csv(folder / "av.csv")
    table = table[table.task.isin(["BV", "BA"])].set_index("response")
    return table.loc[responses], table.index.get_indexer(responses)


def assert_coded(rows, data, index):
    np.testing.assert_array_equal(rows["task"] == "BA", data.inputs["r_type"][index])
    np.testing.assert_array_equal(rows["reliability"] - 1, data.inputs["V_level"][index])
    np.testing.assert_array_equal(rows[["s_A", "s_V"]].T, [data.inputs["s_A"][index], data.inputs["s_V"][index]])


def test_audiovisual_rows_keep_their_values_codes_and_order(audiovisual):
    data = audiovisual_localization(audiovisual / "av.csv")
    for index in range(4):
        rows, places = rows_of(audiovisual, data.outcomes["response"][index])
        assert (rows["subject"] == data.subjects[index]).all() and (np.diff(places) > 0).all()
        assert_coded(rows, data, index)


def test_audiovisual_draw_is_a_function_of_the_seed(audiovisual):
    first, again, other = (audiovisual_localization(audiovisual, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.outcomes["response"], again.outcomes["response"])
    assert strata_counts(first) == strata_counts(other)
    shared = set(first.outcomes["response"][0]) & set(other.outcomes["response"][0])
    assert 0 < len(shared) < 300


def test_audiovisual_reads_the_authors_file(tmp_path, audiovisual):
    scipy_io = pytest.importorskip("scipy.io")
    pandas = pytest.importorskip("pandas")
    table = pandas.read_csv(audiovisual / "av.csv")
    people = np.empty((1, 2), dtype=object)
    for index, subject in enumerate(table["subject"].drop_duplicates()):
        rows = table[table["subject"] == subject]
        matrices = {
            key: rows.loc[rows["task"] == task, ["reliability", "s_A", "s_V", "response"]].to_numpy()
            for key, task in (("dataV", "BV"), ("dataA", "BA"), ("dataA_uni", "UA"))
        }
        people[0, index] = matrices
    scipy_io.savemat(tmp_path / "alldata.mat", {"data": people})
    data = audiovisual_localization(tmp_path / "alldata.mat")
    assert data.subjects.tolist() == [1, 1, 2, 2]
    for index in range(4):
        rows, _ = rows_of(audiovisual, data.outcomes["response"][index])
        assert rows["subject"].nunique() == 1
        assert_coded(rows, data, index)
    assert sorted(strata_counts(data)[0::2]) == sorted(strata_counts(audiovisual_localization(audiovisual))[0::2])
    scipy_io.savemat(tmp_path / "alldata.mat", {"other": 1.0})
    with pytest.raises(ValueError, match="path: expected the authors' alldata.mat"):
        audiovisual_localization(tmp_path / "alldata.mat")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("task", "kind"), "expected a column 'task'"),
        (("reliability", "noise"), "expected a column 'reliability'"),
        (("BV,2", "BV,4"), "expected 1, 2 or 3 in column 'reliability'"),
        (("BA,3,5", "BA,3,left"), "expected numbers in column 's_A', got 'left'"),
    ],
)
def test_refuses_a_file_that_is_not_the_audiovisual_task(audiovisual, change, message):
    text = (audiovisual / "av.csv").read_text()
    assert change[0] in text
    (audiovisual / "av.csv").write_text(text.replace(*change, 1))
    with pytest.raises(ValueError, match=f"(?s)^path: {message}"):
        audiovisual_localization(audiovisual)


def test_refuses_people_with_too_few_audiovisual_trials(tmp_path):
    (tmp_path / "av.csv").write_text(audiovisual_table({5: (130, 130, 130, 130, 130, 149)}))
    with pytest.raises(ValueError, match="path: expected at least 800 BV and BA trials of each person, got 799"):
        audiovisual_localization(tmp_path)


@pytest.mark.skipif(
    not (FOLDER / "mci_audiovisual_liu2026" / "av.csv").is_file(),
    reason="the audio-visual data are not on this machine: set PPL_BUFFER_DATA to the folder that holds them",
)
def test_the_real_audiovisual_data_are_what_their_description_says():
    data = audiovisual_localization(FOLDER)
    assert data.subjects.tolist() == [subject for subject in range(1, 16) for _ in range(2)]
    assert data.trial_mask.shape == (30, 400) and data.trial_mask.all()
    assert set(np.unique(data.inputs["s_A"])) == {-15, -10, -5, 0, 5, 10, 15}
    assert np.abs(data.inputs["s_V"]).max() <= 20 and np.abs(data.outcomes["response"]).max() < 45
    assert 0.45 < (data.inputs["s_A"] == data.inputs["s_V"]).mean() < 0.55
    counts = np.array(strata_counts(data))
    assert (np.abs(counts[::2] - counts[1::2]).max(1) > 0).tolist() == [subject == 8 for subject in range(1, 16)]
    # Flashes are placed the less well, the noisier they are said to be.
    flash = data.inputs["r_type"] == 0
    error = np.abs(data.outcomes["response"] - data.inputs["s_V"])
    spread = [np.median(error[flash & (data.inputs["V_level"] == level)]) for level in range(3)]
    assert spread[0] < 0.8 * spread[1] < 0.64 * spread[2]


# Two people, 2 and 1 trials, not in the order of their ids.
CONFLICT = """subject,stim,rt,response,theta,dbs,conf
5,LL,1.21,1,0.65,1,HC
2,WL,1.63,0,-0.32,0,LC
5,WW,0.402,0,-0.48,1,HC
"""


@pytest.mark.parametrize("name", ["ddm_cavanagh2011/cavanagh2011.csv", "cavanagh2011.csv", "cavanagh_theta_nn.csv"])
@pytest.mark.parametrize("text", [CONFLICT, CONFLICT.replace("subject", "subj_idx")], ids=["renamed", "original"])
def test_reads_the_conflict_task(tmp_path, name, text):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
    data = conflict_task(tmp_path)
    assert data.subjects.tolist() == [5, 2]
    assert data.trial_mask.tolist() == [[True, True], [True, False]]
    assert {name: array.tolist() for name, array in data.inputs.items()} == {
        "symbols": [[0, 2], [1, 0]],
        "conflict": [[1, 1], [0, 0]],
        "theta": [[0.65, -0.48], [-0.32, 0.0]],
        "stimulation": [[1, 1], [0, 0]],
    }
    assert {name: array.tolist() for name, array in data.outcomes.items()} == {
        "choice": [[1, 0], [0, 0]],
        "rt": [[1.21, 0.402], [1.63, 1.0]],
    }
    assert data.feedback == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("stim", "symbols"), "expected a column 'stim'"),
        (("WL", "LW"), "expected LL, WL or WW in column 'stim', got 'LW' in row 2"),
        (("LC", "MC"), "expected LC or HC in column 'conf', got 'MC' in row 2"),
        (("0.402", "0"), "expected numbers above 0 in column 'rt', got .*0.0.* in row 3"),
    ],
)
def test_refuses_a_file_that_is_not_the_conflict_task(tmp_path, change, message):
    (tmp_path / "cavanagh2011.csv").write_text(CONFLICT.replace(*change))
    with pytest.raises(ValueError, match=f"(?s)^path: {message}"):
        conflict_task(tmp_path)


@pytest.mark.skipif(
    not (FOLDER / "ddm_cavanagh2011" / "cavanagh2011.csv").is_file(),
    reason="the conflict task is not on this machine: set PPL_BUFFER_DATA to the folder that holds ddm_cavanagh2011",
)
def test_the_conflict_data_are_what_their_description_says():
    data = conflict_task(FOLDER)
    assert data.subjects.tolist() == list(range(14))
    assert data.trial_mask.sum() == 3988
    assert (data.trial_counts.min(), data.trial_counts.max()) == (217, 309)
    rt = data.outcomes["rt"][data.trial_mask]
    assert (rt.min(), rt.max()) == (0.402, 4.84)
    # One of each is low conflict; and is the easier choice.
    conflict, symbols = data.inputs["conflict"][data.trial_mask], data.inputs["symbols"][data.trial_mask]
    np.testing.assert_array_equal(conflict == 0, symbols == 1)
    better = data.outcomes["choice"][data.trial_mask]
    assert better[conflict == 0].mean() > better[conflict == 1].mean()
