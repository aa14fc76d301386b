"""The audio-visual task: disjoint stratified sets, codes, the authors' file; and the real data."""

import numpy as np
import pytest

pytest.importorskip("pandas")

from ppl_buffer.datasets import audiovisual_localization
from tests.datasets.folder import FOLDER


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
    for subject in (3, 8):
        first, second = data.outcomes["response"][data.subjects == subject]
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
    cells = np.empty((1, 2), dtype=object)
    for index, subject in enumerate(table["subject"].drop_duplicates()):
        rows = table[table["subject"] == subject]
        matrices = {
            key: rows.loc[rows["task"] == task, ["reliability", "s_A", "s_V", "response"]].to_numpy()
            for key, task in (("dataV", "BV"), ("dataA", "BA"), ("dataA_uni", "UA"))
        }
        cells[0, index] = matrices
    scipy_io.savemat(tmp_path / "alldata.mat", {"data": cells})
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
