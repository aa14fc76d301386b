"""The two backends are one design written twice: the same names, with the same parameters, in the same order."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("jax")

MODULES = [
    "attention",
    "layer",
    "cache",
    "network",
    "joint",
    "likelihood",
    "speculative",
    "stepping",
    "ops",
    "execution",
]

# What one backend needs for itself, by module, with the reason.
ALONE = {
    "attention": {
        # One softmax over concatenated keys, torch's fused kernel, and pieces that stay in a processor's cache.
        "torch": {
            "_read_part",
            "_read_pieces",
            "_concatenate_results",
            "_bias",
            "_has_kernel",
            "_read_with_kernel",
            "_concatenate",
            "_concatenate_alike",
            "_concatenate_masks",
        },
        # How much of a buffer is read may depend on a traced number; XLA multiplies by a single key without a product.
        "jax": {"_read_filled", "_read_one_key"},
    },
    # Torch has short words for both.
    "layer": {"torch": set(), "jax": {"_split_heads", "_merge_heads"}},
    # A loop of fixed shapes: blocks are padded, trials to come are masked, data sets are mapped over in chunks.
    "joint": {"torch": set(), "jax": {"_unrealised", "_pad_to_blocks", "_in_chunks"}},
    # How an array-like becomes an array: torch needs to know where the weights are. Torch has a recurrent unit of its
    # own, which it cannot map over; in JAX a single state is a slot that all steps are of, and NumPy copies what would
    # be a program for each shape.
    "ops": {
        "torch": {"_tensor", "_unit", "_recurrent_by_steps", "_slots_by_steps", "_advance", "are_plain"},
        "jax": {"_array", "_along", "_copied"},
    },
    # Torch compiles nothing, so that nothing has to tell networks' programs apart; a JAX axis is cut into equal shares,
    # which must be filled up.
    "execution": {
        "torch": set(),
        "jax": {"compiled", "_Outline", "_outlined", "_with_weights", "_program", "_fill"},
    },
}

# Parameters that differ: torch gives some queries a fused softmax without its total; its buffers have a prefix, JAX's a
# filled part.
PARAMETERS = {
    ("attention", "KVSegment"),
    ("attention", "_read"),
    ("attention", "_read_strips"),
    ("attention", "_read_whole"),
}


def definitions(backend: str, module: str) -> dict[str, Any]:
    """Functions and classes that a module defines, in order."""
    package = importlib.import_module(f"ppl_buffer.network.{backend}.{module}")
    alone = ALONE.get(module, {}).get(backend, set())
    defined = {
        name: value
        for name, value in vars(package).items()
        if callable(value) and getattr(value, "__module__", None) == package.__name__ and hasattr(value, "__qualname__")
    }
    assert alone <= set(defined), "names that are no longer alone"
    return {name: value for name, value in defined.items() if name not in alone}


@pytest.mark.parametrize("module", MODULES)
def test_names_and_order_are_the_same(module):
    torch, jax = (list(definitions(backend, module)) for backend in ("torch", "jax"))
    assert torch == jax


@pytest.mark.parametrize("module", MODULES)
def test_parameters_are_the_same(module):
    torch, jax = (definitions(backend, module) for backend in ("torch", "jax"))
    for name in torch:
        if (module, name) not in PARAMETERS:
            both = [list(inspect.signature(functions[name]).parameters) for functions in (torch, jax)]
            assert both[0] == both[1], name


@pytest.mark.parametrize("module", MODULES)
def test_classes_have_the_same_members(module):
    torch, jax = (definitions(backend, module) for backend in ("torch", "jax"))
    for name in torch:
        if inspect.isclass(torch[name]) and (module, name) not in PARAMETERS:
            public = [
                [member for member in vars(classes[name]) if not member.startswith("_")] for classes in (torch, jax)
            ]
            assert public[0] == public[1], name
