"""How well the fit predicts what was left out."""

from __future__ import annotations

import html

from ppl_buffer.workflow.fitting import Fit
from ppl_buffer.workflow.left_out_subjects import shared_factors
from ppl_buffer.workflow.report.fragments import table

_NAMES = {"loo": "each trial", "logo": "each person"}
_MOST_LISTED = 8


def prediction(fit: Fit) -> str:
    """A row a score, with its Pareto k, and a sentence on what each means; HTML, empty where there is none."""
    if not fit.scores:
        return ""
    count = {"loo": int(fit.trials.trial_counts.sum()), "logo": len(fit.trials.subjects)}
    rows = []
    for kind, score in fit.scores.items():
        largest = "" if score.pareto_k is None else float(score.pareto_k.max())
        rows.append((_NAMES.get(kind, kind), f"{score.elpd:.1f}", f"{score.standard_error:.1f}",
                     score.elpd / count["loo"], largest, score.threshold,
                     f"{score.doubtful} of {score.pointwise.size}"))  # fmt: skip
    marks = [score.doubtful > 0 for score in fit.scores.values()]
    head = ("left out", "log density (elpd)", "standard error", "a trial", "largest Pareto k", "to be trusted below",
            "terms above that")  # fmt: skip
    ordered = fit.net.schema.ordered
    notes = [
        "Log predictive densities in nats, by Pareto smoothed importance sampling (PSIS-LOO); compare them between "
        "models of the same trials, higher is better. A large Pareto k says that a term cannot be trusted.",
        'Each trial: as arviz.loo gives it; the trial leaves the posterior, and stays in the history of later ones: '
        "one step ahead, in sample." if ordered else "Each trial: as arviz.loo gives it.",
    ]  # fmt: skip
    if "logo" in fit.scores:
        notes.append(
            "Each person: all trials of a person from the other people, with that person's parameters integrated over "
            f"the population{', the score for trials that depend on each other' if ordered else ''}."
            f"{_doubtful(fit)}"
        )
    text = html.escape(" ".join(notes), quote=False)
    return f'<h3>How well it predicts what was left out</h3>{table(head, rows, marks)}<p class="soft">{text}</p>'


def _doubtful(fit: Fit) -> str:
    """Who they are whose term is not to be trusted, why, and what to do."""
    score = fit.scores["logo"]
    if score.pareto_k is None or not score.doubtful:
        return ""
    labels = [str(label) for label in score.pareto_k.coords["subject"].values[score.pareto_k.values > score.threshold]]
    listed = ", ".join(labels[:_MOST_LISTED]) + (" and others" if len(labels) > _MOST_LISTED else "")
    if not fit.readable:
        return f" Not to be trusted, of {listed}: the chains have not met. Take more draws first."
    shared = [] if fit.design is None else shared_factors(fit.design)
    if shared:
        return (
            f" Not to be trusted, of {listed}: their trials also tell of what people share ({', '.join(shared)}), more "
            "than draws that know these trials can be reweighted to forget, however many there are. Compare models by "
            "the score of each trial, where its terms can be trusted."
        )
    return (
        f" The population hangs on single people: {listed}. Fits without them give these terms exactly: "
        "ppl_buffer.scores.reloo."
    )
