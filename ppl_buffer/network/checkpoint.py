"""Trained networks as files: safetensors with the schema, the sizes and the training record beside the arrays.

The same file serves both backends. Importing this module needs neither torch nor JAX. Format 2 differs from 1 in the
words of the description, and in the record's stages; files of format 1 are still read (`ppl_buffer.network.format_1`).
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from dataclasses import fields
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

import numpy as np

from ppl_buffer.checks import check_choice, check_number, check_path
from ppl_buffer.extras import MissingLibraryError, needs
from ppl_buffer.files import Description, check_writable, pack_arrays, read_arrays, to_numpy, write_atomic
from ppl_buffer.network import format_1
from ppl_buffer.network.config import Config, weight_shapes
from ppl_buffer.network.estimated_error import EstimatedError
from ppl_buffer.network.hub import SCHEME, HubLike, fetch
from ppl_buffer.network.network import Network
from ppl_buffer.network.ranges import ValueRange
from ppl_buffer.network.record import StageRecord, TrainingRecord
from ppl_buffer.network.record_checks import check_record
from ppl_buffer.prior import Prior
from ppl_buffer.schema import GROUPS, Schema

KEY, FORMAT = "ppl_buffer", 2

BACKENDS = ("torch", "jax")


def save(net: Network, path: str | os.PathLike[str]) -> None:
    """Write a network of either backend to a file that both can load. A kill leaves the old file or the new one.

    Args:
        net: a network from `train` or `load`.
        path: the file to write; by convention it ends in ``.safetensors``.

    Raises:
        ValueError: if `net` is no network, the folder does not exist, something is at `path` that is no regular file, a
            weight is not finite, or the record does not fit the schema.
    """
    if not isinstance(net, Network):
        raise ValueError(f"net: expected a network from ppl_buffer.load or ppl_buffer.train, got {type(net).__name__}")
    write(net, net.record, check_path("path", path))


def write(net: Network, record: TrainingRecord | None, path: Path) -> None:
    """`save`, with another record than the network's own."""
    check_writable(path)
    arrays = {name: to_numpy(weight).astype(np.float32) for name, weight in net.weights.items()}
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise ValueError(f"net: expected finite weights, got non-finite numbers in {name!r}")
    try:
        if record is not None:
            check_record(net.schema, record)
    except ValueError as error:
        raise ValueError(f"net: expected a record that fits the schema: {error}") from error
    description = {
        "format": FORMAT,
        "schema": net.schema.to_dict(),
        "config": net.config.to_dict(),
        "standardization": {name: [float(x) for x in pair] for name, pair in net.standardization.items()},
        "record": None if record is None else record.to_dict(),
    }
    write_atomic(path, pack_arrays(KEY, description, arrays))


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
    for name, (mean, std) in standardization.items():
        if not std > 0:
            raise ValueError(f"standardization of {name!r} is {(mean, std)}")


def _number(name: str, value: object) -> float:
    return check_number(f"standardization of {name!r}", value, "finite numbers", lambda x: True)


def _unknown_fields(description: Description) -> list[str]:
    """What this version does not know in a description, by dotted names."""
    schema, record = description["schema"], description["record"]
    parts: list[tuple[str, Description, set[str]]] = [
        ("", description, {"format", "schema", "config", "standardization", "record"}),
        ("schema.", schema, {*GROUPS, "ordered", "independent", "lapse_rate"}),
        ("config.", description["config"], _names(Config)),
    ]
    if record is not None:
        parts.append(("record.", record, _names(TrainingRecord)))
        parts += [
            (f"record.priors.{name}.", prior, _names(Prior))
            for name, prior in record["priors"].items()
            if prior is not None
        ]
        parts += [("record.stages.", stage, _names(StageRecord)) for stage in record["stages"]]
        parts += [
            (f"record.{group}.{name}.", values, _names(ValueRange))
            for group in ("ranges", "likelihood_ranges")
            for name, values in record.get(group, {}).items()
        ]
        errors = record.get("errors", {})
        parts += [(f"record.errors.{part}.", error, _names(EstimatedError)) for part, error in errors.items()]
    return [f"{prefix}{name}" for prefix, part, known in parts for name in part if name not in known]


def _names(description: type) -> set[str]:
    return {field.name for field in fields(description)}


def load(name_or_path: str | os.PathLike[str], backend: str | None = None, *, hub: HubLike | None = None) -> Network:
    """Load a trained network, frozen.

    Args:
        name_or_path: a name of the `zoo`; the path of a file that `save` wrote; or where `publish` put a network on the
            Hugging Face hub, ``"hf://owner/name"``. There ``"hf://owner/name@revision"`` is the network as a branch, a
            tag or, for good, a commit has it, and ``"hf://owner/name/file.safetensors"`` one of several. It is fetched
            once, into the hub's cache.
        backend: ``"jax"`` (for NumPyro, PyMC) or ``"torch"`` (for Pyro). By default JAX where it is installed, else
            torch.
        hub: a client of another server or another user, a ``huggingface_hub.HfApi``; by default that of this machine.

    Returns:
        a `JaxNetwork` or a `TorchNetwork` (`ppl_buffer.network.jax.weights`, `.torch.weights`). The torch network
        is in eval mode and its weights take no gradient.

    Raises:
        ValueError: if the name or the backend is unknown, or the file is missing, damaged, of another format, or
            holds arrays that do not fit its schema.
        FileNotFoundError: if there is no such network on the hub, or it cannot be fetched.
        ImportError: if the backend is not installed, or huggingface_hub for an address of the hub.
    """
    if backend is None:
        backend = _installed_backend()
    check_choice("backend", backend, BACKENDS)
    if isinstance(name_or_path, str) and name_or_path.startswith(SCHEME):
        return _load(fetch(name_or_path, hub), backend)
    checked = check_path("name_or_path", name_or_path)
    files = shipped()
    if isinstance(name_or_path, str) and name_or_path in files:
        with resources.as_file(files[name_or_path]) as path:
            return _load(path, backend)
    path = checked
    if isinstance(name_or_path, str) and not path.exists() and path.name == name_or_path and not path.suffix:
        raise ValueError(f"name_or_path: expected one of {sorted(files)} or a path to a file, got {name_or_path!r}")
    return _load(path, backend)


def read_description(path: Path) -> tuple[Description, dict[str, np.ndarray]]:
    """The description of a checkpoint as format 2 has it, and its arrays.

    Raises:
        ValueError: if the file is missing, damaged or of another format.
    """
    description, arrays = read_arrays(path, KEY, 1, FORMAT)
    if description["format"] == 1:
        try:
            description = format_1.translate(description)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"path: the {KEY!r} metadata of {str(path)!r} is damaged ({error})") from error
    return description, arrays


def _installed_backend() -> str:
    """The backend of `load` where none is named."""
    for backend, library in (("jax", "jax"), ("torch", "torch")):
        if importlib.util.find_spec(library) is not None:
            return backend
    raise MissingLibraryError("load needs jax or torch: pip install 'ppl-buffer[numpyro]' or 'ppl-buffer[pyro]'")


def _load(path: Path, backend: str) -> Network:
    description, arrays = read_description(path)
    try:
        unknown = _unknown_fields(description)
        if unknown:
            raise ValueError(f"or a newer version of ppl_buffer wrote it, since {', '.join(unknown)} is not known")
        schema = Schema.from_dict(description["schema"])
        config = Config.from_dict(description["config"])
        standardization = {
            name: (_number(name, mean), _number(name, std))
            for name, (mean, std) in description["standardization"].items()
        }
        record = None if description["record"] is None else TrainingRecord.from_dict(description["record"])
        _check_standardization(schema, standardization)
        if record is not None:
            check_record(schema, record)
        if config.depth > len(arrays):
            raise ValueError(f"config.depth is {config.depth}, but there are only {len(arrays)} arrays")
        expected = weight_shapes(schema, config)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ValueError(f"path: the {KEY!r} metadata of {str(path)!r} is damaged ({error})") from error
    _check_arrays(path, expected, arrays)
    return _network(backend, schema, config, standardization, arrays, record)


def _network(
    backend: str,
    schema: Schema,
    config: Config,
    standardization: Mapping[str, tuple[float, float]],
    arrays: Mapping[str, np.ndarray],
    record: TrainingRecord | None,
) -> Network:
    """A backend's network, frozen; checked before."""
    if backend == "jax":
        with needs("backend='jax'", "numpyro"):
            from ppl_buffer.network.jax.weights import JaxNetwork
        return JaxNetwork(schema, config, standardization, arrays, record)
    with needs("backend='torch'", "pyro"):
        import torch

        from ppl_buffer.network.torch.weights import TorchNetwork
    net = TorchNetwork(schema, config, standardization, record=record)
    with torch.no_grad():
        for name, array in arrays.items():
            net.weights[name].copy_(torch.from_numpy(array))
    return net.eval().requires_grad_(False)


def shipped() -> dict[str, Traversable]:
    """Zoo name -> its file."""
    folder = resources.files("ppl_buffer") / "pretrained"
    if not folder.is_dir():
        return {}
    suffix = ".safetensors"
    return {file.name.removesuffix(suffix): file for file in folder.iterdir() if file.name.endswith(suffix)}
