"""Every script in examples/ runs with its default network, in its smallest form, on a machine that has no data."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))
# What a script imports beside the core, by how its name ends.
NEEDS = {
    "selection_task": ("numpyro", "arviz"),
    "pyro": ("pyro", "arviz"),
    "train_noisy_q": ("torch",),
    "train_gp": ("torch",),
    "train_ddm": ("torch",),
    "train_rlddm": ("torch",),
    "train_multisensory": ("torch",),
}


def test_there_are_examples():
    assert SCRIPTS


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_an_example_runs(script: Path, tmp_path: Path):
    for ending, modules in NEEDS.items():
        if script.stem.endswith(ending):
            for module in (*modules, "matplotlib"):
                pytest.importorskip(module)
    out = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, str(script), "--quick", "--out", str(out)],
        # A folder without data: the script must say that it simulates, and fetch nothing.
        env={**os.environ, "PPL_BUFFER_DATA": str(tmp_path), "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    if script.stem.startswith("selection_task"):
        assert "simulated" in done.stdout.lower()
    figures = list(out.rglob("*.png"))
    assert figures and all(figure.stat().st_size > 5000 for figure in figures)
    # Nothing is written but what was asked for.
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
