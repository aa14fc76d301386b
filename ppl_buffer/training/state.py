"""The files of a run: what a part of it keeps to go on, and what of an earlier call may be gone on with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ppl_buffer import files
from ppl_buffer.files import Description, pack_arrays, write_atomic
from ppl_buffer.network.estimated_error import PARTS
from ppl_buffer.training.plan import TrainingPlan
from ppl_buffer.training.schedule import Schedule
from ppl_buffer.training.sketch import FILE as SKETCH

# In the run's folder and in that of each part: all that was trained so far, and of that part alone.
BEST = "best.safetensors"
# In the folder of each part.
STATE, BEFORE_DECAY, LOG, CURVE = "state.safetensors", "before_decay.safetensors", "log.csv", "loss.png"
_KEY, _FORMAT = "ppl_buffer_run", 3


@dataclass(frozen=True)
class KeptState:
    """A state of a part's training as a file holds it.

    Args:
        path: of the file.
        description: JSON-ready.
        arrays: weights, averaged weights, what the optimisers remember, snapshots.
    """

    path: Path
    description: Description
    arrays: Mapping[str, np.ndarray]

    @property
    def settings(self) -> Description:
        """The `TrainingPlan.fingerprint` of the run."""
        return self.description["settings"]

    def schedule(self, plan: TrainingPlan, offered: float) -> tuple[Schedule, bool]:
        """How the learning rate goes on.

        Args:
            plan: of the call that goes on.
            offered: how long the part's training is to be in all, in steps or in seconds.

        Returns:
            the schedule, and whether it goes on from the state before the decay.

        Raises:
            ValueError: if it is to be shorter, in steps, than it was planned, and is past the point where its rate
                would begin to fall; or if it is to go by time and was planned in steps.
        """
        planned, progress = self.description["planned"], self.description["progress"]
        before, after = Schedule(planned["total"]), Schedule(offered)
        shorter = (plan.steps or 0) < (planned["steps"] or 0)
        # Before the rate falls no step is one too many.
        too_late = progress["decaying"] or after.decays(progress["step"] - 1)
        if (planned["steps"], plan.steps).count(None) == 1 or (shorter and too_late):
            raise ValueError(
                f"out: expected a folder without a run, or with one of as many steps or fewer, or one that is not yet "
                f"where the learning rate would begin to fall, but in {str(plan.run.out)!r} steps was "
                f"{planned['steps']}, is {plan.steps}, and {progress['step']} are done. Choose another folder, or "
                "resume=False to start anew"
            )
        if progress.get("overfitted"):
            return before, False
        reached, target = planned["target"], plan.run.target
        reopened = reached is not None and (target is None or target < reached)
        longer = after.longer_than(before) if plan.steps is None else plan.steps != planned["steps"]
        if longer or reopened:
            return after, progress["decaying"]
        if plan.steps is None and not progress["decaying"] and self.description["seconds"] < offered:
            return after, False
        return before, False


def read_state(folder: Path, name: str = STATE) -> KeptState | None:
    """What a part's folder holds of a run; None if there is none.

    Raises:
        ValueError: if it is damaged, or of another version.
    """
    path = folder / name
    if not path.exists():
        return None
    description, arrays = files.read_arrays(path, _KEY, _FORMAT)
    return KeptState(path, description, arrays)


def write_state(path: Path, description: Description, arrays: Mapping[str, np.ndarray]) -> None:
    """Write what `read_state` reads."""
    write_atomic(path, pack_arrays(_KEY, {"format": _FORMAT, **description}, arrays))


def check_same_run(plan: TrainingPlan, kept: KeptState) -> None:
    """Refuse to go on with a run of other settings.

    Raises:
        ValueError: naming them.
    """
    now, before = plan.fingerprint(), kept.settings
    different = [
        f"{name} was {before.get(name)!r}, is {now.get(name)!r}"
        for name in sorted({*now, *before})
        if now.get(name) != before.get(name)
    ]
    if different:
        raise ValueError(
            f"out: expected a folder without a run, or with one of the same settings, but in {str(plan.run.out)!r} "
            f"{'; '.join(different)}. Choose another folder, or resume=False to start anew"
        )


def check_version(folder: Path) -> None:
    """Refuse a folder with the run of an earlier version.

    Raises:
        ValueError: if there is one.
    """
    if (folder / STATE).exists():
        raise ValueError(
            f"out: {str(folder)!r} holds a run that an earlier version of ppl_buffer began and only that version can "
            f"go on with. Its network, {BEST}, loads, and can be the start of another run. Choose another folder, or "
            "resume=False to start anew"
        )


def forget_run(folder: Path, parts: tuple[str, ...]) -> None:
    """Delete the files of some parts of a run, and those of an earlier version's run."""
    for place in (folder, *(folder / part for part in parts)):
        # The state goes first: without it the other files are only results.
        for name in (STATE, BEFORE_DECAY, SKETCH, BEST, LOG, CURVE):
            (place / name).unlink(missing_ok=True)
        if place != folder and place.is_dir() and not any(place.iterdir()):
            place.rmdir()


def parts_begun(folder: Path) -> tuple[str, ...]:
    """The parts that a run has a network of, in the order of their training."""
    return tuple(part for part in PARTS if (folder / part / BEST).exists())
