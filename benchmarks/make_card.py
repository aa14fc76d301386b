"""Write the cards of the shipped networks from what the other benchmarks measured.

Reads the JSON files in benchmarks/results/ and writes, beside each checkpoint, NAME.json (figures, shown by
`ppl_buffer.zoo()`) and NAME.md (the card). No figure in a card is typed by hand.

    python benchmarks/make_card.py [NAME ...]
"""

from __future__ import annotations

import argparse
import functools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import harness

import ppl_buffer as pb
from ppl_buffer.network.config import weight_shapes

PRETRAINED = Path(pb.__file__).parent / "pretrained"
# What no file records.
HISTORY = """The run had two parts. Until step 11,800 sequences had 40 to 400 trials, 32 data sets in a batch of
typical size, and the training targets were choice probabilities given the learning noise that was drawn; until step
5,564 fewer data sets had zeta = 0 (7.5 % instead of 24 %) and no told-set told zeta alone. Then sequences had 80 to
400 trials, 22 in a batch, and the targets came from the simulator's particle filter. The cosine of the learning rate
was moved while the run went on: planned for 10,000 steps, it was to end at 8,200 (after step 4,569), 9,600 (after
5,564), 11,800 (after 9,600), 26,000 (after 11,800) and 24,000 (after 17,879); the run was stopped after 22,050 steps.
A run of the script from the start repeats the recipe of the second part, not the weights."""

GP_HISTORY = """The cosine of the learning rate was planned for 6,000 steps and after step 3,888 moved to end at 4,700.
Without a context, half of the targets saw nothing at all; the recipe of today shows them a prefix of the buffer."""
# What no file records, by network: what it is of, and how its run differed from its recipe.
MODELS = {
    "ddm": """The drift-diffusion model with across-trial drift variability (`ppl_buffer.simulators.DriftDiffusion`):
choices between two options and response times, independent given the parameters.""",
    "collapsing_ddm": """Drift diffusion between boundaries that collapse exponentially
(`ppl_buffer.simulators.CollapsingDriftDiffusion`): choices between two options and response times, independent given
the parameters; the likelihood has no formula.""",
    "rlddm": """Q-learning whose values set the drift of a diffusion, over three pairs of symbols
(`ppl_buffer.simulators.RLDriftDiffusion`): choices, response times, and rewards as feedback; ordered trials.""",
    "multisensory_rho1": """Audio-visual localisation by an observer who infers whether a sound and a flash have one
source and hears places as they are (`ppl_buffer.simulators.MultisensoryCausalInference(rho=1)`): a continuous report,
independent given the parameters, 2 % of them lapses.""",
    "multisensory_rho43": """Audio-visual localisation by an observer who infers whether a sound and a flash have one
source and hears places stretched by 4/3 (`ppl_buffer.simulators.MultisensoryCausalInference(rho=4/3)`): a continuous
report, independent given the parameters, 2 % of them lapses.""",
}
RUNS = {
    "collapsing_ddm": """The cosine of the learning rate was planned for 4,000 steps and after step 806 moved to end
at 3,000.""",
    "ddm": """The cosine of the learning rate was planned for 9,000 steps and after step 1,242 moved to end at 6,000,
after which it was to end at 7,500, with each target's outcomes drawn eight times and a weight of 0.9 for the sets that
tell all parameters. The range of a lapse was added to the schema after step 6,000; training does not touch it.""",
    "multisensory_rho1": """The weights are the mean of those before and after these steps, in which 60 % of the batches
are from lessons, and half of the others tell all parameters, drawn from a distribution of their own. 5,600 steps at
0.0004 and 0.0005 went before: 1,300 like these; 2,700 with 100 to 400 trials and errors of joint densities at half
their weight; 900 with half of the batches from lessons; 700 without told parameters of their own. There are 1,180
lessons. They are of six kinds: 480 with `near` at 0; 120 with `near` at 1, half of them drawn from the other
observers' prior until `log_sigma_S` was below 1.1; 80 with `near` at 1 and `share` at 0; 60 with `share` at 1,
`log_sigma_M` uniform in (-1, -0.2) and `log_sigma_S` in (1, 2.7); 320 with `share` at 1, `precise` at 1 or 0.7 and
`extent` at 0.5 or 0.7, `near` at 0; 120 with `share` at 0, `near` and `precise` at 0.4. Of the fifth kind 200 have
the departures that depend on what is asked for. Before that, 2,200 steps at 0.0004 and 5,241 at 0.0015 (of a cosine
of 7,000, in which the errors of joint densities counted by their squares, after step 3,750 with four times the
weight), on the first 680 lessons. Before that the network grew by two layers and two fine scales and had 7,500 steps
with 480 lessons, of which it was taught the redraws alone; before that, 4,000 steps (half of their batches from 480
other lessons, 16 draws of each target) from the weights of a run of 17,000 steps without lessons. In that run a
quarter of the batches had no context until step 9,000, where the run was to end, and 70 % of them from there. From
step 12,000, where the run was to end, each target's outcomes were drawn 16 times; the cosine of the learning rate was
to end at 19,000, and after step 12,676 at 17,000.""",
    "multisensory_rho43": """The weights are the mean of those before and after these steps, in which 60 % of the
batches are from lessons, and half of the others tell all parameters, drawn from a distribution of their own. 5,600
steps at 0.0004 and 0.0005 went before: 1,300 like these; 2,700 with 100 to 400 trials and errors of joint densities
at half their weight; 900 with half of the batches from lessons; 700 without told parameters of their own. There are
1,180 lessons, of the kinds that the card of `multisensory_rho1` tells, all 120 with `near` at 1 drawn so from the
start. Before that, 2,200 steps at 0.0004 and 5,370 at 0.0015 (of a cosine of 7,000, in which the errors of joint
densities counted by their squares), on the first 680 lessons. Before that the network grew by two layers and two fine
scales and had 7,500 steps with 480 lessons, of which it was taught the redraws alone; before that, 4,000 steps (half
of their batches from 480 other lessons, 16 draws of each target) from the weights of a run of 15,500 steps without
lessons, and that from the weights of `multisensory_rho1`. In that run the cosine of the learning rate was planned for
3,500 steps, after step 442 moved to end at 1,700, after step 1,700 to end at 6,000, and after step 6,000 to end at
10,500. From there each target's outcomes were drawn 16 times and 70 % of the batches, in place of a quarter, had no
context; the cosine was to end at 17,500, and after step 10,978 at 15,500.""",
    "rlddm": """These are the last steps, at a learning rate of 0.0003, with four draws of each target's outcomes and a
weight of 0.65 for the sets that tell all parameters. Half of the batches tell them all, drawn from a distribution of
their own; where all is told the network learns the simulator's own log density, elsewhere it learns from simulation.
Such were the steps before too: 9,000 at 0.0004 with a weight of 0.7 and one draw, and 4,000 at 0.0004 with 0.97. Before
those steps nothing but draws was learnt from: 5,000 steps at 0.0006 with told parameters of their own, eight draws and
a weight of 0.8; 6,000 at 0.0005 and, before them, a run of 34,000 steps, with parameters from the prior. In that run
the cosine of the learning rate was planned for 6,000 steps, after step 3,377 moved to end at 4,400, after step 4,400 to
end at 11,000, after step 7,331 to end at 9,300, after step 9,300 to end at 19,000, from there at 30,000, after step
22,967 at 25,000, and after step 25,000 at 34,000. From its step 19,449 on each target's outcomes were drawn four times
and the sets that tell all parameters had a weight of 0.9. Of the shorter runs the averaged weights at the end were
taken, not those of the least held-out loss.""",
}


def read(name: str) -> dict[str, Any]:
    """A benchmark's result file; empty where it was not run."""
    path = harness.RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def write(name: str, figures: dict[str, float], card: str) -> None:
    """Write both files of a network."""
    (PRETRAINED / f"{name}.json").write_text(json.dumps(figures, indent=2) + "\n")
    (PRETRAINED / f"{name}.md").write_text(card)


def weights(net: Any) -> str:
    """How many weights, and of what sizes."""
    count = sum(math.prod(shape) for shape in weight_shapes(net.schema, net.config).values())
    fine = f", {net.config.asinh_scales} fine scales" if net.config.asinh_scales else ""
    return f"{count:,} weights; width {net.config.width}, depth {net.config.depth}, {net.config.heads} heads{fine}."


def box(record: Any) -> str:
    """Rows of the trained range."""
    return "\n".join(
        f"| `{name}` | {record.priors[name].family if record.priors.get(name) else 'unknown'} | {low:g} to {high:g} |"
        for name, (low, high) in record.box.items()
    )


def text(value: float | None) -> str:
    """A number in a card."""
    return "" if value is None else f"{value:.3g}"


def measured_on(benchmark: dict[str, Any]) -> str:
    """The last lines of a card."""
    hardware = benchmark.get("hardware", {})
    return f"""Measured on {hardware.get("cores", "?")} cores of {hardware.get("cpu", "an unknown processor")},
{benchmark.get("date", "")[:10]}. Licence: Apache-2.0, as the package.
"""


Row = tuple[str, float, float | None, bool | None]


def posterior_rows(name: str, record: Any) -> list[Row]:
    """What `posterior.py` measured, in both ways."""
    rows: list[Row] = []
    for suffix, way in (("", "by NUTS"), ("_weighted", "by exact draws with weights")):
        found = read(f"{name}_posterior{suffix}").get("results")
        if not found:
            continue
        shift, ratio = found["mean_shift_in_sd"], found["sd_ratio"]
        trials = f" of {found['trials']} trials" if "trials" in found else ""
        about = f"posterior against exact, {found['sets']} data sets{trials}, {way}"
        # The longest of the measurements: where it is older than the weights, the card says so.
        if found["training_step"] != record.provenance["step"]:
            about += f", weights of step {found['training_step']}"
        rows.append((f"{about}: mean shift in sd", shift, 0.1, shift <= 0.1))
        rows.append((f"{about}: sd ratio (0.9 to 1.1)", ratio, None, 0.9 <= ratio <= 1.1))
    return rows


def noisy_q() -> None:
    """The card of `noisy_q`."""
    net = pb.load("noisy_q")
    record = net.record
    accuracy, gradient = read("noisy_q_accuracy"), read("gradient")
    rows: list[Row] = []
    for row in accuracy.get("results", {}).get("bars", []):
        rows.append((row["figure"], row["measured"], row["bar"], row["met"]))
    rows += posterior_rows("noisy_q", record)
    if gradient:
        ratio, people = (gradient["results"][key] for key in ("observed_over_full", "people"))
        rows.append((f"gradient, {people} people: times faster with observe", ratio, 4.0, ratio >= 4.0))
    figures = {name: measured for name, measured, _, _ in rows}
    met = {True: "yes", False: "**no**", None: ""}
    table = "\n".join(
        f"| {name} | {text(measured)} | {text(bar)} | {met[good]} |" for name, measured, bar, good in rows
    )
    provenance = record.provenance
    write(
        "noisy_q",
        figures,
        f"""# `noisy_q`

A likelihood, and model evidence, for Q-learning with learning noise over three pairs of symbols
(`ppl_buffer.simulators.NoisyQ`): binary choices, binary rewards as feedback, ordered trials.

{weights(net)} Trained by
`examples/train_zoo.py noisy_q` on {provenance.get("data_sets", 0):,} simulated sequences of up to {record.trials}
trials (step {provenance.get("step")} of {provenance.get("steps")}, seed {provenance.get("seed")}).

{HISTORY}

## Trained range

| parameter | prior | range |
|---|---|---|
{box(record)}

Rewards were drawn with probabilities 0.8, 0.7 and 0.6 for the better symbol of each pair. Outside of all this the
network's numbers are extrapolations.

## What was measured

By `benchmarks/noisy_q_accuracy.py`, `posterior.py noisy_q` and `gradient.py`; in nats unless said otherwise. The
references are the exact recursion (zeta = 0), a particle filter (zeta > 0) and importance sampling (evidence). "Trials"
are in one sequence; KL is KL(reference || network).

| figure | measured | bar | met |
|---|---|---|---|
{table}

{measured_on(accuracy)}""",
    )
    harness.print_table("noisy_q", ("figure", "measured", "bar", "met"), [list(row) for row in rows])


def gp() -> None:
    """The card of `gp`."""
    net = pb.load("gp")
    record, accuracy = net.record, read("gp_accuracy")
    results = accuracy["results"]
    rows = [[name, *row.values()] for name, row in results["figures"].items()]
    settings = results["settings"]
    about = f"{settings['targets']} targets"
    table = "\n".join(f"| {name} | {' | '.join(map(text, values))} |" for name, *values in rows)
    provenance = record.provenance
    stale = f", weights of step {results['training_step']}" if results["training_step"] != provenance["step"] else ""
    write(
        "gp",
        {f"{name}: KL per target": row["kl_per_target"] for name, row in results["figures"].items()},
        f"""# `gp`

Smooth functions of one input, seen with noise: draws of Gaussian processes (`ppl_buffer.simulators.GaussianProcess`)
with a squared-exponential, Matern-3/2 or Matern-5/2 kernel, which is never told. Exchangeable points; the joint density
of new points after a context, with any of the hyperparameters told or integrated out.

{weights(net)} Trained by
`examples/train_zoo.py gp` on {provenance.get("data_sets", 0):,} simulated functions with contexts of up to
{record.context} points and buffers of up to {record.trials}
(step {provenance.get("step")} of {provenance.get("steps")}, seed {provenance.get("seed")}).

## Trained range

| parameter | prior | range |
|---|---|---|
{box(record)}

{GP_HISTORY}

Inputs were uniform on [-2, 2]. Outside of all this the network's numbers are extrapolations.

## What was measured

By `benchmarks/gp_accuracy.py`, in nats a target, over {settings["datasets"]} functions where all is told and
{settings["evidence_datasets"]} where nothing is{stale}: the density of {about} in one pass, against the exact
density of the Gaussian process (all told: a mixture over the kernels; nothing told: integrated over the prior of the
hyperparameters as well). KL is KL(exact || network), "worst" the largest mean difference of a single function. The last
column is the KL of the targets' own densities multiplied, without the buffer.

| told and context | exact entropy | KL | its standard error | worst function | KL without buffer |
|---|---|---|---|---|---|
{table}

{measured_on(accuracy)}""",
    )
    harness.print_table(f"gp, {about}", ("", "exact entropy", "KL", "its error", "worst", "KL apart"), rows)


def likelihood(name: str) -> None:
    """The card of a network whose likelihood is measured by `likelihood_accuracy.py`."""
    net = pb.load(name)
    record, accuracy = net.record, read(f"{name}_accuracy")
    rows: list[Row] = []
    results = accuracy["results"]
    bars = results["bars"]
    for about, figures in results["likelihood"].items():
        bar = bars["kl_per_trial"]
        rows.append((f"KL per trial, {about}", figures["kl_per_trial"], bar, figures["kl_per_trial"] <= bar))
        rows.append((f"RMSE of the total, {about}", figures["rmse_of_total"], None, None))
    if "evidence" in results:
        found, bar = results["evidence"], bars["evidence_rmse"]
        about = f"nothing told, {found['datasets']} data sets of {found['trials']} trials: RMSE of the log evidence"
        for method, row in found["methods"].items():
            rows.append((f"{about}, {method}", row["rmse"], bar, row["rmse"] <= bar))
    posterior = posterior_rows(name, record)
    rows += posterior
    evidence = read("multisensory_evidence") if name.startswith("multisensory") else {}
    for group, label in (("people", "30 sets of people's data"), ("simulated", "60 fresh simulated sets")):
        for method, row in evidence.get("results", {}).get(group, {}).get("methods", {}).items():
            figures = [("rmse", "log evidence, both networks,", "RMSE")]
            if "difference_rmse" in row:
                figures.append(("difference_rmse", "difference of the log evidences,", "RMSE of the difference"))
                figures.append(("difference_r_squared", "difference of the log evidences,", "R^2 of the difference"))
            for key, about, figure in figures:
                bar, value = evidence["results"]["bars"].get(f"{group}, {method}: {figure}"), row[key]
                met = None if bar is None else (value >= bar if figure.startswith("R^2") else value <= bar)
                rows.append((f"{about} {label}, {method}: {figure.split()[0]}", value, bar, met))
    met = {True: "yes", False: "**no**", None: ""}
    table = "\n".join(f"| {row[0]} | {text(row[1])} | {text(row[2])} | {met[row[3]]} |" for row in rows)
    provenance = record.provenance
    reference = "a numerical solution" if name == "collapsing_ddm" else "the exact likelihood"
    sizes = f"buffers and contexts of up to {record.trials} trials" if record.context else f"{record.trials} trials"
    write(
        name,
        {row[0]: row[1] for row in rows},
        f"""# `{name}`

{MODELS[name]}

{weights(net)} Trained by
`examples/train_zoo.py {name}` on {provenance.get("data_sets", 0):,} simulated data sets, up to {sizes}
(step {provenance.get("step")} of {provenance.get("steps")}, seed {provenance.get("seed")}). {RUNS.get(name, "")}

## Trained range

| parameter | prior | range |
|---|---|---|
{box(record)}

Outside of it the network's numbers are extrapolations.

## What was measured

By `benchmarks/likelihood_accuracy.py`{", `posterior.py`" if posterior else ""}
{"and `multisensory_evidence.py` " if evidence else ""}in nats; the reference is {reference}. KL is
KL(exact || network), all parameters told, {results["datasets"]} data sets from the prior.

| figure | measured | bar | met |
|---|---|---|---|
{table}

{measured_on(accuracy)}""",
    )
    harness.print_table(name, ("figure", "measured", "bar", "met"), [list(row) for row in rows])


CARDS = {"noisy_q": noisy_q, "gp": gp, **{name: functools.partial(likelihood, name) for name in MODELS}}


def main(names: Sequence[str] | None = None) -> None:
    """Write the cards that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(CARDS), help=f"among {', '.join(CARDS)}; all by default")
    for name in parser.parse_args(names).names:
        CARDS[name]()


if __name__ == "__main__":
    main()
