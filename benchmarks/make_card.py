"""Write the cards of the shipped networks from their recipes, their records and what the other benchmarks measured.

Reads pretrained/NAME.toml, the record in NAME.safetensors and the JSON files in benchmarks/results/, and writes,
beside each checkpoint, NAME.json (figures, shown by `ppl_buffer.zoo()`) and NAME.md (the card). No figure in a card is
typed by hand.

    python benchmarks/make_card.py [NAME ...]
"""

from __future__ import annotations

import argparse
import json
import math
import textwrap
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness

import ppl_buffer as pb
from ppl_buffer.network.config import weight_shapes

PRETRAINED = Path(pb.__file__).parent / "pretrained"
MET = {True: "yes", False: "**no**", None: ""}


@dataclass(frozen=True)
class Figure:
    """What a card states: a name, a number, and where there is one the bar that it should meet."""

    name: str
    measured: float
    bar: float | None = None
    met: bool | None = None


@dataclass(frozen=True)
class Measurement:
    """What was measured of a network: an introduction, a table, its figures, and a result file that says where."""

    introduction: str
    table: str
    figures: dict[str, float]
    source: dict[str, Any]


def read(name: str) -> dict[str, Any]:
    """A benchmark's result file; empty where it was not run."""
    path = harness.RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def text(value: float | None) -> str:
    """A number in a card."""
    return "" if value is None else f"{value:.3g}"


def wrapped(paragraph: str) -> str:
    """The paragraph in lines of at most 120 characters."""
    return textwrap.fill(paragraph, 120, break_long_words=False, break_on_hyphens=False)


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown."""
    lines = [f"| {' | '.join(row)} |" for row in (columns, *rows)]
    return "\n".join([lines[0], "|---" * len(columns) + "|", *lines[1:]])


def table_of(name: str, figures: Sequence[Figure]) -> str:
    """Figures as a table of a card; also printed."""
    columns = ("figure", "measured", "bar", "met")
    harness.print_table(name, columns, [[x.name, x.measured, x.bar, x.met] for x in figures])
    return markdown(columns, [[x.name, text(x.measured), text(x.bar), MET[x.met]] for x in figures])


# --- the parts of a card ---------------------------------------------------------------------------------------------


def sizes(net: Any) -> str:
    """How many weights, and of what sizes."""
    count = sum(math.prod(shape) for shape in weight_shapes(net.schema, net.config).values())
    config = net.config
    scales = f", {config.asinh_scales} asinh scales" if config.asinh_scales else ""
    return f"{count:,} weights; width {config.width}, depth {config.depth}, {config.heads} heads{scales}."


def lineage(record: Any, data_sets: str) -> str:
    """The stages that the record knows, as a table."""
    rows = [
        [str(number), f"{stage.step} of {stage.steps}", f"{stage.learning_rate:g}", str(stage.seed),
         f"{stage.data_sets:,}", stage.date[:10]]
        for number, stage in enumerate(record.stages, start=1)
    ]  # fmt: skip
    return markdown(("stage", "step", "peak learning rate", "seed", data_sets, "date"), rows)


def stages(recipe: dict[str, Any]) -> str:
    """The stages of the recipe, as a table."""

    def span(pair: Sequence[int] | None) -> str:
        return "" if pair is None else f"{pair[0]} to {pair[1]}" if pair[0] < pair[1] else str(pair[0])

    def learns_from(stage: dict[str, Any]) -> str:
        samples = stage.get("outcome_samples", 1)
        sources = ["outcomes" if samples == 1 else f"{samples} outcomes of each target"]
        if stage.get("use_log_likelihood"):
            sources = ["the simulator's log likelihood given all parameters", f"{sources[0]} elsewhere"]
        if "distillation" in stage:
            share, count = stage["distillation_share"], stage["distillation"]["sets"]
            sources.append(f"in {share:.0%} of the batches {count} distillation sets")
        sizes = ", ".join(f"{name} {size}" for name, size in stage.get("config", {}).items())
        ends = [f"after the network has grown to {sizes}"] if sizes else []
        ends += ["then averaged with the weights before"] if stage.get("mean_with_start") else []
        return ", ".join(sources + ends)

    rows = [
        [str(number), f"{stage['steps']:,}", f"{stage['learning_rate']:g}", str(stage["seed"]), span(stage["trials"]),
         span(stage.get("context")), learns_from(stage)]
        for number, stage in enumerate(recipe["stages"], start=1)
    ]  # fmt: skip
    return markdown(("stage", "steps", "peak learning rate", "seed", "trials", "context", "learns from"), rows)


def training(name: str, record: Any, recipe: dict[str, Any]) -> str:
    """How the weights came about, and how to train such a network anew."""
    reach = f"with up to {record.trials} trials" + (
        f" and contexts of up to {record.context}" if record.context else ""
    )
    command = f"`examples/train_zoo.py {name}`"
    if "weights" in recipe:
        origin = f"These are weights {recipe['weights']}, until they are trained anew. Their record knows"
        anew = f"{command} trains such a network, not these weights:"
    else:
        origin = "The record of these weights knows"
        anew = f"{command} trained it, and trains it anew:"
    known = "these stages" if len(record.stages) > 1 else "this stage"
    return f"""{wrapped(f"{origin} {known}, {reach}:")}

{lineage(record, recipe["data_sets"])}

{anew}

{stages(recipe)}"""


def trained_range(record: Any) -> str:
    """The range of each parameter, as a table."""
    rows = [
        [f"`{name}`", record.priors[name].family if record.priors.get(name) else "unknown", f"{low:g} to {high:g}"]
        for name, (low, high) in record.box.items()
    ]
    return markdown(("parameter", "prior", "range"), rows)


def trained_data(record: Any) -> str:
    """Where the values of the training data lay, as a table."""

    def described(seen: Any) -> str:
        if seen.values:
            pairs = zip(seen.values, seen.shares, strict=True)
            return ", ".join(f"{value:g} ({share:.0%})" for value, share in pairs)
        middle = dict(seen.quantiles)
        return f"{seen.low:.3g} to {seen.high:.3g}, 98% of them {middle[0.01]:.3g} to {middle[0.99]:.3g}"

    return markdown(("variable", "values"), [[f"`{name}`", described(seen)] for name, seen in record.ranges.items()])


def write(name: str, measurement: Measurement) -> None:
    """Write both files of a network."""
    net = pb.load(name)
    recipe = tomllib.loads((PRETRAINED / f"{name}.toml").read_text(encoding="utf-8"))
    hardware = measurement.source.get("hardware", {})
    card = f"""# `{name}`

{wrapped(recipe["about"])}

{sizes(net)}

## Training

{training(name, net.record, recipe)}

## Trained range

{trained_range(net.record)}

{trained_data(net.record)}

{wrapped(recipe["outside"])}

## What was measured

{wrapped(measurement.introduction)}

{measurement.table}

Measured on {hardware.get("cores", "?")} cores of {hardware.get("cpu", "an unknown processor")},
{measurement.source.get("date", "")[:10]}. Licence: Apache-2.0, as the package.
"""
    (PRETRAINED / f"{name}.json").write_text(json.dumps(measurement.figures, indent=2) + "\n")
    (PRETRAINED / f"{name}.md").write_text(card)


# --- what was measured -----------------------------------------------------------------------------------------------


def posterior_figures(name: str) -> list[Figure]:
    """What `posterior.py` measured, in both ways."""
    step = pb.load(name).record.provenance["step"]
    figures = []
    for suffix, way in (("", "by NUTS"), ("_weighted", "by exact draws with weights")):
        results = read(f"{name}_posterior{suffix}").get("results")
        if not results:
            continue
        shift, ratio = results["mean_shift_in_sd"], results["sd_ratio"]
        trials = f" of {results['trials']} trials" if "trials" in results else ""
        about = f"posterior against exact, {results['sets']} data sets{trials}, {way}"
        # The longest of the measurements: where it is older than the weights, the card says so.
        if results["training_step"] != step:
            about += f", weights of step {results['training_step']}"
        figures.append(Figure(f"{about}: mean shift in sd", shift, 0.1, shift <= 0.1))
        figures.append(Figure(f"{about}: sd ratio (0.9 to 1.1)", ratio, None, 0.9 <= ratio <= 1.1))
    return figures


def noisy_q() -> Measurement:
    """What was measured of `noisy_q`."""
    accuracy, gradient = read("noisy_q_accuracy"), read("gradient")
    bars = accuracy.get("results", {}).get("bars", [])
    figures = [Figure(row["figure"], row["measured"], row["bar"], row["met"]) for row in bars]
    figures += posterior_figures("noisy_q")
    if gradient:
        ratio, subjects = (gradient["results"][key] for key in ("observed_over_full", "people"))
        figures.append(Figure(f"gradient, {subjects} people: times faster with observe", ratio, 4.0, ratio >= 4.0))
    introduction = """By `benchmarks/noisy_q_accuracy.py`, `posterior.py noisy_q` and `gradient.py`; in nats unless said
otherwise. The references are the exact recursion (zeta = 0), a particle filter (zeta > 0) and importance sampling
(evidence). "Trials" are in one sequence; KL is KL(reference || network)."""
    return Measurement(introduction, table_of("noisy_q", figures), {x.name: x.measured for x in figures}, accuracy)


def gp() -> Measurement:
    """What was measured of `gp`."""
    accuracy, step = read("gp_accuracy"), pb.load("gp").record.provenance["step"]
    results = accuracy["results"]
    settings, figures = results["settings"], results["figures"]
    older = f", weights of step {results['training_step']}" if results["training_step"] != step else ""
    about = f"{settings['targets']} targets"
    introduction = f"""By `benchmarks/gp_accuracy.py`, in nats a target, over {settings["datasets"]} functions where all
parameters are given and {settings["evidence_datasets"]} where none is{older}: the density of {about} in one pass,
against the exact density of the Gaussian process (all parameters given: a mixture over the kernels; none given:
integrated over the prior of the hyperparameters as well). KL is KL(exact || network), "worst" the largest mean
difference of a single function. The last column is the KL of the targets' own densities multiplied, without the
buffer."""
    columns = ("given and context", "exact entropy", "KL", "its standard error", "worst function", "KL without buffer")
    rows = [[name, *row.values()] for name, row in figures.items()]
    harness.print_table(f"gp, {about}", columns, rows)
    table = markdown(columns, [[name, *map(text, values)] for name, *values in rows])
    return Measurement(
        introduction, table, {f"{name}: KL per target": row["kl_per_target"] for name, row in figures.items()}, accuracy
    )


def multisensory_figures(results: dict[str, Any]) -> list[Figure]:
    """What `multisensory_evidence.py` measured, of people's data and of simulated ones."""
    figures = []
    for group, label in (("people", "30 sets of people's data"), ("simulated", "60 fresh simulated sets")):
        for method, row in results.get(group, {}).get("methods", {}).items():
            columns = [("rmse", "log evidence, both networks,", "RMSE")]
            if "difference_rmse" in row:
                columns.append(("difference_rmse", "difference of the log evidences,", "RMSE of the difference"))
                columns.append(("difference_r_squared", "difference of the log evidences,", "R^2 of the difference"))
            for key, about, figure in columns:
                bar, value = results["bars"].get(f"{group}, {method}: {figure}"), row[key]
                met = None if bar is None else (value >= bar if figure.startswith("R^2") else value <= bar)
                figures.append(Figure(f"{about} {label}, {method}: {figure.split()[0]}", value, bar, met))
    return figures


def likelihood(name: str) -> Measurement:
    """What was measured of a network whose likelihood `likelihood_accuracy.py` knows."""
    accuracy = read(f"{name}_accuracy")
    results = accuracy["results"]
    bars, figures = results["bars"], []
    for about, row in results["likelihood"].items():
        bar, error = bars["kl_per_trial"], row["kl_per_trial"]
        figures.append(Figure(f"KL per trial, {about}", error, bar, error <= bar))
        figures.append(Figure(f"RMSE of the total, {about}", row["rmse_of_total"]))
    if "evidence" in results:
        evidence, bar = results["evidence"], bars["evidence_rmse"]
        about = f"no parameter given, {evidence['datasets']} data sets of {evidence['trials']} trials: RMSE of the log"
        for method, row in evidence["methods"].items():
            figures.append(Figure(f"{about} evidence, {method}", row["rmse"], bar, row["rmse"] <= bar))
    posterior = posterior_figures(name)
    multisensory = read("multisensory_evidence")["results"] if name.startswith("multisensory") else {}
    figures += posterior + multisensory_figures(multisensory)
    scripts = ["`benchmarks/likelihood_accuracy.py`", *(["`posterior.py`"] if posterior else [])]
    scripts += ["`multisensory_evidence.py`"] if multisensory else []
    reference = "a numerical solution" if name == "collapsing_ddm" else "the exact likelihood"
    introduction = f"""By {", ".join(scripts)}, in nats;
the reference is {reference}. KL is KL(exact || network), all parameters given,
{results["datasets"]} data sets from the prior."""
    return Measurement(introduction, table_of(name, figures), {x.name: x.measured for x in figures}, accuracy)


def measurement_of(name: str) -> Measurement:
    """What was measured of a network."""
    special = {"noisy_q": noisy_q, "gp": gp}
    return special[name]() if name in special else likelihood(name)


def main(names: Sequence[str] | None = None) -> None:
    """Write the cards that were asked for."""
    known = sorted(path.stem for path in PRETRAINED.glob("*.toml"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=known, help=f"among {', '.join(known)}; all by default")
    for name in parser.parse_args(names).names:
        write(name, measurement_of(name))


if __name__ == "__main__":
    main()
