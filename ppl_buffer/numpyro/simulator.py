"""A NumPyro model as a simulator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from numpyro import handlers

from ppl_buffer.numpyro.distribution import Array
from ppl_buffer.ppl.simulator import (
    PROBE_TRIALS,
    InputSource,
    ModelSimulator,
    Site,
    check_model,
    probe_inputs,
)
from ppl_buffer.schema import Variable


def simulator_from_model(
    model: Callable[..., Any],
    *,
    outcomes: Sequence[str] | Mapping[str, Variable],
    inputs: Mapping[str, InputSource] | None = None,
    ordered: bool = False,
    independent: bool = False,
    name: str | None = None,
) -> ModelSimulator:
    """A NumPyro model as a simulator that `ppl_buffer.train` can learn from; data sets are drawn in one compiled call.

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

    def probe(seed: int) -> dict[str, Site]:
        given = {key: jnp.asarray(x) for key, x in shown.items()}
        sites = _sites(model, random.PRNGKey(seed), {}, given, PROBE_TRIALS)
        return {key: Site(x["fn"], tuple(jnp.shape(x["value"])), x["is_observed"]) for key, x in sites.items()}

    @partial(jax.jit, static_argnames=("names", "trials"))
    def values(keys: Array, names: tuple[str, ...], params: Any, given: Any, trials: int) -> dict[str, Array]:
        def one(key: Array, params: Any, given: Any) -> dict[str, Array]:
            sites = _sites(model, key, params, given, trials)
            return {name: sites[name]["value"] for name in names}

        return jax.vmap(one)(keys, params, given)

    def draw(
        rng: np.random.Generator, names: Sequence[str], params: Any, given: Any, size: int, trials: int
    ) -> dict[str, np.ndarray]:
        # Sizes are rounded up to powers of two, so that few versions get compiled.
        sets, count = (1 << (number - 1).bit_length() for number in (size, trials))

        def pad(array: np.ndarray, *lengths: int) -> np.ndarray:
            return np.pad(array, [(0, to - now) for now, to in zip(array.shape, lengths, strict=True)], mode="edge")

        seed = random.wrap_key_data(jnp.asarray(rng.integers(0, 2**32, 2, dtype=np.uint32)), impl="threefry2x32")
        batch = values(
            random.split(seed, sets),
            tuple(names),
            {key: pad(x, sets) for key, x in params.items()},
            {key: pad(x, sets, count) for key, x in given.items()},
            count,
        )
        return {key: np.asarray(x)[(slice(size), slice(trials))[: x.ndim]] for key, x in batch.items()}

    return ModelSimulator(
        [probe(0), probe(1)],
        draw,
        outcomes=outcomes,
        inputs=inputs,
        ordered=ordered,
        independent=independent,
        name=name or str(getattr(model, "__name__", type(model).__name__)),
    )


def _sites(
    model: Callable[..., Any], key: Array, params: Mapping[str, Array], given: Mapping[str, Array], trials: int
) -> dict[str, Any]:
    """Sample sites by name of one run of a model, with the sites in `params` fixed."""
    seeded = handlers.seed(handlers.substitute(model, data=dict(params)), key)
    trace = handlers.trace(seeded).get_trace(dict(given), trials)
    return {key: site for key, site in trace.items() if site["type"] == "sample"}
