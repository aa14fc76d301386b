"""Files that are whole or not there: atomic writes, and arrays with a description and a checksum in safetensors."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_safetensors

# An object of JSON.
Description: TypeAlias = dict[str, Any]
# Its field with the checksum, which readers of descriptions never see.
_CHECKSUM = "sha256"


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that a kill at any moment leaves the old one or the new one, whole.

    What an earlier, killed process of this machine began to write under the same name is removed. Through a symbolic
    link the file that it names is written.

    Raises:
        ValueError: if something is there that is no regular file.
    """
    path = check_writable(path)
    # In the same folder, since a rename is atomic only inside one file system.
    machine = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
    start = f".{path.name}.{machine}."
    temporary = path.with_name(f"{start}{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    unfinished = re.compile(re.escape(start) + r"(\d+)\.[0-9a-f]{8}\.tmp")
    for name in os.listdir(path.parent):
        match = unfinished.fullmatch(name)
        if match is not None and not _is_running(int(match[1])):
            path.with_name(name).unlink(missing_ok=True)


def check_writable(path: Path) -> Path:
    """The path that a file can be written to, symbolic links resolved.

    Raises:
        ValueError: if its folder does not exist, or something is there that is no regular file.
    """
    path = path.resolve() if path.is_symlink() else path
    if not path.parent.is_dir():
        raise ValueError(f"path: expected a file in an existing folder, got {str(path)!r}")
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "no regular file"
        raise ValueError(f"path: expected the name of a file to write, but {str(path)!r} is {kind}")
    return path


def make_folder(argument: str, folder: Path) -> None:
    """Make a folder, and those that it is in, unless it is there.

    Raises:
        ValueError: if something else has its name, or it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"{argument}: expected a folder, or a place for a new one, got {str(folder)!r} ({error.strerror})"
        ) from error


def _is_running(process: int) -> bool:
    """Whether a process of this machine may still be at work; elsewhere than on POSIX nobody can tell safely."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def to_numpy(array: Any) -> np.ndarray:
    """A torch, JAX or NumPy array as a NumPy array in the computer's memory."""
    return np.asarray(array.detach().cpu() if hasattr(array, "detach") else array, order="C")


def pack_arrays(key: str, description: Description, arrays: Mapping[str, np.ndarray]) -> bytes:
    """A safetensors file's content: arrays, and under `key` of its metadata a JSON-ready description and a checksum."""
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    # Under one key: safetensors writes several in another order each time, and equal files shall be equal bytes.
    text = json.dumps({**description, _CHECKSUM: _checksum(description, whole)}, allow_nan=False)
    return to_safetensors(whole, metadata={key: text})


def read_arrays(path: Path, key: str, *formats: int) -> tuple[Description, dict[str, np.ndarray]]:
    """The JSON under `key` of a safetensors file's metadata, and the file's arrays.

    Args:
        path: the file.
        key: what the metadata are called: one name for each kind of file.
        formats: versions of this kind of file that the caller can read; its own is the last.

    Raises:
        ValueError: if the file is missing, damaged, another program's or of a version that cannot be read. Damage of a
            single bit is noticed by the checksum, which files from before there was one lack.
    """
    if not path.is_file():
        raise ValueError(f"path: expected a file, but there is none at {str(path)!r}")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()} if key in metadata else {}  # noqa: SIM118
    except (SafetensorError, OSError, TypeError, AttributeError, ValueError, KeyError) as error:
        raise ValueError(f"path: expected a whole safetensors file, but {str(path)!r} is damaged ({error})") from error
    if key not in metadata:
        raise ValueError(f"path: expected a file that ppl_buffer wrote, but {str(path)!r} has no {key!r} metadata")
    try:
        description = json.loads(metadata[key])
        version, stored = description["format"], description.pop(_CHECKSUM, None)
        computed = None if stored is None else _checksum(description, arrays)
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"path: the {key!r} metadata of {str(path)!r} is damaged ({error!r})") from error
    if stored != computed:
        raise ValueError(
            f"path: {str(path)!r} is damaged: its content does not have the checksum that was stored when it was "
            "written. Copy or train it again"
        )
    if isinstance(version, bool) or version not in formats:
        raise ValueError(
            f"path: expected format {formats[-1]}, got {version!r} in {str(path)!r}: another version of ppl_buffer "
            "wrote it"
        )
    return description, arrays


def _checksum(description: Description, arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of a description and of all arrays with their names, types and shapes."""
    sha = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        sha.update(f"{name} {array.dtype.str} {array.shape}".encode())
        sha.update(np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()
