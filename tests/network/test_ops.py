"""The array operations that embeddings and heads are written over: the same numbers in both backends."""

import inspect

import numpy as np
import pytest

from ppl_buffer.network.backend import ArrayOps
from tests import networks as nw

torch = pytest.importorskip("torch")
jnp = pytest.importorskip("jax.numpy")

from ppl_buffer.network.jax import ops as jax_ops  # noqa: E402
from ppl_buffer.network.torch import ops as torch_ops  # noqa: E402

rng = np.random.default_rng(0)
X = rng.normal(size=(3, 4, 6)).astype(np.float32)
UNIFORM = rng.uniform(0.01, 0.99, (3, 4)).astype(np.float32)
INDEX = rng.integers(0, 6, (3, 4))

# Name -> arguments.
CALLS = {
    "softplus": (X,),
    "softmax": (X,),
    "log_softmax": (X,),
    "logsumexp": (X,),
    "ndtr": (X,),
    "ndtri": (UNIFORM,),
    "stop_gradient": (X,),
    "chunk": (X, 3),
    "take_last": (X, INDEX),
    "log_mean_exp": (X, 1),
    "pad_trials": (X, 9),
    "copy": (X,),
    "no_constant_folding": (X,),
    "take_along": (X, np.array([3, 0, 2, 1])[:, None], 1),
    "cast": (X, X),
}


def results(ops, convert, name):
    """What an operation gives, as NumPy arrays."""
    result = getattr(ops, name)(*(convert(x) if isinstance(x, np.ndarray) else x for x in CALLS[name]))
    return [np.asarray(x) for x in (result if isinstance(result, (list, tuple)) else [result])]


@pytest.mark.parametrize("name", list(CALLS))
def test_an_operation_gives_the_same_numbers_in_both_backends(name):
    of_torch, of_jax = results(torch_ops, torch.as_tensor, name), results(jax_ops, jnp.asarray, name)
    assert len(of_torch) == len(of_jax)
    for one, other in zip(of_torch, of_jax, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["linear", "perceptron", "norm"])
def test_a_layer_gives_the_same_numbers_in_both_backends(name):
    weights = {"linear": "layers.0.query", "perceptron": "layers.0.mlp", "norm": "layers.0.norm_mlp"}[name]
    of_torch, of_jax = nw.network(nw.FUNCTION, "torch"), nw.network(nw.FUNCTION, "jax")
    x = rng.normal(size=(3, 4, of_torch.config.width)).astype(np.float32)
    one = getattr(torch_ops, name)(of_torch, weights, torch.as_tensor(x)).detach()
    other = getattr(jax_ops, name)(of_jax, weights, jnp.asarray(x))
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "argument"), [("zeros", (2, 3)), ("ones", ()), ("arange", 4)])
def test_new_arrays_are_of_the_networks_number_type(name, argument):
    both = [
        np.asarray(getattr(ops, name)(nw.network(nw.FUNCTION, backend), argument))
        for ops, backend in ((torch_ops, "torch"), (jax_ops, "jax"))
    ]
    np.testing.assert_array_equal(*both)
    assert name == "arange" or both[0].dtype == both[1].dtype == np.float32


def test_the_protocol_lists_every_operation():
    listed = {name for name in vars(ArrayOps) if not name.startswith("_")} - {"xp"}
    # Torch alone has operations that some tensors do not go through.
    for ops, alone in ((torch_ops, {"are_plain"}), (jax_ops, set())):
        public = {
            name for name, value in vars(ops).items() if inspect.isfunction(value) and value.__module__ == ops.__name__
        }
        assert {name for name in public if not name.startswith("_")} - alone == listed
