"""Sines and cosines of inputs: what the network reads of a time or a place, by the formula anew."""

from __future__ import annotations

import numpy as np
import pytest

import ppl_buffer as pb
from ppl_buffer.network.config import Config
from ppl_buffer.network.embeddings import features
from tests.networks import DEEP, Case, array, network, standardization

BACKENDS = ["torch", "jax"]
# A time in seconds, and places whose unit does not matter.
PLACES = Case(
    "places",
    pb.Schema(
        inputs={
            "east": pb.Real(frequencies=5),
            "side": pb.Categorical(3),
            "time": pb.Real(frequencies=(2.0, 7.5, 31.0)),
            "cue": pb.Real(),
        },
        outcomes={"y": pb.Real()},
    ),
    config=DEEP,
)


@pytest.mark.parametrize("backend", BACKENDS)
def test_features_are_those_of_the_formula(backend):
    rng, scales = np.random.default_rng(1), standardization(PLACES.schema)
    values = {
        "east": rng.normal(0, 3, (2, 1, 11)), "side": rng.integers(0, 3, (2, 1, 11)),
        "time": rng.uniform(0, 1, (2, 1, 11)), "cue": rng.normal(0, 1, (2, 1, 11)),
    }  # fmt: skip
    read = features(
        network(PLACES, backend), PLACES.schema.inputs, array(backend, {k: v.astype("f4") for k, v in values.items()})
    )
    read = np.concatenate([np.asarray(x) for x in read], -1)
    z = {name: (values[name] - scales[name][0]) / scales[name][1] for name in ("east", "time", "cue")}
    expected = [z["east"][..., None], np.eye(3)[values["side"]], z["time"][..., None], z["cue"][..., None]]
    # A number of octaves: 1, 2, 4, 8, 16 waves over four standard deviations. Frequencies: waves per unit, whatever
    # the scale.
    angles = [
        2 * np.pi * z["east"][..., None] / 4 * 2.0 ** np.arange(5),
        2 * np.pi * (values["time"] - scales["time"][0])[..., None] * np.array([2.0, 7.5, 31.0]),
    ]
    for angle in angles:
        expected += [np.sin(angle), np.cos(angle)]
    for power in (1, 2):
        expected += [np.arcsinh(10**power * x)[..., None] / np.arcsinh(10**power) for x in z.values()]
    np.testing.assert_allclose(read, np.concatenate(expected, -1), atol=3e-5)
    far = {name: x * 0 + 3e38 if name == "time" else x for name, x in values.items()}
    assert all(np.isfinite(np.asarray(x)).all() for x in features(
        network(PLACES, backend), PLACES.schema.inputs, array(backend, {k: v.astype("f4") for k, v in far.items()})
    ))  # fmt: skip


STEPS = 60


class Wave:
    """A sine that turns 40 times, whose phase is a parameter, in a little noise."""

    def __init__(self, frequencies):
        self.schema = pb.Schema(
            params={"shift": pb.Interval(-1, 1)},
            inputs={"time": pb.Real(frequencies=frequencies)},
            outcomes={"y": pb.Real()},
            independent=True,
        )

    priors = {"shift": pb.Prior.uniform(-1.0, 1.0)}
    in_process = True

    def prior(self, rng, size):
        return {"shift": self.priors["shift"].sample(rng, size)}

    def inputs(self, rng, size, trials):
        return {"time": rng.uniform(0, 1, (size, trials))}

    def simulate(self, rng, params, inputs):
        noise = rng.normal(0, 0.1, inputs["time"].shape)
        return {"y": params["shift"][:, None] + np.sin(80 * np.pi * inputs["time"]) + noise}


def held_out_loss(frequencies, folder):
    net = pb.train(
        Wave(frequencies), Config(depth=0, likelihood_width=24, components=3), steps=STEPS, trials=(40, 40),
        batch_size=32, held_out=64, seed=0, out=folder, progress=False,
    )  # fmt: skip
    return net.record.stages[-1].held_out_loss


def test_a_wave_of_forty_turns_is_learnt_by_those_who_see_it(tmp_path):
    """The noise alone has 0.5 log(2 pi e 0.01) = -0.88 nats a trial, beside a sine that nobody sees 0.8."""
    seen = held_out_loss((10.0, 20.0, 40.0), tmp_path / "seen")
    unseen = held_out_loss(None, tmp_path / "unseen")
    assert seen < -0.5 and unseen > 0.7, (seen, unseen)
