"""Write the card of the shipped network `noisy_q` from what the other benchmarks measured.

Reads benchmarks/results/{noisy_q_accuracy,noisy_q_posterior,gradient}.json and writes noisy_q.json (figures, shown by
`ppl_buffer.zoo()`) and noisy_q.md (the card) beside the checkpoint. No figure in the card is typed by hand.

    python benchmarks/make_card.py
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import harness

import ppl_buffer as pb
from ppl_buffer.config import weight_shapes

PRETRAINED = Path(pb.__file__).parent / "pretrained"
# What no file records.
HISTORY = """The cosine of the learning rate was moved while the run went on: planned for 10,000 steps, it was to end
at 8,200 (after step 4,569), 9,600 (after 5,564) and 11,800 (after 9,600). Until step 5,564 fewer data sets had zeta = 0
(7.5 % instead of 24 %) and no told-set told zeta alone. A run of the script from the start repeats the recipe, not the
weights."""


def read(name: str) -> dict[str, Any]:
    """A benchmark's result file; empty where it was not run."""
    path = harness.RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def main() -> None:
    """Collect and write."""
    net = pb.load("noisy_q")
    record = net.record
    accuracy, posterior, gradient = (read(name) for name in ("noisy_q_accuracy", "noisy_q_posterior", "gradient"))
    rows: list[tuple[str, float, float | None, bool | None]] = []
    for row in accuracy.get("results", {}).get("bars", []):
        rows.append((row["figure"], row["measured"], row["bar"], row["met"]))
    if posterior:
        result = posterior["results"]
        shift, ratio = result["mean_shift_in_sd"], result["sd_ratio"]
        # The longest of the measurements: where it is older than the weights, the card says so.
        about = f"posterior against exact, {result['sets']} data sets, by {result['network_posterior_by']}"
        if result["training_step"] != record.provenance["step"]:
            about += f", weights of step {result['training_step']}"
        rows.append((f"{about}: mean shift in sd", shift, 0.1, shift <= 0.1))
        rows.append((f"{about}: sd ratio (0.9 to 1.1)", ratio, None, 0.9 <= ratio <= 1.1))
    if gradient:
        ratio, people = (gradient["results"][key] for key in ("observed_over_full", "people"))
        rows.append((f"gradient, {people} people: times faster with observe", ratio, 4.0, ratio >= 4.0))
    figures = {name: measured for name, measured, _, _ in rows}
    (PRETRAINED / "noisy_q.json").write_text(json.dumps(figures, indent=2) + "\n")

    def text(value: float | None) -> str:
        return "" if value is None else f"{value:.3g}"

    met = {True: "yes", False: "**no**", None: ""}
    table = "\n".join(
        f"| {name} | {text(measured)} | {text(bar)} | {met[good]} |" for name, measured, bar, good in rows
    )
    box = "\n".join(
        f"| `{name}` | {record.priors[name].family if record.priors.get(name) else 'unknown'} | {low:g} to {high:g} |"
        for name, (low, high) in record.box.items()
    )
    shapes = weight_shapes(net.schema, net.config)
    count = sum(math.prod(shape) for shape in shapes.values())
    provenance = record.provenance
    hardware = accuracy.get("hardware", {})
    (PRETRAINED / "noisy_q.md").write_text(
        f"""# `noisy_q`

A likelihood, and model evidence, for Q-learning with learning noise over three pairs of symbols
(`ppl_buffer.simulators.NoisyQ`): binary choices, binary rewards as feedback, ordered trials.

{count:,} weights; width {net.config.width}, depth {net.config.depth}, {net.config.heads} heads. Trained by
`examples/train_noisy_q.py` on {provenance.get('data_sets', 0):,} simulated sequences of up to {record.trials} trials
(step {provenance.get('step')} of {provenance.get('steps')}, seed {provenance.get('seed')}).

{HISTORY}

## Trained range

| parameter | prior | range |
|---|---|---|
{box}

Rewards were drawn with probabilities 0.8, 0.7 and 0.6 for the better symbol of each pair. Outside of all this the
network's numbers are extrapolations.

## What was measured

By `benchmarks/noisy_q_accuracy.py`, `noisy_q_posterior.py` and `gradient.py`; in nats unless said otherwise. The
references are the exact recursion (zeta = 0), a particle filter (zeta > 0) and importance sampling (evidence). "Trials"
are in one sequence; KL is KL(reference || network).

| figure | measured | bar | met |
|---|---|---|---|
{table}

Measured on {hardware.get('cores', '?')} cores of {hardware.get('cpu', 'an unknown processor')},
{accuracy.get('date', '')[:10]}. Licence: Apache-2.0, as the package.
"""
    )
    harness.print_table("noisy_q", ("figure", "measured", "bar", "met"), [list(row) for row in rows])


if __name__ == "__main__":
    main()
