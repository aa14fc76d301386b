"""What both sides of `hssm_end_to_end.py` read and write: needs NumPy alone, so that it runs in either environment."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

# Ranges of HSSM's likelihood network for this model, the boundary as `ppl_buffer` counts it: twice HSSM's a.
RANGES = {
    "drift": (-3.0, 3.0),
    "boundary": (0.6, 5.0),
    "starting_point": (0.1, 0.9),
    "non_decision_time": (0.0, 2.0),
}
# Of several people, on the scale of the ranges' generalised logit: normal means, log-normal spreads.
MEAN_SCALE, SPREAD_MEDIAN, SPREAD_SCALE = 1.5, 0.5, 0.7
# Where chains begin on that scale: as HSSM has it, with a non-decision time below all responses.
FIRST_MEAN = {"drift": 0.0, "boundary": 0.0, "starting_point": 0.0, "non_decision_time": -4.0}


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Of a side: the data, where draws go, how the likelihood is computed, and the sampler's numbers."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path, help="choice (S, K) in {0, 1} and rt (S, K) in seconds, .npz")
    parser.add_argument("draws", type=Path, help="where draws go, name -> (chains, draws), .npz")
    parser.add_argument("--likelihood", default="")
    parser.add_argument("--sampler", default="")
    for name in ("chains", "warmup", "draws-each"):
        parser.add_argument(f"--{name}", type=int, required=True)
    return parser.parse_args(arguments)


def report(
    path: Path, draws: Mapping[str, Any], seconds: Mapping[str, float], fields: Mapping[str, Any], names: Sequence[str]
) -> None:
    """Write draws, and print figures as one line of JSON, the last that a side prints.

    Args:
        path: of the draws.
        draws: name -> (chains, draws).
        seconds: of the parts of the work, by name.
        fields: ``gradients`` and ``diverging`` of each draw.
        names: distributions whose versions are stated.
    """
    np.savez(path, **{name: np.asarray(x, float) for name, x in draws.items()})
    figures = {
        **seconds,
        "gradients_per_draw": float(np.mean(fields["gradients"])),
        "divergences": float(np.mean(fields["diverging"])),
        "versions": {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in names}},
    }
    print(json.dumps(figures))
