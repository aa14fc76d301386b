"""How many programs JAX compiles for model evidence, and that they say what torch says operation by operation."""

import copy

import numpy as np
import pytest

import ppl_buffer as pb
from ppl_buffer.inference.population import population_evidence
from ppl_buffer.predictive import density
from ppl_buffer.predictive.query import Query
from ppl_buffer.prior import Prior
from tests.networks import DECISION, Record, array, data, network

jax = pytest.importorskip("jax")
pytest.importorskip("torch")
pytestmark = pytest.mark.usefixtures("quick_compilation")


PRIORS = {"drift": Prior.uniform(-1, 1), "delay": Prior.uniform(0.1, 2.0), "bound": Prior.uniform(1.0, 2.0)}
RECORD = Record(
    box={name: prior.range() for name, prior in PRIORS.items()}, priors=PRIORS, trials=11, context=0, simulator="none"
)
GIVEN = data(DECISION, batch=2, trials=5, context=False)
# Responses that come after the shortest delay.
VALUE = np.stack([GIVEN.value[..., 0], 0.3 + np.abs(GIVEN.value[..., 1])], -1)


def weaker(net):
    """A network of the same shape with other weights."""
    if net.backend == "jax":
        return type(net)(net.schema, net.config, net.standardization, weaker_weights(net), net.record)
    other = copy.deepcopy(net)
    for name, x in weaker_weights(net).items():
        other.weights[name].copy_(x)
    return other


def weaker_weights(net):
    return {name: 0.7 * x for name, x in net.weights.items()}


@pytest.mark.filterwarnings("ignore::ppl_buffer.findings.FindingWarning")  # weights are random
def test_a_comparison_of_networks_of_one_shape_compiles_three_programs(compilations):
    tables = {}
    for backend in ("jax", "torch"):
        net = network(DECISION, backend, RECORD)
        nets = {"a": net, "b": weaker(net)}
        compilations.clear()
        tables[backend] = pb.compare(nets, GIVEN.inputs, VALUE, orders=19, draws=200, seed=2, progress=False)
        # All orders, in two chunks; observation; likelihoods of all draws.
        assert len(compilations) == (3 if backend == "jax" else 0)
        seen = {name: each.observe(GIVEN.inputs, VALUE) for name, each in nets.items()}
        assert len(compilations) <= 4 and {name: x.digest for name, x in seen.items()} == {
            name: each.digest for name, each in nets.items()
        }
        evidence = np.asarray(tables[backend]["importance"]).reshape(2, -1)
        assert np.abs(evidence[0] - evidence[1]).max() > 0.1
    for column in ("autoregressive", "importance", "standard_error"):
        np.testing.assert_allclose(tables["jax"][column], tables["torch"][column], rtol=1e-3, atol=1e-4)


def test_evidence_under_a_population_compiles_two_programs(compilations):
    means = {name: np.array([-0.2, 0.1, 0.3]) for name in PRIORS}
    spreads = {name: np.array([0.5, 0.6, 0.4]) for name in PRIORS}
    evidence = {}
    for backend in ("jax", "torch"):
        net = network(DECISION, backend, RECORD)
        seen = net.observe(GIVEN.inputs, VALUE)
        compilations.clear()
        evidence[backend] = population_evidence(net, seen, means, spreads, draws=100, seed=1).log_evidence
        # The fastest responses; likelihoods of all draws.
        assert len(compilations) == (2 if backend == "jax" else 0)
    np.testing.assert_allclose(evidence["jax"], evidence["torch"], rtol=1e-3, atol=1e-4)
    net = network(DECISION, "jax", RECORD)
    fast = net.observe(GIVEN.inputs, np.stack([VALUE[..., 0], 0.02 * VALUE[..., 1]], -1))
    with pytest.raises(ValueError, match="below: expected bounds above 0.1"):
        population_evidence(net, fast, means, spreads)


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_orders_in_chunks_are_each_order_alone(backend):
    net, rng = network(DECISION, backend), np.random.default_rng(5)
    orders = np.stack([rng.permutation(5) for _ in range(35)])  # the last of three chunks is not full
    query = Query.build(net, GIVEN.inputs, orders=orders)
    by_order = np.asarray(density.log_prob_by_order(query, array(backend, VALUE)))
    assert by_order.shape == (35, 2)
    for index in (0, 12, 34):
        turned = Query.build(net, {name: x[:, orders[index]] for name, x in GIVEN.inputs.items()})
        alone = density.log_prob(turned, array(backend, VALUE[:, orders[index]]))
        np.testing.assert_allclose(by_order[index], np.asarray(alone), rtol=1e-4, atol=1e-4)
