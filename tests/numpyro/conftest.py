"""What tests of the NumPyro distribution share; nothing is imported before a test asks for it."""

import numpy as np
import pytest

from tests.networks import REPORT, data, network


@pytest.fixture(scope="module")
def reports():
    """An ordered model of one category, three people, and what is computed of them by the plainest path."""
    import jax.numpy as jnp

    from tests.numpyro.cases import make

    given = data(REPORT)
    value = jnp.asarray(given.value)
    return given, value, np.asarray(make(REPORT, given).log_prob(value))


@pytest.fixture(scope="module")
def seen():
    """The same three people, of whom one did two trials only, observed once."""
    given = data(REPORT)
    mask = np.arange(7) < np.array([7, 2, 7])[:, None]
    return network(REPORT, "jax").observe(given.inputs, given.value, trial_mask=mask)
