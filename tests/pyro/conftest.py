"""What tests of the Pyro distribution share; nothing is imported before a test asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Pyro's seed and parameter store are global."""
    import pyro

    pyro.set_rng_seed(20)
    pyro.clear_param_store()
    yield
    pyro.clear_param_store()


@pytest.fixture(params=["learning", "timed", "curve", "rating"])
def case(request: pytest.FixtureRequest) -> Any:
    from tests.pyro.cases import CASES

    return CASES[request.param]


@pytest.fixture
def learning() -> Any:
    from tests.pyro.cases import CASES

    return CASES["learning"]


@pytest.fixture
def curve() -> Any:
    from tests.pyro.cases import CASES

    return CASES["curve"]


@pytest.fixture(scope="module")
def people() -> Any:
    """Observed data of the five people."""
    import pyro

    from tests.pyro.cases import CASES

    pyro.set_rng_seed(11)
    case = CASES["learning"]
    arguments = case.arguments()
    value = case.distribution().sample()
    return case.net.observe(arguments["inputs"], value, feedback=arguments["feedback"])
