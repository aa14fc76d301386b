"""A table of trials as the commands' options describe it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ppl_buffer.datasets import TrialData, read_trials
from ppl_buffer.datasets.cells import quoted
from ppl_buffer.datasets.order import AS_IT_LIES
from ppl_buffer.network.checkpoint import load
from ppl_buffer.network.missing_rule import can_be_lost
from ppl_buffer.network.network import Network
from ppl_buffer.simulator import Simulator
from ppl_buffer.workflow.cli.parsing import (
    read_codes,
    read_deadline,
    read_headings,
    read_missing,
    read_numbers,
    read_pairs,
)

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class TableOptions:
    """The options of a command that say how to read its table, as they were written."""

    subject: str
    order: str | None
    columns: str
    recode: list[str] | None
    scale: list[str] | None
    signed: str
    outside: str = "error"
    session: str | None = None
    where: str | None = None
    missing: list[str] | None = None
    deadline: str | None = None
    withheld: str = ""

    @property
    def given(self) -> dict[str, str | list[str] | None]:
        """Name of each option -> its text; None where it was not given."""
        return {
            "subject": self.subject,
            "order": self.order,
            "columns": self.columns or None,
            "recode": self.recode,
            "scale": self.scale,
            "signed": self.signed or None,
            "outside": None if self.outside == "error" else self.outside,
            "session": self.session,
            "where": self.where,
            "missing": self.missing,
            "deadline": self.deadline,
            "withheld": self.withheld or None,
        }

    def load(self, model: str, likelihood: str, backend: str | None = None) -> Network:
        """The network of a model, which computes by the part that was asked for.

        By the direct likelihood where answers may be missing, trials have an order, and nobody asked for the other: the
        buffered transformer does not read what is missing.

        Raises:
            ValueError: if there is no such network, or it has no such part.
        """
        net = load(model, backend=backend)
        gaps = self.missing is not None or self.deadline is not None
        can_choose = likelihood == "auto" and "likelihood" in net.parts
        return net.preferring("direct" if gaps and can_choose and net.schema.ordered else likelihood)

    def read(self, path: Path, net: Network, simulator: Simulator | None) -> TrialData:
        """Read a table for a network, and say what is warned of.

        Raises:
            ValueError: if the options or the table are wrong.
            FileNotFoundError: if there is no such file.
        """
        return self.read_for(path, [(net, simulator)])[0]

    def read_for(self, path: Path, networks: Sequence[tuple[Network, Simulator | None]]) -> list[TrialData]:
        """Read a table for several networks with their simulators, and say once what is warned of.

        Raises:
            ValueError: if the options or the table are wrong.
            FileNotFoundError: if there is no such file.
        """
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            trials = [self._read_one(path, net, simulator, len(networks) > 1) for net, simulator in networks]
        for text in dict.fromkeys(str(warning.message) for warning in caught):
            typer.secho(text, fg=typer.colors.YELLOW, err=True)
        return trials

    def _read_one(self, path: Path, net: Network, simulator: Simulator | None, several: bool) -> TrialData:
        """Read a table; of several networks an error says which cannot."""
        try:
            return self._read(path, net, simulator)
        except ValueError as error:
            if several and net.record is not None:
                raise ValueError(f"{error} (so the model {net.record.simulator} reads it)") from error
            raise

    def _read(self, path: Path, net: Network, simulator: Simulator | None) -> TrialData:
        return read_trials(
            path,
            net,
            subject=read_headings("subject", self.subject),
            session=None if self.session is None else read_headings("session", self.session),
            where=self.where,
            order=self.order if self.order in (None, AS_IT_LIES) else read_headings("order", self.order),
            columns=read_pairs("columns", self.columns),
            recode=read_codes("recode", self.recode or []),
            scale=read_numbers("scale", ",".join(self.scale or [])),
            signed=read_pairs("signed", self.signed),
            missing=read_missing(self.missing or [], can_be_lost(net.schema)),
            deadline=read_deadline(self.deadline),
            withheld={name: int(code) for name, code in read_numbers("withheld", self.withheld).items()} or None,
            simulator=simulator,
            outside=self.outside,
        )


def write_rows(rows: pandas.DataFrame, path: Path) -> None:
    """Write results as CSV, text such that no spreadsheet takes it for a formula."""
    rows.map(lambda cell: quoted(cell) if isinstance(cell, str) else cell).to_csv(path, index=False)
