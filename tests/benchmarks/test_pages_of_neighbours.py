"""The pages on libraries that few users have beside this package run as written, with smaller numbers."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.rules.source import ROOT

HOWTO = ROOT / "docs" / "howto"
ABSENT = "{} is not installed: `make test-neighbours` has it"


def code(page, smaller):
    """The programs of a page, each of the settings replaced by a quick one; every one of them must be there."""
    text = "\n".join(re.findall(r"```python\n(.*?)```", (HOWTO / f"{page}.md").read_text(), re.DOTALL))
    for full, small in smaller.items():
        assert text.count(full) >= 1, full
        text = text.replace(full, small)
    return text


def run(program, report):
    """What a program prints in the end, in a process of its own: both libraries change JAX for all that is in it."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", f"{program}\nimport json\nprint(json.dumps({report}))"],
        capture_output=True, text=True, cwd=ROOT, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_the_page_on_pymc_runs():
    pytest.importorskip("pymc", reason=ABSENT.format("PyMC"))
    smaller = {
        "(rng, 7, 60)": "(rng, 3, 11)",
        "prior(rng, 7)": "prior(rng, 3)",
        "np.arange(7)": "np.arange(3)",
        "np.arange(60)": "np.arange(11)",
        "draws=500, tune=500,": "draws=41, tune=11, progressbar=False,",
        "None, 20)))": "None, 20)), progressbar=False)",
        "(0, 2, (9, 40))": "(0, 2, (5, 13))",
        "np.arange(9)": "np.arange(5)",
        "compute_log_likelihood(result)": "compute_log_likelihood(result, progressbar=False)",
    }
    report = """{
        "theta": dict(result.posterior["alpha"].sizes), "likelihood": dict(result.log_likelihood["choice"].sizes),
        "predictive": dict(replicated.posterior_predictive["choice"].sizes),
        "finite": bool(np.isfinite(result.log_likelihood["choice"]).all()),
        "trials": list(conditionals(model["choice"], seen.value).type.shape),
        "effects": list(pb.formulas.effects(ddm, design, "drift", draws).contrasts),
        "by_formula": [dict(fit.posterior[name].sizes) for name in ("boundary", "drift~conflict|subject_offset")],
        "group": fit.posterior["boundary~group_level"].values.tolist(),
    }"""
    found = run(code("pymc", smaller), report)
    sizes = {"chain": 2, "draw": 41, "subject": 3}
    assert found["theta"] == found["likelihood"] == sizes and found["finite"]
    assert found["predictive"] == {"chain": 2, "draw": 3, "subject": 3, "trial": 11}
    assert found["trials"][-1] == 11
    assert found["by_formula"] == [{"chain": 2, "draw": 41, "subject": 5}] * 2
    assert found["effects"] == ["conflict: 1 - 0"] and found["group"] == ["patient"]


@pytest.mark.slow
def test_the_page_on_blackjax_runs():
    pytest.importorskip("blackjax", reason=ABSENT.format("BlackJAX"))
    pytest.importorskip("numpyro")
    smaller = {"num_steps=300": "num_steps=11", "split(draw, 500)": "split(draw, 7)", "3, 60)": "3, 11)"}
    report = """{
        "draws": {name: [list(x.shape), float(x.min()), float(x.max())] for name, x in draws.items()},
        "box": net.box,
        "jacobian": [float(log_density_by_hand({name: jax.numpy.zeros(3) for name in net.box})),
                     float(JointPredictive(net, seen, params={name: jax.numpy.full(3, sum(pair) / 2)
                           for name, pair in net.box.items()}).log_prob(seen.value).sum())],
    }"""
    found = run(code("blackjax", smaller), report)
    for name, (low, high) in found["box"].items():
        shape, least, most = found["draws"][name]
        assert shape == [7, 3] and low <= least < most <= high
    # At 0 each standard logistic density is a quarter, and each parameter in the middle of its range.
    by_hand, likelihood = found["jacobian"]
    np.testing.assert_allclose(by_hand, likelihood + 3 * len(found["box"]) * np.log(0.25), rtol=1e-4)


def test_the_page_on_sharing_runs(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    pytest.importorskip("jax")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(code("save_and_share", {}), "save_and_share", "exec"), names)
    assert names["again"].digest == names["net"].digest and Path("mine.safetensors").is_file()
