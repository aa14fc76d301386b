"""Recordings of people, standardised, and as what a network learns from; for `eeg.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import ppl_buffer as pb

PLACE = Path("eeg_uci_zhang1995") / "eeg_frontal7.npz"
# In hertz: the recording has 256 samples a second.
FREQUENCIES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
PEOPLE = 16


@dataclass(frozen=True)
class Recordings:
    """Recordings of one split, standardised.

    Attributes:
        x: (R, 7, 256).
        person: (R,).
        names: of the channels.
        test: the people for the test.
        validation: the people for the end of the training.
    """

    x: np.ndarray
    person: np.ndarray
    names: tuple[str, ...]
    test: tuple[int, ...]
    validation: tuple[int, ...]

    def of(self, subjects: Sequence[int]) -> np.ndarray:
        """(R', 7, 256), the recordings of some people."""
        return self.x[np.isin(self.person, subjects)]

    @property
    def learnt(self) -> np.ndarray:
        """The recordings of the people to learn from."""
        return self.x[~np.isin(self.person, self.test + self.validation)]

    @property
    def time(self) -> np.ndarray:
        """(256,) seconds."""
        return np.arange(self.x.shape[2]) / 256


def read(folder: Path, split: int) -> Recordings:
    """The recordings; of each of the two groups one person is for the test and one for the end of the training."""
    with np.load(folder / PLACE) as file:
        x, person, names = file["X"].astype(float), file["subject_index"], file["channels"]
    half = PEOPLE // 2
    test = (split, half + split)
    validation = tuple((split + 1) % half + group for group in (0, half))
    learnt = x[~np.isin(person, test + validation)]
    x = (x - learnt.mean((0, 2))[:, None]) / learnt.std((0, 2))[:, None]
    return Recordings(x, person, tuple(map(str, names)), test, validation)


class Stationary(pb.DatasetSimulator):
    """Recordings that might as well have begun at another time, been of the other sign, or of a head of another shape.

    None of it is quite so, but twelve people are few, and a network learns their recordings by heart.
    """

    def augment(self, rng: np.random.Generator, data: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The recordings moved by up to half a second, of either sign, up to a fifth larger or smaller.

        Where all channels are outcomes, some of each goes into the others, as if the electrodes sat elsewhere.
        """
        size, channels = (len(data["time"]), 1), list(self.schema.outcomes)
        factor = rng.choice([-1.0, 1.0], size) * np.exp(rng.uniform(-0.2, 0.2, size))
        moved = {name: x if name == "channel" else factor * x for name, x in data.items()}
        moved["time"] = data["time"] + rng.uniform(-0.5, 0.5, size)
        if len(channels) > 1:
            mixed = np.eye(len(channels)) + rng.normal(0, 0.07, (*size, len(channels), len(channels)))[:, 0]
            x = np.stack([moved[name] for name in channels], -1) @ mixed
            moved |= {name: x[..., index] for index, name in enumerate(channels)}
        return moved


def simulator(task: str, recordings: Recordings) -> pb.DatasetSimulator:
    """Recordings of the people who are not for the test, as data sets."""
    kept = ~np.isin(recordings.person, recordings.test)
    x, person = recordings.x[kept], recordings.person[kept]
    time = pb.Real(frequencies=FREQUENCIES)
    if task == "channels":
        outcomes = {name: x[:, i] for i, name in enumerate(recordings.names)}
        schema = pb.Schema(inputs={"time": time}, outcomes={name: pb.Real() for name in outcomes})
        inputs = {"time": recordings.time}
    else:
        outcomes, inputs = columns(x, recordings.time)
        person = np.tile(person, len(recordings.names))
        others = {name: pb.Real() for name in inputs if name not in ("time", "channel")}
        channel = pb.Categorical(len(recordings.names))
        schema = pb.Schema(inputs={"time": time, "channel": channel, **others}, outcomes={"voltage": pb.Real()})
    return Stationary(
        outcomes, inputs, schema=schema, group=person, held_out=recordings.validation, name=f"eeg, {task}"
    )


def columns(x: np.ndarray, time: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Of recordings (R, 7, 256) each channel in turn as the one that is missing: outcomes and inputs, (7 R, 256)."""
    size, channels, samples = x.shape
    change = np.diff(x, axis=2, prepend=x[:, :, :1])
    inputs = {
        "time": np.broadcast_to(time, (channels * size, samples)),
        "channel": np.broadcast_to(np.repeat(np.arange(channels), size)[:, None], (channels * size, samples)),
    }
    for place in range(channels - 1):
        others = [np.delete(np.arange(channels), missing)[place] for missing in range(channels)]
        for name, array in (("other", x), ("change", change)):
            inputs[f"{name}_{place + 1}"] = np.concatenate([array[:, other] for other in others])
    return {"voltage": x.swapaxes(0, 1).reshape(-1, samples)}, inputs
