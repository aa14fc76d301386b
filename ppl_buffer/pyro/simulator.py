"""A Pyro model as a simulator."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyro
import torch
from pyro import poutine
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor

from ppl_buffer.ppl.simulator import (
    PROBE_TRIALS,
    InputSource,
    ModelSimulator,
    Site,
    check_model,
    probe_inputs,
)
from ppl_buffer.schema import Variable
from ppl_buffer.simulator import Arrays

# Data sets of the run that finds out whether a model can draw many at once: a number unlike `PROBE_TRIALS`.
_PROBE_SETS = 3


def simulator_from_model(
    model: Callable[..., Any],
    *,
    outcomes: Sequence[str] | Mapping[str, Variable],
    inputs: Mapping[str, InputSource] | None = None,
    ordered: bool = False,
    independent: bool = False,
    name: str | None = None,
) -> ModelSimulator:
    """A Pyro model as a simulator that `ppl_buffer.train` can learn from.

    Many data sets are drawn in one run of the model, in a plate over data sets: at dimension -2, left of a plate over
    trials, or at -1 where the trials are an event dimension. This is done if such a run has the density of single
    runs at the same values; otherwise the model runs once for each data set, with a warning. Draws depend on the
    given generator alone; torch's generator and the parameter store stay as they were. The model runs on the CPU.

    Args:
        model: function (inputs, trials) that samples one data set: scalar latent sites, and outcome sites of shape
            (trials,), in a plate or with an event dimension. `inputs` is a dict name -> (trials,). How the first
            trials come about must not depend on how many follow.
        outcomes: names of the outcome sites, in the order in which the density factorises inside a trial; or a dict
            name -> variable, to state more than the site's support does (the range of a lapse); None = the support.
        inputs: dict name -> (variable, function (rng, size, trials) -> array (size, trials)).
        ordered: trial k depends on the trials before it.
        independent: exchangeable trials are independent given all parameters.
        name: stored in the checkpoint; by default the name of the function.

    Returns:
        the simulator. Its parameters are the continuous scalar latent sites. Other latent sites are drawn with the
        data and are no parameters: the network integrates over them.

    Raises:
        ValueError: if an outcome is no site of the program, is observed in it or has another shape, a support fits
            no variable, or a parameter is sampled after a latent site that is none.
    """
    check_model(model)
    shown = probe_inputs(inputs)
    probes = []
    for seed in (0, 1):
        with seeded(seed):
            probes.append(_sites(model, {}, shown, PROBE_TRIALS))

    def draw(
        rng: np.random.Generator, names: Sequence[str], params: Arrays, inputs: Arrays, size: int, trials: int
    ) -> Arrays:
        with seeded(int(rng.integers(2**63))):
            if layout is not None:
                sites = _sites_of_many(model, params, inputs, size, trials, layout)
                values = {key: sites[key]["value"] for key in names}
            else:
                runs = [_sites(model, _take(params, index), _take(inputs, index), trials) for index in range(size)]
                values = {key: torch.stack([sites[key]["value"] for sites in runs]) for key in names}
        shapes = {key: (size, trials) if key in simulator.schema.outcomes else (size,) for key in names}
        return {key: value.detach().reshape(shapes[key]).numpy() for key, value in values.items()}

    simulator = ModelSimulator(
        [
            {key: Site(x["fn"], tuple(x["value"].shape), x["is_observed"]) for key, x in probe.items()}
            for probe in probes
        ],
        draw,
        outcomes=outcomes,
        inputs=inputs,
        ordered=ordered,
        independent=independent,
        name=name or str(getattr(model, "__name__", type(model).__name__)),
    )
    several = simulator.inputs(np.random.default_rng(0), _PROBE_SETS, PROBE_TRIALS)
    layout = next((dim for dim in (-2, -1) if _draws_many(model, several, probes[0], dim)), None)
    if layout is None:
        warnings.warn(
            f"model: {simulator.name} cannot draw many data sets at once and draws them one after another, which is "
            f"slow; it would be fast if it also took parameters (size, 1) and inputs (size, trials)",
            stacklevel=2,
        )
    return simulator


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Runs models without a trace: random state, parameter store and effect handlers stay as they were."""
    store = pyro.get_param_store()
    with torch.random.fork_rng(devices=[]), store.scope(store.get_state()), poutine.block(), torch.no_grad():
        # Not torch.manual_seed, which would seed every other device too.
        torch.default_generator.manual_seed(seed)
        yield


def _sites(
    model: Callable[..., Any], params: Mapping[str, Any], given: Mapping[str, Any], trials: int
) -> dict[str, Any]:
    """Sample sites by name of one run of a model, with the sites in `params` fixed."""

    def tensors(arrays: Mapping[str, Any]) -> dict[str, Tensor]:
        # Integers stay integers: a model may use a category as an index.
        given = {key: torch.as_tensor(array) for key, array in arrays.items()}
        return {k: x.to(torch.get_default_dtype()) if x.is_floating_point() else x for k, x in given.items()}

    trace = poutine.trace(poutine.condition(model, data=tensors(params))).get_trace(tensors(given), trials)
    return {key: site for key, site in prune_subsample_sites(trace).nodes.items() if site["type"] == "sample"}


def _sites_of_many(
    model: Callable[..., Any], params: Mapping[str, Any], given: Mapping[str, Any], size: int, trials: int, layout: int
) -> dict[str, Any]:
    """Sample sites by name of one run for `size` data sets, in a plate at dimension `layout`."""
    wide = {key: np.reshape(values, (size, *(1,) * (-layout - 1))) for key, values in params.items()}
    return _sites(pyro.plate("_data_sets", size, dim=layout)(model), wide, given, trials)


def _take(arrays: Mapping[str, Any], index: int) -> dict[str, Any]:
    """What belongs to one data set."""
    return {key: array[index] for key, array in arrays.items()}


def _draws_many(model: Callable[..., Any], given: Mapping[str, Any], probe: Mapping[str, Any], layout: int) -> bool:
    """Whether a run for several data sets has, site by site, the density of single runs at the same values."""

    def each(site: Mapping[str, Any]) -> Tensor:
        return site["fn"].log_prob(site["value"]).reshape(_PROBE_SETS, -1).sum(-1)

    try:
        with seeded(0):
            many = _sites_of_many(model, {}, given, _PROBE_SETS, PROBE_TRIALS, layout)
            for index in range(_PROBE_SETS):
                latent = {
                    key: site["value"][index].reshape(probe[key]["value"].shape)
                    for key, site in many.items()
                    if not site["is_observed"]
                }
                single = _sites(model, latent, _take(given, index), PROBE_TRIALS)
                if single.keys() != many.keys():
                    return False
                for key, site in single.items():
                    alone = site["fn"].log_prob(site["value"]).sum()
                    if not torch.allclose(each(many[key])[index], alone, rtol=1e-4, atol=1e-4):
                        return False
    except Exception:
        # A model that was written for one data set may raise anything; what it raises with a single one, the probes
        # did.
        return False
    return True
