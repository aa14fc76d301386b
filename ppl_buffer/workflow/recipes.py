"""How the shipped networks are trained: recipes, stage by stage from a seed.

A recipe is ``pretrained/NAME.toml``: the simulator, the sizes, and the stages of a training, each a call of
`ppl_buffer.train` that starts from the network of the stage before.
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
from ppl_buffer.network import checkpoint
from ppl_buffer.network.config import Config
from ppl_buffer.network.network import Network
from ppl_buffer.simulator import Simulator

# In place of a recipe's sizes, to see it work.
_QUICK_CONFIG = {"width": 16, "heads": 2, "mlp": 32, "components": 5, "contextual_positions": 2}
_QUICK = {"steps": 20, "batch_size": 8, "trials": (5, 16), "held_out": 16, "evaluate_every": 10}
_QUICK_SETS = {"sets": 4, "trials": 16}


@dataclass(frozen=True)
class Recipe:
    """How one network is trained.

    Attributes:
        name: of the network.
        simulator: a shipped one: its class by ``name``, and the arguments of this class.
        config: sizes of the network of the first stage.
        stages: options of each, by the names of `ppl_buffer.train`'s arguments, and what only some stages have:
            ``config`` (sizes to which the network grows), ``distillation`` (data sets to prepare with the network of
            the stage before), ``mean_with_start`` (the result is the mean of the weights before and after).
    """

    name: str
    simulator: Mapping[str, Any]
    config: Mapping[str, Any]
    stages: tuple[Mapping[str, Any], ...]

    @classmethod
    def read(cls, name: str) -> Recipe:
        """The recipe of a shipped network.

        Raises:
            ValueError: if there is none of this name.
        """
        check_choice("name", name, tuple(recipe_names()))
        file = _folder() / f"{name}.toml"
        text = tomllib.loads(file.read_text(encoding="utf-8"))
        return cls(name, text["simulator"], text["config"], tuple(text["stages"]))


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
    quick: bool = False,
    minutes: float = math.inf,
    progress: bool = True,
) -> Path | None:
    """Run a recipe from its seed; what an earlier call with the same folder made is not made again.

    Args:
        recipe: of the network.
        out: folder of the stages' runs and of the result.
        quick: a tiny network, a few steps a stage.
        minutes: stop after this time; the same call goes on.
        progress: show progress bars.

    Returns:
        the network's file, ``NAME.safetensors`` in `out`, with the lineage of all stages in its record; None if the
        time was over before.
    """
    deadline, folder = time.monotonic() + 60 * minutes, Path(out)
    simulator, config = make_simulator(recipe.simulator), Config(**recipe.config)
    if quick:
        config = replace(config, **_QUICK_CONFIG)
    net = None
    for number, stage in enumerate(recipe.stages, start=1):
        left = (deadline - time.monotonic()) / 60
        if left <= 0:
            return None
        limits = {"minutes": None if math.isinf(left) else left, "progress": progress}
        net = train_stage(simulator, config, {**stage, **limits}, net, folder / f"stage_{number}", quick)
    if time.monotonic() >= deadline or net is None:
        return None
    path = folder / f"{recipe.name}.safetensors"
    checkpoint.save(net, path)
    return path


def train_stage(
    simulator: Simulator, config: Config, stage: Mapping[str, Any], start: Network | None, out: Path, quick: bool
) -> Network:
    """Run one stage.

    Args:
        simulator: of the network.
        config: sizes of the first stage's network.
        stage: see `Recipe.stages`.
        start: the network of the stage before, or None.
        out: folder of the stage.
        quick: take a few small steps.
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
    net = train(simulator, config, start=start, out=out, **options)
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
