"""Whether a simulator draws what it drew before: a small simulation from fixed seeds, kept as a few numbers.

Results in a folder go on being used while nothing tells that their simulator was corrected since: its name and its
schema are the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np

from ppl_buffer.files import write_atomic
from ppl_buffer.findings import Finding, warn_of

# Variable -> a number for each data set.
Sketch: TypeAlias = Mapping[str, list[float]]
FILE = "sketch.json"
# A number is another one if it differs by more than this share of itself, or of a typical one: far more than machines
# differ in rounding. One data set in 200 may: a choice hangs on a rounding error now and then.
_DIFFERENT, _FEW = 1e-4, 0.005


def sketch(trees: Iterable[Mapping[str, object]]) -> Sketch:
    """The sketch of simulated data.

    Args:
        trees: arrays in nested dicts, the data set first, whatever their later axes.

    Returns:
        path of each array -> one number for each data set: a sum of all its values, each with a weight of its own, so
        that values which change places change it.
    """
    out: dict[str, list[float]] = {}
    for tree in trees:
        for path, array in _leaves(tree):
            rows = np.nan_to_num(array.reshape(len(array), -1).astype(float), posinf=100.0, neginf=-100.0)
            weights = np.cos(np.sqrt(2.0) * np.arange(1, rows.shape[1] + 1))
            numbers = rows @ weights / np.sqrt(max(rows.shape[1], 1))
            out.setdefault(path, []).extend(float(f"{x:.9g}") for x in numbers)
    return out


def _leaves(tree: Mapping[str, object], path: str = "") -> Iterator[tuple[str, np.ndarray]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{path}{name}/")
        else:
            yield f"{path}{name}", np.asarray(value)


def differences(before: Sketch, now: Sketch) -> dict[str, float]:
    """Share of the data sets that differ, for each variable with more than a few of them."""
    shares: dict[str, float] = {}
    for path in {**before, **now}:
        old, new = (np.asarray(which.get(path, []), dtype=float) for which in (before, now))
        name = path.rpartition("/")[2]
        if old.shape != new.shape:
            shares[name] = 1.0
            continue
        if not old.size:
            continue
        size = np.median(np.abs(old)) or np.sqrt(np.mean(old**2))
        different = np.abs(old - new) > _DIFFERENT * np.maximum(np.abs(old), size)
        if different.sum() > _FEW * different.size:
            shares[name] = max(shares.get(name, 0.0), float(different.mean()))
    return shares


def check_same_simulator(folder: Path, draw: Callable[[], Sketch], *, begins: bool, advice: str) -> None:
    """Keep a simulator's sketch in a folder of results, or compare it with the one that is there.

    Args:
        folder: where the results are.
        draw: makes the sketch, from fixed seeds.
        begins: the results begin now: whatever sketch is there is of others.
        advice: what to do about another simulator, for the message.

    Raises:
        ValueError: if the simulator draws other data than when the results began.
    """
    path, now = folder / FILE, draw()
    if begins or not path.exists():
        write_atomic(path, json.dumps(now).encode())
        return
    try:
        before = {str(name): list(map(float, numbers)) for name, numbers in json.loads(path.read_text()).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"out: {str(path)!r} is damaged ({error}); {advice}") from error
    changed = differences(before, now)
    if not changed:
        return
    if differences(now, draw()):
        text = (
            "simulator: it draws other data at every call, though rng is the same: all its randomness has to come from "
            f"rng, else no run can be repeated, and nobody can tell whether it was changed since {str(folder)!r} began"
        )
        warn_of(Finding("simulator", text), stacklevel=3)
        return
    where = ", ".join(f"{name!r} in {share:.0%}" for name, share in changed.items())
    raise ValueError(
        f"out: the simulator draws other data than when the results in {str(folder)!r} began: of a few data sets from "
        f"the same seeds, {where} differ. It was changed since, or NumPy's random numbers were; {advice}"
    )
