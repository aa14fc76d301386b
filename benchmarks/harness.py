"""What the benchmark scripts share: tables, result files that say where and when they were measured, and timing.

The benchmarks of speed share more: networks of random weights, data, bars, the rate of the machine's matrix product,
and scripts that run in a process of their own. Scripts say which backends they measure; this file imports a backend
only when it is asked for.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ppl_buffer.network.config import Config, weight_shapes
from ppl_buffer.predictive import sampling
from ppl_buffer.schema import Real, Schema
from ppl_buffer.version import __version__

RESULTS = Path(__file__).parent / "results"
BACKENDS = ("jax", "torch")
# A random function seen at points, as in the paper's synthetic experiments.
FUNCTION = Schema(inputs={"x": Real()}, outcomes={"y": Real()})
# The paper's network, that of the zoo, and one for trying the scripts out.
SIZES = {"paper": (128, 6), "zoo": (64, 4), "tiny": (12, 2)}
_DISTRIBUTIONS = ("numpy", "torch", "jax", "jaxlib", "numpyro", "pyro-ppl", "pymc", "arviz")


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


def likelihoods(net: Any) -> list[str]:
    """What ``likelihood=`` can ask this network for: its direct likelihood, its buffered transformer, or either."""
    return [way for part, way in (("likelihood", "direct"), ("buffer", "buffer")) if part in net.parts]


def training_steps(net: Any) -> dict[str, int]:
    """After how many steps the weights of each part were taken: what a measurement was made of."""
    stages = () if net.record is None else net.record.stages
    return {{"likelihood": "direct"}.get(stage.part, stage.part): stage.step for stage in stages}


def is_of_today(record: Any, measurement: Mapping[str, Any], way: str) -> bool:
    """Whether a result file is of the weights that a network has: of as many steps, and measured after these.

    Args:
        record: of the network.
        measurement: what `write_results` wrote.
        way: "direct" or "buffer".
    """
    part = {"direct": "likelihood"}.get(way, way)
    stages = [stage for stage in record.stages if stage.part == part]
    results = measurement["results"]
    # Results from before there were two parts are of the transformer.
    steps = results.get("training_steps", {"buffer": results.get("training_step")}).get(way)
    return bool(stages) and steps == stages[-1].step and measurement["date"] >= stages[-1].date


def versions() -> dict[str, str]:
    """Versions of Python, of this package and of the libraries below it that are installed."""
    result = {"python": platform.python_version(), "ppl_buffer": __version__}
    for name in _DISTRIBUTIONS:
        try:
            result[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return result


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
    if "jax" in sys.modules:
        described["jax_device"] = str(sys.modules["jax"].devices()[0])
    return described


def write_results(name: str, results: Mapping[str, Any], directory: Path = RESULTS) -> Path:
    """Write figures, with versions, hardware and date, as JSON.

    Args:
        name: of the file, without its suffix; those measured on a GPU are in a file beside it, NAME_gpu.
        results: JSON-ready figures.
        directory: where to; made if it is not there.

    Returns:
        the file's path.
    """
    directory.mkdir(parents=True, exist_ok=True)
    machine = hardware()
    on_gpu = "gpu" in machine or "cuda" in machine.get("jax_device", "").lower()
    path = directory / f"{name}{'_gpu' if on_gpu else ''}.json"
    date = datetime.now(UTC).isoformat(timespec="seconds")
    content = {"benchmark": name, "date": date, "versions": versions(), "hardware": machine, "results": results}
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
    print(f"\nwritten: {path}")
    return path


def interleaved(
    functions: Mapping[str, Callable[[], Any]],
    repeats: int = 20,
    warmup: int = 2,
    seconds: float = math.inf,
    in_a_row: int = 1,
) -> dict[str, dict[str, float]]:
    """Time functions in turn, so that a machine that slows down slows all of them.

    Args:
        functions: name -> function without arguments, which returns only when its work is done.
        repeats: timed calls of each.
        warmup: untimed calls of each before that (compilation).
        seconds: after this time, and at least three timed turns of each, no further turn begins.
        in_a_row: calls of each in its turn, after one that is not timed where there are more: what ran before has
            emptied the processor's caches, which a sampler, who calls one function for hours, does not pay for.

    Returns:
        name -> ``median``, ``lowest`` and ``highest`` of a call, and the median of its ``processor`` time, in seconds.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    processor: dict[str, list[float]] = {name: [] for name in functions}
    begun = time.perf_counter()
    for turn in range(warmup + repeats):
        if turn == warmup:
            begun = time.perf_counter()
        if turn >= warmup + 3 and time.perf_counter() - begun > seconds:
            break
        for name, function in functions.items():
            if in_a_row > 1:
                function()
            start, busy = time.perf_counter(), time.process_time()
            for _ in range(in_a_row):
                function()
            if turn >= warmup:
                times[name].append((time.perf_counter() - start) / in_a_row)
                processor[name].append((time.process_time() - busy) / in_a_row)
    return {
        name: {
            "median": statistics.median(taken),
            "lowest": min(taken),
            "highest": max(taken),
            "processor": statistics.median(processor[name]),
        }
        for name, taken in times.items()
    }


def parse(doc: str | None, arguments: Sequence[str] | None = None, **more: Any) -> argparse.Namespace:
    """Options that every benchmark of speed takes: ``--quick`` and ``--out``.

    Args:
        doc: the script's docstring, whose first line describes it.
        arguments: of the command line; None = those of the process.
        more: further options, name -> default.
    """
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="try everything out at tiny sizes, in seconds")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result files")
    for name, default in more.items():
        parser.add_argument(f"--{name}", type=type(default), default=default, help=f"default {default}")
    options = parser.parse_args(arguments)
    if options.quick and importlib.util.find_spec("jax") is not None:
        import jax

        # Tiny arrays: a short compilation matters more than a fast program.
        jax.config.update("jax_disable_most_optimizations", True)
    return options


def bar(what: str, value: float, *, least: float | None = None, most: float | None = None) -> dict[str, Any]:
    """A measured figure beside what it must reach, for `print_bars` and the result file's list ``bars``."""
    met = (least is None or value >= least) and (most is None or value <= most)
    words = f"at least {least:g}" if least is not None else f"at most {most:g}"
    return {"what": what, "value": float(value), "bar": words, "met": bool(met)}


def print_bars(bars: Sequence[Mapping[str, Any]], title: str = "Bars") -> None:
    """Print what each figure must reach, and whether it does."""
    print_table(title, ["what", "measured", "bar", "met"], [[x[key] for key in x] for x in bars])


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Slope of log y against log x by least squares: the power with which y grows."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def config_of(size: str) -> Config:
    """Sizes of the paper's network, of the zoo's transformer, or tiny ones; without a direct likelihood."""
    (width, depth), components = SIZES[size], 3 if size == "tiny" else 20
    return Config(width=width, depth=depth, heads=4, mlp=2 * width, components=components, likelihood_width=0)


def random_network(config: Config, backend: str, schema: Schema = FUNCTION, seed: int = 0) -> Any:
    """A network with random weights, the same numbers in both backends; time does not depend on what they are.

    Args:
        config: its sizes; see `config_of`.
        backend: "torch" (on the GPU if there is one) or "jax".
        schema: what a data set holds.
        seed: of the weights.
    """
    rng = np.random.default_rng(seed)
    weights = {}
    for name, shape in weight_shapes(schema, config).items():
        scale = 1 / math.sqrt(shape[-1]) if name.endswith("weight") and len(shape) == 2 else 0.1
        shift = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        weights[name] = (shift + scale * rng.normal(size=shape)).astype(np.float32)
    variables = {**schema.params, **schema.inputs, **schema.outcomes, **schema.feedback}
    standardization = {name: (0.0, 1.0) for name in variables}
    if backend == "jax":
        from ppl_buffer.network.jax.weights import JaxNetwork

        return JaxNetwork(schema, config, standardization, weights)
    import torch

    from ppl_buffer.network.torch.weights import TorchNetwork

    net = TorchNetwork(schema, config, standardization)
    with torch.no_grad():
        for name, value in weights.items():
            net.weights[name].copy_(torch.as_tensor(value))
    return net.eval().requires_grad_(False).to("cuda" if torch.cuda.is_available() else "cpu")


def joint_predictive(backend: str) -> Any:
    """The class `JointPredictive` of the backend's language."""
    if backend == "jax":
        from ppl_buffer.numpyro import JointPredictive
    else:
        from ppl_buffer.pyro import JointPredictive
    return JointPredictive


def to_backend(net: Any, tree: Any) -> Any:
    """NumPy arrays, or nested dicts of them, as the backend's arrays, where the network is."""
    if isinstance(tree, dict):
        return {name: to_backend(net, x) for name, x in tree.items()}
    if net.backend == "jax":
        import jax.numpy as jnp

        return jnp.asarray(tree)
    import torch

    return torch.as_tensor(tree, device=net.device)


def settled(backend: str, function: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
    """The function applied to the arguments, returning only when the device has done its work."""
    if backend == "jax":
        import jax

        return lambda: jax.block_until_ready(function(*arguments))
    import torch

    def call() -> Any:
        with torch.no_grad():
            result = function(*arguments)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return result

    return call


def draws_of(net: Any) -> Callable[..., Any]:
    """The package's rollout, compiled in JAX: function (context (n, 2), x (K,), noise (S, K, 3)) -> (S, K) twice.

    A context of columns x and y is encoded anew; what ``net.encode`` returned is not.
    """
    distribution = joint_predictive(net.backend)

    def rollout(context: Any, x: Any, noise: Any) -> tuple[Any, Any]:
        named = {"x": context[:, 0], "y": context[:, 1]} if hasattr(context, "shape") else context
        query = distribution(net, {"x": x}, context=named, validate_args=False).query
        value, _, log_probs = sampling.rollout(query, noise)
        return value, log_probs

    if net.backend == "torch":
        return rollout
    import jax

    return jax.jit(rollout)


def density_of(net: Any) -> Callable[..., Any]:
    """The package's joint density, compiled in JAX: function (context (n, 2) or None, x, y (*B, K)) -> (*B,)."""
    distribution = joint_predictive(net.backend)

    def log_prob(context: Any, x: Any, y: Any) -> Any:
        named = None if context is None else {"x": context[:, 0], "y": context[:, 1]}
        return distribution(net, {"x": x}, context=named, validate_args=False).log_prob(y)

    if net.backend == "torch":
        return log_prob
    import jax

    return jax.jit(log_prob)


def normals(*shape: int) -> np.ndarray:
    """Standard normal numbers as float32: time does not depend on what they are."""
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def uniforms(*shape: int) -> np.ndarray:
    """Uniform numbers in (0, 1) as float32."""
    return np.random.default_rng(1).uniform(0.001, 0.999, shape).astype(np.float32)


def matrix_product(backend: str, size: int = 2048) -> Callable[[], Any]:
    """The product of two float32 matrices (size, size), 2 size^3 FLOPs: what the machine can do."""
    a, b = np.random.default_rng(0).normal(size=(2, size, size)).astype(np.float32)
    if backend == "jax":
        import jax
        import jax.numpy as jnp

        return settled(backend, jax.jit(jnp.matmul), jnp.asarray(a), jnp.asarray(b))
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    return settled(backend, torch.matmul, torch.as_tensor(a, device=device), torch.as_tensor(b, device=device))


def in_own_process(script: str, *arguments: Any) -> Any:
    """Run a script of this folder in a fresh Python process; returns what its last line of output says as JSON."""
    command = [sys.executable, str(Path(__file__).parent / script), *map(str, arguments)]
    # glibc raises this threshold as it goes, and then keeps what was freed: peaks of one call would differ by a half.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**17)}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])
