"""The page on stored data runs as written, with smaller numbers."""

import re
import warnings
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "stored_data.md"
QUICK = (
    'steps=1, batch_size=2, held_out=4, workers=0, progress=False, config=pb.Config(width=8, depth=1, heads=2, mlp=8, '
    "components=2, param_depth=1, contextual_positions=1),"
)  # fmt: skip


def test_the_page_runs(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL))
    assert code.count("minutes=5,") == 2 and code.count("likelihood(net, stored)") == 1
    code = code.replace("minutes=5,", QUICK).replace("size, trials = 5000, 60", "size, trials = 251, 13")
    code = code.replace("(net, stored)", "(net, stored, rollouts=False, progress=False)")
    names = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a network of one step
        exec(compile(code, str(PAGE), "exec"), names)
    assert names["net"].record.stored.data_sets == 226 and not names["net"].record.observed
    assert names["other"].record.stored.groups == 48 and names["other"].record.observed
    assert len(names["check"].params["bias"]) == 25
