"""What tells networks apart."""

import copy

import pytest

from ppl_buffer.network.digest import weights_digest
from tests.networks import CASES, DECISION, LEARNING, network, standardization, weights

torch = pytest.importorskip("torch")
pytest.importorskip("jax")


def test_a_digest_is_the_same_in_both_backends_and_another_for_each_network():
    digests = [network(case, "torch").digest for case in CASES]
    assert digests == [network(case, "jax").digest for case in CASES]
    assert len(set(digests)) == len(CASES) and all(len(bytes.fromhex(digest)) == 32 for digest in digests)


def test_whatever_decides_a_density_changes_the_digest():
    from ppl_buffer.network.jax.weights import JaxNetwork

    before, arrays, scales = network(DECISION, "jax"), weights(DECISION), standardization(DECISION.schema)

    def digest(arrays=arrays, scales=scales):
        return JaxNetwork(DECISION.schema, DECISION.config, scales, arrays).digest

    assert digest() == before.digest
    one = arrays["norm_out.bias"].copy()
    one[3] += 1e-6
    assert digest(arrays=arrays | {"norm_out.bias": one}) != before.digest
    assert digest(scales=scales | {"drift": (0.1, 0.4000001)}) != before.digest
    # The same weights on other scales are another network, and the weights say so no more.
    other = JaxNetwork(DECISION.schema, DECISION.config, scales | {"drift": (0.2, 0.4)}, arrays)
    assert weights_digest(other) == weights_digest(before) and other.digest != before.digest


def test_weights_that_are_trained_further_have_another_digest():
    net = copy.deepcopy(network(LEARNING, "torch"))
    before = net.digest
    assert before == network(LEARNING, "torch").digest
    with torch.no_grad():
        net.weights["norm_out.bias"] += 1.0
    changed = net.digest
    assert changed != before and network(LEARNING, "torch").digest == before
    assert copy.deepcopy(net).digest == changed
    assert net.double().digest == changed
