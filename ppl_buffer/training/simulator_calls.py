"""How the methods of a simulator will be called."""

from __future__ import annotations

import inspect

from ppl_buffer.schema import Schema
from ppl_buffer.simulator import OPTIONAL, REQUIRED, StatefulEnvironment, WithEnvironment, simulate_keywords


def check_calls(simulator: object, schema: Schema) -> None:
    """Refuse methods that cannot be called as they will be.

    Raises:
        ValueError: naming the method, and how it will be called.
    """
    calls: dict[str, tuple[list[str], list[str]]] = {
        "prior": (["rng", "size"], []),
        "inputs": (["rng", "size", "trials"], []),
        "simulate": (["rng", "params", "inputs"], []),
        "proposal": (["rng", "size"], []),
        "simulate_with_probabilities": (["rng", "params", "inputs"], []),
        "resample_outcomes": (["rng", "params", "data", "count"], []),
        "predict_outcomes": (["rng", "params", "inputs", "seen", "visible", "count"], []),
        "log_likelihood": (["params", "data"], []),
        "seen_log_likelihood": (["rng", "params", "data", "lost"], []),
        "augment": (["rng", "data"], []),
        "environment": (["trial", "inputs", "outcomes", "uniform"], []),
    }
    environment: object = simulator.environment if isinstance(simulator, WithEnvironment) else None
    if isinstance(environment, StatefulEnvironment):
        calls["environment"][0].append("state")
    for method, (arguments, named) in calls.items():
        if method not in REQUIRED and not isinstance(simulator, OPTIONAL[method]):
            continue
        function = getattr(simulator, method)
        try:
            signature = inspect.signature(function)
        except (TypeError, ValueError):
            continue  # some compiled functions do not tell
        if method.startswith("simulate"):
            named.extend(simulate_keywords(function, schema, 0, 0))
        try:
            signature.bind(*arguments, **dict.fromkeys(named))
        except TypeError as error:
            why = ". Where the schema has no inputs, their shape cannot tell these numbers" if named else ""
            if method == "environment":
                why = ". A state is for an object with an initial_state (see ppl_buffer.simulator.StatefulEnvironment)"
            call = ", ".join([*arguments, *(f"{name}=..." for name in named)])
            raise ValueError(
                f"simulator.{method}: expected a method that can be called as {method}({call}), got "
                f"{method}{signature} ({error}){why}"
            ) from None
