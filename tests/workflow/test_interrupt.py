"""Ctrl-C in a command that runs: exit 130, one line, and what was done is kept and gone on from."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("typer")
pytest.importorskip("numpyro")

from tests.datasets.tables import table_of_trials  # noqa: E402
from tests.workflow.commands import COLUMNS  # noqa: E402

pytestmark = pytest.mark.slow

COMMAND = [sys.executable, "-m", "ppl_buffer.workflow.cli"]
LOST = re.compile(r"Exception ignored in: <function _xla_gc_callback.*?KeyboardInterrupt: *\n", re.DOTALL)


def interrupted(log: Path, pattern: str, *arguments: object) -> tuple[int, str]:
    """Exit code and output of a command that gets Ctrl-C once its output matches."""
    # A child of a process that ignores Ctrl-C would ignore it too.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with log.open("wb") as file:
            process = subprocess.Popen([*COMMAND, *map(str, arguments)], stdout=file, stderr=subprocess.STDOUT)
    finally:
        signal.signal(signal.SIGINT, before)
    while process.poll() is None and not re.search(pattern, log.read_text()):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    try:
        code = process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        # Python says so where it loses an interrupt, in a callback of JAX's garbage collector: press the keys again.
        if LOST.search(log.read_text()):
            process.send_signal(signal.SIGINT)
        code = process.wait(timeout=300)
    return code, LOST.sub("", log.read_text())


def test_a_fit_is_interrupted_and_gone_on_from(checkpoint, tmp_path):
    table, out = tmp_path / "trials.csv", tmp_path / "fit"
    table_of_trials().to_csv(table, index=False)
    fit = ["fit", table, "--model", checkpoint, "--columns", COLUMNS, "--out", out, "--chains", 2, "--warmup", 5,
           "--draws", 400, "--predictive-draws", 5, "--tree-depth", 1]  # fmt: skip
    code, said = interrupted(tmp_path / "log", r"\D([1-9]\d+)/405", *fit)
    assert code == 130, said
    assert f"kept in {out / 'draws.safetensors'}, and the same command goes on" in said
    assert said.count("Interrupted") == 1 and "Traceback" not in said
    assert [path.name for path in out.iterdir()] == ["draws.safetensors"]
    # Another command with as many draws as there are goes on from them, here to its end.
    done = subprocess.run([*COMMAND, *map(str, fit), "--no-progress"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"\d+ draws of each chain were there already", done.stdout)
    code, said = interrupted(tmp_path / "log", "simulation:", *fit)
    assert code == 130 and "goes on" in said and "Traceback" not in said


@pytest.mark.parametrize("command", ["evidence", "check"])
def test_other_commands_end_as_quietly(command, checkpoint, tmp_path):
    table = tmp_path / "trials.csv"
    table_of_trials().to_csv(table, index=False)
    arguments = {
        "evidence": [table, "--model", checkpoint, "--columns", COLUMNS, "--draws", 1_000_000],
        "check": [checkpoint, "--sets", 5_000],
    }[command]  # fmt: skip
    code, said = interrupted(tmp_path / "log", r"\d(%|draw)", command, *arguments, "--out", tmp_path / "out")
    assert code == 130 and "Interrupted: nothing was written." in said and "Traceback" not in said, said
