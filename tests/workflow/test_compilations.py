"""How many programs JAX compiles for the conversion of a fit and the checks of its data, and in which way a fit's."""

import numpy as np
import pytest

jax = pytest.importorskip("jax")
numpyro = pytest.importorskip("numpyro")
pytest.importorskip("arviz")

import ppl_buffer as pb  # noqa: E402
from ppl_buffer.arviz import from_samples  # noqa: E402
from ppl_buffer.diagnostics import check_data  # noqa: E402
from ppl_buffer.numpyro import JointPredictive  # noqa: E402
from ppl_buffer.workflow import compilation  # noqa: E402
from tests.workflow.conftest import TASK  # noqa: E402

pytestmark = pytest.mark.usefixtures("quick_compilation")

# Shapes that no other test has, or what that compiled would not be counted.
PEOPLE, TRIALS, CHAINS, DRAWS = 5, 13, 2, 19
# The model at all draws; a key, of two, and the prior; observation; scores; new data sets.
CONVERTED = 7
# Log densities, and new data sets.
CHECKED = 2


@pytest.mark.filterwarnings("ignore::ppl_buffer.findings.FindingWarning")
def test_a_conversion_and_a_check_are_few_programs(checkpoint, compilations):
    net, rng = pb.load(checkpoint, backend="jax"), np.random.default_rng(0)
    mask, inputs = np.arange(TRIALS) < np.array([[13], [11], [12], [13], [11]]), TASK.inputs(rng, PEOPLE, TRIALS)
    given = TASK.simulate(rng, TASK.prior(rng, PEOPLE), inputs)
    seen = net.observe(inputs, given["choice"], feedback={"reward": given["reward"]}, trial_mask=mask)
    assert len(compilations) == 1

    def model(seen):
        with numpyro.plate("people", PEOPLE):
            params = {name: numpyro.sample(name, prior) for name, prior in net.prior().items()}
            numpyro.deterministic("gain", jax.nn.sigmoid(params["alpha"]) * jax.numpy.log(params["beta"]))
            numpyro.sample("y", JointPredictive(net, seen, params=params), obs=seen.value)

    drawn = TASK.prior(rng, CHAINS * DRAWS * PEOPLE)
    samples = {name: x.reshape(CHAINS, DRAWS, PEOPLE).astype(np.float32) for name, x in drawn.items()}
    options = {"environment": TASK.environment, "prior_draws": 7, "predictive_draws": 4, "progress": False}
    compilations.clear()
    posterior = from_samples(model, samples, language="numpyro", args=(seen,), **options)
    assert len(compilations) <= CONVERTED
    compilations.clear()
    check_data(net, seen, posterior, environment=TASK.environment, draws=3, progress=False)
    assert len(compilations) <= CHECKED


@pytest.mark.parametrize("option", ["xla_cpu_use_fusion_emitters", "xla_cpu_no_version_knows_this"])
def test_a_short_compilation_with_versions_that_know_how_and_others(
    option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compilation, "SHORT_COMPILATION", {option: False})
    x = np.linspace(-1, 1, 7, dtype=np.float32)
    program = compilation.compile_lowered(jax.jit(lambda x: jax.numpy.tanh(x) * x + 2).lower(x))
    np.testing.assert_allclose(program(x), np.tanh(x) * x + 2, rtol=1e-5)


def test_only_an_unknown_option_is_compiled_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilation, "SHORT_COMPILATION", {"xla_backend_optimization_level": "not a number"})
    with pytest.raises(RuntimeError):
        compilation.compile_lowered(jax.jit(jax.numpy.tanh).lower(1.0))


def test_a_function_is_compiled_at_its_first_call_and_not_again(compilations) -> None:
    function = compilation.compiled_at_first(jax.jit(lambda x, y: jax.numpy.tanh(x) * y["scale"]))
    x, y = np.linspace(-1, 1, 11, dtype=np.float32), {"scale": np.float32(3)}
    assert not compilations
    for number in (x, x + 1, -x):
        np.testing.assert_allclose(function(number, y), np.tanh(number) * 3, rtol=1e-5)
    assert len(compilations) == 1
