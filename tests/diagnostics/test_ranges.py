"""Posterior draws outside the trained box are counted and named; importing the checks needs no backend."""

from __future__ import annotations

import subprocess
import sys
import types

import numpy as np
import pytest

import ppl_buffer as pb
from ppl_buffer import diagnostics
from ppl_buffer.prior import Prior
from tests.networks import FUNCTION_RECORD, SLIDER, Record, network


def trained(name: str, **more):
    """A network as `outside` sees it."""
    record = Record(**{**FUNCTION_RECORD.__dict__, **more})
    return types.SimpleNamespace(schema=pb.Schema(params={"mu": pb.Real(), "sigma": pb.Positive()},
                                 outcomes={"y": pb.Real()}), box=dict(record.box), record=record)  # fmt: skip


def test_draws_outside_the_box_are_counted_and_named() -> None:
    net = trained("function")
    mu = np.zeros((10, 3))
    mu[:4, 2] = 2.5
    mu[0, 0] = -2.5
    with pytest.warns(UserWarning, match=r"16.7% of the draws of 'mu' \(most at index 2: 40%\) lie outside \[-2, 2\].*"
                                         r"mostly above.*Use a prior inside the range"):  # fmt: skip
        shares = diagnostics.outside(net, {"mu": mu, "sigma": np.ones((10, 3)), "other": np.zeros(10)})
    assert shares == {"mu": pytest.approx(5 / 30), "sigma": 0.0}
    (finding,) = diagnostics.outside_findings(net, {"mu": mu, "sigma": np.ones((10, 3))})
    assert (finding.kind, finding.parameter, finding.share) == ("outside_box", "mu", pytest.approx(5 / 30))
    assert not diagnostics.outside_findings(net, {"mu": mu, "sigma": np.ones((10, 3))}, warn=0.2)


def test_a_difference_has_a_box_of_its_own() -> None:
    net = trained("function", priors={"mu": None, "sigma": Prior("Uniform", {"low": 0, "high": 1}, relative_to="mu")})
    draws = {"mu": np.zeros(8), "sigma": np.array([0.6, 0.7, 0.8, 0.9, 0.9, 0.9, 1.5, 1.6])}
    with pytest.warns(UserWarning, match="of 'sigma - mu' lie outside"):
        shares = diagnostics.outside(net, draws)
    assert shares["sigma - mu"] == 0.25 and shares["sigma"] == 0.0


def test_arviz_posteriors_are_read_with_their_chains() -> None:
    xarray = pytest.importorskip("xarray")
    draws = xarray.Dataset({"sigma": (("chain", "draw", "person"), np.full((2, 5, 3), 4.0))})
    for posterior in (draws, types.SimpleNamespace(posterior=draws)):
        with pytest.warns(UserWarning, match="100.0% of the draws of 'sigma'"):
            assert diagnostics.outside(trained("function"), posterior) == {"sigma": 1.0}


def test_outside_needs_a_box_and_its_parameters() -> None:
    with pytest.raises(ValueError, match=r"expected draws of some of \['mu', 'sigma'\]"):
        diagnostics.outside(trained("function"), {"nu": np.zeros(3)})
    pytest.importorskip("torch")
    with pytest.raises(ValueError, match="expected a trained network"):
        diagnostics.outside(network(SLIDER, "torch"), {"mu": np.zeros(3)})


def test_importing_needs_no_backend() -> None:
    script = "import sys, ppl_buffer.diagnostics; assert not {'torch', 'jax', 'numpyro', 'sbi'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)
