"""Distillation sets: what to predict after data that the model did not generate.

A network that was trained on simulated data predicts well after pasts like those. Where people depart from the model,
it falls back on something of its own, and its joint density is no longer the model's evidence. But the model says what
to predict after any past: average its predictions over the posterior. A distillation set is a data set from anywhere,
with weighted draws from its posterior given any of its trials, found by importance sampling with the network's own
likelihood, which needs no past once it is conditioned on all parameters. Training on outcomes drawn with these
parameters teaches the model's posterior predictive; after the model's own data, with less noise than outcomes drawn
with the one true parameter. So does the model's density of the data set itself, which the same draws give trial by
trial. The teacher is the network's likelihood, the student its marginal predictions: distillation in the sense of
Hinton, Vinyals & Dean (2015, arXiv 1503.02531).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
from safetensors import SafetensorError, safe_open
from tqdm.auto import tqdm

from ppl_buffer.checks import check_integer, check_path, is_integer
from ppl_buffer.files import Description, make_folder, pack_arrays, read_arrays, to_numpy, write_atomic
from ppl_buffer.inference.chunks import map_chunks
from ppl_buffer.inference.importance import fit_proposal, normalize
from ppl_buffer.inference.normal_scores import NormalScores
from ppl_buffer.network.backend import backend_of
from ppl_buffer.network.digest import weights_digest
from ppl_buffer.network.network import Network
from ppl_buffer.network.observed import observe_trials
from ppl_buffer.predictive import density
from ppl_buffer.predictive.query import Query
from ppl_buffer.schema import stack_value
from ppl_buffer.simulator import Arrays, Simulator, name_of
from ppl_buffer.training.abilities import check_simulator
from ppl_buffer.training.batch_options import BatchOptions
from ppl_buffer.training.batches import (
    DISTILLATION,
    HELD_OUT,
    PAIR,
    TARGET,
    TRIES,
    Batch,
    context_size,
    draw,
    generator,
    log_uniform,
    trial_arrays,
)
from ppl_buffer.training.draws import RejectionCounts, augment_data, draw_trials
from ppl_buffer.training.randomness import check_randomness
from ppl_buffer.training.sketch import Sketch, check_same_simulator, sketch

# Names and version of the files: those of the first release, since preparing sets takes hours and they are still good.
_KEY, _DESCRIPTION, _FORMAT = "ppl_buffer_lesson", "lessons.json", 1
# Data sets whose proposals are fitted at once, parameter draws of a round, and those whose likelihood is evaluated at
# once.
_SETS_AT_ONCE = 4
_DRAWS = 100
_DRAWS_AT_ONCE = 25
# A set whose posterior, given all trials, rests on fewer draws than this is left out.
_FEWEST_EFFECTIVE = 20.0
# One set in so many is for the held-out loss alone.
_HELD_OUT_SHARE = 10


@dataclass(frozen=True)
class DistillationSet:
    """One data set, and weighted draws from the posterior given any of its trials.

    Attributes:
        data: inputs, outcomes and feedback, name -> (N,).
        params: name -> (D,), draws.
        log_likelihood: (D, N), of each trial given each draw.
        log_ratio: (D,), log density of the prior over that of the distribution that the draws come from.
    """

    data: Arrays
    params: Arrays
    log_likelihood: np.ndarray
    log_ratio: np.ndarray

    def weigh(self, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Posteriors and predictions along the trials `order` (T,), indices of those of the set.

        Returns:
            cumulative weights (T, D) of the draws given the trials before each, not normalised, single precision; and
            the log density (T,) of each trial given those before it, in nats.
        """
        # Batches wait for this. Single precision, since the likelihood was kept in half of it.
        steps = self.log_likelihood.T[order].astype(np.float32)
        log_weight = np.concatenate([self.log_ratio[None], steps]).cumsum(0, dtype=np.float32)
        most = log_weight.max(1, keepdims=True)
        cumulative = np.exp(log_weight - most).cumsum(1)
        log_total = np.log(cumulative[:, -1], dtype=float) + most[:, 0]
        return cumulative[:-1], np.diff(log_total)


class DistillationSets(Sequence[DistillationSet]):
    """The distillation sets in a folder that `prepare_distillation` wrote. Files are read when asked for.

    Args:
        folder: the folder.

    Attributes:
        description: JSON-ready facts: the network that found the posteriors, the source of the data, trials, seed.

    Raises:
        ValueError: if the folder holds no distillation sets, or a file of theirs is damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        path = self.folder / _DESCRIPTION
        if not path.is_file():
            raise ValueError(f"distillation: expected a folder that prepare_distillation wrote, got {str(folder)!r}")
        self.description = _read_description(path)
        self.paths = [
            path for path in sorted(self.folder.glob("*.safetensors")) if _effective(path) > _FEWEST_EFFECTIVE
        ]
        if len(self.paths) < 2:
            raise ValueError(f"distillation: expected at least two sets in {str(folder)!r}, got {len(self.paths)}")

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, index: int) -> DistillationSet: ...

    @overload
    def __getitem__(self, index: slice) -> list[DistillationSet]: ...

    def __getitem__(self, index: int | slice) -> DistillationSet | list[DistillationSet]:
        """One of them, or those of a slice."""
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        _, arrays = read_arrays(self.paths[index], _KEY, _FORMAT)
        groups: dict[str, Arrays] = {}
        for name, array in arrays.items():
            group, _, rest = name.partition("/")
            groups.setdefault(group, {})[rest] = array
        return DistillationSet(groups["data"], groups["params"], arrays["log_likelihood"], arrays["log_ratio"])

    @cached_property
    def split(self) -> tuple[np.ndarray, np.ndarray]:
        """Indices of the sets for training, and of those for the held-out loss."""
        index = np.arange(len(self))
        held = index % _HELD_OUT_SHARE == _HELD_OUT_SHARE - 1 if len(self) >= _HELD_OUT_SHARE else index == index[-1]
        return index[~held], index[held]


def prepare_distillation(
    net: Network,
    source: Simulator,
    *,
    sets: int,
    trials: int,
    out: str | Path,
    seed: int = 0,
    progress: bool = True,
) -> DistillationSets:
    """Draw data sets and find their posteriors, for ``train(distillation=...)``.

    Every data set takes a file in the folder `out`, written as soon as it is known: after a stop the same call goes on.
    A set of 400 trials takes some 1500 evaluations of its likelihood and 1.2 MB.

    Args:
        net: a trained network of either backend, whose trials are independent given the parameters. Its likelihood must
            be good; its predictions need not be.
        source: what draws the data sets, with the schema of the network: data like those that people may produce,
            in which the model does not hold, and some in which it does. Its parameters are not used.
        sets: how many, a multiple of four or rounded up to one; one in ten is for the held-out loss.
        trials: of each; the longest past that is learnt from.
        out: the folder, made if it does not exist.
        seed: of the data and the draws.
        progress: show a progress bar.

    Returns:
        the distillation sets.

    Raises:
        ValueError: if an argument does not fit, the trials of the network are not independent given its parameters, no
            prior is known of one of them, or `out` holds other sets.
        KeyboardInterrupt: on Ctrl-C; what is finished stays.
    """
    backend_of(net)
    schema = net.schema
    for name, number, least in (("sets", sets, 2), ("trials", trials, 1), ("seed", seed, 0)):
        check_integer(name, number, least)
    if not (schema.independent and schema.params):
        raise ValueError("net: expected a network whose trials are independent given parameters; its schema says no")
    check_simulator(source)
    check_randomness(source)
    if source.schema != schema:
        raise ValueError(f"source: expected the network's schema {schema.to_dict()}, got {source.schema.to_dict()}")
    simulator = "" if net.record is None else net.record.simulator
    known = {} if net.record is None else net.record.priors
    priors = {name: prior for name in schema.params if (prior := known.get(name)) is not None}
    missing = [name for name in schema.params if name not in priors]
    if missing:
        raise ValueError(f"net: expected a record that knows the prior of every parameter, but not of {missing[0]!r}")
    out = check_path("out", out)
    make_folder("out", out)
    described = {
        "format": _FORMAT,
        "network": simulator,
        "weights": weights_digest(net),
        "source": name_of(source),
        "trials": int(trials),
        "seed": int(seed),
    }
    path = out / _DESCRIPTION
    if path.exists() and json.loads(path.read_text()) != described:
        raise ValueError(f"out: expected an empty folder or one of the same sets, got {str(out)!r}; choose another")
    check_same_simulator(
        out, lambda: _sketch(source, trials, seed), begins=not path.exists(), advice="choose another folder"
    )
    write_atomic(path, json.dumps(described, indent=1).encode())
    scale = NormalScores(priors)
    with tqdm(total=sets, disable=not progress, unit="set", desc="distillation") as bar:
        for first in range(0, sets, _SETS_AT_ONCE):
            paths = [out / f"{index:06d}.safetensors" for index in range(first, first + _SETS_AT_ONCE)]
            if not all(path.exists() for path in paths):
                for path, content in zip(paths, _prepare(net, scale, source, trials, seed, first), strict=True):
                    write_atomic(path, content)
            bar.update(min(_SETS_AT_ONCE, sets - first))
    return DistillationSets(out)


def _sketch(source: Simulator, trials: int, seed: int) -> Sketch:
    """What the source draws for the first sets."""
    simulated = draw(source, seed, 0, DISTILLATION, _SETS_AT_ONCE, trials)[0]
    return sketch([] if simulated is None else [{"params": simulated[0], "data": simulated[1]}])


def _prepare(net: Network, scale: NormalScores, source: Simulator, trials: int, seed: int, first: int) -> list[bytes]:
    """Some sets as files. They depend on the seed and the number of the first one alone."""
    schema = net.schema
    data_sets, counts = draw(source, seed, first, DISTILLATION, _SETS_AT_ONCE, trials)
    if data_sets is None:
        raise counts.exhausted("the distillation sets")
    data = {name: x.astype(np.float32) for name, x in data_sets[1].items()}
    groups = {group: {name: data[name] for name in getattr(schema, group)} for group in PAIR}
    value = stack_value(np, schema, groups["outcomes"])
    # Data unlike any that the network was trained on are what these sets are for.
    observed = observe_trials(
        net, groups["inputs"], value, feedback=groups["feedback"], trial_mask=None, context=None, purpose="again"
    )
    evaluated: list[tuple[Arrays, np.ndarray]] = []

    def log_likelihood(scores: np.ndarray) -> np.ndarray:
        params = scale.params(scores, (_SETS_AT_ONCE,))

        def conditionals(draws: np.ndarray) -> np.ndarray:
            part = {name: x[draws] for name, x in params.items()}
            query = Query.build(net, observed, params=part, outside="ignore", check=False)
            return to_numpy(density.conditionals(query, observed.value))

        # Half precision halves the files, and loses some hundredths of a nat in the sum of hundreds of trials.
        evaluated.append(
            (params, np.maximum(map_chunks(conditionals, len(scores), _DRAWS_AT_ONCE), -1e4).astype(np.float16))
        )
        return evaluated[-1][1].sum(-1, dtype=float)

    rng = generator(seed, DISTILLATION, first)
    proposal = fit_proposal(log_likelihood, _SETS_AT_ONCE, len(schema.params), rng, draws=_DRAWS, kept=None)
    params = {name: np.concatenate([piece[name] for piece, _ in evaluated]) for name in schema.params}
    by_trial = np.concatenate([x for _, x in evaluated])
    weight = normalize(by_trial.sum(-1, dtype=float) + proposal.log_ratio)
    files = []
    for index in range(_SETS_AT_ONCE):
        arrays = {f"data/{name}": x[index] for name, x in data.items()}
        arrays |= {f"params/{name}": x[:, index] for name, x in params.items()}
        arrays |= {"log_likelihood": by_trial[:, index], "log_ratio": proposal.log_ratio[:, index].astype(np.float32)}
        facts = {"format": _FORMAT, "effective": float(1 / (weight[:, index] ** 2).sum())}
        files.append(pack_arrays(_KEY, facts, arrays))
    return files


def _read_description(path: Path) -> Description:
    """The facts of a folder's sets."""
    try:
        description = json.loads(path.read_text())
        if not is_integer(description["trials"]):
            raise ValueError(f"trials are {description['trials']!r}")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"distillation: {str(path)!r} is damaged ({error!r})") from error
    return dict(description)


def _effective(path: Path) -> float:
    """How many equal draws the posterior given all trials rests on."""
    try:
        with safe_open(path, framework="numpy") as file:
            return float(json.loads((file.metadata() or {}).get(_KEY, "{}")).get("effective", 0.0))
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"distillation: {str(path)!r} is damaged ({error}); delete it, and prepare it anew") from error


def make_distillation_batch(
    simulator: Simulator, distillation: DistillationSets, options: BatchOptions, seed: int, step: int, stream: int
) -> Batch:
    """A batch as of `make_batch` that is conditioned on no parameter; buffer and targets are the same trials of a set.

    Each target sees the trials before it. Its outcomes are drawn again with parameters from the posterior given these,
    other ones for each sample: ``resampled`` has all of them, (B, 1, T, outcome_samples). And what the model says of
    the target's own outcomes is known without noise: ``log_predictive`` (B, 1, T), nats.
    """
    schema, rng = simulator.schema, generator(seed, DISTILLATION + 1 + stream, step)
    most = int(distillation.description["trials"])
    trials = min(log_uniform(rng, *options.trials), most)
    context = min(context_size(rng, options), most - trials)
    size = options.size(schema, trials, context)
    sets = [distillation[index] for index in rng.choice(distillation.split[int(stream == HELD_OUT)], size)]
    orders = np.stack([rng.permutation(most)[: context + trials] for _ in sets])
    past = {name: np.stack([one.data[name][order] for one, order in zip(sets, orders, strict=True)])
            for group in PAIR for name in getattr(schema, group)}  # fmt: skip
    past = augment_data(simulator, rng, past)
    batch: dict[str, Any] = {
        "params": {name: np.zeros(size, np.float32) for name in schema.params},
        "conditioned": np.zeros((size, 1, len(schema.params)), dtype=bool),
    }
    for part, where in (("context", slice(context)), ("buffer", slice(context, None))):
        if part == "buffer" or context:
            batch[part] = trial_arrays(schema, {name: x[:, where] for name, x in past.items()}, PAIR)
    batch["targets"] = {group: batch["buffer"][group] for group in TARGET}
    params: dict[str, list[np.ndarray]] = {name: [] for name in schema.params}
    log_predictive = []
    for one, order in zip(sets, orders, strict=True):
        cumulative, along = one.weigh(order)
        index = draw_systematically(rng, cumulative[context:], options.outcome_samples)
        log_predictive.append(along[context:])
        for name, values in params.items():
            values.append(one.params[name][index].ravel())
    batch["log_predictive"] = np.stack(log_predictive).astype(np.float32)[:, None]
    posterior = {name: np.concatenate(values) for name, values in params.items()}
    wide = {name: np.repeat(past[name][:, context:].reshape(-1), options.outcome_samples) for name in schema.inputs}
    outcomes, counts = _draw_legal(simulator, rng, posterior, wide)
    if outcomes is None:
        return Batch(None, counts)
    shape = (size, 1, trials, options.outcome_samples)
    batch["resampled"] = {name: x.reshape(shape).astype(np.float32) for name, x in outcomes.items()}
    return Batch(batch, counts)


def draw_systematically(rng: np.random.Generator, cumulative: np.ndarray, count: int) -> np.ndarray:
    """Indices (T, count) of draws with these cumulative weights (T, D)."""
    # Each counts as often as its weight says, give or take one. Shuffled, since the draws of a set are sorted by the
    # rounds that they come from.
    points = (rng.random((len(cumulative), 1)) + np.arange(count)) / count * cumulative[:, -1:]
    points = rng.permuted(points, axis=1)
    indices = [np.searchsorted(sums, row) for sums, row in zip(cumulative, points, strict=True)]
    return np.minimum(np.stack(indices), cumulative.shape[1] - 1)


def _draw_legal(
    simulator: Simulator, rng: np.random.Generator, params: Arrays, inputs: Arrays
) -> tuple[Arrays | None, RejectionCounts]:
    """Outcomes (n,) of one trial for each of the parameters (n,); illegal ones are drawn again."""
    outcomes: Arrays = {}
    missing = np.arange(len(next(iter(params.values()))))
    for _ in range(TRIES):
        some = ({name: x[missing] for name, x in tree.items()} for tree in (params, inputs))
        new, good, counts = draw_trials(simulator, rng, *some)
        for name, x in new.items():
            outcomes.setdefault(name, np.empty(len(missing)))[missing] = x
        missing = missing[~good]
        if not len(missing):
            return outcomes, RejectionCounts()
    return None, counts
