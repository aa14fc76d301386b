"""Figures of a card: what was measured, and the bar that it had to meet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

MET = {True: "yes", False: "**no**"}


def at_most(value: float, bar: float) -> bool:
    return value <= bar


def at_least(value: float, bar: float) -> bool:
    return value >= bar


@dataclass(frozen=True)
class Figure:
    """What a card states: a name, a number of each way of the network, and where there is one the bar to meet."""

    name: str
    measured: Mapping[str, float]
    bar: float | None = None
    meets: Callable[[float, float], bool] = at_most

    @property
    def met(self) -> str:
        """Whether each number meets the bar, in words."""
        if self.bar is None:
            return ""
        return " / ".join(MET[self.meets(value, self.bar)] for value in self.measured.values())

    @property
    def by_name(self) -> dict[str, float]:
        """What `ppl_buffer.zoo()` shows: the buffered transformer's number is marked where it stands beside another."""
        beside = len(self.measured) > 1
        marks = {way: ", buffered" if beside and way == "buffer" else "" for way in self.measured}
        return {f"{self.name}{marks[way]}": value for way, value in self.measured.items()}


def task_figures(tasks: Mapping[str, Any], kind: str) -> list[Figure]:
    """KL by kind of task, of a result file that may be empty."""
    figures, results = [], tasks.get("results", {})
    for about, ways in results.get("figures", {}).items():
        kl = {way: row["kl_per_trial"] for way, row in ways.items()}
        figures.append(Figure(f"{kind}: {about}: KL per trial", kl, results["bar"]))
    return figures


def missing_figures(missing: Mapping[str, Any]) -> list[Figure]:
    """KL by the share of trials that are lost, of a result file that may be empty."""
    results = missing.get("results", {})
    about = results.get("about", "of the trials lost, choice and reward: KL per trial seen")
    rows = [row for row in results.get("rows", []) if row["way"] == "read as lost"]
    return [Figure(f"{row['lost']:.0%} {about}", {"direct": row["nats"]}, results["bar"]) for row in rows]


def changing_figures(changes: Mapping[str, Any]) -> list[Figure]:
    """KL of a choice where parameters change, by what changes, of a result file that may be empty."""
    results = changes.get("results", {})
    rows = [row for row in results.get("rows", []) if row["changes"] != "nothing"]
    return [
        Figure(f"parameters change ({row['changes']}): KL of a choice", {"direct": row["nats"]}, results["bar"])
        for row in rows
    ]
