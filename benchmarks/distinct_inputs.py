"""What it saves that observed trials with the same inputs are one target of the transformer.

The networks of multisensory perception, whose transformer is their preferred likelihood: the gradient of the log
likelihood of simulated people by their parameters, as the samplers compute it, and the likelihoods of many draws, as
importance sampling does; as it is, and with a target for each trial. Numbers agree to rounding.

    python benchmarks/distinct_inputs.py [--quick] [--out DIR] [--repeats 7]

Bar: with 400 trials the gradient in JAX takes at most 1 / 1.3 of the processor's time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from unittest.mock import patch

import numpy as np
from harness import bar, interleaved, parse, print_bars, print_table, to_backend, write_results

import ppl_buffer as pb
from ppl_buffer.predictive import density
from ppl_buffer.predictive.program import in_one_program
from ppl_buffer.predictive.query import Query

# Gradients in a row of which one is timed: a sampler's are parts of one program.
IN_A_ROW = 10


def observed(net: Any, inputs: Any, value: Any, together: bool) -> Any:
    """What the network observes, with a target for each trial unless those that are alike are `together`."""
    if together:
        return net.observe(inputs, value, likelihood="buffer")
    with patch("ppl_buffer.network.observed.distinct_inputs", lambda *_: None):
        return net.observe(inputs, value, likelihood="buffer")


def gradients(net: Any, seen: Any, params: dict[str, Any]) -> Callable[[], Any]:
    """A function that computes some gradients one after another."""

    def total(params: dict[str, Any], seen: Any) -> Any:
        query = Query.build(net, seen, params=params, likelihood="buffer", outside="ignore", check=False)
        return density.log_prob(query, seen.value, reuse=True).sum()

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


def main(arguments: Sequence[str] | None = None) -> None:
    """Time both ways in turn, print and write."""
    options = parse(__doc__, arguments, repeats=7)
    subjects, trials, draws = (2, 40, 3) if options.quick else (3, 400, 20)
    theory, rng = pb.simulators.MultisensoryCausalInference(), np.random.default_rng(0)
    inputs, prior = theory.inputs(rng, subjects, trials), theory.prior(rng, subjects)
    value = theory.simulate(rng, prior, inputs)["response"]
    different = [len(np.unique(np.stack([x[row] for x in inputs.values()]), axis=1).T) for row in range(subjects)]
    rows, results = [], []
    for backend in ("jax", "torch"):
        net = pb.load("multisensory_rho1", backend=backend)
        params = to_backend(net, {name: np.asarray(x, np.float32) for name, x in prior.items()})
        many = {name: np.repeat(np.asarray(x, np.float32)[None], draws, 0) for name, x in prior.items()}
        ways = {together: observed(net, inputs, value, together) for together in (True, False)}
        targets = ways[True].alone.tokens.shape[-2]

        def likelihoods(seen: Any, net: Any = net, many: Any = many) -> Any:
            query = Query.build(net, seen, params=many, likelihood="buffer", outside="ignore", check=False)
            return np.asarray(in_one_program(density.log_prob, query, seen.value, reuse=True))

        one, other = (likelihoods(seen) for seen in ways.values())
        functions: dict[str, dict[str, Callable[[], Any]]] = {
            "gradient": {str(way): gradients(net, seen, params) for way, seen in ways.items()},
            f"likelihoods of {draws} draws": {
                str(way): lambda seen=seen: likelihoods(seen)
                for way, seen in ways.items()  # type: ignore[misc]
            },
        }
        for what, timed in functions.items():
            times = interleaved(timed, options.repeats)
            count = IN_A_ROW if what == "gradient" else 1
            taken = [1e3 * times[str(way)]["processor"] / count for way in (True, False)]
            rows.append([backend, what, targets, *taken, taken[1] / taken[0]])
            results.append(
                dict(zip(("backend", "what", "targets", "together", "apart", "gain"), rows[-1], strict=True))
            )
        results[-1]["nats apart"] = float(np.abs(one - other).max())
    columns = ["backend", "what", "targets", "together (ms)", "apart (ms)", "gain"]
    print_table(f"{subjects} people, {trials} trials, {different} different inputs", columns, rows)
    bars = [bar("gain of targets together, gradient in JAX", rows[0][-1], least=1.3)]
    print_bars(bars)
    sizes = {"subjects": subjects, "trials": trials, "different inputs": different}
    write_results("distinct_inputs", {**sizes, "results": results, "bars": bars}, options.out)


if __name__ == "__main__":
    main()
