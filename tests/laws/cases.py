"""What the laws are checked on: cases by backend, and short ways to ask a distribution."""

import copy
import itertools

import jax
import numpy as np
import pytest
import torch

from ppl_buffer.predictive import sampling
from tests.networks import CASES, DIRECT, EXCHANGEABLE, FUNCTION, LEARNING, array, joint_predictive, network

BACKENDS = ["torch", "jax"]
DEPENDENT = [case for case in EXCHANGEABLE if not case.schema.independent]
EVERY = [*CASES, *DIRECT]
WITH_LAPSE = [case for case in EVERY if case.has_lapse]

# Trials 2 and 5 of 7 do not exist, in any data set: what remains has one shape.
HOLES = np.array([True, True, False, True, True, False, True])


def on_both(cases, quick=(LEARNING, FUNCTION)):
    """Parametrise by case and backend; JAX, which compiles for seconds, only for some cases unless there is time."""
    rows = []
    for case, backend in itertools.product(cases, BACKENDS):
        marks = [pytest.mark.slow] if backend == "jax" and case not in quick else []
        rows.append(pytest.param(case, backend, marks=marks, id=f"{case}-{backend}"))
    return pytest.mark.parametrize(("case", "backend"), rows)


def slow(case):
    return pytest.param(case, marks=pytest.mark.slow, id=repr(case))


def scored(case, backend, given, **more):
    return joint_predictive(case, backend, given.inputs, **given.arguments(**more))


def numbers(result):
    return np.asarray(result.detach() if isinstance(result, torch.Tensor) else result)


def conditionals(case, backend, given, **more):
    return numbers(scored(case, backend, given, **more).conditionals(array(backend, given.value)))


def uniform(distribution, sample_shape=(), seed=3):
    return np.random.default_rng(seed).uniform(0.001, 0.999, sampling.noise_shape(distribution.query, sample_shape))


def first_told(given, count=1):
    return {"params": dict(itertools.islice(given.params.items(), count))}


def told(case, given):
    """Parameters that are given: the first, so that the buffer is read, or all, so that a direct likelihood is."""
    return {} if case in DIRECT else first_told(given)


def per_trial(case, values, index):
    """Index the trials of a value (..., K[, n_outcomes])."""
    return values[..., index, :] if case.schema.event_shape_tail else values[..., index]


def replaced(given, **changes):
    other = copy.copy(given)
    for name, value in changes.items():
        setattr(other, name, value)
    return other


def select(case, given, index):
    """The same data with the trials `index` alone."""
    return replaced(
        given,
        inputs={name: x[..., index] for name, x in given.inputs.items()},
        feedback={name: x[..., index] for name, x in given.feedback.items()},
        value=per_trial(case, given.value, index),
    )


def grow(case, given, count):
    """The context with the first `count` trials after it."""
    schema, tail = case.schema, case.schema.event_shape_tail
    context = {} if given.context is None else given.context
    columns = {name: given.value[..., i] if tail else given.value for i, name in enumerate(schema.outcomes)}
    trials = {name: x[:, :count] for name, x in {**given.inputs, **columns, **given.feedback}.items()}
    return {name: np.concatenate([context[name], x], 1) if context else x for name, x in trials.items()}


def close(left, right, rtol=1e-4, atol=1e-4):
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_allclose(numbers(a), numbers(b), rtol=rtol, atol=atol)


def observed(case, backend, given, **more):
    options = {"feedback": array(backend, given.feedback), "context": array(backend, given.context)}
    options |= {name: array(backend, x) for name, x in more.items()}
    return network(case, backend).observe(array(backend, given.inputs), array(backend, given.value), **options)
