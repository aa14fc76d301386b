"""The conflict task: read, refused; and the real data."""

import numpy as np
import pytest

pytest.importorskip("pandas")

from ppl_buffer.datasets import conflict_task
from tests.datasets.folder import FOLDER

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
