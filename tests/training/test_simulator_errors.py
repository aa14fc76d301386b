"""What a simulator raises says where and of what, in a traceback and on the command line."""

import re
import textwrap
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch")

from ppl_buffer.training.loop import train
from tests.training.cases import SMALL, TINY, ChoiceTime, Known, Shift


def failing(base, method):
    def fails(self, *arguments):
        if method == "log_likelihood":
            return np.zeros(3) + np.zeros(2)
        return {}["nothing"]

    return type("Failing", (base,), {method: fails})()


@pytest.mark.parametrize(
    ("simulator", "options", "kind", "said"),
    [
        (failing(Shift, "prior"), {}, KeyError, ("prior", r"size=\d+")),
        (failing(ChoiceTime, "inputs"), {}, KeyError, ("inputs", r"size=\d+, trials=\d+")),
        (failing(ChoiceTime, "simulate_with_probabilities"), {}, KeyError, ("simulate_with_probabilities", (
            r"params\['a'\] of shape \((\d+),\), params\['b'\] of shape \(\1,\), inputs\['cue'\] of shape \(\1, \d+\)"
        ))),
        (failing(Known, "log_likelihood"), {"use_log_likelihood": True}, ValueError, ("log_likelihood", (
            r"params\['mu'\] of shape \((\d+),\), data\['y'\] of shape \(\1, \d+\)"
        ))),
    ],
)  # fmt: skip
def test_the_error_is_the_simulators_own_with_a_note(simulator, options, kind, said, tmp_path):
    with pytest.raises(kind, match=r"nothing|could not be broadcast") as raised:
        train(simulator, TINY, steps=2, out=tmp_path, **{**SMALL, **options})
    (note,) = raised.value.__notes__
    method, given = said
    raising = "zeros(3)" if kind is ValueError else '["nothing"]'
    line = 1 + next(number for number, x in enumerate(Path(__file__).read_text().splitlines()) if raising in x)
    assert re.fullmatch(
        f"Raised in simulator.{method}, {re.escape(__file__)}, line {line}, which was given {given}.", note
    )


def test_the_command_line_says_it_as_well(tmp_path, monkeypatch):
    pytest.importorskip("typer")
    from tests.workflow.commands import run

    (tmp_path / "my_narrow_module.py").write_text(
        textwrap.dedent(
            """
            import numpy as np
            from tests.training.cases import Shift

            class Narrow(Shift):
                def simulate(self, rng, params, inputs, trials):
                    return {"y": params["mu"][:, None] + rng.normal(size=(3, trials))}
            """
        )
    )
    monkeypatch.chdir(tmp_path)
    done = run("train", "my_narrow_module:Narrow", "--steps", 2)
    said = " ".join(done.output.split())
    assert done.exit_code == 1 and "could not be broadcast" in said and "Traceback" not in said
    assert "my_narrow_module.py, line 7, which was given params['mu'] of shape (64,), trials=1." in said
