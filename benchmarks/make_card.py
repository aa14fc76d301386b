"""Write the cards of the shipped networks from their recipes, their records and what the other benchmarks measured.

Reads pretrained/NAME.toml, the record in NAME.safetensors and the JSON files in benchmarks/results/, and writes,
beside each checkpoint, NAME.json (figures, shown by `ppl_buffer.zoo()`) and NAME.md (the card), and the table of all
networks in docs/zoo.md. No figure in a card is typed by hand.

    python benchmarks/make_card.py [NAME ...]
"""

from __future__ import annotations

import argparse
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness
from card_calibration import Calibration, calibration
from card_figures import Figure, at_least, at_most, changing_figures, missing_figures, task_figures
from card_sections import training
from card_words import ZOO, Words, plain, section, with_rows, words_of, zoo_row

import ppl_buffer as pb
from ppl_buffer.network.card import WAYS, lacks, markdown, sizes, stated_error, trained_data, trained_range, wrapped

PRETRAINED = Path(pb.__file__).parent / "pretrained"
# What `likelihood=` takes -> the part of a network.
PART = {"direct": "likelihood", "buffer": "buffer"}
# Networks of random functions, and what their exact density is of.
EXACT = {"gp": "Gaussian processes, a mixture over the kernels", "sawtooth": "waves, a mixture over both directions"}


@dataclass(frozen=True)
class Measurement:
    """What was measured of a network: an introduction, a table, its figures, and a result file that says where.

    `in_words` is what the card says first, `words` what the table of all networks says.
    """

    introduction: str
    table: str
    figures: dict[str, float]
    source: dict[str, Any]
    words: Words
    in_words: str


def read(name: str) -> dict[str, Any]:
    """A benchmark's result file; empty where it was not run."""
    path = harness.RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def text(value: float | None) -> str:
    """A number in a card."""
    return "" if value is None else plain(value)


def table_of(name: str, figures: Sequence[Figure]) -> str:
    """Figures as a table of a card, the ways of the network side by side; also printed."""
    ways = [way for way in WAYS if any(way in x.measured for x in figures)]
    columns = ("figure", *(WAYS[way] for way in ways), "bar", "met")
    cells = [[x.name, *map(x.measured.get, ways), x.bar, x.met] for x in figures]
    harness.print_table(name, columns, cells)
    return markdown(columns, [[name, *map(text, numbers), met] for name, *numbers, met in cells])


def all_by_name(figures: Sequence[Figure]) -> dict[str, float]:
    """The numbers of all figures."""
    return {name: value for figure in figures for name, value in figure.by_name.items()}


def older(net: Any, measurement: Mapping[str, Any], way: str) -> str:
    """What a card adds to a figure of weights that the network no longer has."""
    if harness.is_of_today(net.record, measurement, way):
        return ""
    return f", weights from before {measurement['date'][:10]}"


def read_recipe(name: str) -> dict[str, Any]:
    """The recipe of a network."""
    return tomllib.loads((PRETRAINED / f"{name}.toml").read_text(encoding="utf-8"))


def measured(
    name: str, introduction: str, figures: Sequence[Figure], source: dict[str, Any], aside: str = ""
) -> Measurement:
    """What was measured as figures, in a table and in words."""
    way = pb.load(name).preferred_likelihood
    words = words_of(figures, way)
    table = table_of(name, figures)
    return Measurement(introduction + aside, table, all_by_name(figures), source, words, section(words, figures, way))


def calibration_of(name: str) -> Calibration:
    """What `calibration.py` measured of the part of a network that a fit takes."""
    net = pb.load(name)
    part = PART[net.preferred_likelihood]
    return calibration(name, read(f"calibration_{name}"), max(x.date for x in net.record.stages if x.part == part))


def write(name: str, measurement: Measurement, calibrated: Calibration) -> None:
    """Write both files of a network."""
    net = pb.load(name)
    recipe = read_recipe(name)
    hardware = measurement.source.get("hardware", {})
    card = f"""# `{name}`

{wrapped(recipe["about"])}

{wrapped(f"**In words.** {measurement.in_words} {calibrated.sentence}".strip())}

{sizes(net)}
{lacks(net)}{stated_error(net.record)}
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
{measurement.source.get("date", "")[:10]}.

## Calibration

{calibrated.section}

## Licence

Apache-2.0, as the package.
"""
    (PRETRAINED / f"{name}.json").write_text(json.dumps({**measurement.figures, **calibrated.figures}, indent=2) + "\n")
    (PRETRAINED / f"{name}.md").write_text(card)


# --- what was measured -----------------------------------------------------------------------------------------------


def posterior_figures(name: str) -> list[Figure]:
    """What `posterior.py` measured, in both ways of measuring, by both parts of the network."""
    net, figures = pb.load(name), []
    for suffix, how in (("", "by NUTS"), ("_weighted", "by exact draws with weights")):
        by_way = {}
        for way, ending in (("direct", "_direct"), ("buffer", "")):
            measurement = read(f"{name}_posterior{suffix}{ending}")
            results = measurement.get("results")
            # The longest of the measurements: where it is older than the weights, the card says so.
            if results and PART[way] in net.parts:
                by_way.setdefault(about_posterior(results, how) + older(net, measurement, way), {})[way] = results
        for about, ways in by_way.items():
            shift, ratio = ({way: x[key] for way, x in ways.items()} for key in ("mean_shift_in_sd", "sd_ratio"))
            bar = next(iter(ways.values()))["bars"]["mean_shift_in_sd"]
            figures.append(Figure(f"{about}: mean shift in sd", shift, bar))
            figures.append(Figure(f"{about}: sd ratio (0.9 to 1.1)", ratio))
    return figures


def gradient_figures(name: str) -> list[Figure]:
    """What `likelihood_gradient.py` measured."""
    results = read(f"{name}_gradient").get("results")
    if not results:
        return []
    about = f"gradient, {results['people']} data sets of {results['trials']} trials"
    names = {"milliseconds": "milliseconds", "processor_milliseconds": "milliseconds of processor time"}
    return [Figure(f"{about}: {name}", results[key]) for key, name in names.items() if key in results]


def about_consistency(name: str) -> str:
    """What `consistency.py` measured, as a sentence; none where it was not run."""
    measurement = read(f"{name}_consistency")
    results = measurement.get("results")
    if not results:
        return ""
    figure, aged = results["figures"]["drawn"], older(pb.load(name), measurement, "buffer")
    divergence = f"{plain(figure['divergence'], 2)} ± {plain(figure['standard_error'], 1)} nats a trial"
    return f""" The order of trials, which means nothing, moves the joint density a little: that of one order diverges
by {divergence} from the mixture over {results["orders"]} orders ({results["trials"]} trials, no parameter given, a
context of {results["context"]}; `benchmarks/consistency.py`{aged})."""


def about_posterior(results: Mapping[str, Any], how: str) -> str:
    """Of what posteriors a figure is."""
    trials = f" of {results['trials']} trials" if "trials" in results else ""
    return f"posterior against exact, {results['sets']} data sets{trials}, {how}"


def noisy_q() -> Measurement:
    """What was measured of `noisy_q`."""
    accuracy, gradient, tasks = read("noisy_q_accuracy"), read("gradient"), read("noisy_q_tasks")
    rows = accuracy.get("results", {}).get("bars", [])
    figures = [Figure(row["figure"], row["measured"], row["bar"]) for row in rows]
    figures += posterior_figures("noisy_q")
    figures += task_figures(tasks, "tasks of other kinds") + missing_figures(read("noisy_q_missing"))
    if gradient:
        ratio, subjects = (gradient["results"][key] for key in ("observed_over_full", "people"))
        name = f"gradient, {subjects} people: times faster with observe"
        figures.append(Figure(name, {"buffer": ratio}, 4.0, at_least))
    figures += gradient_figures("noisy_q")
    introduction = """By `benchmarks/noisy_q_accuracy.py`, `posterior.py noisy_q`, `noisy_q_tasks.py`,
`noisy_q_missing.py`, `gradient.py` and `likelihood_gradient.py`; in nats unless said otherwise. The references are the
exact recursion (zeta = 0), a particle filter (zeta > 0, lost trials) and importance sampling (evidence). "Trials" are
in one sequence; KL is KL(reference || network)."""
    return measured("noisy_q", introduction, figures, accuracy)


def functions(name: str) -> Measurement:
    """What was measured of a network of random functions."""
    accuracy = read(f"{name}_accuracy")
    results = accuracy["results"]
    settings, figures = results["settings"], results["figures"]
    aged = older(pb.load(name), accuracy, "buffer")
    about = f"{settings['targets']} targets"
    introduction = f"""By `benchmarks/function_accuracy.py`, in nats a target, over {settings["datasets"]} functions
whose parameters are all given and {settings["evidence_datasets"]} of which none is{aged}: the density of {about} in one
pass, against the exact density of {EXACT[name]} and, where no parameter is given, over the priors of all parameters.
KL is KL(exact || network), "worst" the largest mean difference of a single function. The last column is the KL of the
targets' own densities multiplied, without the buffer.{about_consistency(name)}"""
    columns = ("given and context", "exact entropy", "KL", "its standard error", "worst function", "KL without buffer")
    rows = [[given, *row.values()] for given, row in figures.items()]
    harness.print_table(f"{name}, {about}", columns, rows)
    table = markdown(columns, [[given, *map(text, values)] for given, *values in rows])
    by_name = {f"{given}: KL per target": row["kl_per_target"] for given, row in figures.items()}
    totals = {given: settings["targets"] * row["kl_per_target"] for given, row in figures.items()}
    lost = {some: max(x for given, x in totals.items() if given.startswith(some)) for some in ("all", "no")}
    words = Words(
        f"the log density of {about} together is lower than the exact one by at most {plain(lost['all'], 2)} nats on "
        f"average with all parameters given, {plain(lost['no'], 2)} with none"
    )
    return Measurement(introduction, table, by_name, accuracy, words, section(words, (), "buffer"))


def table() -> Measurement:
    """What was measured of `table`."""
    measurement = read("tables")
    results = measurement["results"]
    aged = older(pb.load("table"), measurement, "buffer")
    introduction = f"""By `benchmarks/tables.py`{aged}, in nats a target: the log density of {results["new"]} new rows,
standardised by the known rows, the mean over {results["draws"]} draws of rows of each of six public tables and over
more random tables. "Independent" multiplies the densities of the targets, "one pass" has all of them in one buffer,
"re-encoding" merges each into the known rows before the next; these three are of one network, in one order. Linear
regression is Bayesian, the Gaussian process has the most probable hyperparameters; both are fitted to each draw, and
their densities are joint. No row of the six tables was trained on.{about_consistency("table")}"""
    columns = ("independent", "one pass", "re-encoding", "linear regression", "Gaussian process")
    rows = [[f"{x['table']}, {x['task']}, {x['known']} known rows", *map(x.get, columns)] for x in results["rows"]]
    harness.print_table("table", ("table", *columns), rows)
    cells = markdown(("table", *columns), [[name, *map(text, values)] for name, *values in rows])
    figures = {f"{name}: nats a target": values[1] for name, *values in rows}
    public = [x for x in results["rows"] if x["table"] != "simulated"]
    ahead = {rival: sum(x["one pass"] > x[rival] for x in public) for rival in columns[3:]}
    words = Words(
        f"there is no truth to be off from; of {len(public)} cases of public tables it predicts better than linear "
        f"regression in {ahead['linear regression']}, than a Gaussian process in {ahead['Gaussian process']}"
    )
    return Measurement(introduction, cells, figures, measurement, words, section(words, (), "buffer"))


def multisensory_figures(results: dict[str, Any]) -> list[Figure]:
    """What `multisensory_evidence.py` measured, of people's data and of simulated ones."""
    figures = []
    for group, label in (("people", "30 sets of people's data"), ("simulated", "60 fresh simulated sets")):
        for method, row in results.get(group, {}).get("methods", {}).items():
            way = importance_way(results) if method == "importance" else "buffer"
            columns = [("rmse", "log evidence, both networks,", "RMSE")]
            if "difference_rmse" in row:
                columns.append(("difference_rmse", "difference of the log evidences,", "RMSE of the difference"))
                columns.append(("difference_r_squared", "difference of the log evidences,", "R^2 of the difference"))
            for key, about, figure in columns:
                bar = results["bars"].get(f"{group}, {method}: {figure}")
                meets = at_least if figure.startswith("R^2") else at_most
                figures.append(Figure(f"{about} {label}, {method}: {figure.split()[0]}", {way: row[key]}, bar, meets))
    return figures


def importance_way(results: Mapping[str, Any]) -> str:
    """Whose likelihood importance sampling weighed its draws by."""
    return results.get("importance_likelihood", "buffer")


def likelihood(name: str) -> Measurement:
    """What was measured of a network whose likelihood `likelihood_accuracy.py` knows."""
    accuracy = read(f"{name}_accuracy")
    results = accuracy["results"]
    bars, figures = results["bars"], []
    for about, ways in results["likelihood"].items():
        error, total = ({way: row[key] for way, row in ways.items()} for key in ("kl_per_trial", "rmse_of_total"))
        figures.append(Figure(f"KL per trial, {about}", error, bars["kl_per_trial"]))
        figures.append(Figure(f"RMSE of the total, {about}", total))
    if "evidence" in results:
        evidence, bar = results["evidence"], bars["evidence_rmse"]
        about = f"no parameter given, {evidence['datasets']} data sets of {evidence['trials']} trials: RMSE of the log"
        for method, row in evidence["methods"].items():
            way = importance_way(evidence) if method == "importance" else "buffer"
            figures.append(Figure(f"{about} evidence, {method}", {way: row["rmse"]}, bar))
    posterior = posterior_figures(name)
    multisensory = read("multisensory_evidence")["results"] if name.startswith("multisensory") else {}
    tasks = task_figures(read(f"{name}_tasks"), "by task")
    missing, changing = missing_figures(read(f"{name}_missing")), changing_figures(read(f"{name}_changes"))
    speed = gradient_figures(name)
    figures += posterior + multisensory_figures(multisensory) + tasks + missing + changing + speed
    scripts = ["`benchmarks/likelihood_accuracy.py`", *(["`posterior.py`"] if posterior else [])]
    scripts += ["`multisensory_evidence.py`"] if multisensory else []
    scripts += [f"`{name}_tasks.py`"] if tasks else []
    scripts += [f"`{name}_missing.py`"] if missing else []
    scripts += [f"`{name}_changes.py`"] if changing else []
    scripts += ["`likelihood_gradient.py`"] if speed else []
    largest = max(row["standard_error"] for ways in results["likelihood"].values() for row in ways.values())
    reference = "a numerical solution" if name == "collapsing_ddm" else "the exact likelihood"
    introduction = f"""By {", ".join(scripts)}, in nats unless said otherwise;
the reference is {reference}. KL is KL(exact || network), all parameters given,
{results["datasets"]} data sets from the prior, with a standard error of at most {largest:.1g}."""
    return measured(name, introduction, figures, accuracy, about_consistency(name))


def measurement_of(name: str) -> Measurement:
    """What was measured of a network."""
    if name in EXACT:
        return functions(name)
    special = {"noisy_q": noisy_q, "table": table}
    return special[name]() if name in special else likelihood(name)


def main(names: Sequence[str] | None = None) -> None:
    """Write the cards that were asked for."""
    known = sorted(path.stem for path in PRETRAINED.glob("*.toml"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=known, help=f"among {', '.join(known)}; all by default")
    rows = []
    for name in parser.parse_args(names).names:
        measurement, calibrated = measurement_of(name), calibration_of(name)
        write(name, measurement, calibrated)
        rows.append(zoo_row(name, read_recipe(name)["about"], measurement.words, calibrated.words))
    ZOO.write_text(with_rows(ZOO.read_text(), rows))


if __name__ == "__main__":
    main()
