"""Every script in examples/ runs, in its smallest form, on a machine that has no data."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import ppl_buffer as pb

FOLDER = Path(__file__).parents[1] / "examples"
SCRIPTS = sorted(FOLDER.glob("*.py"))


def test_there_are_examples():
    assert SCRIPTS


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> str:
    """The shipped network, or one without training that the scripts can load in its place."""
    if any(entry.name == "noisy_q" for entry in pb.zoo()):
        return "noisy_q"
    network = pytest.importorskip("ppl_buffer.torch.network")
    simulator = pb.simulators.NoisyQ()
    record = pb.TrainingRecord(
        box={name: prior.box() for name, prior in simulator.priors.items()},
        priors=simulator.priors,
        trials=400,
        context=0,
        simulator="NoisyQ",
    )
    standardization = {"alpha": (0.0, 1.8), "beta": (1.3, 1.0), "kappa": (0.0, 1.2), "zeta": (0.5, 0.3)}
    config = pb.Config(width=12, depth=3, heads=3, mlp=17, counters=2)
    net = network.Network(simulator.schema, config, {**standardization, "reward": (0.5, 0.5)}, record=record)
    path = tmp_path_factory.mktemp("checkpoint") / "untrained.safetensors"
    pb.save(net, path)
    return str(path)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_an_example_runs(script: Path, checkpoint: str, tmp_path: Path):
    needed = ("pyro", "arviz", "matplotlib") if script.stem.endswith("_pyro") else ("numpyro", "arviz", "matplotlib")
    for module in needed:
        pytest.importorskip(module)
    out = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, str(script), "--quick", "--checkpoint", checkpoint, "--out", str(out)],
        # A folder without data: the script must say that it simulates, and fetch nothing.
        env={**os.environ, "PPL_BUFFER_DATA": str(tmp_path), "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "simulated" in done.stdout.lower()
    figures = list(out.glob("*.png"))
    assert figures and all(figure.stat().st_size > 5000 for figure in figures)
    # Nothing is written but what was asked for.
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
