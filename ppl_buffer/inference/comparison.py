"""Comparison of models of the same data by their evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_buffer.checks import check_mapping, check_numbers
from ppl_buffer.files import to_numpy
from ppl_buffer.findings import Finding, warn_of
from ppl_buffer.inference.evidence import METHODS, Evidence, log_evidence
from ppl_buffer.inference.trial_arguments import TrialArguments
from ppl_buffer.network.backend import Array, backend_of
from ppl_buffer.network.lapse_mixture import lapse_ranges
from ppl_buffer.network.lapses import Lapse, check_ranges
from ppl_buffer.network.network import Network
from ppl_buffer.network.observed import ObservedTrials

if TYPE_CHECKING:
    import pandas

# Nats by which the two estimators may differ beyond their Monte-Carlo errors: the networks have errors of their own.
_DISAGREEMENT = 3.0


def compare(
    nets: Mapping[str, Network],
    inputs: Mapping[str, Array] | ObservedTrials,
    value: Array,
    *,
    method: str = "both",
    fixed: Mapping[str, Mapping[str, Array | str]] | None = None,
    lapse: Array | Lapse | None = None,
    prior_probabilities: Mapping[str, float] | None = None,
    **arguments: Any,
) -> pandas.DataFrame:
    """Compare models of the same data by their evidence.

    Args:
        nets: model name -> trained network.
        inputs: dict name -> (*B, K); or what one of the networks' ``observe(...)`` returned, without a context.
        value: outcomes, (*B, K) or (*B, K, n_outcomes).
        method: "autoregressive", "importance", or "both": the latter also warns where the two disagree, since the data
            then lie outside what the model generates, and decides by importance sampling. With lapses, missing
            answers or parameters that equal another, which the autoregressive method does not know, or a network
            without a buffered transformer, which it needs, "both" is "importance".
        fixed: model name -> parameters that have known values in it, as `log_evidence` takes them by ``params``. So
            models that are nested are compared by one network, under several names: where a parameter has the value at
            which it does nothing, or equals another one, a smaller model remains. The others are integrated over.
        lapse: lapses that every model has, as for `log_evidence`.
        prior_probabilities: model name -> prior probability; equal by default.
        **arguments: further arguments of `log_evidence`.

    Returns:
        one row for each data set and model, with ``log_evidence``, ``standard_error``, ``log_bayes_factor`` (against
        the data set's best model, at most 0) and ``probability`` (of the model given the data set); with "both"
        also ``autoregressive``, ``importance`` and ``disagreement`` (the first minus the second).

    Raises:
        ValueError: if fewer than two networks are given, prior probabilities do not fit, a lapse would look different
            under different models, no model can generate a data set, or as `log_evidence` says.
    """
    import pandas

    if not isinstance(nets, Mapping) or len(nets) < 2:
        raise ValueError(f"nets: expected a dict of at least two networks, got {nets!r}")
    known = _fixed_params(nets, fixed, arguments.pop("params", None))
    methods: Sequence[str] = (method,)
    if method == "both":
        given = (
            arguments.get("missing") is not None or isinstance(inputs, ObservedTrials) and inputs.missing is not None
        )
        both = (
            lapse is None
            and not given
            and not any(isinstance(x, str) for values in known.values() for x in values.values())
            and all("buffer" in net.parts for net in nets.values() if isinstance(net, Network))
        )
        methods = METHODS if both else ("importance",)
    if lapse is not None:
        _check_one_range(nets, lapse)
        arguments = {**arguments, "lapse": lapse}
    prior = _prior_probabilities(nets, prior_probabilities)
    if isinstance(inputs, ObservedTrials):
        inputs, value, arguments = _unobserved(inputs, value, arguments)
    rows: list[dict[str, Any]] = []
    for name, net in nets.items():
        more = {**arguments, "params": known[name]} if known[name] else arguments
        rows += _rows(name, {each: log_evidence(net, inputs, value, method=each, **more) for each in methods})
    table = pandas.DataFrame(rows)
    if "outside" in table and table["outside"].any():
        warn_of(_disagreement(table))
    log_prior = table["model"].map(dict(zip(nets, np.log(np.maximum(prior, 1e-300)), strict=True)))
    log_posterior = table["log_evidence"] + log_prior
    best = table.groupby("data_set")["log_evidence"].transform("max")
    if np.isneginf(best).any():
        data_set = table.loc[np.isneginf(best), "data_set"].iloc[0]
        raise ValueError(
            f"value: expected data that some model can generate, but data set {data_set} has evidence 0 in all"
        )
    table.insert(4, "log_bayes_factor", table["log_evidence"] - best)
    shifted = np.exp(log_posterior - log_posterior.groupby(table["data_set"]).transform("max"))
    table.insert(5, "probability", shifted / shifted.groupby(table["data_set"]).transform("sum"))
    return table


def _check_one_range(nets: Mapping[str, Network], lapse: Array | Lapse) -> None:
    """Refuse lapses whose ranges the models' schemas state differently."""
    for net in nets.values():
        backend_of(net)
    stated = lapse.ranges if isinstance(lapse, Lapse) else {}
    ranges = {name: lapse_ranges(net.schema, check_ranges(net.schema, stated)) for name, net in nets.items()}
    first = next(iter(ranges.values()))
    if any(other != first for other in ranges.values()):
        raise ValueError(
            f"lapse: expected one range for all models, got {ranges}; write pb.Lapse(rate, ranges={{outcome: (low, "
            f"high)}})"
        )


def _fixed_params(
    nets: Mapping[str, Network],
    fixed: Mapping[str, Mapping[str, Array | str]] | None,
    params: Mapping[str, Array | str] | None,
) -> dict[str, dict[str, Array | str]]:
    """What is known in each model: parameters of all models, and those that are fixed in it."""
    by_model = check_mapping("fixed", fixed)
    unknown = [name for name in by_model if name not in nets]
    if unknown:
        raise ValueError(f"fixed: expected models among {list(nets)}, got {unknown}")
    common = check_mapping("params", params)
    return {name: {**common, **check_mapping(f"fixed[{name!r}]", by_model.get(name))} for name in nets}


def _prior_probabilities(nets: Mapping[str, Network], given: Mapping[str, float] | None) -> np.ndarray:
    """Prior probability of each model, which sum to 1."""
    weights = np.ones(len(nets))
    if given is not None:
        if set(check_mapping("prior_probabilities", given)) != set(nets):
            raise ValueError(f"prior_probabilities: expected one for each of {list(nets)}, got {list(given)}")
        weights = check_numbers("prior_probabilities", [given[name] for name in nets])
        if weights.ndim > 1 or not (np.isfinite(weights) & (weights >= 0)).all() or not weights.sum() > 0:
            raise ValueError(f"prior_probabilities: expected numbers of at least 0, got {dict(given)}")
    return weights / weights.sum()


def _unobserved(
    observed: ObservedTrials, value: Array, arguments: Mapping[str, Any]
) -> tuple[dict[str, Any], Any, dict[str, Any]]:
    """Inputs, value and further arguments as NumPy arrays, which every network can read: it was one that observed."""
    if observed.context is not None:
        raise ValueError("inputs: expected trials observed without a context, which one network alone can read")
    given = (arguments.get(name) for name in ("feedback", "trial_mask", "missing"))
    trials = TrialArguments.of(observed, value, *given)
    feedback = {name: to_numpy(x) for name, x in (trials.feedback or {}).items()}
    more: dict[str, Any] = {"feedback": feedback or None, "trial_mask": to_numpy(trials.trial_mask)}
    if trials.missing is not None:
        more["missing"] = trials.missing.at(to_numpy(trials.missing.deadline))
    return {name: to_numpy(x) for name, x in trials.inputs.items()}, to_numpy(value), {**arguments, **more}


def _rows(model: str, results: Mapping[str, Evidence]) -> list[dict[str, Any]]:
    """A row for each data set of one model, by the results of one method or of both."""
    rows = []
    decisive = list(results.values())[-1]
    for index in np.ndindex(decisive.log_evidence.shape):
        row: dict[str, Any] = {
            "data_set": index if len(index) != 1 else index[0],
            "model": model,
            "log_evidence": float(decisive.log_evidence[index]),
            "standard_error": float(decisive.standard_error[index]),
        }
        if len(results) > 1:
            row.update({each: float(result.log_evidence[index]) for each, result in results.items()})
            row["disagreement"] = row[METHODS[0]] - row[METHODS[1]]
            error = float(np.hypot(*(result.standard_error[index] for result in results.values())))
            row["outside"] = abs(row["disagreement"]) > _DISAGREEMENT + 2 * error
        rows.append(row)
    return rows


def _disagreement(table: pandas.DataFrame) -> Finding:
    """What to say where the two estimators disagree somewhere."""
    worst = table.loc[table["disagreement"].abs().idxmax()]
    text = (
        f"compare: the two estimators of the evidence disagree for {int(table['outside'].sum())} of {len(table)} "
        f"pairs of data set and model (most for {worst['model']!r}, by {worst['disagreement']:+.1f} nats): the "
        "data lie outside what the model generates. The table decides by importance sampling; check the fit"
    )
    return Finding("data", text, share=float(table["outside"].mean()))
