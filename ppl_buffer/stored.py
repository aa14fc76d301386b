"""Data sets that exist already, in place of a simulator's draws. NumPy alone.

Two kinds: stored simulations, pairs of parameters and data that were made elsewhere; and observed data, of people or of
other groups, which have no parameters. A network of the latter is a predictive distribution and no likelihood.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class StoredData:
    """What a network was trained on in place of fresh draws.

    Args:
        simulated: whether they are simulations of known parameters; else they were observed.
        data_sets: that training drew from.
        held_out_data_sets: that it never drew from, for the held-out loss and for checks.
        groups: people (or whatever the data were split by) that training drew from.
        held_out_groups: the others.
        unit: what a group is called, in the plural.
        digest: of the data sets and of which are held out: what tells one division from another.
    """

    simulated: bool
    data_sets: int
    held_out_data_sets: int
    groups: int
    held_out_groups: int
    unit: str = "people"
    digest: str = ""

    def __str__(self) -> str:
        if self.simulated:
            return f"{self.data_sets:,} stored simulations ({self.held_out_data_sets:,} more held out)"
        return f"stored data of {self.groups:,} {self.unit} ({self.held_out_groups:,} more held out)"

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready description."""
        return asdict(self)

    @classmethod
    def from_dict(cls, description: Mapping[str, Any]) -> StoredData:
        """Read what `to_dict` wrote."""
        return cls(**description)


def digest_of(params: Arrays, data: Arrays, held_out: np.ndarray) -> str:
    """The first 16 letters of the SHA-256 of stored data sets, in hex, and of which are held out."""
    sha = hashlib.sha256(np.packbits(held_out).tobytes())
    for name, array in sorted({**params, **data}.items()):
        sha.update(f"{name} {array.dtype.str} {array.shape}".encode())
        sha.update(np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Runs:
    """Which data sets of a draw are runs: trials that follow each other along an input, without a gap.

    Args:
        order_by: the input.
        which: (size,) bool.
    """

    order_by: str
    which: np.ndarray


@dataclass(frozen=True, eq=False)
class StoredSets:
    """Stored data sets, some of them held out, and draws of both parts.

    A batch is a function of random numbers alone: which data sets were drawn before is nowhere kept. So a draw holds no
    data set twice while there are others, and the next draw begins anew.

    Args:
        params: dict name -> (S,).
        data: inputs, outcomes and feedback, dict name -> (S, L), whatever after a data set's last trial.
        lengths: (S,), trials of each data set.
        held_out: (S,) bool, those that training never draws.
        ordered: a draw of K trials takes the first K, since trials depend on those before them; else any K.
        summary: what a record says of them.
    """

    params: Arrays
    data: Arrays
    lengths: np.ndarray
    held_out: np.ndarray
    ordered: bool
    summary: StoredData

    def indices(self, held_out: bool, trials: int = 1) -> np.ndarray:
        """Rows of the data sets of one part that have so many trials, or more."""
        return np.flatnonzero((self.held_out == held_out) & (self.lengths >= trials))

    def draw(
        self, rng: np.random.Generator, size: int, trials: int, held_out: bool, runs: Runs | None = None
    ) -> tuple[Arrays, Arrays]:
        """Draw data sets, none a second time before each that is long enough was drawn once.

        Args:
            rng: the only source of randomness.
            size: how many.
            trials: of each: the first ones of an ordered model, else a random subset in random order.
            held_out: from those that training never sees, or from those that it sees.
            runs: which data sets are runs that begin anywhere; None = none.

        Returns:
            parameters, dict name -> (size,), and inputs, outcomes and feedback, each (size, trials).

        Raises:
            ValueError: if no data set has so many trials.
        """
        rows = self.indices(held_out, trials)
        if not len(rows):
            longest = int(self.lengths[self.held_out == held_out].max())
            which = "held-out data sets" if held_out else "data sets"
            raise ValueError(f"trials: expected at most {longest}, those of the longest {which}, got {trials}")
        rounds = -(-size // len(rows))
        selected = np.concatenate([rng.permutation(rows) for _ in range(rounds)])[:size]
        places = np.broadcast_to(np.arange(trials), (size, trials))
        if not self.ordered:
            places = self._any_trials(rng, selected, trials)
        if runs is not None:
            places[runs.which] = self._run(rng, selected[runs.which], trials, runs.order_by)
        params = {name: x[selected] for name, x in self.params.items()}
        return params, {name: x[selected[:, None], places] for name, x in self.data.items()}

    def _any_trials(self, rng: np.random.Generator, selected: np.ndarray, trials: int) -> np.ndarray:
        """For each of the data sets (size,), the places (size, trials) of some of its trials."""
        lengths = self.lengths[selected]
        order = rng.random((len(selected), int(lengths.max())), dtype=np.float32)
        order[np.arange(order.shape[1]) >= lengths[:, None]] = np.inf
        return np.argsort(order, axis=1)[:, :trials]

    def _run(self, rng: np.random.Generator, selected: np.ndarray, trials: int, order_by: str) -> np.ndarray:
        """For each of the data sets (size,), the places (size, trials) of trials that follow each other."""
        lengths, value = self.lengths[selected], self.data[order_by][selected].astype(float)
        value[np.arange(value.shape[1]) >= lengths[:, None]] = np.inf
        order = np.argsort(value, axis=1, kind="stable")
        return np.take_along_axis(order, rng.integers(0, lengths - trials + 1)[:, None] + np.arange(trials), 1)

    @property
    def typical_trials(self) -> int:
        """The length that at least half of the data sets reach, of those to train on and of those that are held out."""
        parts = (self.lengths[self.held_out], self.lengths[~self.held_out])
        return int(min(np.sort(part)[(len(part) - 1) // 2] for part in parts))
