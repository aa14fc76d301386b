"""The worked example: one simulator on the page and in the notebook, and the page's tables are what was measured."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ppl_buffer as pb

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "bring_a_simulator.md"
SCRIPT = ROOT / "benchmarks" / "two_step_example.py"


def test_the_page_and_the_notebook_have_one_simulator():
    """And it is the model of the library."""
    page, notebook = PAGE.read_text(), (PAGE.parents[1] / "examples" / "two_step.py").read_text()
    code = class_text(page)
    assert class_text(notebook) == code
    names = {"np": np, "pb": pb, "RewardWalks": type(pb.simulators.TwoStep.environment)}
    exec(compile(code, str(PAGE), "exec"), names)
    ours, shipped = names["TwoStep"](), pb.simulators.TwoStep()
    assert ours.schema == shipped.schema and ours.priors == shipped.priors
    rng = np.random.default_rng(0)
    params = ours.prior(rng, 20)
    inputs = {"common": ours.inputs(rng, 20, 30)["common"].astype(int)}
    data, chances = ours.simulate_with_probabilities(rng, params, inputs)
    chosen = [np.take_along_axis(chances[name], data[name][..., None], -1)[..., 0] for name in ours.schema.outcomes]
    np.testing.assert_allclose(np.log(chosen[0] * chosen[1]), shipped.log_likelihood(params, inputs | data), rtol=1e-7)


def class_text(text):
    """The class, and the function that it calls."""
    end = "    return 0.5 * (1 + np.tanh(0.5 * x))\n"
    return text[text.index("class TwoStep:") : text.index(end) + len(end)]


def test_the_tables_of_the_page_are_what_was_measured(tmp_path):
    pytest.importorskip("torch")
    code = (
        f"import json, sys; sys.path.insert(0, {str(SCRIPT.parent)!r}); import two_step_example as script; "
        f"file = script.RESULTS / 'two_step_example.json'; "
        f"results = json.loads(file.read_text())['results'] if file.is_file() else {{}}; "
        f"page = script.PAGE.read_text(); assert script.with_tables(page, results) == page; "
        f"print(json.dumps(script.tables(results)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    tables = json.loads(done.stdout)
    assert all(table in PAGE.read_text() for table in tables.values())


@pytest.mark.slow
def test_the_script_runs(tmp_path):
    for module in ("torch", "numpyro", "pyro", "pandas"):
        pytest.importorskip(module)
    rows = [f"{person}\t{1 + k % 2}\t{1 + k % 4}\t{k % 3 % 2}" for person in (1, 2, 3) for k in range(8)]
    text = "\n".join(["subjID\tlevel1_choice\tlevel2_choice\treward", *rows])
    (tmp_path / "ts_exampleData.txt").write_text(text + "\n")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--quick", "--out", str(tmp_path), "--runs", str(tmp_path / "runs")],
        env=os.environ | {"PPL_BUFFER_DATA": str(tmp_path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=580,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads((tmp_path / "two_step_example.json").read_text())["results"]
    assert set(results) == {"train", "probabilities", "fit"}
    assert "| NUTS, 3 people in a hierarchy" in done.stdout
