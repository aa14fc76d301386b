"""Write into a shipped network's record how far each of its likelihoods is from the model's, as it was measured.

``likelihood="auto"`` takes the part with the lesser error. `ppl_buffer.train` estimates that of a part from its own
training; what `likelihood_accuracy.py`, `noisy_q_accuracy.py` and `function_accuracy.py` measured with a reference is
nearer to the truth, and is known of weights that were trained before errors were recorded. Only what was measured of
the very weights is written. The arrays stay as they are, byte for byte.

    python benchmarks/record_errors.py [NAME ...]
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import harness
import numpy as np

import ppl_buffer as pb
from ppl_buffer.network import checkpoint
from ppl_buffer.network.estimated_error import EstimatedError

PRETRAINED = Path(pb.__file__).parent / "pretrained"
PART = {"direct": "likelihood", "buffer": "buffer"}
# Standard errors on either side that hold the truth with a probability of 0.8.
_WIDTH = 1.2816


def measured(name: str) -> tuple[dict[str, Any], dict[str, list[tuple[float, float]]]]:
    """The result file, and by way of the network the KL of each group of data sets with its standard error."""
    measurement = json.loads((harness.RESULTS / f"{name}_accuracy.json").read_text())
    results = measurement["results"]
    if name in ("gp", "sawtooth"):
        given = [row for about, row in results["figures"].items() if about.startswith("all parameters")]
        pairs = [(row["kl_per_target"], row["kl_per_target_standard_error"]) for row in given]
        return measurement, {"buffer": pairs}
    noisy = name == "noisy_q"
    rows = results["figures"] if noisy else results["likelihood"]
    error = "kl_per_trial_standard_error" if noisy else "standard_error"
    groups: dict[str, list[tuple[float, float]]] = {}
    for about, ways in rows.items():
        for way in PART if not about.startswith("evidence") else ():
            if way in ways:
                groups.setdefault(way, []).append((ways[way]["kl_per_trial"], ways[way][error]))
    return measurement, groups


def errors(name: str, record: Any) -> dict[str, EstimatedError]:
    """The measured error of each part whose weights are those that were measured: a mean over the groups."""
    measurement, groups = measured(name)
    method = "probabilities" if name == "noisy_q" else "likelihood"
    known_errors = {}
    for way, pairs in groups.items():
        if not harness.is_of_today(record, measurement, way):
            continue
        kl, error = np.array(pairs).T
        mean, half = float(kl.mean()), _WIDTH * float(np.sqrt((error**2).sum())) / len(pairs)
        nats = max(mean, 0.0)
        known_errors[PART[way]] = EstimatedError(nats, max(nats - half, 0.0), nats + half, method, PART[way])
    return known_errors


def main() -> None:
    """Write the records."""
    names = sorted(path.name.removesuffix("_accuracy.json") for path in harness.RESULTS.glob("*_accuracy.json"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=names, help=f"among {', '.join(names)}; all by default")
    for name in parser.parse_args().names:
        net = pb.load(name, backend="torch")
        known_errors = errors(name, net.record)
        record = replace(net.record, errors={**net.record.errors, **known_errors})
        checkpoint.write(net, record, PRETRAINED / f"{name}.safetensors")
        print(name, *(f"{part}: {error}" for part, error in known_errors.items()), sep="; ")


if __name__ == "__main__":
    main()
