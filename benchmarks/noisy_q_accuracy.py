"""How well a network knows the noisy Q-learner: its likelihood and its model evidence against the references.

    python benchmarks/noisy_q_accuracy.py [--checkpoint noisy_q] [--backend torch] [--quick] [--recompute]

Data sets are drawn from the prior; the likelihood is that of the network's direct likelihood and of its buffered
transformer, on the same sets. At zeta = 0 the likelihood is exact; above, the reference is a particle filter, and
the evidence is importance sampling with either inside. These references do not depend on the network: they are kept
in `results/noisy_q_references.npz`, and computed anew (minutes) with `--recompute` or when the data sets change.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `tests.references`, which is not installed

import harness  # noqa: E402

import ppl_buffer as pb  # noqa: E402
from ppl_buffer.predictive import density  # noqa: E402
from ppl_buffer.predictive.query import Query  # noqa: E402
from tests.references import noisy_q as reference  # noqa: E402

CACHE = harness.RESULTS / "noisy_q_references.npz"
# Data sets scored at once: bounds the memory of one pass at 360 trials.
_CHUNK = 20
# Least -log q of a choice. Single precision rounds a probability near 1 to 1, and the other option's to 0.
_LEAST = 6e-8


@dataclass(frozen=True)
class Settings:
    """What the references are computed with."""

    seed: int = 21
    datasets: int = 200
    evidence_datasets: int = 50
    trials: int = 120
    longer: int = 360
    particles: int = 8192
    runs: int = 4
    evidence_draws: int = 2000
    evidence_particles: int = 64


QUICK = Settings(datasets=20, evidence_datasets=5, particles=1024, evidence_draws=500)


@dataclass(frozen=True)
class DataSets:
    """Parameters (datasets,) and the trials that they generated, (datasets, K) each."""

    params: dict[str, np.ndarray]
    pair: np.ndarray
    choice: np.ndarray
    reward: np.ndarray

    @property
    def trials(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.pair, self.choice, self.reward


def draw(settings: Settings) -> dict[str, DataSets]:
    """All data sets that are measured on, by name."""
    simulator = pb.simulators.NoisyQ()
    groups = {
        "exact": (settings.datasets, settings.trials, True),
        "exact_longer": (settings.datasets, settings.longer, True),
        "noisy": (settings.datasets, settings.trials, False),
        "noisy_longer": (settings.datasets, settings.longer, False),
        "evidence_exact": (settings.evidence_datasets, settings.trials, True),
        "evidence_noisy": (settings.evidence_datasets, settings.trials, False),
    }
    out = {}
    for index, (name, (size, trials, exact)) in enumerate(groups.items()):
        rng = np.random.default_rng([settings.seed, index])
        params = simulator.prior(rng, size)
        if exact:
            params["zeta"] = np.zeros(size)
        inputs = simulator.inputs(rng, size, trials)
        data = simulator.simulate(rng, params, inputs)
        out[name] = DataSets(params, inputs["pair"], data["choice"], data["reward"])
    return out


def digest(groups: Mapping[str, DataSets]) -> str:
    """A fingerprint of the data sets, so that references of other ones are never used."""
    sha = hashlib.sha256()
    for group in groups.values():
        for array in (*group.params.values(), *group.trials):
            sha.update(np.ascontiguousarray(array, dtype="<f8").tobytes())
    return sha.hexdigest()


def filtered(data: DataSets, settings: Settings) -> dict[str, np.ndarray]:
    """Log odds (datasets, K) of the particle filter, averaged over runs, and what that average's own error is."""
    seeds = range(settings.seed, settings.seed + settings.runs)
    results = [reference.particle_filter(data.params, *data.trials, settings.particles, seed) for seed in seeds]
    runs = np.stack([result.log_probabilities for result in results])
    mean = np.log(np.exp(runs).mean(0))
    mean -= np.logaddexp(mean[..., :1], mean[..., 1:])
    # One run differs from the mean of `runs` by (runs - 1) times the mean's own expected divergence.
    divergence = (np.exp(mean) * (mean - runs)).sum(-1).mean() / (settings.runs - 1)
    log_likelihoods = np.where(data.choice == 1, runs[..., 1], runs[..., 0]).sum(-1)
    std = np.sqrt(log_likelihoods.var(0, ddof=1).mean() / settings.runs)
    return {
        "log_odds": (mean[..., 1] - mean[..., 0]).astype(np.float32),
        "kl_per_trial": divergence,
        "sd_total": std,
    }


def compute_references(groups: Mapping[str, DataSets], settings: Settings) -> dict[str, np.ndarray]:
    """Everything that does not depend on the network and takes long."""
    arrays: dict[str, np.ndarray] = {}
    start = time.perf_counter()

    def report(what: str) -> None:
        print(f"{what}: {time.perf_counter() - start:.0f} s", flush=True)

    for name in ("noisy", "noisy_longer"):
        arrays.update({f"{name}_{key}": value for key, value in filtered(groups[name], settings).items()})
        report(f"particle filter, {groups[name].pair.shape[1]} trials")
    estimate, error = reference.log_evidence_exact(
        *groups["evidence_exact"].trials, draws=settings.evidence_draws, seed=settings.seed
    )
    arrays.update(evidence_exact=estimate, evidence_exact_error=error)
    report("evidence, zeta = 0")
    estimate, error = reference.log_evidence_noisy(
        *groups["evidence_noisy"].trials,
        draws=settings.evidence_draws,
        particles=settings.evidence_particles,
        seed=settings.seed,
    )
    arrays.update(evidence_noisy=estimate, evidence_noisy_error=error)
    report("evidence, no parameter given")
    return arrays


def references(groups: Mapping[str, DataSets], settings: Settings, recompute: bool) -> dict[str, np.ndarray]:
    """The stored references where they fit the data sets and settings, else new ones (stored, unless quick)."""
    key = json.dumps({**asdict(settings), "sha256": digest(groups)})
    if CACHE.exists() and not recompute and settings == Settings():
        with np.load(CACHE, allow_pickle=False) as stored:
            if stored["key"].item() == key:
                return {name: stored[name] for name in stored.files if name != "key"}
        print("the stored references belong to other data sets: computing them anew")
    arrays = compute_references(groups, settings)
    if settings == Settings():
        CACHE.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(CACHE, key=np.array(key), **arrays)
    return arrays


def network_conditionals(
    net: Any,
    params: Mapping[str, np.ndarray] | None,
    inputs: Mapping[str, np.ndarray],
    outcomes: Mapping[str, np.ndarray],
    feedback: Mapping[str, np.ndarray],
    way: str = "buffer",
) -> np.ndarray:
    """Log probability that the network gives each choice given its past, (datasets, K).

    `params` are those given; where these are all, `way` says what of the network computes, "direct" or "buffer".
    """
    pieces = []
    for start in range(0, len(outcomes["choice"]), _CHUNK):
        part = slice(start, start + _CHUNK)
        query = Query.build(
            net,
            {name: value[part] for name, value in inputs.items()},
            params={name: value[part].astype(np.float32) for name, value in (params or {}).items()},
            feedback={name: value[part].astype(np.float32) for name, value in feedback.items()},
            likelihood=way,
        )
        value = density.conditionals(query, _native(net, outcomes["choice"][part]))
        pieces.append(np.asarray(value.detach() if net.backend == "torch" else value, dtype=float))
    return np.concatenate(pieces)


def _native(net: Any, choice: np.ndarray) -> Any:
    """An array of the network's backend."""
    if net.backend == "torch":
        import torch

        return torch.as_tensor(choice, dtype=torch.float32)
    import jax.numpy as jnp

    return jnp.asarray(choice, dtype=jnp.float32)


def score(net: Any, data: DataSets, conditioned: tuple[str, ...], way: str = "buffer") -> np.ndarray:
    """`network_conditionals` of data sets with the parameters named in `conditioned`."""
    params, shown = {name: data.params[name] for name in conditioned}, {"pair": data.pair}
    return network_conditionals(net, params, shown, {"choice": data.choice}, {"reward": data.reward}, way)


def likelihood_figures(net: Any, data: DataSets, log_probabilities: np.ndarray, way: str) -> dict[str, float]:
    """KL(reference || network) per trial and the error of the total log likelihood, over data sets."""
    log_chosen = score(net, data, tuple(data.params), way)
    log_other = np.log(-np.expm1(np.minimum(log_chosen, -_LEAST)))
    second = data.choice == 1
    log_network = np.stack([np.where(second, log_other, log_chosen), np.where(second, log_chosen, log_other)], -1)
    divergence = (np.exp(log_probabilities) * (log_probabilities - log_network)).sum(-1).mean(-1)
    log_reference = np.where(second, log_probabilities[..., 1], log_probabilities[..., 0])
    error = (log_chosen - log_reference).sum(-1)
    return {
        "kl_per_trial": float(divergence.mean()),
        "kl_per_trial_standard_error": float(divergence.std(ddof=1) / np.sqrt(len(divergence))),
        "kl_per_trial_worst_data_set": float(divergence.max()),
        "rmse_total": float(np.sqrt((error**2).mean())),
        "mean_error_total": float(error.mean()),
    }


def evidence_figures(net: Any, data: DataSets, conditioned: tuple[str, ...], evidence: np.ndarray) -> dict[str, float]:
    """Error of the network's log evidence, over data sets."""
    error = score(net, data, conditioned).sum(-1) - evidence
    return {
        "rmse": float(np.sqrt((error**2).mean())),
        "mean_error": float(error.mean()),
        "largest_error": float(np.abs(error).max()),
    }


def measure(net: Any, groups: Mapping[str, DataSets], arrays: Mapping[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """All figures, by group of data sets; those of the likelihood by what ``likelihood=`` asks for."""
    figures: dict[str, dict[str, Any]] = {}
    for name in ("exact", "exact_longer", "noisy", "noisy_longer"):
        data = groups[name]
        if name.startswith("exact"):
            log_probabilities = reference.exact_log_probabilities(data.params, *data.trials)
        else:
            odds = arrays[f"{name}_log_odds"].astype(float)
            log_probabilities = -np.logaddexp(0.0, np.stack([odds, -odds], -1))
        figures[name] = {way: likelihood_figures(net, data, log_probabilities, way) for way in harness.likelihoods(net)}
    for name in ("noisy", "noisy_longer"):
        figures[name]["reference_kl_per_trial"] = float(arrays[f"{name}_kl_per_trial"])
        figures[name]["reference_sd_total"] = float(arrays[f"{name}_sd_total"])
    for name, conditioned in (("evidence_exact", ("zeta",)), ("evidence_noisy", ())):
        if "buffer" not in net.parts:
            continue
        figures[name] = evidence_figures(net, groups[name], conditioned, arrays[name])
        figures[name]["reference_standard_error"] = float(np.sqrt((arrays[f"{name}_error"] ** 2).mean()))
    return figures


def bars(figures: Mapping[str, Mapping[str, Any]], settings: Settings, ways: Sequence[str]) -> list[dict[str, Any]]:
    """What has to be reached and what was, a row each: name, measured by each way, bar, error of the reference."""
    rows: list[dict[str, Any]] = []

    def add(name: str, measured: dict[str, float], bar: float | None, own: float | None = None) -> None:
        rows.append({"figure": name, "measured": measured, "bar": bar, "reference_error": own})

    for label, name in (("zeta = 0", "exact"), ("zeta > 0", "noisy")):
        short, longer = figures[name], figures[f"{name}_longer"]
        trials, more = f"{settings.trials} trials", f"{settings.longer} trials"
        kl, longer_kl, rmse, longer_rmse = (
            {way: group[way][key] for way in ways}
            for key in ("kl_per_trial", "rmse_total")
            for group in (short, longer)
        )
        add(f"{label}: KL per trial, {trials}", kl, 6e-4, short.get("reference_kl_per_trial"))
        add(f"{label}: RMSE of the total, {trials}", rmse, 0.4, short.get("reference_sd_total"))
        add(f"{label}: KL per trial, {more}", longer_kl, 6e-4, longer.get("reference_kl_per_trial"))
        add(f"{label}: KL per trial, {more} over {trials}", {way: longer_kl[way] / kl[way] for way in ways}, 1.0)
        add(f"{label}: RMSE of the total, {more}", longer_rmse, None, longer.get("reference_sd_total"))
    for label, name, bar in (("zeta = 0", "evidence_exact", 0.8), ("no parameter", "evidence_noisy", 1.0)):
        if name in figures:
            figure, own = figures[name]["rmse"], figures[name]["reference_standard_error"]
            add(f"{label} given: RMSE of the log evidence", {"buffer": figure}, bar, own)
    return rows


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="noisy_q", help="a name of the zoo, or a path")
    parser.add_argument("--backend", choices=("torch", "jax"), default="torch")
    parser.add_argument("--quick", action="store_true", help="a tenth of the data sets, rougher references, no files")
    parser.add_argument("--recompute", action="store_true", help="compute the references anew")
    parser.add_argument("--references-only", action="store_true", help="compute and store the references, then stop")
    arguments = parser.parse_args()
    settings = QUICK if arguments.quick else Settings()
    groups = draw(settings)
    if arguments.references_only:
        references(groups, settings, arguments.recompute)
        return
    net = pb.load(arguments.checkpoint, backend=arguments.backend)
    arrays = references(groups, settings, arguments.recompute)
    figures = measure(net, groups, arrays)
    ways = harness.likelihoods(net)
    rows = bars(figures, settings, ways)
    title = f"{arguments.checkpoint}, {arguments.backend}: nats, over {settings.datasets} data sets"
    title += f" (evidence: {settings.evidence_datasets})"
    columns = ("figure", *ways, "bar", "error of the reference")
    cells = [[row["figure"], *map(row["measured"].get, ways), row["bar"], row["reference_error"]] for row in rows]
    harness.print_table(title, columns, cells)
    if not arguments.quick:
        results = {
            "checkpoint": arguments.checkpoint,
            "backend": arguments.backend,
            "training_steps": harness.training_steps(net),
            "settings": asdict(settings),
            "bars": rows,
            "figures": figures,
        }
        harness.write_results("noisy_q_accuracy", results)


if __name__ == "__main__":
    main()
