"""A function of a query in one program, where a backend compiles; also for whoever has the query's arrays as NumPy."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import replace

from ppl_buffer.network.backend import Array, Own, backend_of
from ppl_buffer.predictive.query import History, Query

_ARRAYS = (
    "inputs", "params", "trial_params", "condition_params", "context", "feedback", "trial_mask", "deadline", "lapse",
    "observed",
)  # fmt: skip
_SETTINGS = ("net", "trials", "missing", "lapse_ranges", "orders", "block", "environment", "outside", "likelihood")


def in_one_program(function: Callable[..., Own], query: Query, *arrays: Array, **settings: Hashable) -> Own:
    """What a function of a query and of arrays returns.

    Args:
        function: of `ppl_buffer.predictive.density` or `ppl_buffer.predictive.sampling`. Where it is compiled it sees
            no number: whether a value is the observed one has to be asked before (``reuse=query.matches(value)``).
        query: the query.
        *arrays: further arguments.
        **settings: further arguments that are no arrays.
    """
    data = {name: getattr(query, name) for name in _ARRAYS}
    # A program serves all networks of one shape, and knows no digests.
    context, observed = query.context, query.observed
    data["context"] = None if context is None else replace(context, digest="")
    if observed is not None:
        seen = None if observed.context is None else replace(observed.context, digest="")
        data["observed"] = replace(observed, digest="", context=seen)
    history = None if query.history is None else (query.history.trials, query.history.mask)
    static = (function, tuple(getattr(query, name) for name in _SETTINGS), tuple(settings.items()))
    return backend_of(query.net).one_program(_answer, static, (data, history, arrays))


def _answer(static: Own, given: Own) -> Own:
    (function, about, settings), (data, history, arrays) = static, given
    past = None if history is None else History(*history)
    query = Query(**dict(zip(_SETTINGS, about, strict=True)), **data, history=past)
    return function(query.expanded(len(query.batch_shape)), *arrays, **dict(settings))
