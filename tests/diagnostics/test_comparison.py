"""A network's likelihood beside one that is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ppl_buffer import diagnostics
from tests.diagnostics.own import PRIORS, Own, telling

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_a_known_likelihood_is_compared_everywhere_and_in_parts_of_the_box(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("pandas")
    net = telling("torch")
    own = Own(net, PRIORS)
    sets, trials = 50, 11

    def own_likelihood(params, data):
        # The network's, but that it is 0.01 nats a trial better where mu is positive.
        from ppl_buffer.diagnostics.data_sets import DataSets

        return DataSets(net, params, data).log_densities() + 0.01 * (params["mu"] > 0)[:, None]

    result = diagnostics.compare_likelihood(net, own, own_likelihood, sets=sets, trials=trials, progress=False)
    error = result.errors["buffer"]
    share = float((result.params["mu"] > 0).mean())
    assert list(result.errors) == ["buffer"] and error.method == "likelihood"
    assert error.nats_per_trial == pytest.approx(0.01 * share, abs=1e-6) and error.low < 0.01 * share < error.high
    table = result.table
    assert (
        len(table) == 6 and table["where"][0] == "everywhere" and table["buffer_nats"][1] == table["buffer_nats"].max()
    )
    assert table["buffer_nats"][1] == pytest.approx(0.01, abs=1e-6) and table["buffer_nats"][5] == pytest.approx(
        0, abs=1e-6
    )
    # A data set's log likelihood is off by 0.11 nats in the upper part.
    assert table["buffer_rmse"][1] == pytest.approx(0.11, abs=1e-4)
    assert table["buffer_rmse"][0] == pytest.approx(0.11 * np.sqrt(share), abs=1e-4)
    assert "buffer: 0.00" in repr(result)
    result.plot().savefig(tmp_path / "comparison.png")


def test_a_comparison_says_what_it_needs() -> None:
    pytest.importorskip("torch")
    net = telling("torch")
    with pytest.raises(ValueError, match="log_likelihood: expected a function .* since Own has no method"):
        diagnostics.compare_likelihood(net, Own(net, PRIORS), progress=False)
    with pytest.raises(ValueError, match=r"log_likelihood: expected an array of shape \(10, 4\), got \(10,\)"):
        diagnostics.compare_likelihood(
            net, Own(net, PRIORS), lambda params, data: np.zeros(10), sets=10, trials=4, progress=False
        )
