"""Optional libraries: where one is missing, the error says which extra of the package brings it."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager


class MissingLibraryError(ImportError):
    """A library that only some users need is not installed; the message says what to install."""


@contextmanager
def needs(what: str, extra: str) -> Iterator[None]:
    """Around imports of optional libraries: say what to install where one is missing.

    Args:
        what: what the reader asked for, as the message's subject.
        extra: of this package, in whose requirements the libraries are.

    Raises:
        MissingLibraryError: if a library that is imported inside is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        library = (error.name or "").split(".")[0]
        # A module that is missing in a library that is there is another fault, which hides behind no advice.
        if library in ("", "ppl_buffer") or importlib.util.find_spec(library) is not None:
            raise
        message = f"{what} needs {library}: pip install 'ppl-buffer[{extra}]'"
        raise MissingLibraryError(message, name=library) from error
