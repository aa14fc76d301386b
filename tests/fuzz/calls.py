"""Public functions called on tiny data: what they return as numbers, and arguments that are right."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from tests.network.hubs import FolderHub
from tests.networks import DECISION, FUNCTION, LEARNING, RESPONDING, Record, data, network

PEOPLE, TRIALS = 2, 5


@cache
def record() -> Record:
    """A training record for the random function: its box holds all that its data are drawn from."""
    from ppl_buffer.prior import Prior

    priors = {"mu": Prior.uniform(-2.0, 2.0), "sigma": Prior.uniform(0.5, 3.0)}
    box = {name: prior.range() for name, prior in priors.items()}
    return Record(box=box, priors=priors, trials=11, context=13, simulator="none")


def net(case: Any = FUNCTION) -> Any:
    """A tiny network of torch."""
    return network(case, "torch", record() if case is FUNCTION else None)


def with_data(**more: Any) -> dict[str, Any]:
    """Data of a random function, and further arguments."""
    return {**function(), **more}


def learning() -> dict[str, Any]:
    """Data of people who learn, as `observe` takes them."""
    given = data(LEARNING, batch=PEOPLE, trials=TRIALS)
    return {"inputs": given.inputs, "value": given.value, "feedback": given.feedback}


def responding() -> dict[str, Any]:
    """Data of people whose network has a direct likelihood, and their parameters."""
    given = data(RESPONDING, batch=PEOPLE, trials=TRIALS)
    return {
        "inputs": given.inputs, "value": np_tensor(given.value), "feedback": given.feedback, "params": given.params
    }  # fmt: skip


def function() -> dict[str, Any]:
    """Data of a random function, as `observe` takes them."""
    given = data(FUNCTION, batch=PEOPLE, trials=TRIALS)
    return {"inputs": given.inputs, "value": given.value}


def published(**arguments: Any) -> np.ndarray:
    """Weights of a network that was published and loaded again."""
    import ppl_buffer as pb

    with TemporaryDirectory() as folder:
        hub = FolderHub(Path(folder))
        again = pb.load(pb.publish(hub=hub, **arguments), "torch", hub=hub)
    return next(iter(again.weights.values())).numpy()


def params(*lead: int) -> dict[str, np.ndarray]:
    """Parameters of the random function, (*lead, people)."""
    rng = np.random.default_rng(1)
    shape = (*lead, PEOPLE)
    return {"mu": rng.uniform(-1, 1, shape).astype("f4"), "sigma": rng.uniform(0.6, 2, shape).astype("f4")}


def mask() -> np.ndarray:
    """Which trials exist."""
    return np.arange(TRIALS) < np.array([[TRIALS], [3]])


def np_tensor(values: np.ndarray) -> Any:
    """An array as torch's."""
    import torch

    return torch.tensor(values)


def pairs(count: int) -> tuple[Any, Any]:
    """Inputs and outcomes of points, (PEOPLE, count) each, as torch's."""
    return tuple(np_tensor(x) for x in np.random.default_rng(count).normal(size=(2, PEOPLE, count)).astype(np.float32))


def density_of(inputs: Any, value: Any, **more: Any) -> np.ndarray:
    """A log density of Pyro's distribution."""
    from ppl_buffer.pyro import JointPredictive

    return JointPredictive(net(), inputs, **more).log_prob(value).numpy()


def directly(inputs: Any, value: Any, **more: Any) -> np.ndarray:
    """The same by a direct likelihood."""
    from ppl_buffer.pyro import JointPredictive

    return JointPredictive(net(RESPONDING), inputs, **more).log_prob(value).numpy()


def omissions() -> dict[str, Any]:
    """What is said of missing answers."""
    return {"deadline": 9.0, "withheld": {}, "outcome": "rt"}


def deciding(**more: Any) -> np.ndarray:
    """A log density of independent choices and response times of which some may be missing."""
    import ppl_buffer as pb
    from ppl_buffer.pyro import JointPredictive

    given = data(DECISION, batch=PEOPLE, trials=TRIALS, context=False)
    theta = {name: np_tensor(x) for name, x in given.params.items()}
    made = JointPredictive(net(DECISION), given.inputs, params=theta, missing=pb.Missing(**more))
    return made.log_prob(np_tensor(given.value)).numpy()


def evidence(**arguments: Any) -> list[np.ndarray]:
    """Log evidence and its standard error."""
    import ppl_buffer as pb

    result = pb.log_evidence(net(), progress=False, **arguments)
    return [result.log_evidence, result.standard_error]


def compared(nets: Any, **arguments: Any) -> np.ndarray:
    """A table of log evidences."""
    import ppl_buffer as pb

    table = pb.compare(nets, progress=False, **arguments)
    return table[["log_evidence", "log_bayes_factor", "probability"]].to_numpy(float)


def simulated(case: Any, **arguments: Any) -> list[np.ndarray]:
    """Simulated data sets, trials that exist."""
    import ppl_buffer as pb

    result = pb.posterior_predictive(net(case), progress=False, **arguments)
    # Where there is no trial all numbers are missing together.
    return [result.value[np.isfinite(result.log_prob)], result.log_prob[~np.isnan(result.log_prob)]]


def checked_data(data: Any, posterior: Any, **more: Any) -> list[np.ndarray]:
    """A check of data against the fitted model."""
    from ppl_buffer import diagnostics

    seen = net().observe(**function()) if data is None else data
    check = diagnostics.check_data(net(), seen, posterior, progress=False, **more)
    return [*check.observed.values(), *check.replicated.values()]


def by_trial(kind: str, data: Any, **more: Any) -> np.ndarray:
    """Readouts of each trial, those that are numbers."""
    import ppl_buffer as pb

    seen = net().observe(**function()) if data is None else data
    table = getattr(pb, kind)(net(), seen, progress=False, **more)
    return table.drop(columns="subject").to_numpy(float)


def missing_aside(values: np.ndarray) -> np.ndarray:
    """The numbers of an answer to numbers some of which are none."""
    return values[~np.isnan(values)]


class Functions:
    """A simulator of the random function: noise about a mean."""

    schema = FUNCTION.schema

    def prior(self, rng: np.random.Generator, size: int) -> dict[str, np.ndarray]:
        """Draws of the trained box."""
        return {name: prior.sample(rng, size) for name, prior in record().priors.items()}

    def inputs(self, rng: np.random.Generator, size: int, trials: int) -> dict[str, np.ndarray]:
        """Places."""
        return {"x": rng.normal(size=(size, trials))}

    def simulate(self, rng: np.random.Generator, params: Any, inputs: Any) -> dict[str, np.ndarray]:
        """Values at the places."""
        noise = rng.normal(size=inputs["x"].shape)
        return {"y": params["mu"][:, None] + params["sigma"][:, None] * noise}


def likelihood_checked(**arguments: Any) -> list[np.ndarray]:
    """A check of a likelihood."""
    from ppl_buffer import diagnostics

    check = diagnostics.check_likelihood(net(), Functions(), progress=False, **arguments)
    return [*check.pit.values(), *check.simulated.values()]


def left_out(**arguments: Any) -> np.ndarray:
    """Scores of trials given all others."""
    from ppl_buffer import scores

    return scores.leave_one_out(net(), **arguments).pointwise.values


def fit_of(values: Any) -> Any:
    """Log likelihoods (chain, draw, subject, trial) as ArviZ holds them."""
    import xarray

    from ppl_buffer.arviz import container

    values = np.asarray(values, dtype=float)
    dims = ("chain", "draw", "subject", "trial")
    return container({"log_likelihood": xarray.Dataset({"y": (dims, values)}, {dims[2]: ["b", "a"]})})


def log_likelihoods() -> np.ndarray:
    """Log likelihoods (chain, draw, subject, trial)."""
    return -1 + 0.1 * np.random.default_rng(2).normal(size=(2, 50, PEOPLE, TRIALS))


def scored(kind: str, data: Any, **more: Any) -> list[Any]:
    """A score of a fit."""
    from ppl_buffer import scores

    if kind == "lfo":
        more["progress"] = False
    score = getattr(scores, kind)(data, **more)
    return [score.elpd, score.pointwise.values]


# Arguments of scores by refits.
REFITS = {"data": None, "draws": 20, "lapse": None, "below": None, "seed": 0}


def folded(data: Any, **more: Any) -> np.ndarray:
    """A score of people by refits."""
    from ppl_buffer import scores

    seen = net().observe(**function()) if data is None else data
    population = {"mu": np.zeros(3), "sigma": np.zeros(3)}, {"mu": np.ones(3), "sigma": np.ones(3)}
    return scores.kfold(net(), seen, lambda kept: population, progress=False, **more).pointwise.values


def refitted(data: Any, score: Any, **more: Any) -> np.ndarray:
    """A score of people some of whose terms are by refits."""
    from xarray import DataArray

    from ppl_buffer import scores

    seen = net().observe(**function()) if data is None else data
    population = {"mu": np.zeros(3), "sigma": np.zeros(3)}, {"mu": np.ones(3), "sigma": np.ones(3)}
    terms = DataArray(np.zeros(PEOPLE), dims="subject", coords={"subject": list("ab")[:PEOPLE]})
    score = scores.Score("logo", terms, terms + 0.8) if score is None else score
    return scores.reloo(score, net(), seen, lambda kept: population, progress=False, **more).pointwise.values


def estimated(net: Any, x: Any, theta: Any, **more: Any) -> np.ndarray:
    """A log likelihood of sbi's estimator."""
    from ppl_buffer.sbi import LikelihoodEstimator

    estimator = LikelihoodEstimator(net, **more)
    return estimator.log_prob(estimator.pack(x), theta).numpy()


def theta() -> Any:
    """Parameters as sbi takes them."""
    import torch

    return torch.tensor(np.stack(list(params().values()), -1))


def stored_arrays() -> dict[str, Any]:
    """Data of 101 people or simulations."""
    rng = np.random.default_rng(0)
    inputs, outcomes = {"x": rng.normal(size=(101, 5))}, {"y": rng.integers(0, 3, (101, 5))}
    return {"inputs": inputs, "outcomes": outcomes, "feedback": {"reward": rng.normal(size=(101, 5))}}


def design_arguments() -> dict[str, Any]:
    """What `designed` takes."""
    from ppl_buffer.prior import Prior

    return {
        "formulas": ["drift ~ age + (1 | subject)"],
        "covariates": {"age": np.arange(5.0)},
        "subjects": ["a", "b", "c", "d", "e"],
        "fixed": {"bound": 1.5},
        "priors": {"drift~age": Prior("Normal", {"loc": 0.0, "scale": 0.5})},
        "correlated": False,
        "lapse": None,
    }


def designed(**arguments: Any) -> Any:
    """Rows of a design by formulas, of five subjects."""
    from ppl_buffer import formulas
    from tests.formulas.cases import Deciders

    subjects = Deciders()
    made = formulas.design(subjects.net("torch"), subjects.seen("torch"), **arguments)
    return [one.matrix for one in made.parameters.values()]
