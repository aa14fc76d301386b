"""Where the chains of a hierarchical fit begin, against the model's own density and slope there."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

pytest.importorskip("numpyro")
pytest.importorskip("pandas")

import jax  # noqa: E402
from numpyro.infer.util import potential_energy  # noqa: E402

import ppl_buffer as pb  # noqa: E402
from ppl_buffer.workflow import chains  # noqa: E402
from ppl_buffer.workflow.hierarchical import Box, model  # noqa: E402
from tests.workflow.conftest import TASK  # noqa: E402

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.mark.slow
def test_chains_begin_at_the_models_density_and_slope_whatever_data_the_programs_were_made_for(checkpoint, monkeypatch):
    net, rng = pb.load(checkpoint, backend="jax"), np.random.default_rng(3)

    def observed():
        inputs = TASK.inputs(rng, 2, 17)
        trials = TASK.simulate(rng, TASK.prior(rng, 2), inputs)
        return net.observe(inputs, trials["choice"], feedback={"reward": trials["reward"]})

    first, other = observed(), observed()
    box, sampler = Box.of(net), chains.Sampler(chains=3, warmup=5, tree_depth=1)
    prepared = chains.prepare(net, first, box, sampler)
    monkeypatch.setattr(chains, "run_chains", lambda programs, *given, **_: (programs.begin(*given), given[0]))
    again = replace(prepared, data=other, likelihood=chains.Likelihood(net, other, box))
    fit = again.quick()
    state, (_, places, _) = again.sample(fit, seed=2)

    @jax.jit
    @partial(jax.vmap, in_axes=(0, None))
    def exact(places, data):
        energy = partial(potential_energy, partial(model, net, box=box, fit=fit), (data,), {})
        return jax.value_and_grad(energy)(places)

    energies, slopes = exact(places, other)
    np.testing.assert_allclose(state.potential_energy, energies, rtol=1e-5)
    for name, slope in slopes.items():
        np.testing.assert_array_equal(state.z[name], places[name])
        np.testing.assert_allclose(state.z_grad[name], slope, rtol=1e-3, atol=1e-3)
    # The data do matter.
    assert np.abs(exact(places, first)[0] - energies).min() > 0.1
