"""A site's data sets as rows, for work on some of them at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ppl_buffer.inference.subjects import flatten_leaves, flatten_trials
from ppl_buffer.network.backend import Array
from ppl_buffer.network.layout import map_leaves
from ppl_buffer.network.missing import Missing
from ppl_buffer.network.observed import EncodedContext
from ppl_buffer.ppl.trace import ObservedSite
from ppl_buffer.predictive.query import History


@dataclass(frozen=True)
class FlatSubjects:
    """A site's trials with all batch dimensions made one: P data sets of K trials.

    Where parameters vary by trial, trials are independent of each other: each is a data set of one.

    Attributes:
        mask: (P, K) bool, which trials exist.
        inputs: dict name -> (P, K).
        feedback: dict name -> (P, K).
        value: observed outcomes, (P, K) or (P, K, n_outcomes).
        params: dict name -> (S, P), conditioned parameters at each draw.
        lapse: (S, P), or None.
        context: arrays (P, ...), or None.
        history: arrays (P, ...), or None.
        missing: what missing answers mean, with deadlines (P, K); or None.
    """

    mask: np.ndarray
    inputs: dict[str, np.ndarray]
    feedback: dict[str, np.ndarray]
    value: np.ndarray
    params: dict[str, np.ndarray]
    lapse: np.ndarray | None
    context: EncodedContext | None
    history: History | None
    missing: Missing | None

    @classmethod
    def of(cls, site: ObservedSite) -> FlatSubjects:
        """The data sets of a site."""
        query, batch, trials = site.query, site.batch_shape, site.trials
        ops = query.net.ops

        def flatten(columns: dict[str, Array] | None) -> dict[str, np.ndarray]:
            return {name: flatten_trials(x, batch, trials) for name, x in (columns or {}).items()}

        by_trial = bool(site.trial_params)
        sets = (*batch, trials) if by_trial else batch

        def at_draws(varying: np.ndarray, has_trials: bool = False) -> np.ndarray:
            wide = varying[..., None] if by_trial and not has_trials else varying
            return np.broadcast_to(wide, (len(wide), *sets)).reshape(len(wide), math.prod(sets))

        def rows(array: np.ndarray) -> np.ndarray:
            return array.reshape(-1, 1, *array.shape[2:]) if by_trial else array

        params = {name: at_draws(x) for name, x in site.params.items()}
        params |= {name: at_draws(x, has_trials=True) for name, x in site.trial_params.items()}
        return cls(
            mask=rows(flatten_trials(site.exists, batch, trials)),
            inputs={name: rows(x) for name, x in flatten(query.inputs).items()},
            feedback={name: rows(x) for name, x in flatten(query.feedback).items()},
            value=rows(site.value.reshape(math.prod(batch), *site.value.shape[len(batch) :])),
            params=params,
            lapse=None if site.lapse is None else at_draws(site.lapse),
            # Where all parameters are given these tell nothing of independent trials.
            context=None if by_trial else flatten_leaves(ops, query.context, len(batch), batch),
            history=None if by_trial else flatten_leaves(ops, query.history, len(batch), batch),
            missing=query.missing_at(
                None if query.deadline is None else rows(flatten_trials(query.deadline, batch, trials))
            ),
        )

    @property
    def count(self) -> int:
        """Number of data sets P."""
        return self.mask.shape[0]

    @property
    def trials(self) -> int:
        """Number of trials K, those that do not exist included."""
        return self.mask.shape[1]

    def select(self, indices: np.ndarray, length: int) -> FlatSubjects:
        """Some data sets, of no more than `length` trials."""
        return FlatSubjects(
            mask=self.mask[indices, :length],
            inputs={name: x[indices, :length] for name, x in self.inputs.items()},
            feedback={name: x[indices, :length] for name, x in self.feedback.items()},
            value=self.value[indices, :length],
            params={name: x[:, indices] for name, x in self.params.items()},
            lapse=None if self.lapse is None else self.lapse[:, indices],
            context=None if self.context is None else self.context[indices],
            history=map_leaves(lambda x: x[indices], self.history),
            missing=self.missing
            if self.missing is None or self.missing.deadline is None
            else self.missing.at(np.asarray(self.missing.deadline)[indices, :length]),
        )
