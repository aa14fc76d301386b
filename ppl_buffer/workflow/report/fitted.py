"""What was fitted: the data as they were read, the network, the priors."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import ndtri

from ppl_buffer.datasets.text_files import is_number
from ppl_buffer.findings import counted
from ppl_buffer.formulas.tables import SUBJECT_COLUMN
from ppl_buffer.network.estimated_error import PART_NAMES
from ppl_buffer.schema import Categorical, Discrete
from ppl_buffer.workflow.fitting import Fit
from ppl_buffer.workflow.hierarchical import MEAN_SCALE, SPREAD_MEDIAN, SPREAD_SCALE
from ppl_buffer.workflow.report.accuracy import Accuracy
from ppl_buffer.workflow.report.fragments import percent, table

# Ends and middle of the central 90 %.
_PLACES = np.array([0.05, 0.5, 0.95])
# Values of a variable that are listed one by one.
_MOST_VALUES = 8


def fitted(fit: Fit, known: Accuracy) -> str:
    """The section, HTML."""
    return (
        f'<section id="fitted"><h2>What was fitted</h2><h3>The data</h3>{_data(fit)}'
        f"<h3>The network</h3>{_network(fit, known)}<h3>The priors</h3>{_priors(fit)}</section>"
    )


def _data(fit: Fit) -> str:
    """A row a variable: what its numbers mean, and how often each came."""
    trials, schema, rows = fit.trials, fit.net.schema, []
    groups = {
        "known before the response": (schema.inputs, trials.inputs),
        "the response": (schema.outcomes, trials.outcomes),
        "known after it": (schema.feedback, trials.feedback),
    }
    for role, (variables, columns) in groups.items():
        for name, variable in variables.items():
            values = np.asarray(columns[name])[trials.trial_mask]
            values = values[np.isfinite(values.astype(float))]  # others were lost or omitted
            numbers, counts = np.unique(values, return_counts=True)
            codes = trials.codes.get(name, {})
            if isinstance(variable, Categorical) or len(numbers) <= _MOST_VALUES:
                shares = ", ".join(_share(number, codes, count / values.size) for number, count in
                                   zip(numbers, counts, strict=True))  # fmt: skip
            else:
                low, middle, high = np.quantile(values, [0, 0.5, 1])
                shares = f"{low:.3g} to {high:.3g}, median {middle:.3g}"
            kind = variable.description if not isinstance(variable, Discrete) else counted(variable.n, "value")
            rows.append((name, role, kind, shares))
    rows += _covariates(fit)
    note = "Numbers are those that the model reads; words in quotes are what the table says."
    if trials.excluded:
        were = "was" if trials.excluded == 1 else "were"
        note = f"{counted(trials.excluded, 'trial')} {were} left out by a condition (--where). {note}"
    return f'{table(("variable", "", "kind", "values"), rows, words=(1, 2, 3))}<p class="soft">{note}</p>'


def _covariates(fit: Fit) -> list[tuple[str, str, str, str]]:
    """A row a covariate that a formula names: by what it varies, and how often each value came."""
    rows = []
    for name, level in {} if fit.design is None else fit.design.levels.items():
        if name == SUBJECT_COLUMN or name not in fit.trials.covariates:
            continue
        values = fit.trials.covariates[name][fit.trials.trial_mask]
        different, counts = np.unique(values, return_counts=True)
        text = values.dtype.kind == "U"
        if len(different) <= _MOST_VALUES:
            words = [f'"{x}"' if text else f"{x:g}" for x in different.tolist()]
            shown = ", ".join(f"{x} ({percent(float(n / values.size))})" for x, n in zip(words, counts, strict=True))
        elif text:
            shown = f"{len(different)} words"
        else:
            low, middle, high = np.quantile(values.astype(float), [0, 0.5, 1])
            shown = f"{low:.3g} to {high:.3g}, median {middle:.3g}"
        rows.append((name, "of a formula", f"{'text' if text else 'a number'} that varies by {level}", shown))
    return rows


def _share(number: float, codes: Mapping[int, str], share: float) -> str:
    """A value, its word in the table where that is another, and how often it came."""
    word = str(codes.get(int(number), "")) if codes else ""
    same = is_number(word) and float(word) == number
    meaning = f' "{word}"' if word and not same else ""
    return f"{number:g}{meaning} ({percent(float(share))})"


def _network(fit: Fit, known: Accuracy) -> str:
    """Which network it is, and what its error makes of this many trials."""
    record, error = fit.record, fit.net.estimated_error
    name = f"{known.name}, of the zoo" if known.name else "one of your own, none of the zoo"
    counts = fit.trials.trial_counts
    rows: list[Sequence[object]] = [
        ("network", name),
        ("trained on", f"{record.source}, up to {record.trials} trials"),
        ("computed by its", PART_NAMES["likelihood" if fit.net.preferred_likelihood == "direct" else "buffer"]),
        ("error a trial", "not measured" if error is None else f"{error} (Kullback-Leibler divergence)"),
    ]
    if error is not None:
        for trials in sorted({int(counts.min()), int(counts.max())}):
            low, middle, high = (trials * x for x in (error.low, error.nats_per_trial, error.high))
            rows.append((f"in {counted(trials, 'trial')}", f"wrong by {middle:.2g} nats ({low:.2g} to {high:.2g})"))
    return table(("", ""), rows, words=(1,))


def _mean_quantiles(fit: Fit, name: str) -> np.ndarray | None:
    """Quantiles of the prior of a parameter's mean on the real line; None where a formula has no such mean."""
    quantiles = MEAN_SCALE * ndtri(_PLACES)
    if fit.design is None:
        return quantiles
    site = fit.design.sites.get(f"{name}_mean")
    if site is None:
        return None
    return quantiles if site.prior is None else site.prior.quantile(_PLACES)


def _priors(fit: Fit) -> str:
    """The prior of each quantity, in words and by its quantiles in natural units."""
    names = list(fit.box.bounds)
    rows = []
    for name in fit.names:
        quantiles = _mean_quantiles(fit, name)
        if quantiles is None:
            continue
        # Others at the middle of their ranges, from which a relative parameter counts.
        scores = {other: quantiles.astype(np.float32) if other == name else np.zeros(3, np.float32) for other in names}
        value = np.asarray(fit.box(scores, group=True)[name])
        rows.append((f"{name}, median person" if fit.hierarchical else name, *value, *fit.box.bounds[name]))
    if fit.lapse is not None and fit.lapse.prior is not None:
        low, middle, high = fit.lapse.prior.quantile(_PLACES)
        rows.append(("lapse, rate", low, middle, high, *fit.lapse.prior.range()))
    head = ("parameter", "5 %", "median", "95 %", "trained from", "to")
    text = "A parameter is the logistic function of a number, stretched to its trained range"
    for name in fit.box.ceilings:
        text += f"; {name} ends at each person's fastest response"
    if fit.hierarchical:
        spread = SPREAD_MEDIAN * np.exp(SPREAD_SCALE * ndtri(_PLACES))
        text += (
            f". In these numbers people are normal about a group mean, itself Normal(0, {MEAN_SCALE:g}), with a spread "
            f"LogNormal(log {SPREAD_MEDIAN:g}, {SPREAD_SCALE:g}): median {spread[1]:.2g}, 90 % from {spread[0]:.2g} to "
            f"{spread[2]:.2g}"
        )
    else:
        text += f". Each person's number is Normal(0, {MEAN_SCALE:g})"
    text += ". Parameters are independent before the data."
    if fit.design is not None:
        text += " Other coefficients and spreads of formulas have the priors that stand beside them above."
    return f'{table(head, rows)}<p class="soft">{html.escape(text)}</p>'
