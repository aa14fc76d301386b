"""Posterior draws where the network was not trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ppl_buffer.checks import check_number, check_numbers
from ppl_buffer.diagnostics.statistics import Arrays
from ppl_buffer.findings import Finding, warn_of
from ppl_buffer.network.network import Network


def outside(net: Network, posterior: Any, *, warn: float = 0.01) -> dict[str, float]:
    """Share of posterior draws outside the range that the network was trained on, by parameter.

    There the likelihood is an extrapolation, and no diagnostic of the sampler can tell.

    Args:
        net: a trained network of either backend.
        posterior: draws of parameters in natural units: a dict name -> (draws, ...) as ``MCMC.get_samples()`` gives;
            or what ArviZ holds, with a group ``posterior``. Other names in it are ignored.
        warn: share from which on a parameter is warned of.

    Returns:
        dict parameter -> share of its draws, over everybody. Where a parameter's prior is relative to another, their
        difference has an entry too, ``"b - a"``.

    Raises:
        ValueError: if the network was not trained, or the posterior holds none of its parameters.
    """
    warn = _checked_share(warn)
    shares: dict[str, float] = {}
    for name, value, bounds in _trained_ranges(net, posterior):
        shares[name] = float(_beyond(value, bounds).mean())
        if shares[name] > warn:
            warn_of(_finding(name, value, bounds))
    return shares


def outside_findings(net: Network, posterior: Any, *, warn: float = 0.01) -> list[Finding]:
    """What `outside` warns of, as records: one for each parameter with a larger share than `warn` outside its range.

    Args:
        net: a trained network of either backend.
        posterior: as for `outside`.
        warn: share from which on a parameter is reported.

    Raises:
        ValueError: if the network was not trained, or the posterior holds none of its parameters.
    """
    warn = _checked_share(warn)
    findings = [_finding(name, value, bounds) for name, value, bounds in _trained_ranges(net, posterior)]
    return [finding for finding in findings if finding.share is not None and finding.share > warn]


def _checked_share(warn: float) -> float:
    return check_number("warn", warn, "a share from 0 to 1", lambda x: 0 <= x <= 1)


def _trained_ranges(net: Network, posterior: Any) -> Iterator[tuple[str, np.ndarray, tuple[float, float]]]:
    """Name, draws (draws, ...) and range of each parameter, and of each difference whose range a prior states."""
    if net.record is None:
        raise ValueError("net: expected a trained network, which knows its range, got an untrained one")
    draws = draws_of_params(net, posterior)
    for name, value in draws.items():
        if name in net.box:
            yield name, value, net.box[name]
        prior = net.record.priors.get(name)
        if prior is not None and prior.relative_to in draws and "low" in prior.arguments:
            yield f"{name} - {prior.relative_to}", value - draws[prior.relative_to], prior.range()


def _beyond(value: np.ndarray, bounds: tuple[float, float]) -> np.ndarray:
    return ~((value >= bounds[0]) & (value <= bounds[1]))


def _finding(name: str, value: np.ndarray, bounds: tuple[float, float]) -> Finding:
    """How many draws (draws, ...) lie outside the bounds, and of which subject most."""
    low, high = bounds
    beyond = _beyond(value, bounds)
    share = float(beyond.mean())
    by_subject = beyond.mean(0)
    most = ""
    if by_subject.ndim:
        worst = np.unravel_index(int(by_subject.argmax()), by_subject.shape)
        most = f" (most at index {', '.join(map(str, worst))}: {by_subject[worst]:.0%})"
    side = "below" if (value < low).mean() > (value > high).mean() else "above"
    text = (
        f"outside: {share:.1%} of the draws of {name!r}{most} lie outside [{low:g}, {high:g}], where the "
        f"network was trained, mostly {side}; its likelihood there is an extrapolation. Use a prior inside the "
        f"range (net.prior()), or train on a wider one"
    )
    return Finding("outside_box", text, parameter=name, share=share)


def draws_of_params(net: Network, posterior: Any) -> Arrays:
    """The network's parameters in a posterior: dict name -> (draws, ...).

    Args:
        net: a network.
        posterior: dict name -> (draws, ...); NumPyro's or Pyro's MCMC; or what ArviZ holds.

    Raises:
        ValueError: if the posterior holds none of its parameters.
    """
    chains = False
    if hasattr(posterior, "get_samples"):
        posterior = posterior.get_samples()
    if not isinstance(posterior, dict):
        # ArviZ's InferenceData and DataTree, or the dataset of their group.
        posterior = getattr(posterior, "posterior", posterior)
        chains = True
    if not isinstance(posterior, Mapping):
        raise ValueError(
            "posterior: expected a dict name -> draws, a finished run, or what ArviZ holds, got "
            f"{type(posterior).__name__}"
        )
    draws = {}
    for name in net.schema.params:
        if name in posterior:
            value = posterior[name]
            array = check_numbers(f"posterior[{name!r}]", value.values if chains else value)
            if array.ndim < 1 + chains or not array.size:
                raise ValueError(f"posterior[{name!r}]: expected draws, (draws, ...), got shape {array.shape}")
            draws[name] = array.reshape((-1, *array.shape[2:])) if chains else array
    if not draws:
        raise ValueError(
            f"posterior: expected draws of some of {list(net.schema.params)}, in natural units, got {list(posterior)}"
        )
    return draws
