"""Pyro models as simulators."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("pyro")

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import (
    Predictive,
)

import ppl_buffer as pb
from ppl_buffer.pyro import simulator_from_model
from ppl_buffer.training.abilities import check_simulator


def regression(inputs: dict, trials: int) -> None:
    """Scalar latents, a latent a trial, two outcomes."""
    slope = pyro.sample("slope", dist.Normal(0.5, 1.0))
    scale = pyro.sample("scale", dist.Gamma(3.0, 2.0))
    guess = pyro.sample("guess", dist.Uniform(0.0, 0.25))
    with pyro.plate("trials", trials):
        hidden = pyro.sample("hidden", dist.Normal(0.0, 0.3))
        y = pyro.sample("y", dist.Normal(slope * inputs["x"] + hidden, scale))
        pyro.sample("high", dist.Bernoulli(guess + (1 - guess) * torch.sigmoid(y)))


def vector(inputs: dict, trials: int) -> None:
    """Trials as an event dimension."""
    slope = pyro.sample("slope", dist.Normal(0.5, 1.0))
    pyro.sample("y", dist.Normal(slope[..., None] * inputs["x"], 0.7).to_event(1))


def single(inputs: dict, trials: int) -> None:
    """One data set at a time: with many, the first row would be taken for the first trial."""
    slope = pyro.sample("slope", dist.Normal(0.5, 1.0))
    with pyro.plate("trials", trials):
        pyro.sample("y", dist.Normal(slope * inputs["x"][0], 0.7))


def noise(rng: np.random.Generator, size: int, trials: int) -> np.ndarray:
    return rng.normal(size=(size, trials))


X = {"x": (pb.Real(), noise)}


def as_simulator(model: Callable[..., Any], outcomes: Any = ("y",), **more: Any) -> Any:
    with warnings.catch_warnings():
        if model is single:
            warnings.simplefilter("ignore")
        return simulator_from_model(model, outcomes=outcomes, inputs=X, **more)


def test_a_model_tells_its_schema_and_priors() -> None:
    simulator = as_simulator(regression, ("y", "high"), independent=True)
    assert simulator.schema == pb.Schema(
        params={"slope": pb.Real(), "scale": pb.Positive(), "guess": pb.Interval(0, 0.25)},
        inputs={"x": pb.Real()},
        outcomes={"y": pb.Real(), "high": pb.Categorical(2)},
        independent=True,
    )
    assert simulator.priors["slope"] == pb.Prior("Normal", {"loc": 0.5, "scale": 1.0})
    assert simulator.priors["scale"] == pb.Prior("Gamma", {"concentration": 3.0, "rate": 2.0})
    assert simulator.priors["guess"] == pb.Prior.uniform(0.0, 0.25)
    assert simulator.in_process is True and simulator.name == "regression"
    check_simulator(simulator)


@pytest.mark.parametrize("model", [regression, vector, single])
def test_a_simulator_draws_what_the_model_draws(model: Any) -> None:
    size, trials = 900 if model is not single else 300, 5
    simulator = as_simulator(model)
    rng = np.random.default_rng(4)
    params = simulator.prior(rng, size)
    inputs = simulator.inputs(rng, 1, trials)
    inputs = {"x": np.repeat(inputs["x"], size, 0)}
    y = simulator.simulate(rng, params, inputs)["y"]
    assert y.shape == (size, trials) and params["slope"].shape == (size,)
    given = {"x": torch.as_tensor(inputs["x"][0], dtype=torch.float32)}
    expected = Predictive(model, num_samples=size)(given, trials)["y"].reshape(size, trials).numpy()
    for mine, theirs in (
        (y, expected),
        (y**2, expected**2),
        (y[:, 1:] * y[:, :-1], expected[:, 1:] * expected[:, :-1]),
    ):
        error = np.sqrt((mine.var(0) + theirs.var(0)) / size)
        assert (np.abs(mine.mean(0) - theirs.mean(0)) < 4.5 * error).all()
    # Draws belong to the parameters and inputs of their own row.
    rng = np.random.default_rng(5)
    steep = {**params, "slope": np.where(np.arange(size) % 2 == 0, 50.0, -50.0)}
    inputs = simulator.inputs(rng, size, trials)
    x = inputs["x"][:, :1] if model is single else inputs["x"]
    predicted = np.broadcast_to(steep["slope"][:, None] * x, (size, trials))
    assert np.corrcoef(simulator.simulate(rng, steep, inputs)["y"].ravel(), predicted.ravel())[0, 1] > 0.99


@pytest.mark.parametrize(("model", "many"), [(regression, True), (vector, True), (single, False)])
def test_a_model_runs_once_for_many_data_sets_where_that_is_right(model: Any, many: bool) -> None:
    runs = []

    def counted(inputs: dict, trials: int) -> None:
        runs.append(trials)
        model(inputs, trials)

    if many:
        simulator = as_simulator(counted)
    else:
        with pytest.warns(UserWarning, match="one after another"):
            simulator = as_simulator(counted)
    before = len(runs)
    simulator.prior(np.random.default_rng(0), 23)
    assert len(runs) - before == (1 if many else 23)


def test_a_simulator_depends_on_its_generator_alone_and_changes_nothing_global() -> None:
    def model(inputs: dict, trials: int) -> None:
        pyro.param("width", torch.tensor(7.0))
        regression(inputs, trials)

    pyro.param("width", torch.tensor(2.0))
    state = torch.get_rng_state()
    with poutine.trace() as outside:
        simulator = as_simulator(model)
        first, second, other = (simulator.prior(np.random.default_rng(seed), 3) for seed in (1, 1, 2))
    assert not outside.trace.nodes.keys() - {"_INPUT", "_RETURN"}
    assert torch.equal(state, torch.get_rng_state())
    assert {name: value.item() for name, value in pyro.get_param_store().items()} == {"width": 2.0}
    for name in first:
        assert (first[name] == second[name]).all() and (first[name] != other[name]).any()


@pytest.mark.parametrize(
    ("outcomes", "message"),
    [
        (("z",), "outcomes: expected names of sample sites"),
        (("slope",), r"outcomes: .*shape \(trials,\)"),
        (None, "outcomes: expected names of sample sites, or a dict of name to variable, got None"),
    ],
)
def test_an_outcome_that_is_none_is_refused(outcomes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        as_simulator(regression, outcomes)
