"""The training of a buffer for a torch module that is not ours."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike
from tqdm.auto import tqdm

from ppl_buffer.checks import check_integer, check_number, check_seed
from ppl_buffer.files import Description, make_folder, pack_arrays, read_arrays, to_numpy, write_atomic
from ppl_buffer.findings import Finding, warn_of
from ppl_buffer.network.torch.weights import TorchNetwork
from ppl_buffer.training.buffered_module import LOW_RANK, BufferedModule, check_pairs
from ppl_buffer.training.interrupts import collect_interrupts
from ppl_buffer.training.optimizers import set_learning_rate
from ppl_buffer.training.schedule import Schedule, warm_up
from ppl_buffer.training.set_predictor import Pairs, SetPredictor, check_members

_WARMUP, _LARGEST_NORM = 100, 1.0
# Seconds after which the state is written again.
_EVERY = 60.0
_STATE, _KEY, _FORMAT = "state.safetensors", "ppl_buffer_module", 1

# (random numbers, data sets, points) -> inputs and outcomes, (data sets, points, ...) each.
DrawPairs = Callable[[np.random.Generator, int, int], tuple[ArrayLike, ArrayLike]]


def _refuse_ours(module: object) -> None:
    if isinstance(module, TorchNetwork):
        raise ValueError(
            "module: expected a torch module of yours; `add_buffer` adds a buffer to a network of ppl_buffer"
        )


@torch.enable_grad()
def add_buffer_to_module(
    module: SetPredictor,
    draw: DrawPairs,
    way: str = LOW_RANK,
    *,
    rank: int = 8,
    steps: int = 2000,
    context: tuple[int, int] = (1, 64),
    targets: int = 16,
    batch_size: int = 16,
    learning_rate: float = 2e-3,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
) -> BufferedModule:
    """Teach a torch module that is not ours, and predicts each target alone, to predict targets jointly.

    The module is frozen: what it predicts without a buffer stays as it is, to the last bit. The new weights maximise
    the joint log density of targets after contexts of random size, by AdamW (Loshchilov & Hutter 2019, arXiv
    1711.05101) at a rate that is constant and falls to zero in the end.

    Args:
        module: a set predictor: a transformer neural process, a prior-data fitted network or the like.
            `ppl_buffer.training.set_predictor.SetPredictor` says what methods it has to have.
        draw: function (rng, data sets, points) -> inputs and outcomes, of shape (data sets, points) or (data sets,
            points, ...), on the scale that the module reads. Points are exchangeable: context and targets alike.
        way: what learns.

            - ``"low_rank"``: an addition of rank `rank` to the keys and values of the buffer's tokens (low-rank
              adaptation, Hu et al. 2022, arXiv 2106.09685), which are read beside the context's in one softmax;
            - ``"apart"``: a read of the buffer of its own in each layer, whose result is added and starts at zero.
        rank: of ``"low_rank"``.
        steps: of the training.
        context: the least and the largest number of points before the targets.
        targets: how many points learn to be predicted jointly.
        batch_size: data sets of a step.
        learning_rate: its peak.
        seed: of the new weights and of all data.
        out: folder of the training, made if it does not exist. The same call on the same folder goes on where it was
            stopped, and ends where it would have ended without the stop, to the last bit.

    Returns:
        the module with a buffer. Its `added` is the module of the new weights. After Ctrl-C without a folder, as it was
        then, which a warning says.

    Raises:
        ValueError: if the module lacks a method, or one returns something of another shape, or `draw` does; or if a
            loss is not finite, or an argument does not fit, the folder's training among them.
        KeyboardInterrupt: on Ctrl-C, after the state was saved in the folder.
    """
    _refuse_ours(module)
    check_members(module)
    if not callable(draw):
        raise ValueError(f"draw: expected a function (rng, data sets, points), got {type(draw).__name__}")
    for name, value in (("steps", steps), ("targets", targets), ("batch_size", batch_size)):
        check_integer(name, value)
    rate = check_number("learning_rate", learning_rate, "a number above 0, at most 1", lambda x: 0 < x <= 1)
    least, most = _check_context(context)
    check_seed(seed)

    def batch(step: int) -> tuple[Pairs, Pairs]:
        """Context and targets."""
        rng = np.random.default_rng([seed, step])
        count = int(rng.integers(least, most + 1))
        data = _as_tensors(draw(rng, batch_size, count + targets), module, (batch_size, count + targets))
        known, new = ([part[:, a:b] for part in data] for a, b in ((0, count), (count, count + targets)))
        return (known[0], known[1]), (new[0], new[1])

    buffered = BufferedModule(module, batch(0)[1], way, rank=rank, seed=seed)
    weights, schedule = list(buffered.added.parameters()), Schedule(steps)
    optimizer = torch.optim.AdamW(weights, rate, betas=(0.9, 0.99), weight_decay=0.0)
    settings: Description = {
        "way": way, "rank": rank, "steps": steps, "context": [least, most], "targets": targets,
        "batch_size": batch_size, "learning_rate": rate, "seed": seed, "module": _digest(module),
    }  # fmt: skip
    kept = _Kept.of(out, settings, buffered, optimizer)
    buffered.train()
    with collect_interrupts() as interrupts, tqdm(total=steps, initial=kept.step, desc="buffer", disable=None) as bar:
        for step in range(kept.step, steps):
            if interrupts:
                return _stopped(buffered, kept, step, steps)
            set_learning_rate([optimizer], rate * schedule.factor(step) * warm_up(step, min(_WARMUP, steps // 10)))
            _learn(buffered, optimizer, batch(step), step)
            kept.write_sometimes(step + 1)
            # None: a bar where someone looks, nothing in a file.
            bar.update()
    kept.write(steps)
    return buffered.eval()


def _learn(buffered: BufferedModule, optimizer: torch.optim.Optimizer, data: tuple[Pairs, Pairs], step: int) -> None:
    """One step on a context and targets."""
    known, new = data
    loss = -buffered.conditionals(known, *new).mean()
    if not loss.requires_grad:
        raise ValueError(
            "module: expected methods through which the densities depend on what the buffer adds, got none; are they "
            "under torch.no_grad, or does `finish` leave out the tokens, which a buffer read apart adds to?"
        )
    optimizer.zero_grad()
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(list(buffered.added.parameters()), _LARGEST_NORM)
    if not (loss.isfinite() and norm.isfinite()):
        raise ValueError(
            f"draw: expected data whose density has a finite gradient, got a loss of {float(loss.detach()):g} and a "
            f"gradient of length {float(norm):g} in step {step}"
        )
    optimizer.step()


def _stopped(buffered: BufferedModule, kept: _Kept, step: int, steps: int) -> BufferedModule:
    """What to do after Ctrl-C."""
    if kept.folder is not None:
        kept.write(step)
        raise KeyboardInterrupt(f"training stopped; its state is in {kept.folder}, and the same call goes on")
    text = (
        f"add_buffer_to_module: stopped after {step} of {steps} steps; the module with the buffer as it is now is "
        "returned. With out= a folder the same call would go on"
    )
    warn_of(Finding("training", text, share=step / steps), stacklevel=3)
    return buffered.eval()


@dataclass
class _Kept:
    """The state of a training in a folder; without a folder nothing is written.

    Attributes:
        folder: of the training, or None.
        settings: of the training.
        buffered: what learns.
        optimizer: of its new weights.
        step: where the training goes on.
        written: time of the last writing.
    """

    folder: Path | None
    settings: Description
    buffered: BufferedModule
    optimizer: torch.optim.Optimizer
    step: int = 0
    written: float = 0.0

    @classmethod
    def of(
        cls,
        out: str | os.PathLike[str] | None,
        settings: Description,
        buffered: BufferedModule,
        optimizer: torch.optim.Optimizer,
    ) -> _Kept:
        """What the folder holds already, put into the weights and the optimizer.

        Raises:
            ValueError: if it is of a training of other settings, or damaged.
        """
        kept = cls(None if out is None else Path(out), settings, buffered, optimizer, written=time.monotonic())
        if kept.folder is not None:
            make_folder("out", kept.folder)
            if (kept.folder / _STATE).exists():
                kept._read(kept.folder)
        return kept

    def _read(self, folder: Path) -> None:
        description, arrays = read_arrays(folder / _STATE, _KEY, _FORMAT)
        before = description["settings"]
        different = [
            f"{name} was {before.get(name)!r}, is {now!r}"
            for name, now in self.settings.items()
            if before.get(name) != now
        ]
        if different:
            raise ValueError(
                f"out: expected a folder without a training, or with one of the same settings, but in {str(folder)!r} "
                f"{'; '.join(different)}. Choose another folder"
            )
        self.step = description["step"]
        weights = self.buffered.added.state_dict()
        self.buffered.added.load_state_dict({name: torch.from_numpy(arrays[f"weights.{name}"]) for name in weights})
        state = self.optimizer.state_dict()
        names = ("step", "exp_avg", "exp_avg_sq")
        indices = state["param_groups"][0]["params"] if self.step else []
        state["state"] = {
            index: {name: torch.from_numpy(arrays[f"optimizer.{index}.{name}"]) for name in names} for index in indices
        }
        self.optimizer.load_state_dict(state)

    def write_sometimes(self, step: int) -> None:
        """Write the state where the last writing was long ago."""
        if time.monotonic() - self.written > _EVERY:
            self.write(step)

    def write(self, step: int) -> None:
        """Write the state after so many steps."""
        self.written = time.monotonic()
        if self.folder is None:
            return
        arrays = {f"weights.{name}": to_numpy(x) for name, x in self.buffered.added.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            arrays |= {f"optimizer.{index}.{name}": to_numpy(x) for name, x in state.items()}
        description = {"format": _FORMAT, "settings": self.settings, "step": step}
        write_atomic(self.folder / _STATE, pack_arrays(_KEY, description, arrays))


def _digest(module: SetPredictor) -> str:
    """SHA-256 of a module's weights, in hex."""
    assert isinstance(module, torch.nn.Module)
    whole = hashlib.sha256()
    for name, weight in sorted(module.state_dict().items()):
        whole.update(f"{name}{weight.dtype}{tuple(weight.shape)}".encode())
        whole.update(to_numpy(weight).tobytes())
    return whole.hexdigest()


def _check_context(context: tuple[int, int]) -> tuple[int, int]:
    if not isinstance(context, (tuple, list)) or len(context) != 2:
        raise ValueError(f"context: expected the least and the largest number of points, got {context!r}")
    least, most = (check_integer("context", size, 0) for size in context)
    if least > most:
        raise ValueError(f"context: expected a least number of points and one as large or larger, got {context!r}")
    return least, most


def _as_tensors(data: tuple[ArrayLike, ArrayLike], module: SetPredictor, shape: tuple[int, int]) -> Pairs:
    """What `draw` gave, where the module is, real numbers in its precision."""
    try:
        x, y = data
    except (TypeError, ValueError):
        raise ValueError(f"draw: expected to return inputs and outcomes, got {type(data).__name__}") from None
    assert isinstance(module, torch.nn.Module)
    like = next(module.parameters(), torch.empty(0))
    tensors = [torch.as_tensor(part, device=like.device) for part in (x, y)]
    inputs, outcomes = (x.to(like.dtype) if x.is_floating_point() else x for x in tensors)
    check_pairs("draw", (inputs, outcomes))
    if inputs.shape[:2] != shape:
        raise ValueError(f"draw: expected {shape[0]} data sets of {shape[1]} points, got {tuple(inputs.shape[:2])}")
    if not outcomes.isfinite().all():
        raise ValueError("draw: expected outcomes that are finite numbers, got some that are not")
    return inputs, outcomes
