"""A bad electrode, made up for with honest intervals
==================================================

What would a lost channel have shown, how sure can one be, and what does that do to an analysis of single trials?

EEG of the seven frontal channels, one second at 256 Hz. In half of the recordings channel FZ is lost from a quarter of
a second on. A network that learned from other people predicts it from what was seen of it before and from the six other
channels, sample by sample, so that whole stretches can be drawn. A single-trial measure, the mean voltage in a window,
then has a spread for each recording, and a NumPyro model takes that as measurement error. What one learns: how
recordings take a simulator's place, and why the samples have to be drawn together: each alone would make the mean over
a window look several times as certain as it is.

The recordings are of the UCI EEG database (Zhang, Begleiter, Porjesz, Wang & Litke 1995, Brain Research Bulletin
38:531-538; CC BY 4.0), an array in ``eeg_uci_zhang1995/eeg_frontal7.npz`` in the folder ``PPL_BUFFER_DATA``: ``X``
(recordings, 7, 256) in microvolts, ``subject_index`` and ``condition``. Without them recordings are simulated, and the
network, which knows people alone, is out of its depth. The stored network was trained on twelve of sixteen people; two
others are shown. Twelve are few: with other choices of the two, 90 % intervals of a lost channel's samples held 76 to
86 % of them, here 93 % (``benchmarks/eeg.py``).

::

    python examples/eeg.py               # with the network that is stored beside this script
    python examples/eeg.py --steps 20000 # train one on the recordings, which takes twenty minutes
    python examples/eeg.py --quick       # few draws: a first look

Results go to eeg/: recordings.png, effect.png.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import MCMC, NUTS

import ppl_buffer as pb
from ppl_buffer.numpyro import JointPredictive

BLUE, ORANGE, GREY = "#2f6fb0", "#d9772b", "0.6"
CHANNELS = ("FZ", "F1", "F2", "F3", "F4", "F5", "F6")
SAMPLES, RATE = 256, 256
# Of the twelve people that the stored network learned from: mean and standard deviation of each channel, microvolts.
MEAN = np.array([-1.127, -1.042, -0.905, -1.258, -0.916, -1.572, -1.130])
DEVIATION = np.array([6.879, 6.783, 6.768, 7.144, 7.066, 8.995, 8.350])
# The network knows nothing of these two people; two more were for the end of its training.
TEST, VALIDATION = (0, 8), (1, 9)

# %%
# Options
# -------
#
# On a command line these are its options. In a notebook the defaults hold: change them here.
parser = argparse.ArgumentParser(description="A bad EEG channel, imputed with its uncertainty.")
parser.add_argument("--steps", type=int, help="train a network on the recordings; by default the stored one is loaded")
parser.add_argument("--draws", type=int, default=100, help="imputations of each recording")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--out", type=Path, default=Path("eeg"), help="folder for the results")
parser.add_argument("--quick", action="store_true", help="few draws")
options = parser.parse_args([] if "ipykernel" in sys.modules else None)
if options.quick:
    options.draws = 30
options.out.mkdir(parents=True, exist_ok=True)
rng = np.random.default_rng(options.seed)

# %%
# Recordings
# ----------
file = Path(os.environ.get("PPL_BUFFER_DATA") or ".") / "eeg_uci_zhang1995" / "eeg_frontal7.npz"


def simulated(subjects: int, each: int):
    """Slow waves and a rhythm of 10 Hz that neighbouring electrodes share, and a response to what is seen."""
    frequency = np.fft.rfftfreq(2 * SAMPLES, 1 / RATE)
    power = 1 / (1 + (frequency / 4) ** 2) ** 2 + 0.05 * np.exp(-(((frequency - 10) / 1.5) ** 2))
    place = np.array([0, -1, 1, -2, 2, -3, 3])
    shared = np.linalg.cholesky(np.exp(-((np.subtract.outer(place, place) / 4) ** 2)) + 0.02 * np.eye(7))
    white = rng.normal(size=(subjects * each, len(CHANNELS), 2 * SAMPLES))
    waves = np.fft.irfft(np.fft.rfft(white) * np.sqrt(power))[..., :SAMPLES]
    voltage = 6 * np.einsum("cd,rds->rcs", shared, waves / waves.std())
    condition = rng.integers(0, 3, subjects * each)
    response = np.exp(-(((np.arange(SAMPLES) / RATE - 0.36) / 0.07) ** 2))
    voltage += (np.array([0.0, 3.0, 6.0])[condition, None] * response)[:, None]
    return voltage, np.repeat(np.arange(subjects), each), condition


if file.is_file():
    with np.load(file) as arrays:
        voltage, person = arrays["X"].astype(float), arrays["subject_index"]
        condition = arrays["condition"].astype(int)
else:
    print(f"There is no {file}: the recordings are simulated.")
    voltage, person, condition = simulated(16, 50)
standard = (voltage - MEAN[:, None]) / DEVIATION[:, None]

# %%
# A network for them
# ------------------
#
# A sample is a trial: its time, which channel is the one in question, what the other six show and how they changed
# since the sample before are inputs, its voltage is the outcome. Each recording serves seven times, with each of its
# channels in turn. `frequencies` lets the network see neighbours in time; `forecasting` and `in_order` train what is
# asked here: what comes after a moment, in the order of time; `gap_filling`, what others may ask, a stretch in the
# middle. Twelve people are few, and a network learns their recordings by heart: so in the training each begins at
# another time, has either sign, and is a little larger or smaller.
time = np.arange(SAMPLES) / RATE
schema = pb.Schema(
    inputs={
        "time": pb.Real(frequencies=(1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)),
        "channel": pb.Categorical(len(CHANNELS)),
        **{f"{what}_{place}": pb.Real() for what in ("other", "change") for place in range(1, len(CHANNELS))},
    },
    outcomes={"voltage": pb.Real()},
)


def trials(recordings, channel):
    """Inputs and outcome of recordings (R, 7, 256), of one of their channels: name -> (R, 256)."""
    others = np.delete(recordings, channel, axis=1)
    change = np.diff(others, axis=2, prepend=others[:, :, :1])
    return {
        "time": np.broadcast_to(time, recordings[:, 0].shape),
        "channel": np.full(recordings[:, 0].shape, channel),
        **{f"other_{place + 1}": others[:, place] for place in range(len(CHANNELS) - 1)},
        **{f"change_{place + 1}": change[:, place] for place in range(len(CHANNELS) - 1)},
        "voltage": recordings[:, channel],
    }


class Recordings(pb.DatasetSimulator):
    """Recordings that come in a new form every time."""

    def augment(self, rng, data):
        """Move, turn and stretch them."""
        size = (len(data["time"]), 1)
        factor = rng.choice([-1.0, 1.0], size) * np.exp(rng.uniform(-0.2, 0.2, size))
        moved = {name: x if name == "channel" else factor * x for name, x in data.items()}
        return {**moved, "time": data["time"] + rng.uniform(-0.5, 0.5, size)}


stored = Path(__file__).with_suffix(".safetensors") if "__file__" in globals() else Path("eeg.safetensors")
if options.steps is None and stored.is_file():
    net = pb.load(stored, backend="jax")
else:
    learnt = ~np.isin(person, TEST)
    by_channel = [trials(standard[learnt], channel) for channel in range(len(CHANNELS))]
    columns = {name: np.concatenate([each[name] for each in by_channel]) for name in by_channel[0]}
    recordings = Recordings(
        {"voltage": columns.pop("voltage")},
        columns,
        schema=schema,
        group=np.tile(person[learnt], len(CHANNELS)),
        held_out=VALIDATION,
        name="eeg",
    )
    pb.train(
        recordings, pb.Config(width=64, depth=4, heads=4, mlp=128, components=8), steps=options.steps or 20000,
        trials=(16, 64), context=(4, 160), targets=32, batch_size=16, forecasting=0.3, gap_filling=0.3, in_order=0.5,
        order_by="time", context_free_fraction=0.1, optimizer="muon", learning_rate=2e-3, patience=12, workers=0,
        out=options.out / "run",
    )  # fmt: skip
    net = pb.load(options.out / "run" / "best.safetensors", backend="jax")
print(net)

# %%
# A channel is lost
# -----------------
#
# From sample 64 on channel FZ is lost in every second recording of the two people. Up to there it is the context; the
# inputs of the lost samples are known. `JointPredictive` draws them one after another, and each drawn sample is read by
# those after it.
tested = np.flatnonzero(np.isin(person, TEST))
if options.quick:
    tested = tested[::5]
lost = tested[1::2]
start, end = 64, 116
columns = {name: jnp.asarray(x, jnp.float32) for name, x in trials(standard[lost], 0).items()}
context = {name: x[:, :start] for name, x in columns.items()}
inputs = {name: x[:, start:end] for name, x in columns.items() if name != "voltage"}
keys = jax.random.split(jax.random.PRNGKey(options.seed), 3)


def microvolts(x):
    """From the network's scale."""
    return MEAN[0] + DEVIATION[0] * np.asarray(x)


together = microvolts(JointPredictive(net, inputs, context=context).sample(keys[0], (options.draws,)))
# Each sample alone: a batch of distributions of one trial each, (lost samples, recordings).
one_by_one = {name: x.T[..., None] for name, x in inputs.items()}
apart = microvolts(JointPredictive(net, one_by_one, context=context).sample(keys[1], (options.draws,)))[..., 0]
apart = apart.swapaxes(1, 2)
true = voltage[lost, 0, start:end]

figure, axes = plt.subplots(3, 1, figsize=(6.4, 6.0), layout="constrained", sharex=True)
for axis, place in zip(axes, np.linspace(0, len(lost) - 1, 3).astype(int), strict=True):
    low, high = np.quantile(together[:, place], [0.05, 0.95], axis=0)
    axis.fill_between(1e3 * time[start:end], low, high, color=BLUE, alpha=0.25, lw=0, label="90 % of the draws")
    axis.plot(1e3 * time[start:end], together[:4, place].T, color=BLUE, lw=0.8, alpha=0.8)
    axis.plot(1e3 * time[: end + 20], voltage[lost[place], 0, : end + 20], color="black", lw=1.2, label="what it was")
    axis.axvline(1e3 * time[start], color=GREY, lw=0.8)
    axis.set_ylabel("FZ, µV")
axes[0].legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1.0, 0.98), ncols=2)
axes[0].set_title("a channel is lost after 250 ms", fontsize=11, loc="left")
axes[-1].set_xlabel("milliseconds")
figure.savefig(options.out / "recordings.png", dpi=110)
plt.close(figure)

# %%
# A measure of single recordings
# ------------------------------
#
# The mean of FZ from 300 to 450 ms. Its spread over the draws is how uncertain the imputation leaves it.
window = (time >= 0.3) & (time < 0.45)
inside = window[start:end]
amplitude = voltage[:, 0][:, window].mean(1)
by_draw, alone = together[..., inside].mean(-1), apart[..., inside].mean(-1)
away = np.abs(amplitude[lost] - by_draw.mean(0))
for label, draws in (("together", by_draw), ("each sample alone", alone)):
    low, high = np.quantile(draws, [0.05, 0.95], axis=0)
    covered = np.mean((amplitude[lost] > low) & (amplitude[lost] < high))
    print(f"drawn {label}: standard deviation {draws.std(0).mean():.2f} µV, 90 % intervals hold {covered:.0%}")
print(f"the means are off by {np.sqrt((away**2).mean()):.2f} µV (root mean square)")

# %%
# Into a model
# ------------
#
# Do the three kinds of picture (a first one; a second that matches it, or does not) differ in this measure? The true
# amplitude of a recording is normal around the mean of its kind and its person; what is known of a lost one has an
# error, the standard deviation of the draws.


def model(amplitude, error, used, kind, second):
    """Amplitudes (R,) that are known up to a normal error, of recordings of three kinds and two people."""
    mean = numpyro.sample("mean", dist.Normal(0.0, 10.0).expand([3]).to_event(1))
    shift = numpyro.sample("shift", dist.Normal(0.0, 10.0))
    spread = numpyro.sample("spread", dist.HalfNormal(10.0))
    numpyro.deterministic("difference", mean[2] - mean[0])
    with numpyro.handlers.mask(mask=used):
        middle = mean[kind] + shift * second
        numpyro.sample("amplitude", dist.Normal(middle, jnp.hypot(spread, error)), obs=amplitude)


is_lost = np.isin(tested, lost)
measured, error = amplitude[tested].copy(), np.zeros(len(tested))
measured[is_lost], error[is_lost] = by_draw.mean(0), by_draw.std(0)
everything = np.ones(len(tested), dtype=bool)
ways = {
    "nothing lost": (amplitude[tested], np.zeros(len(tested)), everything),
    "lost recordings left out": (amplitude[tested], np.zeros(len(tested)), ~is_lost),
    "imputed, with its error": (measured, error, everything),
}
fit = MCMC(NUTS(model), num_warmup=300, num_samples=700, progress_bar=False)
intervals = {}
for label, (value, sd, used) in ways.items():
    trial = (jnp.asarray(x) for x in (value, sd, used, condition[tested], person[tested] == TEST[1]))
    fit.run(keys[2], *trial)
    difference = np.asarray(fit.get_samples()["difference"])
    intervals[label] = np.quantile(difference, [0.05, 0.5, 0.95])
    low, middle, high = intervals[label]
    print(f"{label}: the non-matching second picture less the first one, {middle:.1f} ({low:.1f} to {high:.1f}) µV")

figure, (left, right) = plt.subplots(1, 2, figsize=(7.6, 3.2), layout="constrained", width_ratios=(1, 1.3))
low, high = np.quantile(by_draw, [0.05, 0.95], axis=0)
middle = by_draw.mean(0)
left.errorbar(amplitude[lost], middle, (middle - low, high - middle), fmt="o", color=BLUE, ms=3, lw=0.8)
ends = np.array([min(amplitude[lost].min(), low.min()), max(amplitude[lost].max(), high.max())])
left.plot(ends, ends, color=GREY, lw=0.8)
left.set(xlabel="mean of FZ as it was, µV", ylabel="imputed, 90 % intervals")
for row, (label, (low, middle, high)) in enumerate(intervals.items()):
    color = ORANGE if "left out" in label else BLUE if "imputed" in label else "black"
    right.plot([low, high], [-row, -row], color=color, lw=2)
    right.plot([middle], [-row], "o", color=color)
    right.annotate(label, (0.02, -row + 0.18), xycoords=("axes fraction", "data"), fontsize=9, color=color)
right.set(xlabel="difference between kinds of picture, µV", yticks=(), ylim=(-len(intervals) + 0.5, 0.6))
figure.savefig(options.out / "effect.png", dpi=110)
plt.close(figure)
print(f"Written to {options.out}/: recordings.png, effect.png")
