"""Every script in examples/ runs with its default network, in its smallest form, on a machine that has no data."""

import argparse
import ast
import math
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))
# What a script imports beside the core, by how its name ends.
NEEDS = {
    "selection_task": ("numpyro", "arviz"),
    "two_step": ("numpyro", "arviz"),
    "pyro": ("pyro", "arviz"),
    "table": ("numpyro",),
    "digits": ("numpyro", "sklearn"),
    "eeg": ("numpyro",),
    "speculative_rollout": ("pyro",),
    "function_prior": ("numpyro",),
    "train_zoo": ("torch",),
}
# The training script's recipes, each a run of its own: of one stage; then of two, the second of which learns a known
# likelihood (rlddm) or from distillation sets (multisensory).
RECIPES = ["noisy_q", "gp", "ddm", "collapsing_ddm", "rlddm", "multisensory_rho1", "multisensory_rho43"]
# Long chains or long rollouts, even in its smallest form.
SLOW = ("two_step", "eeg", "table", "conflict_ddm", "learning_ddm", "function_prior", "digits")
RUNS = [
    pytest.param(script, [], marks=[pytest.mark.slow] * (script.stem in SLOW))
    for script in SCRIPTS
    if script.stem != "train_zoo"
]
RUNS += [(EXAMPLES / "train_zoo.py", [name]) for name in RECIPES]


def test_there_are_examples():
    assert SCRIPTS


@pytest.mark.parametrize(("script", "arguments"), RUNS, ids=lambda x: x.stem if isinstance(x, Path) else "".join(x))
def test_an_example_runs(script: Path, arguments: list[str], tmp_path: Path):
    for ending, modules in NEEDS.items():
        if script.stem.endswith(ending):
            for module in (*modules, "matplotlib"):
                pytest.importorskip(module)
    out = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, str(script), *arguments, "--quick", "--out", str(out)],
        env={
            **os.environ,
            # A folder without data: the script must say that it simulates, and fetch nothing.
            "PPL_BUFFER_DATA": str(tmp_path),
            "OMP_NUM_THREADS": "1",
            "MPLBACKEND": "Agg",
            # Programs run for a moment and are compiled for as short a time.
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    if script.stem.startswith(("selection_task", "eeg")):
        assert "simulated" in done.stdout.lower()
    figures = list(out.rglob("*.png"))
    assert figures and all(figure.stat().st_size > 5000 for figure in figures)
    # Nothing is written but what was asked for.
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_an_example_is_a_notebook_of_cells(script: Path):
    cells = re.split(r"^# %%\n", script.read_text(), flags=re.MULTILINE)[1:]
    assert len(cells) >= 3
    for cell in cells:
        title, underline, *_ = cell.splitlines()
        assert re.fullmatch(r"# .+", title) and underline == "# " + "-" * (len(title) - 2)


def reads_options(statement: ast.stmt) -> bool:
    """Whether a statement makes the parser, adds an option, or reads the options."""
    return re.match(r"parser = |options = parser|parser\.add_argument", ast.unparse(statement)) is not None


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_notebook_does_not_read_the_command_line_of_its_kernel(script: Path, monkeypatch: pytest.MonkeyPatch):
    tree = ast.parse(script.read_text())
    statements = [node for node in ast.walk(tree) if isinstance(node, ast.stmt) and reads_options(node)]
    code = compile(ast.Module(sorted(statements, key=lambda node: node.lineno), []), script.name, "exec")
    known = {
        "argparse": argparse,
        "sys": sys,
        "Path": Path,
        "math": math,
        "THEORIES": {},
        "recipe_names": lambda: ["noisy_q"],
    }
    monkeypatch.setattr(sys, "argv", ["ipykernel_launcher.py", "-f", "/run/kernel-1.json"])
    with pytest.raises(SystemExit):
        exec(code, dict(known))
    monkeypatch.setitem(sys.modules, "ipykernel", types.ModuleType("ipykernel"))
    in_a_notebook = dict(known)
    exec(code, in_a_notebook)
    assert in_a_notebook["options"].quick is False
