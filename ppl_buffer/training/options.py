"""What `train` was asked for, checked: options by subject."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ppl_buffer.checks import check_choice, check_flag, check_integer, check_number

OPTIMIZERS = ("adamw", "muon")
LEARNS = ("all", "buffer")
ACCELERATORS = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class OptimizationOptions:
    """How the weights move; the arguments of `train` say what each option is.

    Args:
        steps: of each part; None = as many as the time allows.
        learning_rate: its peak.
        warmup: steps.
        weight_decay: of matrices.
        optimizer: its name.
        likelihood_weight: of the condition masks that hold all parameters, in the buffered transformer's training.
        learns: all weights, or those of the buffer alone.

    Raises:
        ValueError: if a number is out of its range, or the optimiser unknown.
    """

    steps: int | None = None
    learning_rate: float = 2e-3
    warmup: int = 0
    weight_decay: float = 0.01
    optimizer: str = "adamw"
    likelihood_weight: float | None = None
    learns: str = "all"

    def __post_init__(self) -> None:
        if self.steps is not None:
            check_integer("steps", self.steps, 1)
        check_integer("warmup", self.warmup, 0)
        check_number("learning_rate", self.learning_rate, "a number above 0", lambda x: x > 0)
        check_number("weight_decay", self.weight_decay, "a number of at least 0", lambda x: x >= 0)
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        check_choice("learns", self.learns, LEARNS)
        if self.likelihood_weight is not None:
            check_number("likelihood_weight", self.likelihood_weight, "a number in (0, 1) or None", lambda x: 0 < x < 1)


@dataclass(frozen=True)
class RunOptions:
    """Where, how and how long a run takes place; the arguments of `train` say more.

    `held_out` and `evaluate_every` decide which of the weights are kept as the best; the others change no number of a
    run of so many steps.

    Raises:
        ValueError: if a number is out of its range, or the accelerator unknown.
    """

    out: Path
    held_out: int = 256
    evaluate_every: int | None = 500
    devices: int = 1
    accelerator: str = "auto"
    workers: int = 1
    progress: bool = True
    minutes: float | None = None
    target: float | None = None
    patience: int = 5

    def __post_init__(self) -> None:
        for name, least in (("held_out", 1), ("devices", 1), ("workers", 0), ("patience", 1)):
            check_integer(name, getattr(self, name), least)
        if self.evaluate_every is not None:
            check_integer("evaluate_every", self.evaluate_every, 1)
        check_choice("accelerator", self.accelerator, ACCELERATORS)
        check_flag("progress", self.progress)
        for name in ("minutes", "target"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), "a number above 0", lambda x: x > 0)
