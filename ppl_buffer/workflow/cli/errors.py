"""How a command ends: mistakes and Ctrl-C in one line, warnings once, in colour."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import typer

# What shells call a program that Ctrl-C ended: 128 and the signal's number.
INTERRUPTED = 130


@contextlib.contextmanager
def plain_errors(kept: Path | None = None) -> Iterator[None]:
    """Say what a user did wrong without a traceback, and end with 130 on Ctrl-C.

    Args:
        kept: file or folder from which the same command goes on, where it exists.
    """
    said: set[str] = set()

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        """A warning, once however often and from wherever it comes."""
        if str(message) not in said:
            said.add(str(message))
            typer.secho(f"Warning: {message}", fg=typer.colors.YELLOW, err=True)

    goes_on = f"what was done is kept in {kept}, and the same command goes on from there"
    with warnings.catch_warnings():
        warnings.showwarning = show
        try:
            yield
        except BrokenPipeError:
            # Whoever read the output has gone, such as `head`: no mistake, and the program ends.
            raise
        except (ValueError, OSError, ImportError) as error:
            for said_of_it in (f"Error: {error}", *vars(error).get("__notes__", ())):
                typer.secho(said_of_it, fg=typer.colors.RED, err=True)
            raise typer.Exit(1) from None
        except KeyboardInterrupt as error:
            there = goes_on if kept is not None and kept.exists() else ""
            typer.secho(f"Interrupted: {str(error) or there or 'nothing was written'}.", fg=typer.colors.RED, err=True)
            raise typer.Exit(INTERRUPTED) from None
        except typer.Exit:
            raise
        except Exception:
            if kept is not None and kept.exists():
                typer.secho(f"This should not have happened, but {goes_on}.", fg=typer.colors.RED, err=True)
            raise


def check_folder(out: Path) -> None:
    """Refuse a folder for results that cannot be made, before the work whose results would go there.

    Raises:
        ValueError: if it or a folder above it is a file, or may not be written to.
    """
    there = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not there.is_dir():
        raise ValueError(f"--out: expected a folder, or the name of a new one, got {out}, where {there} is a file")
    if not os.access(there, os.W_OK):
        raise ValueError(f"--out: expected a folder that you may write to, got {out}")
