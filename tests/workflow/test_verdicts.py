"""What a fit says of its chains and of the edges of its box, by hand."""

from dataclasses import replace

import numpy as np
import pytest

pandas = pytest.importorskip("pandas")

from tests.workflow.test_report import finished  # noqa: E402


@pytest.fixture(scope="module")
def fit():
    return finished()


def with_figures(fit, r_hat=1.001, bulk=900, tail=800, diverging=0.0):
    """The same fit with other figures of its second quantity."""
    summary = pandas.DataFrame(
        {"r_hat": [1.0, r_hat, 1.002], "ess_bulk": [950, bulk, 970], "ess_tail": [960, tail, 990]}
    )
    return replace(fit, summary=summary, diverging=diverging)


def test_the_worst_quantity_counts(fit):
    one = with_figures(fit, r_hat=1.3, bulk=7, tail=500)
    assert one.r_hat == 1.3 and one.effective == 7
    assert with_figures(fit, bulk=500, tail=7).effective == 7


@pytest.mark.parametrize(
    ("figures", "converged", "readable"),
    [
        ({}, True, True),
        ({"r_hat": 1.01, "bulk": 400, "tail": 400, "diverging": 0.009}, True, True),
        ({"r_hat": 1.011}, False, True),
        ({"bulk": 399}, False, True),
        ({"tail": 399}, False, True),
        ({"diverging": 0.01}, False, True),
        ({"r_hat": 1.06}, False, False),
        ({"diverging": 0.05}, False, False),
        ({"r_hat": 1.002, "bulk": 1}, False, None),
    ],
)
def test_a_fit_has_converged_where_all_figures_are_as_they_should_be(fit, figures, converged, readable):
    one = with_figures(fit, **figures)
    assert one.converged == converged
    if readable is not None:
        assert one.readable == readable


def test_the_edge_is_the_outer_fiftieth_of_the_range_where_more_would_be_legal(fit):
    import xarray

    from ppl_buffer.arviz import container

    def share(name, values):
        low, high = fit.box.bounds[name]
        place = low + (high - low) * np.asarray(values)
        sites = {name: (("chain", "draw", "subject"), place.reshape(1, -1, 1))}
        return replace(fit, posterior=container({"posterior": xarray.Dataset(sites)})).edge(name)

    # Boundaries from 0.6 to 5 were trained: both ends are edges.
    assert fit.box.bounds["boundary"] == (0.6, 5.0)
    assert share("boundary", [0.01, 0.03, 0.5, 0.97, 0.99, 0.995, 0.6, 0.4]) == pytest.approx(3 / 8)
    # Learning rates from 0 to 1: there is nothing beyond.
    assert fit.box.bounds["alpha_positive"] == (0.0, 1.0)
    assert share("alpha_positive", [0.001, 0.999, 0.5]) == 0
    # The fastest response, not the range, ends non-decision times.
    assert share("non_decision_time", [0.5, 0.999]) == 0
