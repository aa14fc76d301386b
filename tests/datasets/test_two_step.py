"""The two-step task: read, found, refused; and the real data."""

import numpy as np
import pytest

pytest.importorskip("pandas")

from ppl_buffer.datasets import two_step_task
from ppl_buffer.datasets.two_step import SOURCE
from ppl_buffer.simulators import TwoStep
from tests.datasets.folder import FOLDER

# The rows of two people alternate; the second one missed a trial.
TEXT = """subjID	trial	level1_choice	level2_choice	reward	A1prob
4	1	1	1	1	0.7
9	1	2	3	0	0.7
4	2	1	4	0	0.6
9	3	1	2	1	0.6
4	3	2	2	1	0.5
"""


def test_reads_transitions_and_choices_within_the_state(tmp_path):
    (tmp_path / "any name.txt").write_text(TEXT)
    data = two_step_task(tmp_path / "any name.txt")
    assert data.subjects.tolist() == [4, 9]
    assert data.trial_mask.tolist() == [[True, True, True], [True, True, False]]
    assert data.inputs["common"].tolist() == [[1, 0, 0], [1, 1, 0]]
    assert data.outcomes["choice_1"].tolist() == [[0, 0, 1], [1, 0, 0]]
    assert data.outcomes["choice_2"].tolist() == [[0, 1, 1], [0, 1, 0]]
    assert data.feedback["reward"].tolist() == [[1, 0, 1], [0, 1, 0]]
    schema = TwoStep.schema
    groups = ((data.inputs, schema.inputs), (data.outcomes, schema.outcomes), (data.feedback, schema.feedback))
    assert all(list(columns) == list(variables) for columns, variables in groups)


@pytest.mark.parametrize("place", SOURCE.places)
def test_finds_the_file_in_a_folder(tmp_path, monkeypatch, place):
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text(TEXT)
    monkeypatch.setenv("PPL_BUFFER_DATA", str(tmp_path))
    assert two_step_task().trial_counts.tolist() == [3, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("level2_choice", "second"), r"expected a column 'level2_choice', got .* with the columns"),
        (
            ("4	1	1	1	1", "4	1	3	1	1"),
            "expected 1 or 2 in column 'level1_choice', got .*3.* in row 1",
        ),
        (
            ("4	2	1	4	0", "4	2	1	5	0"),
            "expected 1, 2, 3 or 4 in column 'level2_choice', got .*5.* in row 3",
        ),
        (
            ("4	2	1	4	0", "4	2	1	4	-1"),
            "expected 0 or 1 in column 'reward', got .*-1.* in row 3",
        ),
    ],
)
def test_refuses_a_file_that_is_not_the_two_step_task(tmp_path, change, message):
    assert TEXT.count(change[0]) == 1
    (tmp_path / "ts_exampleData.txt").write_text(TEXT.replace(*change))
    with pytest.raises(ValueError, match=f"(?s)^path: {message}"):
        two_step_task(tmp_path)


def test_says_where_the_data_are_to_be_had(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"two_step_hbayesdm/ts_exampleData.txt, got .*https://.*hBayesDM"):
        two_step_task(tmp_path)


@pytest.mark.skipif(
    not (FOLDER / SOURCE.places[0]).is_file(),
    reason="the two-step task is not on this machine: set PPL_BUFFER_DATA to the folder that holds two_step_hbayesdm",
)
def test_the_real_data_are_what_their_description_says():
    data = two_step_task(FOLDER)
    assert data.subjects.tolist() == list(range(1, 12))
    assert (data.trial_counts.min(), data.trial_counts.max(), data.trial_counts.sum()) == (197, 200, 2190)
    mask = data.trial_mask
    assert abs(data.inputs["common"][mask].mean() - 0.7) < 4 * np.sqrt(0.21 / mask.sum())
    # People stay with a first choice that was rewarded, above all after a common transition: the task's known pattern.
    stay = (data.outcomes["choice_1"][:, 1:] == data.outcomes["choice_1"][:, :-1])[mask[:, 1:]]
    before = (data.feedback["reward"] + 2 * data.inputs["common"])[:, :-1][mask[:, 1:]]
    share = [stay[before == kind].mean() for kind in range(4)]
    assert share[3] > share[0] > share[2] and share[3] > share[1] > share[2]
