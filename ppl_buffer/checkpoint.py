"""Trained networks as files: safetensors with the schema, the sizes and the training record beside the arrays.

The same file serves both backends. Importing this module needs neither torch nor JAX.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_safetensors

from ppl_buffer.config import Config, weight_shapes
from ppl_buffer.prior import Prior
from ppl_buffer.schema import Schema

# Version of the file format: another one is refused, never guessed at.
FORMAT = 1
_KEY = "ppl_buffer"
BACKENDS = ("torch", "jax")


@dataclass(frozen=True)
class TrainingRecord:
    """What a network was trained on: where its numbers can be trusted.

    Args:
        box: parameter -> (low, high), the range that training covered, in the parameter's units.
        priors: parameter -> the prior it was drawn from, or None where the simulator only offers draws.
        trials: longest sequence (ordered) or buffer (exchangeable) trained on.
        context: largest context trained on; 0 for an ordered model.
        simulator: the simulator's name.
        provenance: JSON-ready facts about the run: steps, seed, versions, date, held-out loss, dropped data sets.
    """

    box: Mapping[str, tuple[float, float]]
    priors: Mapping[str, Prior | None]
    trials: int
    context: int
    simulator: str
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready description."""
        return {
            "box": {name: list(bounds) for name, bounds in self.box.items()},
            "priors": {name: None if prior is None else prior.to_dict() for name, prior in self.priors.items()},
            "trials": self.trials,
            "context": self.context,
            "simulator": self.simulator,
            "provenance": dict(self.provenance),
        }

    @classmethod
    def from_dict(cls, description: Mapping[str, Any]) -> TrainingRecord:
        """Read what `to_dict` wrote."""
        return cls(
            box={name: (float(low), float(high)) for name, (low, high) in description["box"].items()},
            priors={
                name: None if prior is None else Prior.from_dict(prior) for name, prior in description["priors"].items()
            },
            trials=int(description["trials"]),
            context=int(description["context"]),
            simulator=str(description["simulator"]),
            provenance=dict(description["provenance"]),
        )


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that a kill at any moment leaves the old one or the new one, whole."""
    # In the same folder, since a rename is atomic only inside one file system.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def to_numpy(array: Any) -> np.ndarray:
    """A torch, JAX or NumPy array as a NumPy array in the computer's memory."""
    return np.asarray(array.detach().cpu() if hasattr(array, "detach") else array, order="C")


def digest(net: Any) -> str:
    """Tells networks of either backend apart by their weights."""
    found = hashlib.sha256()
    for name in sorted(net.weights):
        found.update(to_numpy(net.weights[name]).tobytes())
    return found.hexdigest()


def save(net: Any, path: str | os.PathLike[str]) -> None:
    """Write a network of either backend to a file that both can load. A kill leaves the old file or the new one.

    Args:
        net: a network from `train` or `load`.
        path: the file to write; by convention it ends in ``.safetensors``.

    Raises:
        ValueError: if the folder does not exist, or a weight is not finite.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise ValueError(f"path: expected a file in an existing folder, got {str(path)!r}")
    arrays = {name: to_numpy(weight).astype(np.float32) for name, weight in net.weights.items()}
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise ValueError(f"net: expected finite weights, got non-finite numbers in {name!r}")
    record = getattr(net, "record", None)
    description = {
        "format": FORMAT,
        "schema": net.schema.to_dict(),
        "config": net.config.to_dict(),
        "standardization": {name: [float(x) for x in pair] for name, pair in net.standardization.items()},
        "record": None if record is None else record.to_dict(),
    }
    write_atomic(path, to_safetensors(arrays, metadata={_KEY: json.dumps(description, allow_nan=False)}))


def read_arrays(path: Path, key: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The JSON under `key` of a safetensors file's metadata, and the file's arrays.

    Raises:
        ValueError: if the file is missing, damaged or another program's.
    """
    if not path.is_file():
        raise ValueError(f"path: expected a file, but there is none at {str(path)!r}")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()} if key in metadata else {}  # noqa: SIM118
    except (SafetensorError, OSError, TypeError, AttributeError) as error:
        raise ValueError(f"path: expected a whole safetensors file, but {str(path)!r} is damaged ({error})") from error
    if key not in metadata:
        raise ValueError(f"path: expected a file that ppl_buffer wrote, but {str(path)!r} has no {key!r} metadata")
    try:
        description = json.loads(metadata[key])
        version = description["format"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"path: the {key!r} metadata of {str(path)!r} is damaged ({error!r})") from error
    if version != FORMAT:
        raise ValueError(
            f"path: expected format {FORMAT}, got {version!r} in {str(path)!r}: another version of ppl_buffer wrote it"
        )
    return description, arrays


def _check_arrays(path: Path, expected: Mapping[str, tuple[int, ...]], arrays: Mapping[str, np.ndarray]) -> None:
    missing, extra = sorted(expected.keys() - arrays.keys()), sorted(arrays.keys() - expected.keys())
    if missing or extra:
        raise ValueError(f"path: the arrays of {str(path)!r} do not fit its schema: missing {missing}, extra {extra}")
    for name, shape in expected.items():
        array = arrays[name]
        if array.shape != shape or array.dtype != np.float32:
            raise ValueError(
                f"path: expected {name!r} of {str(path)!r} to be float32 {shape}, got {array.dtype} {array.shape}"
            )
        if not np.isfinite(array).all():
            raise ValueError(f"path: expected finite weights, but {name!r} of {str(path)!r} has non-finite numbers")


def _check_standardization(schema: Schema, standardization: Mapping[str, tuple[float, float]]) -> None:
    names = schema.standardized
    if set(standardization) != names:
        raise ValueError(f"standardization of {sorted(names)} expected, got {sorted(standardization)}")
    for name, (mean, deviation) in standardization.items():
        if not (math.isfinite(mean) and math.isfinite(deviation) and deviation > 0):
            raise ValueError(f"standardization of {name!r} is {(mean, deviation)}")


def load(name_or_path: str | os.PathLike[str], backend: str | None = None) -> Any:
    """Load a trained network, frozen.

    Args:
        name_or_path: a name of the `zoo`, or the path of a file that `save` wrote.
        backend: ``"jax"`` (for NumPyro) or ``"torch"`` (for Pyro). By default JAX where it is installed, else torch.

    Returns:
        `ppl_buffer.jax.network.Network` or `ppl_buffer.torch.network.Network`. The torch network is in eval mode
        and its weights take no gradient.

    Raises:
        ValueError: if the name or the backend is unknown, or the file is missing, damaged, of another format, or
            holds arrays that do not fit its schema.
    """
    if backend is None:
        backend = "jax" if importlib.util.find_spec("jax") is not None else "torch"
    if backend not in BACKENDS:
        raise ValueError(f"backend: expected one of {list(BACKENDS)}, got {backend!r}")
    known = _shipped()
    if isinstance(name_or_path, str) and name_or_path in known:
        with resources.as_file(known[name_or_path]) as path:
            return _load(path, backend)
    path = Path(name_or_path)
    if isinstance(name_or_path, str) and not path.exists() and path.name == name_or_path and not path.suffix:
        raise ValueError(f"name_or_path: expected one of {sorted(known)} or a path to a file, got {name_or_path!r}")
    return _load(path, backend)


def _load(path: Path, backend: str) -> Any:
    description, arrays = read_arrays(path, _KEY)
    try:
        schema = Schema.from_dict(description["schema"])
        config = Config.from_dict(description["config"])
        standardization = {
            name: (float(mean), float(deviation)) for name, (mean, deviation) in description["standardization"].items()
        }
        record = None if description["record"] is None else TrainingRecord.from_dict(description["record"])
        _check_standardization(schema, standardization)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"path: the {_KEY!r} metadata of {str(path)!r} is damaged ({error})") from error
    _check_arrays(path, weight_shapes(schema, config), arrays)
    if backend == "jax":
        from ppl_buffer.jax.network import Network as JaxNetwork

        return JaxNetwork(schema, config, standardization, arrays, record)
    import torch

    from ppl_buffer.torch.network import Network

    net = Network(schema, config, standardization)
    with torch.no_grad():
        for name, array in arrays.items():
            net.weights[name].copy_(torch.from_numpy(array))
    net.record = record
    return net.eval().requires_grad_(False)


@dataclass(frozen=True)
class ZooEntry:
    """One shipped network.

    Attributes:
        name: what `load` takes.
        simulator: what it was trained on.
        weights: how many numbers it has.
        bytes: size of the file.
        measured: figures of its card, as its benchmarks wrote them; empty if there are none.
    """

    name: str
    simulator: str
    weights: int
    bytes: int
    measured: Mapping[str, Any]


class Zoo(Sequence[ZooEntry]):
    """The shipped networks: a sequence of `ZooEntry` that prints as a table."""

    def __init__(self, entries: Sequence[ZooEntry]) -> None:
        self._entries = tuple(entries)

    def __getitem__(self, index: Any) -> Any:
        """The entry at an index."""
        return self._entries[index]

    def __len__(self) -> int:
        """Number of entries."""
        return len(self._entries)

    def __iter__(self) -> Iterator[ZooEntry]:
        """Go through the entries."""
        return iter(self._entries)

    def __repr__(self) -> str:
        rows = [("name", "simulator", "weights", "size", "measured")]
        for entry in self:
            figures = ", ".join(f"{name} {_figure(value)}" for name, value in entry.measured.items())
            rows.append((entry.name, entry.simulator, f"{entry.weights:,}", f"{entry.bytes / 1e6:.2f} MB", figures))
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        lines = ["  ".join([*(cell.ljust(n) for cell, n in zip(row, widths, strict=False)), row[4]]) for row in rows]
        return "\n".join(line.rstrip() for line in lines)


def _figure(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _shipped() -> dict[str, Any]:
    """Zoo name -> its file."""
    folder = resources.files("ppl_buffer") / "pretrained"
    if not folder.is_dir():
        return {}
    suffix = ".safetensors"
    return {file.name.removesuffix(suffix): file for file in folder.iterdir() if file.name.endswith(suffix)}


def zoo() -> Zoo:
    """The shipped networks: name, simulator, number of weights, size of the file and what was measured."""
    entries = []
    for name, file in sorted(_shipped().items()):
        with resources.as_file(file) as path:
            description, arrays = read_arrays(path, _KEY)
            size = path.stat().st_size
        figures = resources.files("ppl_buffer") / "pretrained" / f"{name}.json"
        measured = json.loads(figures.read_text(encoding="utf-8")) if figures.is_file() else {}
        simulator = (description.get("record") or {}).get("simulator", "")
        entries.append(ZooEntry(name, simulator, sum(array.size for array in arrays.values()), size, measured))
    return Zoo(entries)
