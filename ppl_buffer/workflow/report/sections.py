"""The four questions that a report answers, each with a verdict, what it rests on, and what to do."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppl_buffer.findings import counted
from ppl_buffer.workflow.fitting import LEAST_EFFECTIVE, MOST_DIVERGING, MOST_R_HAT, Fit
from ppl_buffer.workflow.report import conditions
from ppl_buffer.workflow.report.accuracy import accuracy
from ppl_buffer.workflow.report.correlations import correlations
from ppl_buffer.workflow.report.effects import PREFIX, effects_section
from ppl_buffer.workflow.report.fragments import Figures, as_text, images, percent, table
from ppl_buffer.workflow.report.misfits import table_of_misfits
from ppl_buffer.workflow.report.prediction import prediction

# Share of draws outside the trained range, or at its edge, from which on a report says so.
_OUTSIDE, _AT_EDGE = 0.01, 0.05
GOOD, LOOK, BAD = "good", "look", "bad"


@dataclass(frozen=True)
class Section:
    """A question and its answer.

    Attributes:
        key: of the section in the file.
        question: its title.
        mark: GOOD, LOOK (closer) or BAD.
        answer: a sentence, HTML.
        body: what it rests on, HTML.
        verdicts: the mark in words.
        points: what the answer lists, HTML.
    """

    key: str
    question: str
    mark: str
    answer: str
    body: str
    verdicts: tuple[str, str, str] = ("yes", "look closer", "no")
    points: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """The mark in a word."""
        return dict(zip((GOOD, LOOK, BAD), self.verdicts, strict=True))[self.mark]

    @property
    def lines(self) -> list[str]:
        """The answer and its points without HTML, for a terminal."""
        return [as_text(fragment) for fragment in (self.answer, *self.points)]


def converged(fit: Fit, figures: Figures) -> Section:
    """Did it converge?"""
    chains, draws = fit.draws(fit.names[0]).shape[:2]
    several = not math.isnan(fit.r_hat)
    rows = [
        ("largest R-hat", f"{fit.r_hat:.3f}" if several else "unknown", f"at most {MOST_R_HAT}"),
        ("least effective sample size", f"{fit.effective:.0f}", f"at least {LEAST_EFFECTIVE}"),
        ("divergent transitions", percent(fit.diverging), f"below {MOST_DIVERGING:.0%}"),
        ("transitions cut short (greatest tree depth)", percent(fit.deepest), "only costs time"),
    ]
    wrong = [
        not (several and fit.r_hat <= MOST_R_HAT),
        not fit.effective >= LEAST_EFFECTIVE,
        not fit.diverging < MOST_DIVERGING,
        False,
    ]
    if fit.converged:
        mark = GOOD
        answer = f"{counted(chains, 'chain')} of {counted(draws, 'draw')} agree, and hold enough independent draws."
    elif not fit.readable:
        mark = BAD
        answer = (
            f"{'The chains have not met' if several else 'The chain has hardly moved'}: do not read the posterior "
            f"(largest R-hat {rows[0][1]}, least effective sample size {rows[1][1]}, {rows[2][1]} divergent "
            "transitions). Take more <code>--warmup</code> and <code>--draws</code>"
            f"{'' if several else ', of <code>--chains 2</code> or more: one cannot tell whether it has settled'}"
            + ("; divergences ask for <code>--target-accept 0.95</code>." if fit.diverging >= MOST_DIVERGING else ".")
        )
    elif not several:
        mark, answer = LOOK, "One chain cannot tell whether it has settled. Take <code>--chains 2</code> or more."
    else:
        mark = LOOK
        answer = (
            "Means and spreads can be read; ends of intervals are not exact yet. Take more <code>--draws</code> "
            f"(at least {LEAST_EFFECTIVE} effective ones are wanted) before you publish."
        )
    body = table(("", "found", "wanted"), rows, wrong) + images(figures, ["traces"])
    return Section("converged", "Did it converge?", mark, answer, body)


def fits(fit: Fit, figures: Figures) -> Section:
    """Does the model fit?"""
    question = "Does the model fit?"
    others = [name for name in figures if name in ("traces", "people", "pairs", "misfits") or name.startswith(PREFIX)]
    by_level = [name for name in figures if name.startswith(conditions.PREFIX)]
    shown = images(figures, [name for name in figures if name not in (*others, *by_level)])
    shown += f"<h3>By condition</h3>{images(figures, by_level)}" if by_level else ""
    shown += prediction(fit)
    if fit.check is None:
        answer = (
            "Not checked: the model's feedback on its own choices is not known here, so that it cannot generate data. "
            "Give the simulator, which has a method <code>environment</code>: "
            "<code>--simulator my_module:MySimulator</code>."
        )
        return Section("fit", question, LOOK, answer, shown)
    rows = fit.check.rows
    failed = [row["statistic"] for row in rows if not row["passed"]]
    body = table(
        ("statistic", "data", "model", "model, 95 % from", "to", "p", "people extreme"),
        [(_statistic(row), row["observed"], row["generated"],
          row["low"], row["high"], row["p"],
          "" if row["where"] else f"{row['subjects_extreme']} of {row['subjects']}") for row in rows],
        [not row["passed"] for row in rows],
    )  # fmt: skip
    note = (
        '<p class="soft">p is the posterior predictive p-value of the mean over people: how often a drawn data set '
        "has a larger value than the data. Near 0 or 1 the model does not generate such data; in between it proves "
        "little, since the same data were fitted. Of a curve the point that lies farthest out is shown, and the band "
        "in which 95 % of drawn curves stay whole; p is how often a drawn curve strays as far, anywhere. The log "
        "density is that of a person's trials under the model, in nats.</p>"
    )
    if not failed and not fit.readable:
        mark, answer = LOOK, "Unknown while the chains have not met: the data sets are drawn from where they are."
    elif not failed:
        mark, answer = GOOD, f"Data sets drawn from the model look like the data in {_all(len(rows))}."
    else:
        mark = BAD if len(failed) > len(rows) / 2 else LOOK
        answer = (
            f"The data differ from what the model generates in {html.escape(', '.join(failed))}. "
            "Conclusions that rest on this may be wrong; look at the plots, at how the columns are coded (is what the "
            "model calls 1 what the table means by it?), and then extend the model."
        )
        if not fit.readable:
            answer = f"The chains have not met, so that this may change. {answer}"
    points = tuple(
        html.escape(
            f"{_statistic(row)}: {row['observed']:.3g} in the data, {row['low']:.3g} to {row['high']:.3g} in the model "
            f"(p = {row['p']:.3f}{'' if row['where'] else _extreme(row)})"
        )
        for row in rows if not row["passed"]
    )  # fmt: skip
    shown += table_of_misfits(fit) + images(figures, ["misfits"])
    return Section("fit", question, mark, answer, body + note + shown, points=points)


def _all(count: int) -> str:
    return "the statistic that was looked at" if count == 1 else f"all {count} statistics"


def _extreme(row: Mapping[str, Any]) -> str:
    """How many people are extreme by themselves, which may be what fails."""
    return f"; extreme for {row['subjects_extreme']} of {counted(row['subjects'], 'person')}"


def _statistic(row: Mapping[str, Any]) -> str:
    """What a row of a check is about: a curve's point too."""
    return f"{row['statistic']}, {row['where']}" if row["where"] else str(row["statistic"])


def formulas_say(fit: Fit, figures: Figures) -> Section:
    """What do the formulas say?"""
    about = ("effects", "What do the formulas say?")
    verdicts = ("differences", "no clear ones", "unknown")
    body, clear, answer, points = effects_section(fit, figures)
    if not fit.readable:
        return Section(*about, BAD, "The chains have not met, so that these figures say nothing yet.", body, verdicts)
    if fit.check is not None and not fit.check.passed:
        answer = f"The data differ from what the model generates, see above: read with care what rests on it. {answer}"
    return Section(*about, GOOD if clear else LOOK, answer, body, verdicts, tuple(points))


def subjects_differ(fit: Fit, figures: Figures) -> Section:
    """How do people differ?"""
    names, subjects = fit.names, len(fit.trials.subjects)
    everybody = _everybody(fit, names)
    pictures = images(figures, ["people"])
    # That people differ is neither good nor bad.
    about = ("people", "How do people differ?")
    verdicts = ("measurably", "look closer", "unknown")
    if subjects == 1:
        return Section(*about, LOOK, "There is one person.", everybody + pictures, verdicts)
    shares = {name: _between(fit.draws(name).reshape(-1, subjects)) for name in names}
    if not fit.readable:
        mark, answer = BAD, "The chains have not met, so that these figures say nothing yet."
    else:
        clear, answer = _differences(shares)
        mark = GOOD if clear and fit.converged else LOOK
        if not fit.converged:
            answer = f"Provisional, since the sampler has not converged as it should. {answer}"
    note = (
        '<p class="soft">"people from, to": the smallest and the largest posterior mean of a person. "spread": how '
        'much people differ, the standard deviation of the population on the logistic scale. "told apart": the '
        "share of a parameter's variance that lies between people rather than in our uncertainty about each; near 0 "
        "the data cannot rank people, and correlations with other measures will be weak.</p>"
    )
    details = f"<details><summary>Everybody's values</summary>{everybody}</details>"
    apart = [name for name in names if np.ptp(fit.draws(name), axis=-1).any()]
    together = correlations(fit, apart) + images(figures, ["pairs"])
    return Section(*about, mark, answer, _population(fit, shares) + note + pictures + together + details, verdicts)


def _differences(shares: dict[str, float]) -> tuple[bool, str]:
    """Whether people differ more than we are uncertain about each, and in what; `shares` as `_between` has them."""
    best = html.escape(max(shares, key=shares.__getitem__))
    if max(shares.values()) < 0.3:
        return False, "Little: for every parameter we know less about a person than people differ from each other."
    clear = [name for name, share in shares.items() if share >= 0.5]
    if not clear:
        return True, f"Most in {best}, but each person's value is as uncertain as people are different."
    return True, f"Most clearly in {best}. People can be told apart by {html.escape(', '.join(clear))}."


def _between(draws: np.ndarray) -> float:
    """Of all that subjects' values (draws, subjects) vary in the posterior, the share that is between subjects."""
    between, within = draws.mean(0).var(), draws.var(0).mean()
    return float(between / max(between + within, 1e-30))


def _population(fit: Fit, shares: dict[str, float]) -> str:
    """A row a parameter: the group, the range of subjects' means, and how well subjects are told apart."""
    rows: list[Sequence[Any]] = []
    if fit.hierarchical:
        head = ["parameter", "median person", "90 % from", "to", "people from", "to", "spread", "90 % from", "to",
                "told apart"]  # fmt: skip
    else:
        head = ["parameter", "mean of people", "people from", "to", "told apart"]
    for name, share in shares.items():
        means = fit.draws(name).reshape(-1, len(fit.trials.subjects)).mean(0)
        if fit.hierarchical:
            low, middle, high = np.percentile(fit.draws(f"{name}_group"), [5, 50, 95])
            spread: Sequence[object] = ("–", "–", "–")  # of a parameter that all share
            if fit.design is None or f"{name}_spread" in fit.design.sites:
                spread = np.percentile(fit.draws(f"{name}_spread"), [50, 5, 95]).tolist()
            rows.append((name, middle, low, high, means.min(), means.max(), *spread, f"{share:.0%}"))
        else:
            rows.append((name, means.mean(), means.min(), means.max(), f"{share:.0%}"))
    return table(head, rows)


def _everybody(fit: Fit, names: Sequence[str]) -> str:
    """A row a subject: trials, median and interval of each parameter."""
    rows = []
    for index, label in enumerate(fit.trials.subjects):
        row: list[Any] = [label, int(fit.trials.trial_counts[index])]
        for name in names:
            low, middle, high = np.percentile(fit.draws(name)[:, :, index], [5, 50, 95])
            row.append(f"{middle:.3g} ({low:.3g} to {high:.3g})")
        rows.append(row)
    return table(["subject", "trials", *(f"{name}: median (90 %)" for name in names)], rows)


def trusted(fit: Fit) -> Section:
    """Can I trust it?"""
    rows, marks, doubts = [], [], [html.escape(finding.text) for finding in fit.findings if finding.kind != "data"]
    for name, (low, high) in fit.box.bounds.items():
        if name not in fit.names:
            continue
        beyond, edge = fit.outside.get(name, 0.0), fit.edge(name)
        relative = f" - {fit.box.origins[name]}" if name in fit.box.origins else ""
        rows.append((name + relative, low, high, percent(beyond), percent(edge)))
        marks.append(beyond > _OUTSIDE or edge > _AT_EDGE)
        if edge > _AT_EDGE:
            doubts.append(
                f"{percent(edge)} of the draws of <b>{html.escape(name)}</b> lie at the edge of the trained range: "
                "the data ask for values beyond it. Train a network with a wider prior."
            )
    record, counts = fit.record, fit.trials.trial_counts
    if fit.net.schema.ordered and counts.max() > record.trials:
        doubts.append(
            f"The longest person did {counts.max()} trials, the network was trained on up to {record.trials}: the "
            "later ones are an extrapolation."
        )
    if fit.check is None:
        doubts.append("Whether the model generates such data was not checked.")
    elif not fit.check.passed:
        doubts.append("The data differ from what the model generates, see above: parameters may mean something else.")
    if not fit.converged:
        doubts.append("The sampler has not converged as it should, see above.")
    known = accuracy(fit)
    if known.doubt:
        doubts.append(html.escape(known.doubt))
    misfit = fit.check is not None and not fit.check.passed
    hopeless = not fit.readable or known.hopeless or (any(marks) and misfit)
    mark = GOOD if not doubts else BAD if hopeless else LOOK
    answer = (
        "Nothing speaks against it: draws lie inside the range that the network knows, and the checks above passed."
        if not doubts
        else "Read these first:"
    )
    if known.statement:
        answer = f"{html.escape(known.statement)} {answer}"
    ranges = table(("parameter", "trained from", "to", "draws outside", "draws at the edge"), rows, marks)
    note = (
        '<p class="soft">The likelihood is a neural network\'s approximation. It is known inside the trained range '
        "alone; at the edge counts where the model itself would allow more. "
        f"It was trained on {html.escape(record.source)}, with up to {record.trials} trials.</p>"
    )
    body = ranges + note + known.card
    return Section("trust", "Can I trust it?", mark, answer, body, points=tuple(dict.fromkeys(doubts)))
