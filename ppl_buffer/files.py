"""Files that are whole or not there: atomic writes, and arrays with a description in safetensors."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open


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


def read_arrays(path: Path, key: str, *formats: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The JSON under `key` of a safetensors file's metadata, and the file's arrays.

    Args:
        path: the file.
        key: what the metadata are called: one name for each kind of file.
        formats: versions of this kind of file that the caller can read; its own is the last.

    Raises:
        ValueError: if the file is missing, damaged, another program's or of a version that cannot be read.
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
    if version not in formats:
        raise ValueError(
            f"path: expected format {formats[-1]}, got {version!r} in {str(path)!r}: another version of ppl_buffer "
            "wrote it"
        )
    return description, arrays
