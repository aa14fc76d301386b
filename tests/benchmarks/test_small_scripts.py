"""Benchmarks of single features run, at tiny sizes."""

import importlib
import json
import sys
from pathlib import Path

import pytest

for _library in ("torch", "pandas"):
    pytest.importorskip(_library)
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))


@pytest.mark.slow
@pytest.mark.parametrize("script", ["fourier", "orders_and_blocks", "compression", "gp_consistency"])
def test_scripts_run(script, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("PPL_BUFFER_DATA", raising=False)
    importlib.import_module(script.removeprefix("gp_")).main(["--quick", "--out", str(tmp_path)])
    results = json.loads((tmp_path / f"{script}.json").read_text())["results"]
    shown = capsys.readouterr().out
    for row in results.get("bars", []):
        assert row["what"] in shown
    if script == "compression":
        assert all(row["came back"] for row in (*results["learner"], *results["rows"]) if "came back" in row)
    if script == "gp_consistency":
        assert set(results["figures"]) == {"simulated", "drawn"}
        assert all(figure["divergence"] >= 0 for figure in results["figures"].values())
