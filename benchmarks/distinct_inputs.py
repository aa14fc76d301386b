"""What it saves that observed trials with the same inputs, or the same parameters, are one target of the network.

Simulated people, the gradient of their log likelihood by their parameters, as the samplers compute it, and the
likelihoods of many draws, as importance sampling does; as it is, and with a target for each trial. Numbers agree to
rounding. Of the transformer: multisensory perception, whose preferred likelihood it is. Of the direct likelihood:
confidence in two categories of four strengths, a questionnaire of 27 choices between amounts and delays, answered
twice, and drift and boundary of a diffusion that differ between four conditions.

    python benchmarks/distinct_inputs.py [--quick] [--out DIR] [--repeats 7]

Bars, of the gradient in JAX: `multisensory_rho1` with 400 trials takes at most 1 / 1.3 of the processor's time,
`confidence` and the conditions of `ddm` 1 / 3, `discounting` 1 / 1.5.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np
from harness import bar, interleaved, parse, print_bars, print_table, to_backend, write_results

import ppl_buffer as pb
from ppl_buffer.predictive import density
from ppl_buffer.predictive.program import in_one_program
from ppl_buffer.predictive.query import Query
from ppl_buffer.schema import stack_value

Arrays = Mapping[str, np.ndarray]
# Gradients in a row of which one is timed: a sampler's are parts of one program.
IN_A_ROW = 10
LEAST = {"multisensory_rho1": 1.3, "confidence": 3.0, "discounting": 1.5, "ddm": 3.0}
# Those that differ between conditions.
BY_CONDITION, CONDITIONS = ("drift", "boundary"), 4


@dataclass(frozen=True)
class Study:
    """Simulated people.

    Attributes:
        network: its name.
        likelihood: the part that computes.
        params: dict name -> (S,).
        inputs: dict name -> (S, K).
        value: (S, K) or (S, K, n_outcomes).
        conditions: (S, K), where parameters differ between conditions.
        by_condition: dict name -> (S, C).
    """

    network: str
    likelihood: str
    params: Arrays
    inputs: Arrays
    value: np.ndarray
    conditions: np.ndarray | None = None
    by_condition: Arrays | None = None


def numbers(named: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """In single precision."""
    return {name: np.asarray(x, np.float32) for name, x in named.items()}


def of_inputs(network: str, likelihood: str, theory: Any, inputs: Arrays, rng: np.random.Generator) -> Study:
    """People who see the same inputs again and again."""
    params = theory.prior(rng, len(next(iter(inputs.values()))))
    outcomes = theory.simulate(rng, params, inputs)
    value = np.asarray(stack_value(np, theory.schema, outcomes), np.float32)
    return Study(network, likelihood, numbers(params), numbers(inputs), value)


def studies(quick: bool) -> list[Study]:
    """All of them."""
    rng, few = np.random.default_rng(0), (2, 40)
    theory, shape = pb.simulators.MultisensoryCausalInference(), few if quick else (3, 400)
    made = [of_inputs("multisensory_rho1", "buffer", theory, theory.inputs(rng, *shape), rng)]
    shape = few if quick else (14, 400)
    stimulus = rng.choice([-1.0, 1.0], shape) * rng.choice([0.25, 0.5, 0.75, 1.0], shape)
    made.append(of_inputs("confidence", "direct", pb.simulators.Confidence(), {"stimulus": stimulus}, rng))
    discounting, subjects = pb.simulators.Discounting(), 2 if quick else 14
    asked = np.stack([rng.permutation(np.arange(54) % 27) for _ in range(subjects)])
    inputs = {name: x[0][asked] for name, x in discounting.inputs(rng, 1, 27).items()}
    made.append(of_inputs("discounting", "direct", discounting, inputs, rng))
    made.append(by_condition(few if quick else (14, 300), rng))
    return made


def by_condition(shape: tuple[int, int], rng: np.random.Generator) -> Study:
    """People who decide under four conditions."""
    theory, (subjects, trials) = pb.simulators.DriftDiffusion(), shape
    conditions = np.stack([rng.permutation(np.arange(trials) % CONDITIONS) for _ in range(subjects)])
    params = numbers(theory.prior(rng, subjects))
    others = numbers(theory.prior(rng, subjects * CONDITIONS))
    values = {name: others[name].reshape(subjects, CONDITIONS) for name in BY_CONDITION}
    each = {name: np.repeat(x, trials) for name, x in params.items()}
    each |= {name: np.take_along_axis(x, conditions, -1).reshape(-1) for name, x in values.items()}
    outcomes = {name: x.reshape(shape) for name, x in theory.simulate(rng, each, {}, trials=1).items()}
    value = np.asarray(stack_value(np, theory.schema, outcomes), np.float32)
    shared = {name: x for name, x in params.items() if name not in BY_CONDITION}
    return Study("ddm", "direct", shared, {}, value, conditions, values)


def observed(net: Any, study: Study, together: bool) -> Any:
    """What the network observes, with a target for each trial unless those that are alike are `together`."""
    if together:
        return net.observe(study.inputs, study.value, likelihood=study.likelihood, conditions=study.conditions)
    with patch("ppl_buffer.network.observed.distinct_inputs", lambda *_: None):
        return net.observe(study.inputs, study.value, likelihood=study.likelihood)


def query_of(net: Any, seen: Any, study: Study, params: Mapping[str, Any], shown: Any) -> Query:
    """The likelihood at parameters (*, S), or (*, S, C) of those that differ between conditions."""
    one = {name: x for name, x in params.items() if name in study.params}
    more = {name: x for name, x in params.items() if name not in study.params}
    if more and seen.condition_count is None:
        more = {name: (x[..., None] * shown).sum(-2) for name, x in more.items()}
    return Query.build(
        net, seen, params=one, trial_params=more or None, likelihood=study.likelihood, outside="ignore", check=False
    )


def gradients(net: Any, seen: Any, study: Study, params: dict[str, Any], shown: Any) -> Callable[[], Any]:
    """A function that computes some gradients one after another."""

    def total(params: dict[str, Any], seen: Any) -> Any:
        return density.log_prob(query_of(net, seen, study, params, shown), seen.value, reuse=True).sum()

    if net.backend == "jax":
        import jax

        @jax.jit
        def many(params: dict[str, Any], seen: Any) -> Any:
            def one(params: dict[str, Any], _: None) -> Any:
                slopes = jax.grad(total)(params, seen)
                return jax.tree.map(lambda x, slope: x + 1e-6 * slope, params, slopes), None

            return jax.lax.scan(one, params, None, length=IN_A_ROW)[0]

        return lambda: jax.block_until_ready(many(params, seen))
    import torch

    def each() -> None:
        for _ in range(IN_A_ROW):
            leaves = {name: x.clone().requires_grad_() for name, x in params.items()}
            torch.autograd.grad(total(leaves, seen), list(leaves.values()))

    return each


def likelihoods(net: Any, seen: Any, study: Study, params: Mapping[str, Any], shown: Any) -> np.ndarray:
    """Those of all draws and people."""
    query = query_of(net, seen, study, params, shown)
    return np.asarray(in_one_program(density.log_prob, query, seen.value, reuse=True))


def measure(study: Study, backend: str, draws: int, repeats: int) -> list[dict[str, Any]]:
    """Both ways in turn: a row for the gradient, and one for the likelihoods of many draws."""
    net = pb.load(study.network, backend=backend)
    ways = {together: observed(net, study, together) for together in (True, False)}
    each = {**study.params, **(study.by_condition or {})}
    params = to_backend(net, each)
    many = to_backend(net, {name: np.repeat(x[None], draws, 0) for name, x in each.items()})
    shown: Any = None
    if study.conditions is not None:
        one_hot = study.conditions[:, None] == np.arange(CONDITIONS)[:, None]
        shown = to_backend(net, one_hot.astype(np.float32))
    timed: dict[str, dict[str, Callable[[], Any]]] = {
        "gradient": {str(way): gradients(net, seen, study, params, shown) for way, seen in ways.items()},
        f"likelihoods of {draws} draws": {
            str(way): partial(likelihoods, net, seen, study, many, shown) for way, seen in ways.items()
        },
    }
    first, second = (likelihoods(net, seen, study, many, shown) for seen in ways.values())
    apart = float(np.abs(first - second).max())
    alike = ways[True].alone if study.likelihood == "buffer" else ways[True].sequence
    count = alike.tokens.shape[-2] if study.likelihood == "buffer" else CONDITIONS
    if study.likelihood == "direct" and alike.inputs is not None:
        count = alike.inputs.shape[-2]
    subjects, trials = study.value.shape[:2]
    about = {"network": study.network, "backend": backend, "people": subjects, "trials": trials, "targets": count}
    rows = []
    for what, functions in timed.items():
        times = interleaved(functions, repeats)
        in_a_row = IN_A_ROW if what == "gradient" else 1
        together, alone = (1e3 * times[str(way)]["processor"] / in_a_row for way in (True, False))
        rows.append(
            {**about, "what": what, "together": together, "apart": alone, "gain": alone / together, "nats apart": apart}
        )
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Time both ways in turn, print and write."""
    options = parse(__doc__, arguments, repeats=7)
    draws, rows = 3 if options.quick else 20, []
    for study in studies(options.quick):
        for backend in ("jax", "torch"):
            rows += measure(study, backend, draws, options.repeats)
    print_table(
        "Targets that are alike, together and apart (milliseconds)", list(rows[0]), [list(x.values()) for x in rows]
    )
    bars = [
        bar(f"{row['network']}: gain of targets together, gradient in JAX", row["gain"], least=LEAST[row["network"]])
        for row in rows
        if row["what"] == "gradient" and row["backend"] == "jax"
    ]
    print_bars(bars)
    write_results("distinct_inputs", {"results": rows, "bars": bars}, options.out)


if __name__ == "__main__":
    main()
