"""How a call of a public function ends: refused by name, answered with numbers, or with a fault."""

from __future__ import annotations

import signal
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import ppl_buffer

PACKAGE = Path(ppl_buffer.__file__).parent
# A second is enough for every call here; a slow machine is no hang.
_SECONDS = 30


@dataclass(frozen=True)
class EntryPoint:
    """A public function, and arguments that it takes.

    Attributes:
        call: the function, of the arguments by name.
        arguments: makes arguments that are right.
        names: what a message may call an argument, beside its own name.
        may_be_infinite: whether minus infinity is a right answer (a density of what cannot be).
    """

    call: Callable[..., Any]
    arguments: Callable[[], dict[str, Any]]
    names: tuple[str, ...] = ()
    may_be_infinite: bool = False


class Hang(Exception):
    """A call that did not come back."""


@contextmanager
def time_limit(seconds: int = _SECONDS) -> Iterator[None]:
    """Raise `Hang` in the main thread where the body takes longer."""

    def hang(*_: Any) -> None:
        raise Hang(f"no answer after {seconds} s")

    before = signal.signal(signal.SIGALRM, hang)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def fault_of(point: EntryPoint, arguments: Mapping[str, Any]) -> str | None:
    """What is wrong with how a call ends; None where it is refused by name, or answered with numbers."""
    with warnings.catch_warnings(), time_limit(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            result = point.call(**arguments)
        except ValueError as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            # The number of trials is told by other arguments where it is none itself.
            named = (*arguments, *point.names, "trials: ")
            if Path(frame.filename).is_relative_to(PACKAGE):
                said = any(name in str(error) for name in named)
            else:
                # torch looks at a value before the distribution does.
                said = any(f"The {name} argument" in str(error) for name in arguments)
            return None if said else f"an error that names no argument: {error} at {frame.filename}:{frame.lineno}"
        except FileNotFoundError:
            return None  # what functions that read files say of one that is not there
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            return f"{type(error).__name__}: {error} at {frame.filename}:{frame.lineno}"
    return None if _right(result, point.may_be_infinite) else f"an answer that is no number: {result!r}"


def _right(result: Any, may_be_infinite: bool) -> bool:
    """Whether all numbers in a result are numbers."""
    if isinstance(result, Mapping):
        return all(_right(x, may_be_infinite) for x in result.values())
    if isinstance(result, (list, tuple)):
        return all(_right(x, may_be_infinite) for x in result)
    if isinstance(result, (float, np.ndarray, np.generic)):
        numbers = np.asarray(result)
        if numbers.dtype.kind != "f":
            return True
        return bool((np.isfinite(numbers) | (np.isneginf(numbers) & may_be_infinite)).all())
    return True
