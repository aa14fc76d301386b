"""Trials of a query one after another, each outcome told by whoever asks: what a decoder of a stream needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ppl_buffer.files import to_numpy
from ppl_buffer.network.backend import Array, Named
from ppl_buffer.network.heads import trial_cdf
from ppl_buffer.predictive.folding import fold, fold_cache
from ppl_buffer.predictive.query import Query


class Stepper:
    """What a network expects of the next trial, and what it makes of a trial once that is known.

    A trial's numbers are computed from the trials before it and from nothing else, so that whoever is told the same
    outcomes meets the same numbers, to the last bit. Densities of one pass over all trials differ in the last digits.

    Args:
        query: without orders, block or history.
        lead: batch dimensions of the outcomes, to which those of the query broadcast.
    """

    def __init__(self, query: Query, lead: Sequence[int]) -> None:
        self._query = query
        self._folded = fold(query, tuple(lead))
        layout, backend, net = self._folded.layout, self._folded.backend, query.net
        self._shape = (layout.batch, layout.replicas, 1)
        self._position = 0
        # Of the direct likelihood the state is in here.
        self._params = self._folded.params
        self._cache = None if query.direct else fold_cache(query, self._folded)
        if self._has_buffer:
            self._cache = backend.start_steps(net, self._cache, (*self._shape[:2], query.trials))
        # Nothing enters the buffer before the first trial: an empty place.
        nobody = {name: variable.fill for name, variable in net.schema.outcomes.items()}
        self._representation = self._expect({name: np.full(lead, fill) for name, fill in nobody.items()}, first=True)

    @property
    def _has_buffer(self) -> bool:
        return not (self._query.direct or self._query.independent)

    def cdf(self, name: str, earlier: Mapping[str, np.ndarray], points: np.ndarray) -> np.ndarray:
        """Distribution function of an outcome of the next trial, the step of a category or an integer included.

        Args:
            name: of the outcome.
            earlier: the trial's outcomes before it in the schema, dict name -> (*lead,).
            points: (m,), where to evaluate it.

        Returns:
            (*lead, m).
        """
        net, layout = self._query.net, self._folded.layout
        known = {key: value[..., None] for key, value in earlier.items()}
        values = {**known, name: np.broadcast_to(points, (*layout.lead, len(points)))}
        folded: Named = {}
        for key, value in values.items():
            # Each by itself: the points are many, and what is known of the trial is one number.
            folded |= layout.fold({key: net.ops.number(net, value.astype(np.float32))}, 1, replicate=True)
        reader = net.likelihood if self._query.direct else net
        # A step is included.
        places = net.ops.ones(net, (1, 1, 1, len(values)))
        columns = trial_cdf(reader, self._representation, folded, places, self._folded.lapse)
        return to_numpy(layout.unfold(columns[..., -1]))

    def realise(self, outcomes: Mapping[str, np.ndarray]) -> None:
        """Go on: outcomes (*lead,) of the trial that was next; any legal ones where there is none."""
        self._position += 1
        if self._position < self._query.trials:
            self._representation = self._expect(outcomes)

    def _expect(self, outcomes: Mapping[str, np.ndarray], first: bool = False) -> Array:
        """Representation (B, R, 1, W) of the trial at this position, when the one before it had these outcomes."""
        net, backend = self._query.net, self._folded.backend
        shown, exists = self._trial(self._position)
        if self._query.net.schema.ordered or self._has_buffer:
            before, existed = self._trial(max(self._position - 1, 0))
            pairs = {**before, "outcomes": self._arranged(outcomes)}
            if first:
                existed = existed & False
            if self._has_buffer:
                representation, self._cache = backend.step_buffer(
                    net, self._cache, pairs, existed, shown["inputs"], self._params, self._position
                )
                return representation
            if not first:
                self._params = backend.step_state(net, self._params, pairs, existed)
        if self._query.direct:
            prepared = backend.prepare_alone(net, shown["inputs"], exists)
        else:
            prepared = backend.prepare_marginal(net, self._cache, shown["inputs"], exists)
        return backend.representations(net, prepared, self._params)

    def _trial(self, position: int) -> tuple[dict[str, Named], Array]:
        """Inputs and feedback (B, R, 1) of a trial, and where it exists."""
        ops, folded = self._query.net.ops, self._folded
        trials, valid = ops.part((folded.trials, folded.valid), position, 1)
        groups = {
            group: {name: ops.xp.broadcast_to(x, self._shape) for name, x in trials[group].items()}
            for group in ("inputs", "feedback")
        }
        return groups, ops.xp.broadcast_to(valid, self._shape)

    def _arranged(self, outcomes: Mapping[str, np.ndarray]) -> Named:
        """Outcomes (*lead,) as (B, R, 1)."""
        net = self._query.net
        numbers = {name: net.ops.number(net, x[..., None].astype(np.float32)) for name, x in outcomes.items()}
        return self._folded.layout.fold(numbers, 1, replicate=True)
