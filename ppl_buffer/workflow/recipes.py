"""How the shipped networks are trained: recipes, part by part and stage by stage from a seed.

A recipe is ``pretrained/NAME.toml``: the simulator, the sizes, the stages in which the buffered transformer is trained,
and the training of the direct likelihood beside it. Each is a call of `ppl_buffer.train`.
"""

from __future__ import annotations

import math
import os
import time
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import ppl_buffer.simulators
from ppl_buffer.checks import check_choice
from ppl_buffer.extras import needs
from ppl_buffer.files import make_folder, pack_arrays, write_atomic
from ppl_buffer.network import checkpoint
from ppl_buffer.network.config import DIRECT_SIZES, Config, without_likelihood
from ppl_buffer.network.estimated_error import PARTS
from ppl_buffer.network.network import Network
from ppl_buffer.simulator import Simulator, name_of

LIKELIHOOD, BUFFER = PARTS
# In place of a recipe's sizes, to see it work.
_QUICK_CONFIG: dict[str, Any] = {"width": 16, "heads": 2, "mlp": 32, "components": 5, "contextual_positions": 2}
_QUICK = {"steps": 20, "batch_size": 8, "trials": (5, 16), "held_out": 16, "evaluate_every": 10}
_QUICK_SETS = {"sets": 4, "trials": 16}


@dataclass(frozen=True)
class Recipe:
    """How one network is trained.

    Attributes:
        name: of the network.
        simulator: a shipped one: its class by ``name``, and the arguments of this class.
        config: sizes of the network of the first stage; what differs from the sizes of `start`, where there is one.
        stages: of the buffered transformer: options of each, by the names of `ppl_buffer.train`'s arguments, and what
            only some stages have: ``config`` (sizes to which the network grows), ``distillation`` (data sets to prepare
            with the network so far; the direct likelihood, where there is one, is trained before such a stage),
            ``mean_with_start`` (the result is the mean of the weights before and after). None where the network is a
            direct likelihood alone, whose ``config`` has ``depth = 0``.
        likelihood: stages of the direct likelihood, likewise; none where there is no direct one.
        earlier: of the shipped file, the parts whose weights are older than this recipe.
        start: the shipped network, of the same schema, whose weights both parts begin with; None = random ones.
    """

    name: str
    simulator: Mapping[str, Any]
    config: Mapping[str, Any]
    stages: tuple[Mapping[str, Any], ...]
    likelihood: tuple[Mapping[str, Any], ...] = ()
    earlier: tuple[str, ...] = ()
    start: str | None = None

    @classmethod
    def read(cls, name: str) -> Recipe:
        """The recipe of a shipped network.

        Raises:
            ValueError: if there is none of this name.
        """
        check_choice("name", name, tuple(recipe_names()))
        text = tomllib.loads((_folder() / f"{name}.toml").read_text(encoding="utf-8"))
        return cls(
            name=name,
            simulator=text["simulator"],
            config=text.get("config", {}),
            stages=tuple(text.get("stages", ())),
            likelihood=tuple(text.get("likelihood", ())),
            earlier=tuple(text.get("earlier", {}).get("parts", ())),
            start=text.get("start"),
        )

    def sizes(self) -> Config:
        """Sizes of the network of the first stage."""
        return Config(**self.config) if self.start is None else replace(_shipped(self.start).config, **self.config)


def recipe_names() -> list[str]:
    """The networks that have a recipe."""
    return sorted(file.name.removesuffix(".toml") for file in _folder().iterdir() if file.name.endswith(".toml"))


def make_simulator(description: Mapping[str, Any]) -> Simulator:
    """A shipped simulator: its class by ``name``, and the arguments of this class."""
    arguments = dict(description)
    return vars(ppl_buffer.simulators)[arguments.pop("name")](**arguments)


def train_recipe(
    recipe: Recipe,
    out: str | os.PathLike[str],
    *,
    parts: str = "all",
    quick: bool = False,
    minutes: float = math.inf,
    progress: bool = True,
) -> Path | None:
    """Run a recipe from its seed; what an earlier call with the same folder made is not made again.

    Args:
        recipe: of the network.
        out: folder of the runs and of the result.
        parts: "all", or "likelihood": the direct likelihood anew, beside the transformer of the shipped file, whose
            weights stay as they are, where there is one.
        quick: a tiny network, a few steps a stage.
        minutes: stop after this time; the same call goes on.
        progress: show progress bars.

    Returns:
        the network's file, ``NAME.safetensors`` in `out`, with the lineage of all stages in its record; None if the
        time was over before.

    Raises:
        ValueError: if `parts` is neither, or asks for a direct likelihood of a model that has none.
    """
    check_choice("parts", parts, ("all", LIKELIHOOD))
    if parts == LIKELIHOOD and not recipe.likelihood:
        raise ValueError(
            f"parts: expected 'all', since the recipe of {recipe.name} has no direct likelihood, got {parts!r}"
        )
    deadline, folder = time.monotonic() + 60 * minutes, Path(out)
    limits: dict[str, Any] = {"progress": progress}

    def time_is_over() -> bool:
        left = (deadline - time.monotonic()) / 60
        limits["minutes"] = None if math.isinf(left) else left
        return left <= 0

    simulator, config = make_simulator(recipe.simulator), recipe.sizes()
    if quick and recipe.start is None:
        config = replace(config, **_QUICK_CONFIG, likelihood_width=min(config.likelihood_width, 8))
    net = None if recipe.start is None else _shipped(recipe.start)
    # Whether the network has a transformer of this recipe, beside which the direct likelihood is trained.
    beside = parts == LIKELIHOOD and bool(recipe.stages)
    if beside:
        net = _shipped_transformer(recipe, folder)
    for part, number, stage in _in_turn(recipe, parts):
        if time_is_over():
            return None
        options = {**stage, **limits}
        if part == BUFFER:
            sizes = without_likelihood(config)
            net, beside = train_stage(simulator, sizes, options, net, folder / f"stage_{number}", quick), True
        elif beside:
            assert net is not None
            net = train_likelihood(simulator, config, options, net, folder / f"likelihood_{number}", quick)
        else:
            net = train_stage(simulator, config, options, net, folder / f"likelihood_{number}", quick, LIKELIHOOD)
    if time_is_over():
        return None
    assert net is not None
    path = folder / f"{recipe.name}.safetensors"
    checkpoint.save(net, path)
    return path


def _in_turn(recipe: Recipe, parts: str) -> list[tuple[str, int, Mapping[str, Any]]]:
    """The stages in the order in which they run: the part, the stage's number among those of the part, its options."""
    numbered = {
        part: [(part, number, stage) for number, stage in enumerate(stages, start=1)]
        for part, stages in ((BUFFER, recipe.stages), (LIKELIHOOD, recipe.likelihood))
    }
    if parts == LIKELIHOOD:
        return numbered[LIKELIHOOD]
    # The direct likelihood is the nearer to the truth: it finds the posteriors that the transformer is to learn from.
    first = next((n for n, stage in enumerate(recipe.stages) if "distillation" in stage), len(recipe.stages))
    return numbered[BUFFER][:first] + numbered[LIKELIHOOD] + numbered[BUFFER][first:]


def train_likelihood(
    simulator: Simulator, sizes: Config, stage: Mapping[str, Any], beside: Network, out: Path, quick: bool
) -> Network:
    """Run one stage of the direct likelihood, beside a buffered transformer.

    Args:
        simulator: of both.
        sizes: of the direct likelihood; the others are those of `beside`.
        stage: see `Recipe.likelihood`.
        beside: the network of the transformer, whose weights and scales stay as they are. A direct likelihood that it
            has is where the stage starts; else the weights are random.
        out: folder of the run.
        quick: take a few small steps.

    Returns:
        the network with both parts. Its record is that of `beside`, and the stage.

    Raises:
        ValueError: if the simulator draws parameters from another box than the transformer knows, or the likelihood is
            to be trained on shorter sequences.
    """
    with needs("training", "train"):
        from ppl_buffer.training.loop import train
        from ppl_buffer.training.standardization import trained_box
    known = beside.record
    assert known is not None
    options: dict[str, Any] = {name: tuple(x) if isinstance(x, list) else x for name, x in stage.items()}
    box = trained_box(simulator)[0]
    if box != dict(known.box):
        raise ValueError(f"simulator: expected the box of the transformer, {dict(known.box)}, got {box}")
    if beside.schema.ordered and options["trials"][1] < known.trials:
        raise ValueError(
            f"trials: expected sequences of up to {known.trials}, as the transformer knows, got {options['trials']}"
        )
    options |= _QUICK if quick else {}
    config = replace(beside.config, **{name: getattr(sizes, name) for name in DIRECT_SIZES})
    net = train(simulator, config, parts=LIKELIHOOD, start=beside, out=out, **options)
    assert net.record is not None
    # What data are familiar is what the transformer knows, unless the two saw other ones.
    other = {} if name_of(simulator) == known.simulator else dict(net.record.ranges)
    record = replace(known, stages=net.record.stages, errors=net.record.errors, likelihood_ranges=other)
    path = out / "both.safetensors"
    checkpoint.write(net, record, path)
    return checkpoint.load(path, backend="torch")


def _shipped(name: str) -> Network:
    """A shipped network that a recipe starts from."""
    check_choice("start", name, tuple(checkpoint.shipped()))
    return checkpoint.load(name, backend="torch")


def _shipped_transformer(recipe: Recipe, folder: Path) -> Network:
    """The recipe's shipped network without its direct likelihood, if it has one: written to the folder, and loaded.

    Where the recipe starts from a network, it has the direct likelihood of that one.
    """
    description, arrays = _read_shipped(recipe.name)
    config, record = Config.from_dict(description["config"]), description["record"]
    weights = {key: array for key, array in arrays.items() if not _of_likelihood(key)}
    before = 0
    if recipe.start is None:
        config = without_likelihood(config)
    else:
        start, other = _read_shipped(recipe.start)
        weights |= {key: array for key, array in other.items() if _of_likelihood(key)}
        before = len(start["record"]["stages"])
    # Those of the network that it began with come first, with the direct likelihood's.
    stages = [
        stage for number, stage in enumerate(record["stages"]) if number < before or stage.get("part", BUFFER) == BUFFER
    ]
    errors = {part: error for part, error in record.get("errors", {}).items() if part == BUFFER}
    description["config"] = config.to_dict()
    description["record"] = record | {"stages": stages, "errors": errors, "likelihood_ranges": {}}
    make_folder("out", folder)
    transformer = folder / "transformer.safetensors"
    write_atomic(transformer, pack_arrays(checkpoint.KEY, description, weights))
    return checkpoint.load(transformer, backend="torch")


def _read_shipped(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a shipped file says of itself, and its arrays."""
    with resources.as_file(checkpoint.shipped()[name]) as path:
        return checkpoint.read_description(path)


def _of_likelihood(weight: str) -> bool:
    """Whether a weight is one of the direct likelihood."""
    return weight.startswith(f"{LIKELIHOOD}.")


def train_stage(
    simulator: Simulator,
    config: Config,
    stage: Mapping[str, Any],
    start: Network | None,
    out: Path,
    quick: bool,
    part: str = BUFFER,
) -> Network:
    """Run one stage of a network's first part.

    Args:
        simulator: of the network.
        config: sizes of the first stage's network.
        stage: see `Recipe.stages`.
        start: the network of the stage before, or None.
        out: folder of the stage.
        quick: take a few small steps.
        part: the buffered transformer, or the direct likelihood of a network that has nothing else.
    """
    with needs("training", "train"):
        from ppl_buffer.training.distillation import prepare_distillation
        from ppl_buffer.training.loop import train
    options: dict[str, Any] = {name: tuple(x) if isinstance(x, list) else x for name, x in stage.items()}
    grown, sets = options.pop("config", {}), options.pop("distillation", None)
    mean_with_start = options.pop("mean_with_start", False)
    if start is not None:
        config = replace(start.config, **grown)
    if sets is not None:
        if start is None:
            raise ValueError("distillation: expected a stage that starts from a network, which teaches")
        sets = dict(sets)
        size = {name: sets.pop(name) for name in ("sets", "trials", "seed")} | (_QUICK_SETS if quick else {})
        source = make_simulator({"name": sets.pop("source"), **sets})
        options["distillation"] = prepare_distillation(start, source, out=out / "distillation", **size)
    options |= _QUICK if quick else {}
    net = train(simulator, config, parts=part, start=start, out=out, **options)
    return _mean_of(start, net, out / "mean.safetensors") if mean_with_start else net


def _mean_of(start: Network | None, net: Network, path: Path) -> Network:
    """The network whose weights are the mean of those before and after a stage; its record says so."""
    if start is None or start.config != net.config:
        raise ValueError("mean_with_start: expected a stage that starts from a network of the same sizes")
    assert net.record is not None
    *before, last = net.record.stages
    last = replace(last, options={**last.options, "mean_with_start": True})
    for name, weight in net.weights.items():
        weight.add_(start.weights[name]).div_(2)
    checkpoint.write(net, replace(net.record, stages=(*before, last)), path)
    return checkpoint.load(path, backend="torch")


def _folder() -> Traversable:
    return resources.files("ppl_buffer") / "pretrained"
