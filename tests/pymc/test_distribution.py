"""PyMC's random variable has the densities, derivatives and draws of NumPyro's distribution."""

import numpy as np
import pytest

from tests.networks import DISCRIMINATION, FUNCTION, LEARNING, REPORT, RESPONDING, array, data, network, rollout

pm = pytest.importorskip("pymc", reason="PyMC is not installed: `make test-neighbours` has it")

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import pytensor  # noqa: E402
import pytensor.tensor as pt  # noqa: E402
from pytensor.graph.traversal import ancestors  # noqa: E402

import ppl_buffer as pb  # noqa: E402
import ppl_buffer.numpyro  # noqa: E402
from ppl_buffer import Lapse  # noqa: E402
from ppl_buffer.pymc import JointPredictive, conditionals, into_box  # noqa: E402
from ppl_buffer.pymc.ops import LogDensityOp  # noqa: E402

pytestmark = pytest.mark.usefixtures("quick_compilation")
CASES = [RESPONDING, LEARNING, FUNCTION, DISCRIMINATION]


def symbols(params):
    """A tensor for each parameter, and the numbers that it stands for."""
    return {name: pt.tensor(name, shape=x.shape, dtype="float64") for name, x in params.items()}


def evaluate(outputs, tensors, params):
    """Numbers of tensors, without a compiler."""
    inputs = list(tensors.values())
    given = [np.asarray(params[name], float) for name in tensors]
    return pytensor.function(inputs, outputs, mode="FAST_COMPILE", on_unused_input="ignore")(*given)


def numpyro_density(case, inputs, value, params, **more):
    """Log densities of NumPyro's distribution, and derivatives of their sum weighted by 1, 2, 3, ..."""

    def density(params):
        options = {name: array("jax", x) for name, x in more.items()}
        joint = ppl_buffer.numpyro.JointPredictive(network(case, "jax"), inputs, params=params, **options)
        return joint.log_prob(value)

    def weighted(params):
        result = density(params)
        return (result * (1 + jnp.arange(result.size).reshape(result.shape))).sum(), result

    (_, result), derivatives = jax.value_and_grad(weighted, has_aux=True)(array("jax", params))
    return np.asarray(result), derivatives


def weighted_gradient(log_density, tensors):
    total = (log_density * (1 + pt.arange(log_density.size).reshape(log_density.shape))).sum()
    return pytensor.grad(total, list(tensors.values()))


def assert_same(found, expected, names):
    density, derivatives = expected
    np.testing.assert_allclose(found[0], density, rtol=2e-5)
    for name, derivative in zip(names, found[1:], strict=True):
        scale = np.abs(np.asarray(derivatives[name])).max()
        np.testing.assert_allclose(derivative, derivatives[name], rtol=2e-4, atol=2e-5 * scale, err_msg=name)


@pytest.mark.parametrize("seen", [True, False], ids=["observed", "arrays"])
@pytest.mark.parametrize("case", CASES, ids=repr)
def test_density_and_gradient_are_numpyros(case, seen):
    given = data(case, batch=3, trials=7)
    net = network(case, "jax")
    known = {"feedback": given.feedback, "context": given.context}
    inputs = net.observe(given.inputs, given.value, **known) if seen else given.inputs
    more = {} if seen else known
    tensors = symbols(given.params)
    rv = JointPredictive.dist(net, inputs, params=tensors, **more)
    density = pm.logp(rv, pt.constant(given.value))
    found = evaluate([density, *weighted_gradient(density, tensors)], tensors, given.params)
    value = inputs.value if seen else array("jax", given.value)
    jax_inputs = inputs if seen else array("jax", inputs)
    assert_same(found, numpyro_density(case, jax_inputs, value, given.params, **more), tensors)


def test_observed_data_are_scored_anew_at_another_value():
    given, other = (data(REPORT, seed=seed) for seed in (0, 5))
    net = network(REPORT, "jax")
    seen = net.observe(given.inputs, given.value)
    tensors = symbols(given.params)
    rv = JointPredictive.dist(net, seen, params=tensors)
    (found,) = evaluate([pm.logp(rv, pt.constant(other.value))], tensors, given.params)
    expected, _ = numpyro_density(REPORT, array("jax", given.inputs), array("jax", other.value), given.params)
    np.testing.assert_allclose(found, expected, rtol=2e-5)
    assert np.abs(found - numpyro_density(REPORT, seen, seen.value, given.params)[0]).min() > 0.1


def test_a_model_reads_again_what_was_observed():
    given = data(REPORT, batch=3, trials=7)
    seen = network(REPORT, "jax").observe(given.inputs, given.value)
    counts = []
    for observed in (np.asarray(seen.value), given.value.astype(float), (given.value + 1) % 5):
        with pm.Model() as model:
            mu = pm.Normal("mu", shape=3)
            JointPredictive("rating", network(REPORT, "jax"), seen, params={"mu": mu}, observed=observed)
        nodes = [node for node in ancestors([model.logp()]) if node.owner and isinstance(node.owner.op, LogDensityOp)]
        counts.append({len(node.owner.inputs) for node in nodes})
    # The parameter alone; or the value and the parameter.
    assert counts == [{1}, {1}, {2}]


def test_a_parameter_that_data_sets_share_collects_their_derivatives():
    given = data(RESPONDING, batch=3)
    params = {**given.params, "beta": given.params["beta"][0]}
    seen = network(RESPONDING, "jax").observe(given.inputs, given.value, feedback=given.feedback)
    tensors = symbols({name: np.asarray(x) for name, x in params.items()})
    density = pm.logp(JointPredictive.dist(seen_network(), seen, params=tensors), pt.constant(given.value))
    found = evaluate([density, *weighted_gradient(density, tensors)], tensors, params)
    assert_same(found, numpyro_density(RESPONDING, seen, seen.value, params), tensors)


def seen_network():
    return network(RESPONDING, "jax")


def test_parameters_that_vary_by_trial_and_lapses():
    given, rng = data(DISCRIMINATION, batch=3, trials=7), np.random.default_rng(2)
    net = network(DISCRIMINATION, "jax")
    seen = net.observe(given.inputs, given.value)
    params = {"drift": rng.normal(size=(3, 7)), "delay": given.params["delay"], "bound": given.params["bound"]}
    params["rate"] = np.array([0.03, 0.2, 0.11])
    tensors = symbols(params)
    rv = JointPredictive.dist(
        net,
        seen,
        params={name: tensors[name] for name in ("bound", "delay")},
        trial_params={"drift": tensors["drift"]},
        lapse=Lapse(tensors["rate"], {"rt": (0.0, 30.0)}),
    )
    density = pm.logp(rv, pt.constant(given.value))
    found = evaluate([density, *weighted_gradient(density, tensors)], tensors, params)

    def weighted(given):
        joint = ppl_buffer.numpyro.JointPredictive(
            net,
            seen,
            params={name: given[name] for name in ("bound", "delay")},
            trial_params={"drift": given["drift"]},
            lapse=Lapse(given["rate"], {"rt": (0.0, 30.0)}),
        )
        result = joint.log_prob(seen.value)
        return (result * jnp.arange(1, 4)).sum(), result

    (_, result), derivatives = jax.value_and_grad(weighted, has_aux=True)(array("jax", params))
    assert_same(found, (result, derivatives), tensors)


def test_conditionals_sum_to_the_density_and_skip_missing_trials():
    given = data(REPORT, batch=3, trials=7)
    mask = np.arange(7) < np.array([7, 2, 5])[:, None]
    net = network(REPORT, "jax")
    seen = net.observe(given.inputs, given.value, trial_mask=mask)
    tensors = symbols(given.params)
    rv = JointPredictive.dist(net, seen, params=tensors)
    tables = [conditionals(rv, np.where(mask, given.value, np.nan)), conditionals(rv, (given.value + mask) % 5)]
    found = evaluate([*tables, pm.logp(rv, pt.constant(given.value))], tensors, given.params)
    joint = ppl_buffer.numpyro.JointPredictive(net, seen, params=array("jax", given.params))
    np.testing.assert_allclose(found[0], joint.conditionals(seen.value), rtol=2e-5)
    expected = joint.conditionals(jnp.asarray((given.value + mask) % 5))
    np.testing.assert_allclose(found[1], expected, rtol=2e-5)
    np.testing.assert_allclose(found[0].sum(-1), found[2], rtol=2e-5)
    assert (found[0][~mask] == 0).all()


@pytest.mark.parametrize("case", [RESPONDING, REPORT], ids=repr)
def test_a_draw_is_the_rollout_of_the_same_noise(case):
    given = data(case, batch=3, trials=7)
    net = network(case, "jax")
    rv = JointPredictive.dist(net, given.inputs, params=given.params, environment=case.environment)
    drawn = pm.draw(rv, random_seed=11)
    expected_type = "int64" if case is REPORT else "float64"
    assert drawn.shape == given.value.shape and drawn.dtype == expected_type
    again = pm.draw(rv, draws=5, random_seed=11)
    assert np.array_equal(pm.draw(rv, random_seed=11), drawn) and len(np.unique(again, axis=0)) == 5
    noise = np.random.default_rng(4).random((3, 7, case.schema.noise_size), np.float32)
    options = {} if case.environment is None else {"environment": case.environment}
    joint = ppl_buffer.numpyro.JointPredictive(
        net, array("jax", given.inputs), params=array("jax", given.params), **options
    )
    one = rv.owner.op.rng_fn(np.random.default_rng(4), *map(np.asarray, given.params.values()), (3,))
    np.testing.assert_allclose(one, rollout("jax", joint, noise)[0], rtol=1e-5)


def test_data_sets_that_no_parameter_tells_apart():
    given = data(REPORT, batch=3, trials=7)
    mean = pt.scalar("mu", dtype="float64")
    rv = JointPredictive.dist(network(REPORT, "jax"), given.inputs, params={"mu": mean})
    alone = JointPredictive.dist(network(REPORT, "jax"), given.inputs)
    assert rv.type.shape == alone.type.shape == (3, 7)
    value = pt.constant(given.value)
    found = evaluate([pm.logp(rv, value), pm.logp(alone, value)], {"mu": mean}, {"mu": 0.3})
    for result, params in zip(found, ({"mu": np.float32(0.3)}, {}), strict=True):
        joint = ppl_buffer.numpyro.JointPredictive(
            network(REPORT, "jax"), array("jax", given.inputs), params=array("jax", params)
        )
        np.testing.assert_allclose(result, joint.log_prob(jnp.asarray(given.value)), rtol=2e-5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"params": {"nu": 0.1}}, "params: expected any of"),
        ({"params": {"mu": np.zeros(5)}}, "params"),
        ({"params": {"mu": pt.vector("mu", shape=(5,))}}, "params"),
        ({"params": {"mu": "low"}}, r"params\['mu'\]: expected an array of numbers"),
        ({"observed": np.full((3, 7), np.nan)}, "observed: expected an outcome 'rating' in every trial, got NaN"),
        ({"observed": np.ones((3, 5))}, r"observed: expected shape \(3, 7\)"),
        ({"observed": np.ones((2, 7))}, r"observed: expected shape \(3, 7\)"),
        ({"likelihood": "exact"}, "likelihood: expected one of"),
        ({"outside": "quietly"}, "outside: expected one of"),
    ],
)
def test_what_does_not_fit_is_refused_when_the_model_is_written(change, said):
    given = data(REPORT, batch=3, trials=7)
    arguments = {"params": given.params, "observed": given.value, **change}
    with pm.Model(), pytest.raises(ValueError, match=said):
        JointPredictive("rating", network(REPORT, "jax"), given.inputs, **arguments)


def test_networks_and_variables_of_others_are_refused():
    with pytest.raises(ValueError, match="net: expected a network loaded with backend='jax', got str"):
        JointPredictive.dist("ddm", {})
    with pytest.raises(ValueError, match="rv: expected a variable that JointPredictive made"):
        conditionals(pm.Normal.dist(), 0.0)


@pytest.mark.parametrize(
    ("shipped", "name"), [("rlddm", "alpha_positive"), ("rlddm", "non_decision_time"), ("multisensory_rho1", None)]
)
def test_real_numbers_are_mapped_into_the_box_as_the_network_does(shipped, name):
    net, x = pb.load(shipped, backend="jax"), np.array([-31.0, -1.2, 0.0, 2.3, 31.0])
    relative = [key for key, prior in net.record.priors.items() if prior is not None and prior.relative_to is not None]
    name = name or relative[0]
    prior = net.record.priors[name]
    origin = None if prior is None else prior.relative_to
    params = {} if origin is None else {origin: np.linspace(*net.box[origin], 5)}
    below = np.array([0.2, 0.3, 0.9, 5.0, 0.4]) if name == "non_decision_time" else None
    expected = net.into_box(name, jnp.asarray(x), array("jax", params), below=below)
    tensor = pt.vector("x", dtype="float64")
    (found,) = evaluate([into_box(net, name, tensor, params, below=below)], {"x": tensor}, {"x": x})
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    if origin is not None:
        with pytest.raises(ValueError, match="params: expected the value of"):
            into_box(net, name, tensor)
