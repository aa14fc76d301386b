"""A Pyro model run again at every draw of a posterior, and what its samplers recorded."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from pyro import poutine
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor
from tqdm.auto import tqdm

from ppl_buffer.ppl.trace import (
    ObservedSite,
    PosteriorTrace,
    check_plate,
    check_samples,
    fixed_leaves,
    observed_site,
    unwrap_joint,
    varying,
    varying_data_error,
)
from ppl_buffer.pyro.simulator import seeded


def _sample_sites(trace: Any) -> dict[str, Any]:
    """Sample sites by name, without those of plates."""
    for name, site in trace.nodes.items():
        if site["type"] == "sample" and type(site["fn"]).__name__ == "_Subsample":
            check_plate(name, site["fn"].size, len(site["value"]))
    return {k: x for k, x in prune_subsample_sites(trace).nodes.items() if x["type"] == "sample"}


def _is_deterministic(site: Mapping[str, Any]) -> bool:
    return bool(site["infer"].get("_deterministic", False))


def _is_latent(site: Mapping[str, Any]) -> bool:
    return not site["is_observed"] and not _is_deterministic(site)


@contextmanager
def _quiet_box() -> Iterator[None]:
    """Silences what a joint predictive says of single draws outside the trained box."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"params\[", UserWarning)
        yield


def replay(
    model: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    samples: Mapping[str, Any],
    progress: bool = False,
) -> PosteriorTrace:
    """Run a model at each of S draws of its latent sites, one after another.

    Args:
        model: the model.
        args: its arguments.
        kwargs: its keyword arguments.
        samples: dict name -> (S, *shape); sites that are not latent are ignored.
        progress: show a progress bar.

    Raises:
        ValueError: if draws of a latent site are missing, a plate subsamples, or data depend on latent variables.
    """
    drawn = {name: torch.as_tensor(value).detach() for name, value in samples.items()}
    count = len(next(iter(drawn.values()))) if drawn else 1
    with seeded(0), _quiet_box():
        structure = _sample_sites(poutine.trace(model).get_trace(*args, **kwargs))
        latent = [name for name, site in structure.items() if _is_latent(site)]
        check_samples(samples, latent)
        deterministic = [name for name, site in structure.items() if _is_deterministic(site)]
        trials: dict[str, ObservedSite] = {}
        for name, site in structure.items():
            found = (
                observed_site(site["fn"], site["value"]) if site["is_observed"] and name not in deterministic else None
            )
            if found is not None:
                trials[name] = found
        others = [name for name in structure if name not in (*latent, *deterministic, *trials)]
        others = [name for name in others if structure[name]["value"].numel()]  # `pyro.factor` observes nothing
        kept: dict[str, list[np.ndarray]] = {}

        def keep(group: str, name: str, value: Tensor) -> None:
            kept.setdefault(f"{group} {name}", []).append(value.detach().cpu().numpy())

        for draw in tqdm(range(count), disable=not progress, desc="replay", unit="draw"):
            known = {name: drawn[name][draw] for name in latent}
            again = _sample_sites(poutine.trace(poutine.condition(model, data=known)).get_trace(*args, **kwargs))
            for name in [*latent, *deterministic]:
                keep("value", name, again[name]["value"])
            for name in [*latent, *others]:
                keep("log_prob", name, again[name]["fn"].log_prob(again[name]["value"]))
            for name, site in trials.items():
                joint = unwrap_joint(again[name]["fn"])
                assert joint is not None
                both = zip(fixed_leaves(joint), fixed_leaves(site.distribution), strict=True)
                if not all(a is b or torch.equal(a, b) for a, b in both):
                    raise varying_data_error(name)
                for key, value in varying(joint)["params"].items():
                    keep(f"params {name}", key, value)
                if joint.lapse is not None:
                    keep("lapse", name, joint.lapse)
    stacked = {key: np.stack(values) for key, values in kept.items()}
    for name, site in trials.items():
        site.params = {key: stacked[f"params {name} {key}"] for key in site.distribution.params}
        site.lapse = stacked.get(f"lapse {name}")
    return PosteriorTrace(
        values={name: stacked[f"value {name}"] for name in [*latent, *deterministic]},
        log_prior={name: stacked[f"log_prob {name}"] for name in latent},
        trials=trials,
        observed={name: structure[name]["value"].detach().cpu().numpy() for name in others},
        log_likelihood={name: stacked[f"log_prob {name}"] for name in others},
        plates={
            name: {frame.dim: (frame.name, frame.size) for frame in site["cond_indep_stack"] if frame.vectorized}
            for name, site in structure.items()
        },
        batch_ndim={name: len(structure[name]["fn"].batch_shape) for name in [*latent, *others, *trials]},
    )


def prior_samples(
    model: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], draws: int, seed: int
) -> dict[str, np.ndarray]:
    """Draws (draws, *shape) of a model's latent and deterministic sites from the prior."""
    kept: dict[str, list[np.ndarray]] = {}
    with seeded(seed), _quiet_box():
        for _ in range(draws):
            for name, site in _sample_sites(poutine.trace(model).get_trace(*args, **kwargs)).items():
                if _is_latent(site) or _is_deterministic(site):
                    kept.setdefault(name, []).append(site["value"].detach().cpu().numpy())
    return {name: np.stack(values) for name, values in kept.items()}


def guide_samples(
    svi: Any, params: Any, args: Sequence[Any], kwargs: Mapping[str, Any], draws: int, seed: int
) -> dict[str, np.ndarray]:
    """Draws (draws, *shape) of what a guide samples, at the parameter store's values, or at `params` name -> value."""
    kept: dict[str, list[np.ndarray]] = {}
    guide = svi.guide if params is None else poutine.substitute(svi.guide, data=dict(params))
    with seeded(seed):
        for _ in range(draws):
            for name, site in poutine.trace(guide).get_trace(*args, **kwargs).nodes.items():
                if site["type"] == "sample":
                    kept.setdefault(name, []).append(site["value"].detach().cpu().numpy())
    return {name: np.stack(values) for name, values in kept.items()}


def sampler_statistics(mcmc: Any) -> dict[str, np.ndarray]:
    """What a sampler recorded, dict name -> (chain, draw): Pyro's keep which draws diverged, and no more."""
    divergences = mcmc.diagnostics().get("divergences")
    if divergences is None:
        return {}
    diverging = np.zeros(next(iter(mcmc.get_samples(group_by_chain=True).values())).shape[:2], dtype=bool)
    for chain, draws in divergences.items():
        diverging[int(chain.split()[-1]), draws] = True
    return {"diverging": diverging}
