"""What a check found and a user should know: a record to work with, whose printed form is a warning."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_PLURALS = {"person": "people"}


@dataclass(frozen=True)
class Finding:
    """Something that a user should know of a fit or of data.

    Attributes:
        kind: what was looked at: "outside_box" (parameters where the network was not trained), "outside_range" (inputs,
            outcomes or feedback unlike those that it was trained on), "data" (statistics that the fitted model does not
            generate), "lapse" (outcomes that no lapse can be), "left_out" (results that could not be computed),
            "sampling" (draws that are worth too little), "shape" (arrays that may not mean what their shapes say),
            "simulator" (a member that nothing reads, draws that do not repeat), "table" (how a table was read),
            "training" (a run that was stopped).
        text: in words, with what to do about it.
        parameter: the parameter, statistic or member that it is about; None where it is about no single one.
        share: how large it is, from 0 to 1 (of draws, of subjects); None where that is no share.
    """

    kind: str
    text: str
    parameter: str | None = None
    share: float | None = None


class FindingWarning(UserWarning):
    """A finding as a warning; `finding` is the record that it prints."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.text)
        self.finding = finding


def warn_of(finding: Finding, stacklevel: int = 2) -> None:
    """Say a finding as a warning, as if the caller's caller (`stacklevel` 2) had said it."""
    warnings.warn(FindingWarning(finding), stacklevel=stacklevel + 1)


def counted(number: int, noun: str) -> str:
    """A number and what it counts: ``1 trial``, ``1,200 trials``, ``3 people``; `noun` is in the singular."""
    return f"{number:,} {noun if number == 1 else _PLURALS.get(noun, f'{noun}s')}"


@contextmanager
def ignore_findings() -> Iterator[None]:
    """Say no findings meanwhile: where a part is looked at of which, alone, nothing should be concluded."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FindingWarning)
        yield
