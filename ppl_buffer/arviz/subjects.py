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

    Attributes:
        mask: (P, K) bool, which trials exist.
        inputs: dict name -> (P, K).
        feedback: dict name -> (P, K).
        value: observed outcomes, (P, K) or (P, K, n_outcomes).
        params: dict name -> (S, P), conditioned parameters at each draw.
        trial_params: dict name -> (S, P, K), those that vary by trial.
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
    trial_params: dict[str, np.ndarray]
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

        def at_draws(varying: np.ndarray, *tail: int) -> np.ndarray:
            return np.broadcast_to(varying, (len(varying), *batch, *tail)).reshape(
                len(varying), math.prod(batch), *tail
            )

        if query.history is not None and "params" in query.history.trials:
            raise ValueError(
                "trial_params: expected a site that is not conditioned on earlier trials, since nobody knows the "
                "parameters of these at each draw; give all trials to one site"
            )
        return cls(
            mask=flatten_trials(site.exists, batch, trials),
            inputs=flatten(query.inputs),
            feedback=flatten(query.feedback),
            value=site.value.reshape(math.prod(batch), *site.value.shape[len(batch) :]),
            params={name: at_draws(x) for name, x in site.params.items()},
            trial_params={name: at_draws(x, trials) for name, x in site.trial_params.items()},
            lapse=None if site.lapse is None else at_draws(site.lapse),
            context=flatten_leaves(ops, query.context, len(batch), batch),
            history=flatten_leaves(ops, query.history, len(batch), batch),
            missing=query.missing_at(None if query.deadline is None else flatten_trials(query.deadline, batch, trials)),
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
            trial_params={name: x[:, indices, :length] for name, x in self.trial_params.items()},
            lapse=None if self.lapse is None else self.lapse[:, indices],
            context=None if self.context is None else self.context[indices],
            history=map_leaves(lambda x: x[indices], self.history),
            missing=self.missing
            if self.missing is None or self.missing.deadline is None
            else self.missing.at(np.asarray(self.missing.deadline)[indices, :length]),
        )
