"""Odd arguments of public functions: each is refused by name, or answered with numbers; no other error, no hang."""

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("pyro")
pytest.importorskip("pandas")
pytest.importorskip("arviz")
pytest.importorskip("ppl_buffer.sbi", exc_type=ImportError)

from tests.fuzz.calls import deciding, omissions
from tests.fuzz.entry_points import entry_points, entry_points_of_jax  # noqa: E402
from tests.fuzz.refusal import EntryPoint, fault_of  # noqa: E402
from tests.fuzz.values import ODD, replaced  # noqa: E402

POINTS = {**entry_points(), "Missing": EntryPoint(deciding, omissions, ("missing",), True)}
FEW = [object(), "text", [[1, 2], [3]], np.zeros((3, 5)), {1: 2}]


def faults(point, values):
    """What is wrong with any of the calls."""
    wrong = []
    for what, arguments in replaced(point.arguments(), values):
        fault = fault_of(point, arguments)
        if fault is not None:
            wrong.append(f"{what}: {fault}")
    return wrong


@pytest.mark.parametrize("name", POINTS)
def test_a_few_odd_arguments_are_refused_by_name(name):
    assert fault_of(POINTS[name], POINTS[name].arguments()) is None
    assert faults(POINTS[name], FEW) == []


@pytest.mark.slow
def test_odd_arguments_are_refused_by_name_in_jax(quick_compilation):
    pytest.importorskip("numpyro")
    for name, point in entry_points_of_jax().items():
        assert fault_of(point, point.arguments()) is None
        assert (name, faults(point, ODD)) == (name, [])


@pytest.mark.slow
@pytest.mark.parametrize("name", POINTS)
def test_odd_arguments_are_refused_by_name(name):
    assert faults(POINTS[name], ODD) == []
