"""The HTML file: what is written where.

It answers four questions, each with a verdict, the figures behind it and what to do: did it converge, does the model
fit, how do people differ, can I trust it.
"""

from __future__ import annotations

import html
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from ppl_buffer.files import write_atomic
from ppl_buffer.findings import counted
from ppl_buffer.version import __version__
from ppl_buffer.workflow.fitting import Fit
from ppl_buffer.workflow.report.accuracy import accuracy
from ppl_buffer.workflow.report.figures import draw_figures
from ppl_buffer.workflow.report.fitted import fitted
from ppl_buffer.workflow.report.fonts import fonts_of_all_scripts
from ppl_buffer.workflow.report.fragments import Figures
from ppl_buffer.workflow.report.sections import Section, converged, fits, formulas_say, subjects_differ, trusted
from ppl_buffer.workflow.report.style import STYLE


def write_report(fit: Fit, folder: Path, *, title: str, source: str = "", command: str = "") -> Path:
    """Write ``report.html`` and its figures as PNG files into a folder.

    Args:
        fit: what `ppl_buffer.workflow.fit` returned.
        folder: must exist.
        title: of the report.
        source: where the data come from.
        command: how to do it again.

    Returns:
        the file.
    """
    with fonts_of_all_scripts():
        figures = draw_figures(fit)
        for name, (figure, _) in figures.items():
            figure.savefig(folder / f"{name}.png", dpi=130)
        sections = answers(fit, figures)
    path = folder / "report.html"
    write_atomic(path, _page(fit, sections, title, source, command).encode(errors="replace"))
    return path


def answers(fit: Fit, figures: Figures | None = None) -> list[Section]:
    """The four questions and their answers, and what formulas say, with the figures that there are."""
    shown = figures or {}
    said = [] if fit.design is None else [formulas_say(fit, shown)]
    return [converged(fit, shown), fits(fit, shown), *said, subjects_differ(fit, shown), trusted(fit)]


def _page(fit: Fit, sections: list[Section], title: str, source: str, command: str) -> str:
    """The whole text: what was fitted, the verdicts as cards, the sections, how to do it again."""
    cards = "".join(_card(section) for section in sections)
    bodies = "".join(_section(section) for section in sections)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head><body>'
        f'<h1>{html.escape(title)}</h1><p class="soft">{html.escape(source)}</p><p>{html.escape(_facts(fit))}</p>'
        f'<div class="cards">{cards}</div>{bodies}{fitted(fit, accuracy(fit))}'
        f"{_reproduction(fit, command)}</body></html>"
    )


def _card(section: Section) -> str:
    return f'<a class="card {section.mark}" href="#{section.key}"><b>{section.question}</b>{section.verdict}</a>'


def _section(section: Section) -> str:
    listed = f"<ul>{''.join(f'<li>{point}</li>' for point in section.points)}</ul>" if section.points else ""
    return (
        f'<section id="{section.key}"><h2>{section.question} '
        f'<span class="verdict {section.mark}">{section.verdict}</span></h2><p>{section.answer}</p>{listed}'
        f"{section.body}</section>"
    )


def _facts(fit: Fit) -> str:
    """What was fitted, in a line."""
    counts = fit.trials.trial_counts
    count = len(counts) if fit.trials.persons is None else len(set(fit.trials.persons))
    subjects = f"{counted(count, 'person')}"
    if fit.trials.persons is not None:
        subjects += f", {counted(len(counts), 'data set')}"
    least, most = int(counts.min()), int(counts.max())
    span = f"{least} to {most} trials each" if least < most else f"{counted(least, 'trial')} each"
    kind = "people as draws from one population" if fit.hierarchical else "each person alone"
    lapse = fit.settings.get("lapse")
    model = f"Model: {fit.record.simulator}, {kind}{f', {lapse:.1%} lapses' if lapse else ''}{_kind_of_lapse(fit)}."
    excluded = f" ({fit.trials.excluded:,} more were left out)" if fit.trials.excluded else ""
    return f"{subjects}, {span}, {counts.sum():,} in all{excluded}{_missing(fit)}. {model}"


def _missing(fit: Fit) -> str:
    """How many trials lack what."""
    trials, schema = fit.trials, fit.net.schema
    if trials.missing is None:
        return ""
    omitted = trials.missing.omitted(schema, trials.outcomes)
    omitted = np.zeros(trials.trial_mask.shape, dtype=bool) if omitted is None else omitted & trials.trial_mask
    lost = np.any([np.isnan(trials.outcomes[name].astype(float)) for name in schema.outcomes], 0)
    lost = lost & ~omitted & trials.trial_mask
    said = [f"{omitted.sum():,} without a response before the deadline"] * bool(omitted.any())
    said += [f"{lost.sum():,} with an outcome that was lost"] * bool(lost.any())
    return f" ({', '.join(said)})" if said else ""


def _kind_of_lapse(fit: Fit) -> str:
    """Whether the rate of lapses was estimated, and where they are uniform."""
    if fit.lapse is None:
        return ""
    ranges = (f"{name} {low:.3g} to {high:.3g}" for name, (low, high) in fit.lapse.ranges.items())
    facts = ["estimated"] * (fit.lapse.prior is not None) + [f"uniform over {text}" for text in ranges]
    return f" ({html.escape(', '.join(facts))})" if facts else ""


def _reproduction(fit: Fit, command: str) -> str:
    """How to do it again: the command, settings, versions, the files beside this one."""
    versions = []
    for package in ("ppl-buffer", "jax", "numpyro", "arviz", "numpy"):
        try:
            number = __version__ if package == "ppl-buffer" else version(package)
        except PackageNotFoundError:
            continue
        versions.append(f"{package} {number}")
    words = {True: "yes", False: "no"}
    given = {name.replace("_", " "): words.get(x, x) if isinstance(x, bool) else x for name, x in fit.settings.items()}
    settings = ", ".join(f"{name} {value}" for name, value in given.items() if value is not None)
    how = f'<p><code class="command">{html.escape(command)}</code></p>' if command else ""
    took = f"{fit.seconds:.0f} s" if fit.seconds < 120 else f"{fit.seconds / 60:.0f} minutes"
    files = (
        "posterior.nc holds all draws, log likelihoods and predictive data sets (<code>arviz.from_netcdf</code>), "
        "summary.csv every quantity with its diagnostics, regressors.csv the surprise of each trial and what was "
        "expected of it, for neural data, the PNG files these figures; draws.safetensors keeps the "
        "draws, from which the same command goes on where it was interrupted, or with more <code>--draws</code>."
    )
    return (
        f'<section><h2>To do it again</h2>{how}<p class="soft">{html.escape(settings)}. '
        f"Sampling took {took}. {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, "
        f"Python {platform.python_version()}, {html.escape(', '.join(versions))}.</p><p>Beside this file: {files}</p>"
        "</section>"
    )
