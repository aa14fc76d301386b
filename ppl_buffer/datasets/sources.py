"""Where a data set comes from: a folder of data, or its source on the web, fetched once; and its columns, checked."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ppl_buffer.extras import needs

if TYPE_CHECKING:
    import pandas

# Seconds until a server that does not answer counts as out of reach.
_FETCH_TIMEOUT = 10


@dataclass(frozen=True)
class LegalColumn:
    """What a column of a data set should hold.

    Attributes:
        expected: in words, for messages.
        legal: (rows,) numbers -> (rows,) bool.
    """

    expected: str
    legal: Callable[[np.ndarray], np.ndarray]


INTEGERS = LegalColumn("integers", lambda value: value == np.floor(value))
NUMBERS = LegalColumn("numbers", np.isfinite)
POSITIVE = LegalColumn("numbers above 0", lambda value: np.isfinite(value) & (value > 0))
BINARY = LegalColumn("0 or 1", lambda value: np.isin(value, (0, 1)))


@dataclass(frozen=True)
class Source:
    """Where a data set comes from.

    Attributes:
        title: what to call it.
        url: of the original file.
        sha256: of the original file.
        places: where the file is inside a folder of data; the last is its name at the source.
        columns: those that are read.
    """

    title: str
    url: str
    sha256: str
    places: tuple[str, ...]
    columns: Mapping[str, LegalColumn]


def need_pandas(loader: str) -> None:
    """Say what to install where pandas is missing.

    Raises:
        ImportError: if it is.
    """
    with needs(loader, "data"):
        import pandas  # noqa: F401


def locate(source: Source, path: str | os.PathLike[str] | None) -> Path:
    """Where the file is, after fetching it if need be.

    Args:
        source: of the data set.
        path: the file, or a folder of data. None = the folder in the environment variable ``PPL_BUFFER_DATA``; where
            that is not set, the original is fetched.

    Raises:
        FileNotFoundError: if there is no such file, or it cannot be fetched.
        ValueError: if what was fetched does not have its checksum.
    """
    argument = "path"
    if path is None:
        # An empty variable counts as not set: that is how a makefile says "no folder".
        path, argument = os.environ.get("PPL_BUFFER_DATA") or None, "PPL_BUFFER_DATA"
    if path is None:
        return _fetch(source)
    given = Path(path)
    for place in (given, *(given / place for place in source.places)):
        if place.is_file():
            return place
    raise FileNotFoundError(
        f"{argument}: expected the file of {source.title} or a folder that holds {source.places[0]}, got {given}; "
        f"the original is at {source.url}"
    )


def _fetch(source: Source) -> Path:
    """Fetch the original file, or find it in the cache folder."""
    advice = f"download {source.url} and pass its path, or set PPL_BUFFER_DATA to the folder that holds it"
    try:
        import pooch
    except ImportError as error:
        raise FileNotFoundError(
            f"{source.title} is not on this machine and fetching it takes pooch (pip install 'ppl-buffer[data]'); "
            f"or {advice}"
        ) from error
    try:
        file = pooch.retrieve(
            source.url,
            known_hash=f"sha256:{source.sha256}",
            fname=source.places[-1],
            path=pooch.os_cache("ppl_buffer"),
            # Behind a network that swallows requests a person would wait for minutes.
            downloader=pooch.HTTPDownloader(timeout=_FETCH_TIMEOUT),
        )
    except OSError as error:  # what pooch and requests raise where there is no network, or no such page
        raise FileNotFoundError(f"{source.title} could not be fetched ({error}); {advice}") from error
    return Path(file)


def read_csv(source: Source, file: Path, separator: str = ",") -> pandas.DataFrame:
    """The file as a table, whatever its columns.

    Args:
        source: of the data set.
        file: where it is.
        separator: between two columns.

    Raises:
        ValueError: if it is no CSV file.
    """
    import pandas

    try:
        return pandas.read_csv(file, sep=separator)
    except (pandas.errors.ParserError, pandas.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"path: expected the CSV file of {source.title}, got {file}: {error}") from error


def check_columns(source: Source, file: Path, table: pandas.DataFrame) -> dict[str, np.ndarray]:
    """The columns that are needed, as numbers: dict name -> (rows,).

    Raises:
        ValueError: if one is missing, or a value in it is not legal.
    """
    import pandas

    columns = {}
    for name, column in source.columns.items():
        if name not in table:
            raise ValueError(f"path: expected a column {name!r}, got {file} with the columns {list(table)}")
        columns[name] = pandas.to_numeric(table[name], errors="coerce").to_numpy(dtype=float)
        illegal = np.flatnonzero(~column.legal(columns[name]))
        if illegal.size:
            raise ValueError(
                f"path: expected {column.expected} in column {name!r}, got {table[name].iloc[illegal[0]]!r} "
                f"in row {table.index[illegal[0]] + 1} of {file}"
            )
    if table.empty:
        raise ValueError(f"path: expected at least one trial, got {file}, which has none")
    return columns
