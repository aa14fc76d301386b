"""What the benchmark scripts share: tables, result files that say where and when they were measured, and timing."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ppl_buffer

RESULTS = Path(__file__).parent / "results"
_DISTRIBUTIONS = ("numpy", "torch", "jax", "jaxlib", "numpyro", "pyro-ppl", "arviz")


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print an aligned plain-text table: words to the left, numbers (four significant digits) to the right."""

    def text(value: Any) -> str:
        if value is None:
            return "-"
        if isinstance(value, bool):
            return "yes" if value else "NO"
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    cells = [[text(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    numeric = [all(row[i] is None or isinstance(row[i], (int, float)) for row in rows) for i in range(len(columns))]

    def line(row: Sequence[str]) -> str:
        pieces = (x.rjust(w) if right else x.ljust(w) for x, w, right in zip(row, widths, numeric, strict=True))
        return "  ".join(pieces).rstrip()

    print(f"\n{title}", line(columns), line(["-" * width for width in widths]), *map(line, cells), sep="\n", flush=True)


def versions() -> dict[str, str]:
    """Versions of Python, of this package and of the libraries below it that are installed."""
    found = {"python": platform.python_version(), "ppl_buffer": ppl_buffer.__version__}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Any]:
    """The machine: processor, cores that this process may use, threads, and the GPU if torch drives one."""
    cpu = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        cpu = models[0].split(":", 1)[1].strip() if models else cpu
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    described: dict[str, Any] = {"cpu": cpu, "cores": cores, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS")}
    # Asked only where the script itself has imported torch: a benchmark of JAX does not need it installed.
    torch = sys.modules.get("torch")
    if torch is not None:
        described["torch_threads"] = torch.get_num_threads()
        if torch.cuda.is_available():
            described["gpu"] = torch.cuda.get_device_name()
    return described


def write_results(name: str, results: Mapping[str, Any], directory: Path = RESULTS) -> Path:
    """Write figures, with versions, hardware and date, as JSON.

    Args:
        name: of the file, without its suffix.
        results: JSON-ready figures.
        directory: where to; made if it is not there.

    Returns:
        the file's path.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name}.json"
    date = datetime.now(UTC).isoformat(timespec="seconds")
    content = {"benchmark": name, "date": date, "versions": versions(), "hardware": hardware(), "results": results}
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
    print(f"\nwritten: {path}")
    return path


def interleaved(
    functions: Mapping[str, Callable[[], Any]], repeats: int = 20, warmup: int = 2
) -> dict[str, dict[str, float]]:
    """Time functions in turn, so that a machine that slows down slows all of them.

    Args:
        functions: name -> function without arguments, which returns only when its work is done.
        repeats: timed calls of each.
        warmup: untimed calls of each before that (compilation).

    Returns:
        name -> ``median``, ``lowest`` and ``highest``, in seconds.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(warmup + repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if turn >= warmup:
                times[name].append(time.perf_counter() - start)
    return {
        name: {"median": statistics.median(taken), "lowest": min(taken), "highest": max(taken)}
        for name, taken in times.items()
    }
