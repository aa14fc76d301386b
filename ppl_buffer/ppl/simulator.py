"""A probabilistic program as a simulator: what `simulator_from_model` shares between NumPyro and Pyro. NumPy alone.

A language hands over what one run of the program looks like (`Site`s) and a function that runs it for many data sets
at once; this module decides which site is a parameter, what kind of variable it is and whether its prior has a name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ppl_buffer.network.arguments import check_names
from ppl_buffer.prior import FAMILIES, Prior
from ppl_buffer.schema import Categorical, Discrete, Integer, Interval, Positive, Real, Schema, Variable
from ppl_buffer.simulator import Arrays

# Trials of the runs that look at the program, and of those that draw parameters alone.
PROBE_TRIALS = 8
InputSource = tuple[Variable, Callable[[np.random.Generator, int, int], np.ndarray]]


@dataclass(frozen=True)
class Site:
    """One sample site of one run of a program on one data set.

    Attributes:
        distribution: the language's distribution object.
        shape: of the value.
        observed: the program itself gives the value.
    """

    distribution: Any
    shape: tuple[int, ...]
    observed: bool

    @property
    def is_parameter(self) -> bool:
        """Whether a network can be conditioned on the site: a continuous scalar that the program draws."""
        return self.shape == () and not self.observed and not self.distribution.support.is_discrete


class Draw(Protocol):
    """Runs a program for many data sets at once; a language provides it."""

    def __call__(
        self, rng: np.random.Generator, names: Sequence[str], params: Arrays, inputs: Arrays, size: int, trials: int, /
    ) -> Arrays:
        """Values of the sites `names`, each (size, *shape), with the sites in `params` fixed to values (size,)."""
        ...


class ModelSimulator:
    """A simulator (`ppl_buffer.Simulator`) that runs a probabilistic program.

    Args:
        probes: sites by name, in the order of sampling, of two runs of the program that differ in their random
            numbers alone. What differs between them depends on a latent value.
        draw: runs the program for many data sets.
        outcomes: names of the outcome sites, or a dict name -> variable (None: what the support says).
        inputs: dict name -> (variable, function (rng, size, trials) -> array (size, trials)).
        ordered: trial k depends on the trials before it.
        independent: exchangeable trials are independent given all parameters.
        name: stored in the checkpoint.

    Raises:
        ValueError: if an outcome is no site of the program, is observed in it or has another shape, a support fits
            no variable, or a parameter is sampled after a latent site that is none.
    """

    # A language's threads and compiled functions survive no fork.
    in_process = True

    def __init__(
        self,
        probes: Sequence[Mapping[str, Site]],
        draw: Draw,
        *,
        outcomes: Sequence[str] | Mapping[str, Variable],
        inputs: Mapping[str, InputSource] | None,
        ordered: bool,
        independent: bool,
        name: str,
    ) -> None:
        self.name = name
        self._draw = draw
        self._sources = check_inputs(inputs)
        given = dict(outcomes) if isinstance(outcomes, Mapping) else {}
        names = _outcome_names(outcomes)
        first = probes[0]
        for outcome in names:
            self._check_outcome(outcome, first)
        params = [key for key, site in first.items() if key not in names and site.is_parameter]
        others = [key for key, site in first.items() if key not in (*names, *params) and not site.observed]
        order = list(first)
        late = [key for key in params if any(order.index(other) < order.index(key) for other in (*others, *names))]
        if late:
            raise ValueError(
                f"model: expected scalar latent sites before all others, so that data can be drawn given them; got "
                f"{late[-1]!r} after {[key for key in (*others, *names) if order.index(key) < order.index(late[-1])]}"
            )
        self.schema = Schema(
            params={key: site_variable(key, probes) for key in params},  # type: ignore[misc]
            inputs={key: variable for key, (variable, _) in self._sources.items()},
            outcomes={key: given.get(key) or site_variable(key, probes) for key in names},
            ordered=ordered,
            independent=independent,
        )
        known = {key: site_prior([probe[key].distribution for probe in probes]) for key in params}
        self.priors: dict[str, Prior] = {key: prior for key, prior in known.items() if prior is not None}

    @staticmethod
    def _check_outcome(name: str, sites: Mapping[str, Site]) -> None:
        if name not in sites:
            raise ValueError(f"outcomes: expected names of sample sites {list(sites)}, got {name!r}")
        if sites[name].observed:
            raise ValueError(f"outcomes: expected a site that the model samples, but {name!r} is observed in it")
        if sites[name].shape != (PROBE_TRIALS,):
            raise ValueError(
                f"outcomes: expected a site of shape (trials,), but with trials={PROBE_TRIALS} {name!r} has shape "
                f"{sites[name].shape}"
            )

    def prior(self, rng: np.random.Generator, size: int) -> Arrays:
        """Draw parameters: dict name -> (size,)."""
        inputs = self.inputs(rng, size, PROBE_TRIALS)
        return self._draw(rng, list(self.schema.params), {}, inputs, size, PROBE_TRIALS)

    def inputs(self, rng: np.random.Generator, size: int, trials: int) -> Arrays:
        """Draw inputs: dict name -> (size, trials)."""
        return draw_inputs(self._sources, rng, size, trials)

    def simulate(
        self,
        rng: np.random.Generator,
        params: Arrays,
        inputs: Arrays,
        trials: int | None = None,
        size: int | None = None,
    ) -> Arrays:
        """Draw outcomes given parameters (size,) and inputs (size, trials): each (size, trials)."""
        check_names("params", params, self.schema.params)
        check_names("inputs", inputs, self.schema.inputs)
        if trials is None and inputs:
            trials = next(iter(inputs.values())).shape[-1]
        if size is None and (params or inputs):
            size = len(next(iter({**params, **inputs}.values())))
        if trials is None or size is None:
            raise ValueError("trials, size: expected numbers where no array tells them, got None")
        return self._draw(rng, list(self.schema.outcomes), params, _as_codes(self._sources, inputs), size, trials)


def check_model(model: Any) -> None:
    """Refuse what is no program, before it is run."""
    if not callable(model):
        raise ValueError(f"model: expected a function (inputs, trials), got {model!r}")


def _outcome_names(outcomes: Any) -> list[str]:
    """The names of the outcome sites."""
    names = [outcomes] if isinstance(outcomes, str) else list(outcomes) if isinstance(outcomes, Iterable) else []
    if not names or not all([isinstance(name, str) for name in names]):
        raise ValueError(f"outcomes: expected names of sample sites, or a dict of name to variable, got {outcomes!r}")
    return names


def check_inputs(inputs: Mapping[str, InputSource] | None) -> dict[str, InputSource]:
    """The inputs' variables and sources, checked."""
    if inputs is not None and not isinstance(inputs, Mapping):
        raise ValueError(f"inputs: expected a dict name -> (variable, function), got {type(inputs).__name__}")
    for name, entry in (inputs or {}).items():
        if not isinstance(entry, tuple) or len(entry) != 2 or not callable(entry[1]):
            raise ValueError(
                f"inputs[{name!r}]: expected a pair (variable, function (rng, size, trials) -> array), got {entry!r}"
            )
    return dict(inputs or {})


def probe_inputs(inputs: Mapping[str, InputSource] | None) -> Arrays:
    """Inputs of one data set for a run that looks at the program: dict name -> (PROBE_TRIALS,)."""
    batch = draw_inputs(check_inputs(inputs), np.random.default_rng(0), 1, PROBE_TRIALS)
    return {name: values[0] for name, values in batch.items()}


def draw_inputs(sources: Mapping[str, InputSource], rng: np.random.Generator, size: int, trials: int) -> Arrays:
    """Inputs of many data sets: dict name -> (size, trials)."""
    inputs = {name: np.asarray(source(rng, size, trials)) for name, (_, source) in sources.items()}
    for name, values in inputs.items():
        if values.shape != (size, trials):
            raise ValueError(f"inputs[{name!r}]: expected its function to give {(size, trials)}, got {values.shape}")
    return _as_codes(sources, inputs)


def _as_codes(sources: Mapping[str, InputSource], inputs: Arrays) -> Arrays:
    # A program may use a category as an index.
    whole = {name for name, (variable, _) in sources.items() if isinstance(variable, Discrete)}
    return {name: values.astype(int) if name in whole else values for name, values in inputs.items()}


def site_variable(name: str, probes: Sequence[Mapping[str, Site]]) -> Variable:
    """The variable that a site's support describes.

    Raises:
        ValueError: if there is none, or the support depends on a latent value.
    """
    variables = [_variable(name, probe[name].distribution.support) for probe in probes]
    if any(variable != variables[0] for variable in variables):
        raise ValueError(
            f"model: expected a support of {name!r} that does not depend on latent values, got {variables}"
        )
    return variables[0]


def _variable(name: str, support: Any) -> Variable:
    # NumPyro's and Pyro's constraints share these attributes, and no class.
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    low, high = (_bound(name, getattr(support, key, None)) for key in ("lower_bound", "upper_bound"))
    kind = type(support).__name__.lower()
    if support.event_dim == 0:
        if "boolean" in kind:
            return Categorical(2)
        if support.is_discrete and low == 0 and high is not None:
            return Categorical(int(high) + 1)
        if support.is_discrete and low is not None and high is not None:
            return Integer(int(low), int(high))
        if not support.is_discrete and low is not None and high is not None:
            return Interval(low, high)
        if not support.is_discrete and low == 0 and high is None:
            return Positive()
        if "real" in kind:
            return Real()
    raise ValueError(
        f"model: expected the support of {name!r} to be real, positive, an interval, boolean or integers between "
        f"two bounds, got {support}; transform it to one of these"
    )


def _bound(name: str, bound: Any) -> float | None:
    if bound is None:
        return None
    values = np.unique(np.asarray(bound, dtype=float))
    if values.size != 1:
        raise ValueError(f"model: expected the same support of {name!r} in all trials, got bounds {values}")
    return float(values[0])


def site_prior(distributions: Sequence[Any]) -> Prior | None:
    """The prior that runs of a program have in common; None where it has no name or depends on another parameter."""
    priors = [_prior(distribution) for distribution in distributions]
    return priors[0] if all(prior == priors[0] for prior in priors) else None


def _prior(distribution: Any) -> Prior | None:
    while type(distribution).__name__ in ("ExpandedDistribution", "MaskedDistribution", "Independent"):
        distribution = distribution.base_dist
    family = type(distribution).__name__
    if family not in FAMILIES:
        return None
    try:
        return Prior(family, {key: float(getattr(distribution, key)) for key in FAMILIES[family].arguments})
    except (TypeError, ValueError, RuntimeError):
        # An argument that is no single finite number.
        return None
