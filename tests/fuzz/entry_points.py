"""Public entry points with arguments that they take, to be called with others."""

from __future__ import annotations

import signal
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import ppl_buffer
from tests.networks import FUNCTION, LEARNING, Record, data, network

PEOPLE, TRIALS = 2, 5
PACKAGE = Path(ppl_buffer.__file__).parent
# A second is enough for every call here; a slow machine is no hang.
_SECONDS = 30


@dataclass(frozen=True)
class EntryPoint:
    """A public function, and arguments that it takes.

    Attributes:
        call: the function, of the arguments by name.
        arguments: makes arguments that are right.
        names: what a message may call an argument, beside its own name.
        may_be_infinite: whether minus infinity is a right answer (a density of what cannot be).
    """

    call: Callable[..., Any]
    arguments: Callable[[], dict[str, Any]]
    names: tuple[str, ...] = ()
    may_be_infinite: bool = False


class Hang(Exception):
    """A call that did not come back."""


@contextmanager
def time_limit(seconds: int = _SECONDS) -> Iterator[None]:
    """Raise `Hang` in the main thread where the body takes longer."""

    def hang(*_: Any) -> None:
        raise Hang(f"no answer after {seconds} s")

    before = signal.signal(signal.SIGALRM, hang)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def fault_of(point: EntryPoint, arguments: Mapping[str, Any]) -> str | None:
    """What is wrong with how a call ends; None where it is refused by name, or answered with numbers."""
    with warnings.catch_warnings(), time_limit(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            result = point.call(**arguments)
        except ValueError as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            # The number of trials is told by other arguments where it is none itself.
            named = (*arguments, *point.names, "trials: ")
            if Path(frame.filename).is_relative_to(PACKAGE):
                said = any(name in str(error) for name in named)
            else:
                # torch looks at a value before the distribution does.
                said = any(f"The {name} argument" in str(error) for name in arguments)
            return None if said else f"an error that names no argument: {error} at {frame.filename}:{frame.lineno}"
        except FileNotFoundError:
            return None  # what functions that read files say of one that is not there
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            return f"{type(error).__name__}: {error} at {frame.filename}:{frame.lineno}"
    return None if _right(result, point.may_be_infinite) else f"an answer that is no number: {result!r}"


def _right(result: Any, may_be_infinite: bool) -> bool:
    """Whether all numbers in a result are numbers."""
    if isinstance(result, Mapping):
        return all(_right(x, may_be_infinite) for x in result.values())
    if isinstance(result, (list, tuple)):
        return all(_right(x, may_be_infinite) for x in result)
    if isinstance(result, (float, np.ndarray, np.generic)):
        numbers = np.asarray(result)
        if numbers.dtype.kind != "f":
            return True
        return bool((np.isfinite(numbers) | (np.isneginf(numbers) & may_be_infinite)).all())
    return True


# What is called -------------------------------------------------------------------------------------------------


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


def function() -> dict[str, Any]:
    """Data of a random function, as `observe` takes them."""
    given = data(FUNCTION, batch=PEOPLE, trials=TRIALS)
    return {"inputs": given.inputs, "value": given.value}


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


def density_of(inputs: Any, value: Any, **more: Any) -> np.ndarray:
    """A log density of Pyro's distribution."""
    from ppl_buffer.pyro import JointPredictive

    return JointPredictive(net(), inputs, **more).log_prob(value).numpy()


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


def estimated(net: Any, x: Any, theta: Any, **more: Any) -> np.ndarray:
    """A log likelihood of sbi's estimator."""
    from ppl_buffer.sbi import LikelihoodEstimator

    estimator = LikelihoodEstimator(net, **more)
    return estimator.log_prob(estimator.pack(x), theta).numpy()


def theta() -> Any:
    """Parameters as sbi takes them."""
    import torch

    return torch.tensor(np.stack(list(params().values()), -1))


def entry_points() -> dict[str, EntryPoint]:
    """The public functions that are tried."""
    import ppl_buffer as pb
    from ppl_buffer import diagnostics
    from ppl_buffer.datasets import read_trials
    from ppl_buffer.prior import Prior
    from tests.datasets.tables import NOISY_Q, table_of_trials

    return {
        "observe": EntryPoint(
            lambda **a: [x.numpy() for x in (network(LEARNING, "torch").observe(**a).value,)],
            lambda: {**learning(), "trial_mask": mask()},
        ),
        "encode": EntryPoint(
            lambda context: net().encode(context).mask.numpy(),
            lambda: {"context": data(FUNCTION, batch=PEOPLE, points=4).context},
        ),
        "JointPredictive": EntryPoint(
            density_of,
            lambda: with_data(
                value=np_tensor(function()["value"]),
                params=params(),
                trial_mask=mask(),
                lapse=0.1,
                outside="warn",
                orders=2,
                block=None,
                environment=None,
                trials=None,
                context=None,
            ),
            may_be_infinite=True,
        ),
        "log_evidence": EntryPoint(
            evidence,
            lambda: with_data(
                trial_mask=mask(),
                draws=20,
                orders=2,
                seed=0,
                method="importance",
                params=None,
                block=None,
                prior={"mu": Prior.uniform(-1.0, 1.0)},
                feedback=None,
                lapse=None,
            ),
        ),
        "compare": EntryPoint(
            compared,
            lambda: with_data(
                nets={"a": net(), "b": net()},
                draws=20,
                orders=2,
                seed=0,
                method="both",
                prior_probabilities={"a": 1.0, "b": 2.0},
                trial_mask=None,
                lapse=None,
            ),
            names=("net: ",),
        ),
        "posterior_predictive": EntryPoint(
            lambda **a: simulated(FUNCTION, **a),
            lambda: {
                "inputs": function()["inputs"],
                "params": params(3),
                "draws": 3,
                "trials": None,
                "seed": 0,
                "trial_mask": mask(),
                "context": None,
                "environment": None,
                "lapse": 0.1,
                "memory": 0.1,
                "devices": None,
            },
        ),
        "posterior_predictive with feedback": EntryPoint(
            lambda **a: simulated(LEARNING, **a),
            lambda: {"inputs": learning()["inputs"], "draws": 2, "environment": LEARNING.environment},
        ),
        "check_data": EntryPoint(
            checked_data,
            lambda: {
                "data": None,
                "posterior": params(9),
                "draws": 4,
                "level": 0.95,
                "seed": 0,
                "statistics": None,
                "environment": None,
                "lapse": None,
            },
        ),
        "outside": EntryPoint(
            lambda posterior, warn: diagnostics.outside(net(), posterior, warn=warn),
            lambda: {"posterior": params(9), "warn": 0.01},
        ),
        "uniformity": EntryPoint(
            lambda **a: diagnostics.uniformity(**a).p,
            lambda: {"values": (np.arange(20) + 0.5) / 20, "steps": 20, "level": 0.9, "seed": 0},
        ),
        "leave_one_out": EntryPoint(left_out, lambda: with_data(trial_mask=mask(), feedback=None, context=None)),
        "loo": EntryPoint(lambda **a: scored("loo", **a), lambda: {"data": fit_of(log_likelihoods()), "var_name": "y"}),
        "logo": EntryPoint(
            lambda **a: scored("logo", **a),
            lambda: {"data": fit_of(log_likelihoods()), "var_name": "y", "subject": "subject"},
        ),
        "lfo": EntryPoint(
            lambda **a: scored("lfo", **a), lambda: {"data": fit_of(log_likelihoods()), "var_name": None, "first": 1}
        ),
        "sbi": EntryPoint(
            estimated,
            lambda: {
                "net": net(),
                "trials": TRIALS,
                "params": ["mu", "sigma"],
                "simulator": None,
                "x": {"x": function()["inputs"]["x"], "y": function()["value"]},
                "theta": theta(),
            },
            names=("input", "condition"),
            may_be_infinite=True,
        ),
        "into_box": EntryPoint(
            lambda **a: missing_aside(net().into_box(**a).numpy()),
            lambda: {"name": "mu", "x": np.zeros(PEOPLE), "params": params(), "below": None},
        ),
        "from_box": EntryPoint(
            lambda **a: missing_aside(net().from_box(**a).numpy()),
            lambda: {"name": "mu", "value": np.zeros(PEOPLE), "params": params(), "below": 1.5},
        ),
        "Lapse": EntryPoint(
            lambda **a: density_of(
                function()["inputs"], np_tensor(function()["value"]), params=params(), lapse=pb.Lapse(**a)
            ),
            lambda: {"rate": 0.1, "ranges": {"y": (-9.0, 9.0)}},
            names=("lapse",),
        ),
        "check_likelihood": EntryPoint(
            likelihood_checked,
            lambda: {
                "sets": 10,
                "trials": 3,
                "context": 0,
                "rollouts": True,
                "level": 0.9,
                "seed": 0,
                "statistics": None,
                "environment": None,
            },
        ),
        "read_trials": EntryPoint(
            lambda **a: [read_trials(**a).outcomes["choice"]],
            lambda: {
                "table": table_of_trials(),
                "net": NOISY_Q,
                "subject": "subject",
                "order": "file",
                "columns": {"choice": "response", "reward": "feedback", "pair": "cond"},
                "recode": {"choice": {"0": 0, "1": 1}},
                "scale": {"reward": 1.0},
                "signed": None,
                "outside": "error",
                "simulator": None,
            },
            names=("column", "CSV file"),
        ),
        "Schema": EntryPoint(
            lambda **a: pb.Schema(**a),
            lambda: {
                "params": {"mu": pb.Real()},
                "inputs": {"x": pb.Categorical(3)},
                "outcomes": {"y": pb.Positive(above="ndt"), "z": pb.Interval(0, 1)} | {"y": pb.Real()},
                "feedback": {"r": pb.Real()},
                "ordered": True,
                "independent": False,
                "lapse_rate": 0.0,
            },
        ),
        "Interval": EntryPoint(
            pb.Interval,
            lambda: {"low": 0, "high": 1.0, "closed": False},
            names=("Interval",),
        ),
        "Categorical": EntryPoint(pb.Categorical, lambda: {"n": 3}),
        "Config": EntryPoint(
            pb.Config,
            lambda: {"width": 12, "depth": 2, "heads": 3, "mlp": 17, "components": 5, "param_depth": 1},
        ),
        "Prior": EntryPoint(
            lambda **a: Prior(**a).quantile(np.array([0.2, 0.5])),
            lambda: {"family": "Normal", "arguments": {"loc": 0.0, "scale": 1.0}, "relative_to": None},
            names=("scale of", "loc of"),
        ),
        "load": EntryPoint(
            lambda **a: pb.load(**a), lambda: {"name_or_path": "noisy_q", "backend": "torch"}, names=("path",)
        ),
    }


def entry_points_of_jax() -> dict[str, EntryPoint]:
    """The same of the other backend, where it has code of its own."""
    from ppl_buffer.numpyro import JointPredictive

    of_torch, function_net = entry_points(), network(FUNCTION, "jax", record())

    def density(inputs: Any, value: Any, **more: Any) -> np.ndarray:
        return np.asarray(JointPredictive(function_net, inputs, **more).log_prob(value))

    calls: dict[str, tuple[Callable[..., Any], str]] = {
        "observe in JAX": (lambda **a: np.asarray(network(LEARNING, "jax").observe(**a).value), "observe"),
        "encode in JAX": (lambda context: np.asarray(function_net.encode(context).mask), "encode"),
        "JointPredictive of NumPyro": (density, "JointPredictive"),
        "into_box in JAX": (lambda **a: missing_aside(np.asarray(function_net.into_box(**a))), "into_box"),
    }
    points = {name: replace(of_torch[like], call=call) for name, (call, like) in calls.items()}
    point = points["JointPredictive of NumPyro"]
    points["JointPredictive of NumPyro"] = replace(
        point, arguments=lambda: {**point.arguments(), "value": function()["value"]}
    )
    return points
