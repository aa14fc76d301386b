"""A fit as one HTML file that needs nothing else: what a scientist sends to a colleague.

It answers four questions, each with a verdict, the figures behind it and what to do: did it converge, does the model
fit, how do people differ, can I trust it.
"""

from __future__ import annotations

import base64
import html
import io
import math
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import ppl_buffer
from ppl_buffer import plots
from ppl_buffer.files import write_atomic
from ppl_buffer.schema import Categorical, Positive

if TYPE_CHECKING:
    from ppl_buffer.workflow.fit import Fit

# Share of draws outside the trained range, or at its edge, from which on a report says so.
_OUTSIDE, _AT_EDGE = 0.01, 0.05
# More categories of an input than this are too many panels.
_MOST_PANELS = 6
_GOOD, _LOOK, _BAD = "good", "look", "bad"
_STYLE = """
:root { --ink: #1c2430; --soft: #5d6a7a; --line: #e3e7ec; --good: #2c7a4b; --look: #a86a12; --bad: #a8322a; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.2rem 1.4rem 4rem; max-width: 62rem; color: var(--ink); background: #fff;
       font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.75rem; margin: 0 0 .2rem; line-height: 1.25; } h2 { font-size: 1.3rem; margin: 0; }
h3 { font-size: 1rem; margin: 1.6rem 0 .4rem; }
p { margin: .5rem 0; max-width: 46rem; } .soft { color: var(--soft); }
section { border-top: 1px solid var(--line); margin-top: 2.2rem; padding-top: 1.6rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(12.5rem, 1fr)); gap: .8rem; margin-top: 1.5rem; }
.card { border: 1px solid var(--line); border-left-width: 5px; border-radius: 6px; padding: .7rem .9rem;
        color: inherit; text-decoration: none; font-size: .92rem; }
.card b { display: block; font-size: .95rem; }
.good { border-left-color: var(--good); } .look { border-left-color: var(--look); }
.bad { border-left-color: var(--bad); }
.verdict { display: inline-block; border-radius: 4px; padding: 0 .5rem; color: #fff; font-size: .85rem;
           font-weight: 600; }
.verdict.good { background: var(--good); } .verdict.look { background: var(--look); }
.verdict.bad { background: var(--bad); }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .75rem .25rem 0; text-align: right; white-space: nowrap;
         border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; } th:first-child, td:first-child { text-align: left; }
td.bad { color: var(--bad); font-weight: 600; }
figure { margin: 1.1rem 0; } img { max-width: 100%; height: auto; }
figcaption { color: var(--soft); font-size: .88rem; }
summary { cursor: pointer; margin-top: 1rem; } code { background: #f3f5f7; border-radius: 3px; padding: .1rem .3rem; }
@media print { body { max-width: none; } section, figure { break-inside: avoid; } }
"""


def write_report(fit: Fit, folder: Path, *, title: str, source: str = "", command: str = "") -> Path:
    """Write ``report.html`` and its figures as PNG files into a folder.

    Args:
        fit: what `ppl_buffer.workflow.fit.fit` returned.
        folder: must exist.
        title: of the report.
        source: where the data come from.
        command: how to do it again.

    Returns:
        the file.
    """
    figures = _figures(fit)
    for name, (figure, _) in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=130)
    parts = [_converged(fit, figures), _fits(fit, figures), _people(fit, figures), _trust(fit)]
    cards = "".join(
        f'<a class="card {mark}" href="#{key}"><b>{question}</b>{_word(key, mark)}</a>'
        for key, question, mark, *_ in parts
    )
    sections = "".join(
        f'<section id="{key}"><h2>{question} <span class="verdict {mark}">{_word(key, mark)}</span></h2>'
        f"<p>{answer}</p>{body}</section>"
        for key, question, mark, answer, body in parts
    )
    counts = fit.trials.trial_counts
    people = f"{len(counts)} {'person' if len(counts) == 1 else 'people'}"
    span = f"{counts.min()} to {counts.max()}" if counts.min() < counts.max() else str(counts[0])
    facts = f"{people}, {span} trials each, {counts.sum():,} in all. {_model(fit)}"
    text = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head><body>'
        f'<h1>{html.escape(title)}</h1><p class="soft">{html.escape(source)}</p><p>{html.escape(facts)}</p>'
        f'<div class="cards">{cards}</div>{sections}{_again(fit, command)}</body></html>'
    )
    path = folder / "report.html"
    write_atomic(path, text.encode())
    return path


_WORDS = {_GOOD: "yes", _LOOK: "look closer", _BAD: "no"}
# That people differ is neither good nor bad.
_PEOPLE_WORDS = {_GOOD: "measurably", _LOOK: "look closer", _BAD: "unknown"}
Part = tuple[str, str, str, str, str]
Figures = dict[str, tuple[Any, str]]


def _word(key: str, mark: str) -> str:
    return (_PEOPLE_WORDS if key == "people" else _WORDS)[mark]


# Figures --------------------------------------------------------------------------------------------------------------


def _figures(fit: Fit) -> Figures:
    """Name of a file -> figure and caption."""
    found: Figures = {}
    kind = "_group" if fit.hierarchical else ""

    def traced(name: str) -> np.ndarray:
        draws = fit.draws(f"{name}{kind}")
        return draws if draws.ndim == 2 else draws[:, :, 0]

    axes = plots.plot_traces({name: traced(name) for name in fit.box.bounds})
    whose = "the group" if fit.hierarchical else f"subject {fit.trials.subjects[0]}"
    caption = f"Chains of {whose}. They should overlap, and look like noise without a trend."
    found["traces"] = (axes[0, 0].figure, caption)
    found |= _predictive_figures(fit)
    from matplotlib.figure import Figure

    names = list(fit.box.bounds)
    # Four in a row, or three: no panel is left alone where that can be helped.
    wide = 4 if len(names) in (4, 7, 8) else min(3, len(names))
    rows = math.ceil(len(names) / wide)
    people = len(fit.trials.subjects)
    figure = Figure(figsize=(3.5 * wide, rows * max(2.4, 0.15 * min(people, 60) + 1.0)), layout="constrained")
    panels = figure.subplots(rows, wide, squeeze=False)
    for spare in panels.flat[len(names) :]:
        spare.set_axis_off()
    for panel, name in zip(panels.flat, names, strict=False):
        draws = fit.draws(name).reshape(-1, people)
        group = fit.draws(f"{name}_group") if fit.hierarchical else None
        plots.plot_subjects(draws, group=group, labels=list(fit.trials.subjects), name=name, axes=panel)
    found["people"] = (
        figure,
        "Everybody's parameters: median, 50 % (thick) and 90 % interval (thin)"
        + ("; across: the median person of the group." if fit.hierarchical else "."),
    )
    return found


def _predictive_figures(fit: Fit) -> Figures:
    """The field's plots that the model's outcomes allow."""
    schema, found, again = fit.net.schema, {}, fit.replicated or None
    data = plots.columns(fit.trials)
    choice = next((name for name, x in schema.outcomes.items() if isinstance(x, Categorical)), None)
    binary = choice is not None and schema.outcomes[choice] == Categorical(2)
    time = next((name for name, x in schema.outcomes.items() if isinstance(x, Positive)), None)
    other = next((name for name, x in schema.outcomes.items() if not isinstance(x, Categorical)), None)
    cue = next((name for name, x in schema.inputs.items() if isinstance(x, Categorical) and x.n <= _MOST_PANELS), None)
    shown = "Lines: the data. Bands: 50 % and 90 % of data sets drawn from the posterior."
    trials = int(np.median(fit.trials.trial_counts))
    if schema.ordered and schema.feedback and choice is not None and binary:
        # Ten bins, where people saw each cue often enough.
        seen = trials if cue is None else max(1, trials // schema.inputs[cue].n)  # type: ignore[union-attr]
        width = max(1, seen // 10)
        axes = plots.plot_learning_curves(data, again, correct=choice, cue=cue, width=width)
        found["learning_curves"] = (axes[0].figure, f"Learning. {shown}")
    if other is not None:
        axes = plots.plot_response_times(data, again, rt=other, choice=choice, condition=cue)
        what = "Response times" if other == "rt" else other
        caption = f"{what} by choice; the area is the share of the choice. {shown}" if choice else f"{what}. {shown}"
        found["outcomes"] = (axes[0].figure, caption)
    if time is not None and choice is not None:
        axes = plots.plot_quantile_probability(data, again, rt=time, choice=choice, condition=cue)
        found["quantile_probability"] = (
            axes.figure,
            "Quantiles of response times against the share of the response: circles are data, dots drawn data sets.",
        )
        if binary:
            axes = plots.plot_conditional_accuracy(data, again, rt=time, correct=choice)
            found["conditional_accuracy"] = (axes.figure, f"Choices of fast and of slow responses. {shown}")
            axes = plots.plot_post_error_slowing(data, again, rt=time, correct=choice)
            found["post_error_slowing"] = (axes.figure, f"Do people slow down after an error? {shown}")
    if choice is not None and trials > 10:
        axes = plots.plot_repetition(data, again, choice=choice, cue=cue if schema.ordered else None)
        found["repetition"] = (axes.figure, f"Repetition of choices. {shown}")
    if other is not None and trials > 10:
        axes = plots.plot_autocorrelation(data, again, value=other, log=time == other)
        found["autocorrelation"] = (axes.figure, f"Do outcomes depend on those before? {shown}")
    return found


def _image(figures: Figures, names: Sequence[str]) -> str:
    """Figures with their captions, inside the file."""
    out = []
    for name in names:
        figure, caption = figures[name]
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=110)
        code = base64.b64encode(content.getvalue()).decode()
        width = int(figure.get_figwidth() * 72)
        alternative = html.escape(caption, quote=True)
        out.append(
            f'<figure><img width="{width}" alt="{alternative}" src="data:image/png;base64,{code}">'
            f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        )
    return "".join(out)


# Sections -------------------------------------------------------------------------------------------------------------


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]], bad: Sequence[bool] = ()) -> str:
    """Rows as an HTML table; `bad` ones stand out."""

    def cell(value: Any, tag: str, mark: bool) -> str:
        if isinstance(value, (float, np.floating)):
            value = "–" if math.isnan(value) else f"{value:.3g}"
        return f"<{tag}{' class=bad' if mark else ''}>{html.escape(str(value))}</{tag}>"

    marks = list(bad) or [False] * len(rows)
    lines = ["".join(cell(name, "th", False) for name in head)]
    lines += ["".join(cell(x, "td", mark) for x in row) for row, mark in zip(rows, marks, strict=True)]
    return f'<div class="table"><table>{"".join(f"<tr>{line}</tr>" for line in lines)}</table></div>'


def _percent(share: float) -> str:
    return f"{share:.1%}" if 0 < share < 0.1 else f"{share:.0%}"


def _converged(fit: Fit, figures: Figures) -> Part:
    from ppl_buffer.workflow.fit import LEAST_EFFECTIVE, MOST_DIVERGING, MOST_R_HAT

    chains, draws = fit.draws(next(iter(fit.box.bounds))).shape[:2]
    several = not math.isnan(fit.r_hat)
    rows = [
        ("largest R-hat", f"{fit.r_hat:.3f}" if several else "unknown", f"at most {MOST_R_HAT}"),
        ("least effective sample size", f"{fit.effective:.0f}", f"at least {LEAST_EFFECTIVE}"),
        ("divergent transitions", _percent(fit.diverging), f"below {MOST_DIVERGING:.0%}"),
        ("transitions cut short (greatest tree depth)", _percent(fit.deepest), "only costs time"),
    ]
    wrong = [not (several and fit.r_hat <= MOST_R_HAT), not fit.effective >= LEAST_EFFECTIVE,
             not fit.diverging < MOST_DIVERGING, False]  # fmt: skip
    if fit.converged:
        mark, answer = _GOOD, f"{chains} chains of {draws} draws agree, and hold enough independent draws."
    elif not several:
        mark, answer = _LOOK, "One chain cannot tell whether it has settled. Take <code>--chains 2</code> or more."
    elif not fit.readable:
        mark = _BAD
        answer = "The chains have not met: do not read the posterior. Take more <code>--warmup</code> and draws" + (
            "; divergences ask for <code>--target-accept 0.95</code>." if fit.diverging >= MOST_DIVERGING else "."
        )
    else:
        mark = _LOOK
        answer = (
            "Means and spreads can be read; ends of intervals are not exact yet. Take more <code>--draws</code> "
            f"(at least {LEAST_EFFECTIVE} effective ones are wanted) before you publish."
        )
    body = _table(("", "found", "wanted"), rows, wrong) + _image(figures, ["traces"])
    return "converged", "Did it converge?", mark, answer, body


def _fits(fit: Fit, figures: Figures) -> Part:
    question = "Does the model fit?"
    shown = _image(figures, [name for name in figures if name not in ("traces", "people")])
    if fit.check is None:
        answer = (
            "Not checked: the model's feedback on its own choices is not known here, so that it cannot generate data. "
            "Give the simulator, which has a method <code>environment</code>: "
            "<code>--simulator my_module:MySimulator</code>."
        )
        return "fit", question, _LOOK, answer, shown
    rows = fit.check.rows
    failed = [row["statistic"] for row in rows if not row["passed"]]
    body = _table(
        ("statistic", "data", "model", "model, 95 % from", "to", "p", "people extreme"),
        [(row["statistic"], row["observed"], row["generated"], row["low"], row["high"], row["p"],
          f"{row['people_extreme']} of {row['people']}") for row in rows],
        [not row["passed"] for row in rows],
    )  # fmt: skip
    note = (
        '<p class="soft">p is the posterior predictive p-value of the mean over people: how often a drawn data set '
        "has a larger value than the data. Near 0 or 1 the model does not generate such data; in between it proves "
        "little, since the same data were fitted.</p>"
    )
    if not failed:
        mark, answer = _GOOD, f"Data sets drawn from the model look like the data in all {len(rows)} statistics."
    else:
        mark = _BAD if len(failed) > len(rows) / 2 else _LOOK
        answer = (
            f"The data differ from what the model generates in {html.escape(', '.join(failed))}. "
            "Conclusions that rest on this may be wrong; look at the plots, and extend the model."
        )
    return "fit", question, mark, answer, body + note + shown


def _people(fit: Fit, figures: Figures) -> Part:
    question = "How do people differ?"
    names, people = list(fit.box.bounds), len(fit.trials.subjects)
    rows: list[Sequence[Any]] = []
    far = []
    if fit.hierarchical:
        head = ["parameter", "median person", "90 % from", "to", "people from", "to", "told apart"]
    else:
        head = ["parameter", "mean of people", "people from", "to", "told apart"]
    for name in names:
        draws = fit.draws(name).reshape(-1, people)
        means = draws.mean(0)
        # Of all that people's values vary in the posterior, the share that is between people.
        between, within = means.var(), draws.var(0).mean()
        apart = float(between / max(between + within, 1e-30))
        far.append(apart)
        if fit.hierarchical:
            group = fit.draws(f"{name}_group")
            low, middle, high = np.percentile(group, [5, 50, 95])
            rows.append((name, middle, low, high, means.min(), means.max(), f"{apart:.0%}"))
        else:
            rows.append((name, means.mean(), means.min(), means.max(), f"{apart:.0%}"))
    note = (
        '<p class="soft">"people from, to": the smallest and the largest posterior mean of a person. "told apart": the '
        "share of a parameter's variance that lies between people rather than in our uncertainty about each; near 0 "
        "the data cannot rank people, and correlations with other measures will be weak.</p>"
    )
    everybody = _each(fit, names)
    if people == 1:
        answer, mark = "There is one person.", _LOOK
        return "people", question, mark, answer, everybody + _image(figures, ["people"])
    best = names[int(np.argmax(far))]
    if not fit.readable:
        mark, answer = _BAD, "The chains have not met, so that these figures say nothing yet."
    elif max(far) < 0.3:
        mark = _LOOK
        answer = "Little: for every parameter we know less about a person than people differ from each other."
    else:
        mark = _GOOD
        clear = [name for name, x in zip(names, far, strict=True) if x >= 0.5]
        answer = (
            f"Most clearly in {html.escape(best)}. People can be told apart by {html.escape(', '.join(clear))}."
            if clear
            else f"Most in {html.escape(best)}, but each person's value is as uncertain as people are different."
        )
    details = f"<details><summary>Everybody's values</summary>{everybody}</details>"
    return "people", question, mark, answer, _table(head, rows) + note + _image(figures, ["people"]) + details


def _each(fit: Fit, names: Sequence[str]) -> str:
    rows = []
    for index, label in enumerate(fit.trials.subjects):
        row: list[Any] = [label, int(fit.trials.trial_counts[index])]
        for name in names:
            low, middle, high = np.percentile(fit.draws(name)[:, :, index], [5, 50, 95])
            row.append(f"{middle:.3g} ({low:.3g} to {high:.3g})")
        rows.append(row)
    return _table(["subject", "trials", *(f"{name}: median (90 %)" for name in names)], rows)


def _trust(fit: Fit) -> Part:
    record, counts = fit.net.record, fit.trials.trial_counts
    warnings = [html.escape(text) for text in fit.warned if not text.startswith("check_data")]
    rows, marks = [], []
    for name, (low, high) in fit.box.bounds.items():
        beyond, edge = fit.outside.get(name, 0.0), fit.edge(name)
        relative = f" - {fit.box.origins[name]}" if name in fit.box.origins else ""
        rows.append((name + relative, low, high, _percent(beyond), _percent(edge)))
        marks.append(beyond > _OUTSIDE or edge > _AT_EDGE)
        if edge > _AT_EDGE:
            warnings.append(
                f"{_percent(edge)} of the draws of <b>{html.escape(name)}</b> lie at the edge of the trained range: "
                "the data ask for values beyond it. Train a network with a wider prior."
            )
    if fit.net.schema.ordered and counts.max() > record.trials:
        warnings.append(
            f"The longest person did {counts.max()} trials, the network was trained on up to {record.trials}: the "
            "later ones are an extrapolation."
        )
    if fit.check is None:
        warnings.append("Whether the model generates such data was not checked.")
    elif not fit.check.passed:
        warnings.append("The data differ from what the model generates, see above: parameters may mean something else.")
    if not fit.converged:
        warnings.append("The sampler has not converged as it should, see above.")
    listed = f"<ul>{''.join(f'<li>{text}</li>' for text in warnings)}</ul>" if warnings else ""
    mark = _GOOD if not warnings else _BAD if any(marks) and fit.check is not None and not fit.check.passed else _LOOK
    answer = (
        "Nothing speaks against it: draws lie inside the range that the network knows, and the checks above passed."
        if not warnings
        else "Read these first:"
    )
    table = _table(("parameter", "trained from", "to", "draws outside", "draws at the edge"), rows, marks)
    figures = _measured(fit)
    note = (
        '<p class="soft">The likelihood is a neural network\'s approximation. It is known inside the trained range '
        "alone; at the edge counts where the model itself would allow more. "
        f"It was trained on {html.escape(record.simulator)}, with up to {record.trials} trials.</p>"
    )
    return "trust", "Can I trust it?", mark, answer, listed + table + note + figures


def _measured(fit: Fit) -> str:
    """The figures of the network's card, where it is a shipped one."""
    record = fit.net.record
    for entry in ppl_buffer.zoo():
        # The same training run, not only the same simulator.
        if entry.simulator == record.simulator and entry.measured and ppl_buffer.load(entry.name).record == record:
            rows = [(name, value) for name, value in entry.measured.items() if isinstance(value, (int, float))]
            return f"<details><summary>What was measured of this network</summary>{_table(('', ''), rows)}</details>"
    return ""


def _model(fit: Fit) -> str:
    kind = "people as draws from one population" if fit.hierarchical else "each person alone"
    lapse = fit.settings.get("lapse")
    return f"Model: {fit.net.record.simulator}, {kind}{f', {lapse:.1%} lapses' if lapse else ''}."


def _again(fit: Fit, command: str) -> str:
    found = []
    for package in ("ppl-buffer", "jax", "numpyro", "arviz", "numpy"):
        try:
            found.append(f"{package} {ppl_buffer.__version__ if package == 'ppl-buffer' else version(package)}")
        except PackageNotFoundError:
            continue
    settings = ", ".join(f"{name} {value}" for name, value in fit.settings.items())
    how = f"<p><code>{html.escape(command)}</code></p>" if command else ""
    files = (
        "posterior.nc holds all draws, log likelihoods and predictive data sets (<code>arviz.from_netcdf</code>), "
        "summary.csv every quantity with its diagnostics, the PNG files these figures."
    )
    return (
        f'<section><h2>To do it again</h2>{how}<p class="soft">{html.escape(settings)}. '
        f"Sampling took {fit.seconds:.0f} s. {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, "
        f"Python {platform.python_version()}, {html.escape(', '.join(found))}.</p><p>Beside this file: {files}</p>"
        "</section>"
    )
