"""The log likelihood of each trial at every posterior draw, and a draw of each trial one step ahead."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from ppl_buffer.arviz.subjects import FlatSubjects
from ppl_buffer.files import to_numpy
from ppl_buffer.findings import Finding
from ppl_buffer.inference.chunks import chunks, new_in_chunks, run_groups
from ppl_buffer.inference.streams import uniform_streams
from ppl_buffer.inference.subjects import last_trials, rows_of_similar_length
from ppl_buffer.network.backend import Array, backend_of
from ppl_buffer.network.network import Network
from ppl_buffer.network.observed import ObservedTrials, observe_trials
from ppl_buffer.ppl.trace import ObservedSite
from ppl_buffer.predictive import density, sampling
from ppl_buffer.predictive.program import in_one_program
from ppl_buffer.predictive.query import Query

# Trials whose densities are computed together: few enough for the memory, enough that calls cost little.
_TRIALS_ON_PROCESSOR, _TRIALS_ON_ACCELERATOR = 1 << 15, 1 << 20


def order_finding(site: ObservedSite) -> Finding | None:
    """That the terms of a site do not sum to the model's log density, where they do not."""
    if site.query.orders is None:
        return None
    return Finding(
        "left_out",
        "log_likelihood: the model averages over orders of the trials, which no single trial's density does; the "
        "trials are taken in the order of the data, so that they do not sum to the model's log density",
    )


def score_trials(
    site: ObservedSite, draws: int, seed: int, progress: bool
) -> tuple[np.ndarray, dict[str, np.ndarray] | None]:
    """Log density of each trial given those before it, (S, *B, K), and a draw of each such trial by outcome.

    A draw depends on the seed, its own index and its group of data sets alone. A site with a block has no such draws.

    Args:
        site: the site.
        draws: number of posterior draws S.
        seed: of the draws one step ahead.
        progress: show a progress bar.
    """
    scoring = _Scoring(site, draws, seed)
    workers = backend_of(site.query.net).workers()
    count = scoring.subjects.count
    with tqdm(total=draws * count, disable=not progress, unit="data set", desc="log likelihood") as bar:
        groups = [scoring.work(indices) for indices in rows_of_similar_length(scoring.subjects.mask)]
        run_groups(groups, workers, bar.update)
    shape = (draws, *site.exists.shape)
    steps = None
    if scoring.steps is not None:
        outcomes = site.query.net.schema.outcomes
        steps = {name: scoring.steps[..., index].reshape(shape) for index, name in enumerate(outcomes)}
    return scoring.log_probs.reshape(shape), steps


class _Scoring:
    """Scores of a site's trials, some draws and some data sets at a time.

    Args:
        site: the site.
        draws: number of posterior draws S.
        seed: of the draws one step ahead.

    Attributes:
        subjects: the P data sets.
        log_probs: (S, P, K), the result.
        steps: (S, P, K, n_outcomes), draws one step ahead; None where there are none.
    """

    def __init__(self, site: ObservedSite, draws: int, seed: int) -> None:
        self.net = site.query.net.preferring(site.query.likelihood)
        self.block, self.lapse_at = site.query.block, site.query.lapse_at
        self.subjects = FlatSubjects.of(site)
        self.draws, self.seed = draws, seed
        shape = (draws, self.subjects.count, self.subjects.trials)
        self.log_probs = np.zeros(shape, np.float32)
        self.steps: np.ndarray | None = None
        if self.block is None:
            self.steps = np.zeros((*shape, len(self.net.schema.outcomes)), np.float32)

    def work(self, indices: np.ndarray) -> Iterator[Callable[[], int]]:
        """Pieces of work on data sets of similar length, a chunk of draws each; they return how many were done."""
        longest = int(last_trials(self.subjects.mask[indices]).max())
        length = min(backend_of(self.net).bucket(longest), self.subjects.trials)
        part = self.subjects.select(indices, length)
        data, arguments, value = self._prepare(part)
        at_once = min(self.draws, max(1, _trials_at_once(self.net) // (part.count * length)))
        if not (part.params or part.trial_params) and part.lapse is None:
            # Nothing else says how many draws there are to be.
            value = self.net.ops.xp.broadcast_to(value, (at_once, *value.shape))

        def piece(draws: np.ndarray, added: int) -> int:
            params = {name: x[draws] for name, x in part.params.items()}
            by_trial = {name: x[draws] for name, x in part.trial_params.items()}
            lapse = self.lapse_at(None if part.lapse is None else part.lapse[draws])
            query = Query.build(
                self.net, data, params=params, trial_params=by_trial or None, lapse=lapse, outside="ignore",
                block=self.block, check=False, expand=False, **arguments,
            )  # fmt: skip
            self._score(query, value, indices, draws)
            return added * part.count

        for draws, added in zip(chunks(self.draws, at_once), new_in_chunks(self.draws, at_once), strict=True):
            yield partial(piece, draws, added)

    def _prepare(self, part: FlatSubjects) -> tuple[dict[str, np.ndarray] | ObservedTrials, dict[str, Any], Array]:
        """Inputs or observed trials, the arguments beside them, and the value: what all draws have in common."""
        ops = self.net.ops
        arguments: dict[str, Any] = {
            "trials": part.trials, "feedback": part.feedback, "trial_mask": part.mask, "context": part.context
        }  # fmt: skip
        if part.history is not None:
            return part.inputs, {**arguments, "history": part.history}, ops.floating(self.net, part.value)
        if self.block is not None:
            return part.inputs, arguments, ops.floating(self.net, part.value)
        observed = observe_trials(
            self.net,
            part.inputs,
            part.value,
            feedback=part.feedback,
            trial_mask=part.mask,
            context=part.context,
            missing=part.missing,
            purpose="again",
        )
        # The data sets are alike in length already.
        return replace(observed, groups=None), {}, ops.floating(self.net, observed.value)

    def _score(self, query: Query, value: Array, indices: np.ndarray, draws: np.ndarray) -> None:
        """Write the scores of some data sets at some draws into the results."""
        rows = np.ix_(draws, indices, np.arange(query.trials))
        if self.steps is None:
            self.log_probs[rows] = to_numpy(in_one_program(density.conditionals, query, value, reuse=False))
            return
        shape = (len(indices), query.trials, sampling.noise_shape(query)[-1])
        # The leading 1 keeps these streams apart from those of other draws of the same seed.
        seeds = ([1, self.seed, int(indices[0]), int(draw)] for draw in draws)
        noise, reuse = uniform_streams(seeds, shape), query.matches(value)
        log_probs, steps = in_one_program(density.one_step_ahead, query, value, noise, reuse=reuse)
        self.log_probs[rows] = to_numpy(log_probs)
        self.steps[rows] = to_numpy(steps).reshape(len(draws), *shape[:2], self.steps.shape[-1])


def _trials_at_once(net: Network) -> int:
    return _TRIALS_ON_PROCESSOR if backend_of(net).on_processor(net) else _TRIALS_ON_ACCELERATOR
