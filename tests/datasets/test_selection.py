"""The selection task: read, found, fetched, refused; and the real data."""

import dataclasses
import functools
import hashlib
import http.server
import threading

import numpy as np
import pytest

pytest.importorskip("pandas")

from ppl_buffer.datasets import selection, selection_task
from tests.datasets.folder import FOLDER

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
        selection.SOURCE,
        url=f"http://127.0.0.1:{server.server_port}/rlddm_data.csv",
        sha256=hashlib.sha256(ORIGINAL.encode()).hexdigest(),
    )
    monkeypatch.setattr(selection, "SOURCE", served)
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
            rows = data.trial_mask & (data.inputs["pair"] == pair) & (data.outcomes["choice"] == choice)
            error = 4 * np.sqrt(expected * (1 - expected) / rows.sum())
            assert abs(data.feedback["reward"][rows].mean() - expected) < error
