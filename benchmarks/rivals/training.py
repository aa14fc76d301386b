"""One training loop for all rivals, ours among them: the same batches, optimiser, learning rate and average.

The optimiser is the package's choice for a buffered transformer: Muon (Jordan et al. 2024,
https://kellerjordan.github.io/posts/muon) for the matrices inside the layers, AdamW (Loshchilov & Hutter 2019,
arXiv 1711.05101) for the rest; a rate that is constant and falls to zero in the last 40 %, gradients clipped, and an
exponential average of the weights, which is what is evaluated. A run is of so many steps, or of so many seconds of
processor time in updates; it can be killed at any moment and goes on from its last state. It uses a GPU where there is
one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ppl_buffer.training.optimizers import average_weights, set_learning_rate
from ppl_buffer.training.schedule import Schedule, warm_up

from .batch import Batch

_RATE, _WARMUP, _WEIGHT_DECAY, _LARGEST_NORM = 2e-3, 100, 0.01, 1.0
_SAVE_EVERY = 100


class Trainable(Protocol):
    """What is trained: a module with a loss."""

    def loss(self, batch: Batch) -> Tensor:
        """The loss of a batch."""
        ...


@dataclass
class Progress:
    """How far a run is."""

    step: int = 0
    seconds: float = 0.0
    recent_loss: float = 0.0


def make_optimizers(net: nn.Module) -> list[torch.optim.Optimizer]:
    """Muon for matrices inside layers, AdamW for the rest, without decay of what is no matrix."""
    weights = {name: weight for name, weight in net.named_parameters() if weight.requires_grad}
    inner = [name for name, x in weights.items() if "layers" in name and x.ndim == 2 and name.endswith("weight")]
    rest = [name for name in weights if name not in inner]
    decayed = [name for name in rest if weights[name].ndim == 2 and name.endswith("weight")]
    groups = [
        {"params": [weights[name] for name in decayed], "weight_decay": _WEIGHT_DECAY},
        {"params": [weights[name] for name in rest if name not in decayed], "weight_decay": 0.0},
    ]
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, _RATE, betas=(0.9, 0.99))]
    if inner:
        optimizers.append(torch.optim.Muon([weights[name] for name in inner], _RATE, weight_decay=_WEIGHT_DECAY))
    return optimizers


class Run:
    """A training that can go on: weights, their average, optimisers, progress.

    Args:
        net: what is trained.
        path: of its state.
        total: steps, or seconds of processor time.
        in_steps: which of the two.
    """

    def __init__(self, net: nn.Module, path: Path, total: float, in_steps: bool) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.net, self.path, self.in_steps, self.schedule = net.to(self.device), path, in_steps, Schedule(total)
        self.averaged = AveragedModel(net, multi_avg_fn=average_weights)
        self.optimizers, self.at = make_optimizers(net), Progress()
        if path.exists():
            self._restore()

    @property
    def done(self) -> float:
        """In the unit of the total."""
        return self.at.step if self.in_steps else self.at.seconds

    def update(self, batch: Batch) -> None:
        """One step."""
        begun = time.process_time()
        set_learning_rate(self.optimizers, _RATE * self.schedule.factor(self.done) * warm_up(self.at.step, _WARMUP))
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        loss = self.net.loss(batch.to(self.device))
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.net.parameters(), _LARGEST_NORM)
        if norm.isfinite():
            for optimizer in self.optimizers:
                optimizer.step()
            self.averaged.update_parameters(self.net)
            share = max(0.01, 1 / (self.at.step + 1))
            self.at.recent_loss += share * (float(loss.detach()) - self.at.recent_loss)
        self.at.step += 1
        self.at.seconds += time.process_time() - begun

    def save(self) -> None:
        """Write everything that a later call needs, in place of what was there."""
        tensors = {f"weights/{name}": x.clone() for name, x in self.net.state_dict().items()}
        tensors |= {f"averaged/{name}": x.clone() for name, x in self.averaged.state_dict().items()}
        for number, optimizer in enumerate(self.optimizers):
            for index, moments in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer/{number}/{index}/{key}": torch.as_tensor(x) for key, x in moments.items()}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = self.path.with_suffix(".new")
        save_file(tensors, new, {"progress": json.dumps(asdict(self.at))})
        new.replace(self.path)

    def _restore(self) -> None:
        with safe_open(self.path, "pt") as file:
            self.at = Progress(**json.loads(file.metadata()["progress"]))
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        parts: dict[str, dict[str, Tensor]] = {"weights": {}, "averaged": {}, "optimizer": {}}
        for name, tensor in tensors.items():
            part, _, rest = name.partition("/")
            parts[part][rest] = tensor
        self.net.load_state_dict(parts["weights"])
        self.averaged.load_state_dict(parts["averaged"])
        for number, optimizer in enumerate(self.optimizers):
            state: dict[int, dict[str, Tensor]] = {}
            for name, tensor in parts["optimizer"].items():
                which, index, key = name.split("/")
                if int(which) == number:
                    state.setdefault(int(index), {})[key] = tensor
            optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def train(
    net: nn.Module,
    batches: Callable[[int], Batch],
    path: Path,
    *,
    steps: int | None = None,
    seconds: float | None = None,
    until: float | None = None,
) -> Progress | None:
    """Train, or go on, and give the network its averaged weights.

    Args:
        net: a module that is `Trainable`.
        batches: step -> batch.
        path: of the state.
        steps: how many in all; or
        seconds: of processor time that updates take.
        until: a time of the clock (`time.time`) at which to save and return, done or not.

    Returns:
        how far it came; None if it is not done.
    """
    run = Run(net, path, float(steps or seconds or 0), in_steps=steps is not None)
    while run.done < run.schedule.total:
        if until is not None and time.time() > until:
            run.save()
            return None
        run.update(batches(run.at.step))
        if run.at.step % _SAVE_EVERY == 0:
            run.save()
            print(f"{path.stem}: step {run.at.step}, {run.at.seconds:.0f} s, loss {run.at.recent_loss:.3f}", flush=True)
    run.save()
    net.load_state_dict(run.averaged.module.state_dict())
    net.cpu().eval().requires_grad_(False)
    return run.at
