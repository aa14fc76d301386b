"""The worked example of the documentation, timed: a network for the two-step task, its error, the posterior of people.

Three parts, each kept in ``results/two_step_example.json`` until it is measured anew:

- ``train``: trains the network that `examples/two_step.py` loads and the documentation is built with, from its seed,
  and compares it with the exact likelihood: KL divergence a trial, and the root mean squared error of the log density
  of a person's trials;
- ``probabilities``: what they buy. The same training, of fewer steps, from draws alone and from the probabilities;
- ``fit``: the hierarchy of the documentation on the 11 people by NUTS, with the network and with the exact likelihood
  written in JAX: time, effective draws, and how far posterior means are apart.

Times are the processor's, in seconds, compilation included, so that a busy machine changes them little. ``--page``
writes the tables into docs/bring_a_simulator.md.

    python benchmarks/two_step_example.py [train probabilities fit] [--quick] [--out DIR] [--runs DIR] [--page]
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `tests.references`, which is not installed

from harness import RESULTS, write_results  # noqa: E402

import ppl_buffer as pb  # noqa: E402

ROOT = Path(__file__).parents[1]
NETWORK = ROOT / "examples" / "two_step.safetensors"
PAGE = ROOT / "docs" / "bring_a_simulator.md"
NAME = "two_step_example"
# The recipe of the stored network: at most so many steps, fewer where the error is below the target. And the steps of
# those that are compared with and without probabilities.
STEPS, TARGET, FEWER_STEPS = 2_500, 0.002, 600
TRIALS = (40, 200)
Task = pb.simulators.TwoStep


class WithoutProbabilities:
    """`TwoStep`, of which nobody knows more than what it draws."""

    schema, priors, environment, name = Task.schema, Task.priors, Task.environment, "TwoStep"
    prior, inputs, simulate = Task().prior, Task().inputs, Task().simulate


def train(simulator: Any, steps: int, out: Path, target: float | None = None) -> tuple[Any, float]:
    """A network with the direct likelihood alone, and the processor seconds that it took, simulation included."""
    shutil.rmtree(out, ignore_errors=True)
    began = time.process_time()
    # Without background workers, whose time would not count.
    options: dict[str, Any] = {"parts": "likelihood", "trials": TRIALS, "workers": 0, "seed": 0, "out": out}
    net = pb.train(simulator, steps=steps, target=target, **options)
    return net, time.process_time() - began


def compare(net: Any, sets: int, trials: int) -> dict[str, float]:
    """The network against the exact likelihood, on data of the simulator that no training has seen."""
    import torch

    from ppl_buffer.pyro import JointPredictive

    task, rng = Task(), np.random.default_rng(2**20)
    params = {name: x.astype(np.float32) for name, x in task.prior(rng, sets).items()}
    inputs = task.inputs(rng, sets, trials)
    data = task.simulate(rng, params, inputs)
    value = torch.as_tensor(np.stack([data["choice_1"], data["choice_2"]], -1), dtype=torch.float32)
    given = {name: torch.as_tensor(x) for name, x in params.items()}
    joint = JointPredictive(net, inputs, params=given, feedback={"reward": data["reward"]}, outside="ignore")
    with torch.no_grad():
        difference = task.log_likelihood(params, inputs | data) - joint.conditionals(value).numpy()
    return {
        "sets": sets,
        "trials": trials,
        "kl_per_trial": float(difference.mean()),
        "standard_error": float(difference.mean(-1).std(ddof=1) / np.sqrt(sets)),
        "total_rmse": float(np.sqrt((difference.sum(-1) ** 2).mean())),
    }


def measure_training(options: argparse.Namespace) -> dict[str, Any]:
    """The stored network: trained, and compared with the exact likelihood."""
    net, seconds = train(Task(), options.steps, options.runs / "two_step", TARGET)
    target = options.out / NETWORK.name if options.quick else NETWORK
    shutil.copy(options.runs / "two_step" / "best.safetensors", target)
    error = net.record.estimated_error
    figures = {"steps": options.steps, "processor_seconds": seconds, **compare(net, options.sets, 200)}
    if error is not None:
        figures["estimated"] = error.to_dict()
        figures["posterior_shift"] = error.posterior_shift(200, len(net.schema.params))
    return figures | {"bytes": target.stat().st_size}


def measure_probabilities(options: argparse.Namespace) -> dict[str, Any]:
    """The same short training from draws and from probabilities."""
    rows = {}
    for name, simulator in (("draws", WithoutProbabilities()), ("probabilities", Task())):
        net, seconds = train(simulator, options.fewer_steps, options.runs / f"two_step_{name}")
        rows[name] = {"steps": options.fewer_steps, "processor_seconds": seconds, **compare(net, options.sets, 200)}
        print(name, rows[name])
    return rows


def measure_fit(options: argparse.Namespace) -> dict[str, Any]:
    """The hierarchy of the documentation by NUTS, with the network and with the exact likelihood."""
    import jax
    import numpyro
    import numpyro.distributions as dist
    from numpyro.diagnostics import summary

    from ppl_buffer.datasets import two_step_task
    from ppl_buffer.numpyro import JointPredictive
    from tests.references.two_step import exact_conditionals_jax

    data, count = two_step_task(), 3 if options.quick else 11
    data = data.select(np.arange(count))
    choices = np.stack([data.outcomes["choice_1"], data.outcomes["choice_2"]], -1)
    net = pb.load(options.out / NETWORK.name if options.quick else NETWORK, backend="jax")
    seen = net.observe(data.inputs, choices, feedback=data.feedback, trial_mask=data.trial_mask)
    columns = (data.inputs["common"], *data.outcomes.values(), data.feedback["reward"], data.trial_mask)

    def model(exact: bool) -> None:
        theta = {}
        for name in net.box:
            mean = numpyro.sample(f"{name}_mean", dist.Normal(0.0, 1.0))
            spread = numpyro.sample(f"{name}_spread", dist.HalfNormal(1.0))
            with numpyro.plate("people", count):
                offset = numpyro.sample(f"{name}_offset", dist.Normal(0.0, 1.0))
            theta[name] = numpyro.deterministic(name, net.into_box(name, mean + spread * offset))
        if exact:
            numpyro.factor("choices", exact_conditionals_jax(theta, *columns).sum())
        else:
            with numpyro.plate("people", count):
                numpyro.sample("choices", JointPredictive(net, seen, params=theta), obs=seen.value)

    results: dict[str, Any] = {"people": count, "trials": int(data.trial_counts.sum()), "chains": options.chains}
    results |= {"warmup": options.draws, "draws": options.draws}
    moments = {}
    for name, exact in (("network", False), ("exact", True)):
        kernel = numpyro.infer.NUTS(model)
        mcmc = numpyro.infer.MCMC(
            kernel, num_warmup=options.draws, num_samples=options.draws, num_chains=options.chains,
            chain_method="sequential", progress_bar=False,
        )  # fmt: skip
        began = time.process_time()
        mcmc.run(jax.random.PRNGKey(0), exact, extra_fields=("num_steps", "diverging"))
        seconds = time.process_time() - began
        draws = {site: np.asarray(x) for site, x in mcmc.get_samples(group_by_chain=True).items()}
        table = summary({site: draws[site] for site in net.box})
        extra = mcmc.get_extra_fields()
        results[name] = {
            "processor_seconds": seconds,
            "gradients": int(np.asarray(extra["num_steps"]).sum()),
            "divergent": int(np.asarray(extra["diverging"]).sum()),
            "least_effective_draws": float(min(row["n_eff"].min() for row in table.values())),
            "greatest_r_hat": float(max(row["r_hat"].max() for row in table.values())),
            "model_based": float(draws["model_based"].mean()),
        }
        moments[name] = {site: (draws[site].mean((0, 1)), draws[site].std((0, 1))) for site in net.box}
        print(name, results[name])
    shifts = {
        site: np.abs(moments["network"][site][0] - moments["exact"][site][0]) / moments["exact"][site][1]
        for site in net.box
    }
    results["mean_shift"] = float(np.mean(list(shifts.values())))
    results["greatest_mean_shift_of_a_parameter"] = float(max(x.mean() for x in shifts.values()))
    return results


PARTS: Mapping[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "train": measure_training,
    "probabilities": measure_probabilities,
    "fit": measure_fit,
}


def tables(results: Mapping[str, Any]) -> dict[str, str]:
    """Markdown of the page's tables, by the name of their place; of what was measured."""
    written = {}
    trained, fit = results.get("train"), results.get("fit")
    rows = []
    if trained:
        error = f"{trained['kl_per_trial']:.4f} nats a trial from the truth"
        rows.append(("training the direct likelihood", f"{trained['processor_seconds']:.0f}", error))
    if fit:
        what = f"{fit['people']} people in a hierarchy, {fit['chains']} x {fit['warmup'] + fit['draws']} draws"
        shift = f"posterior means {fit['mean_shift']:.2f} sd from those of the exact likelihood, on average"
        of_both = [
            (
                f"{fit[name]['processor_seconds']:.0f}",
                f"at least {fit[name]['least_effective_draws']:.0f} effective draws",
            )
            for name in ("network", "exact")
        ]
        rows.append((f"NUTS, {what}", of_both[0][0], f"{of_both[0][1]}; {shift}"))
        rows.append(("the same with the exact likelihood, written in JAX", *of_both[1]))
    if rows:
        written["timing"] = _markdown(("step", "processor seconds", "result"), rows)
    if results.get("probabilities"):
        rows = [
            (f"{row['steps']} steps from {name}", f"{row['processor_seconds']:.0f}",
             f"{row['kl_per_trial']:.4f} ± {row['standard_error']:.4f}")
            for name, row in results["probabilities"].items()
        ]  # fmt: skip
        written["probabilities"] = _markdown(("training", "processor seconds", "KL a trial (nats)"), rows)
    return written


def _markdown(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [columns, ("---",) * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def with_tables(page: str, results: Mapping[str, Any]) -> str:
    """The page with its tables written anew."""
    for name, table in tables(results).items():
        start = f"<!-- {name} table: written by benchmarks/two_step_example.py -->\n"
        end = f"<!-- end of the {name} table -->"
        before, _, rest = page.partition(start)
        _, _, after = rest.partition(end)
        page = f"{before}{start}\n{table}\n{end}{after}"
    return page


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=[], help=f"any of {', '.join(PARTS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="try everything out at tiny sizes")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result file")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the trainings")
    parser.add_argument("--page", action="store_true", help="write the tables into the documentation; measure nothing")
    options = parser.parse_args()
    options.steps, options.fewer_steps, options.sets = (6, 4, 5) if options.quick else (STEPS, FEWER_STEPS, 600)
    options.chains, options.draws = (1, 5) if options.quick else (2, 250)
    file = options.out / f"{NAME}.json"
    results = json.loads(file.read_text())["results"] if file.is_file() else {}
    if not options.page:
        for part in options.parts or list(PARTS):
            results[part] = PARTS[part](options)
            write_results(NAME, results, options.out)
    for name, table in tables(results).items():
        print(f"\n{name}\n{table}")
    if options.page:
        PAGE.write_text(with_tables(PAGE.read_text(), results))


if __name__ == "__main__":
    main()
