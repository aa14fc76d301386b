"""Pictures completed, pixel by pixel
===================================

What is in the missing half of a digit? Every pixel alone, or all of them together.

Handwritten digits of 8 x 8 pixels and 17 grey levels, as scikit-learn ships them. A network learns from stored
pictures, without a model that would have parameters: given some pixels of a picture that it never saw, it predicts the
others. What one learns: how stored data take a simulator's place, how an ordered integer and a place in the plane are
declared, and what joint prediction buys where the outcomes of a data set hang together.

The pictures are the test set of the Optical Recognition of Handwritten Digits (Alpaydin & Kaynak 1998, UCI, CC BY 4.0);
the stored network was trained on the first 1,302 of them.

::

    python examples/digits.py                  # with the network that is stored beside this script
    python examples/digits.py --steps 4000     # train one, which takes minutes
    python examples/digits.py --quick          # few pictures: a first look

Results go to digits/: completions.png, known.png.
"""

from __future__ import annotations

import argparse
import sys
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import ppl_buffer as pb
from ppl_buffer.numpyro import JointPredictive

try:
    from sklearn.datasets import load_digits
except ImportError:
    sys.exit("This example reads the pictures that scikit-learn ships: pip install scikit-learn")

BLUE, GREY = "#2f6fb0", "0.6"
# The last pictures of the file: for the end, when nothing is chosen any more.
TEST = 300

# %%
# Options
# -------
#
# On a command line these are its options. In a notebook the defaults hold: change them here.
parser = argparse.ArgumentParser(description="Pictures of digits, completed pixel by pixel.")
parser.add_argument("--steps", type=int, help="train a network; by default the stored one is loaded")
parser.add_argument("--pictures", type=int, default=100, help="test pictures that are scored")
parser.add_argument("--orders", type=int, default=4, help="orders of the pixels that a joint density averages over")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--out", type=Path, default=Path("digits"), help="folder for the results")
parser.add_argument("--quick", action="store_true", help="few pictures, one order")
options = parser.parse_args([] if "ipykernel" in sys.modules else None)
if options.quick:
    options.pictures, options.orders = 10, 1
options.out.mkdir(parents=True, exist_ok=True)

# %%
# Pictures as data sets
# ---------------------
#
# A pixel is a trial: its place is known before, its grey level is the outcome. Grey levels have an order, which a
# category would not; a place has neighbours at every scale, which `frequencies` lets the network see.
# `DatasetSimulator` holds some pictures out, and ends a training that over-fits the others.
images = load_digits().images.reshape(-1, 64).astype(int)
row, column = (x.ravel().astype(np.float32) for x in np.indices((8, 8)))
schema = pb.Schema(
    inputs={"row": pb.Real(frequencies=3), "column": pb.Real(frequencies=3)},
    outcomes={"grey": pb.Integer(0, 16)},
)
pictures = pb.DatasetSimulator(
    {"grey": images[:-TEST]},
    {"row": row, "column": column},
    schema=schema,
    held_out=0.13,
    unit="pictures",
    name="digits",
)
print(pictures.stored_sets.summary)

# %%
# A network for them
# ------------------
#
# Up to 24 pixels are the context, 32 more enter the buffer, the others are to be predicted: a picture has 64.
stored = Path(__file__).with_suffix(".safetensors") if "__file__" in globals() else Path("digits.safetensors")
if options.steps is None and stored.is_file():
    net = pb.load(stored, backend="jax")
else:
    pb.train(
        pictures, pb.Config(width=48, depth=4, heads=4, mlp=96, components=5), steps=options.steps or 4000,
        trials=(32, 32), context=(0, 24), targets=8, optimizer="muon", batch_size=24, out=options.out / "run",
        patience=100,
    )  # fmt: skip
    net = pb.load(options.out / "run" / "best.safetensors", backend="jax")
print(net)

# %%
# The lower half, given the upper one
# -----------------------------------
#
# Given are 24 of the upper 32 pixels: those at the left and right margins are nearly always blank.
#
# `JointPredictive` draws the missing pixels one after another: each drawn pixel enters the buffer, and those after it
# read it. Drawn each alone from the same network, given the same upper half, the pixels have the right grey levels on
# average, and no picture comes of them.
rng = np.random.default_rng(options.seed)
test = images[-TEST:]
shown, missing = (row < 4) & (column > 0) & (column < 7), row > 3


def given(which, seen):
    """The pixels `seen` (64,) of pictures, as a context."""
    place = {"row": row[seen], "column": column[seen]}
    return {name: jnp.broadcast_to(x, (len(which), seen.sum())) for name, x in place.items()} | {
        "grey": jnp.asarray(test[which][:, seen], jnp.float32)
    }


def predictive(which, seen, order, **more):
    """The joint distribution of other pixels, drawn in this order."""
    return JointPredictive(net, {"row": row[order], "column": column[order]}, context=given(which, seen), **more)


some = np.linspace(0, TEST - 1, 6).astype(int)
order = rng.permutation(np.flatnonzero(missing))
keys = jax.random.split(jax.random.PRNGKey(options.seed), 2)
joint = predictive(some, shown, order).sample(keys[0], (4,))
# One pixel at a time: a batch of distributions of one trial each.
alone = JointPredictive(
    net,
    {"row": row[order][:, None, None], "column": column[order][:, None, None]},
    context=given(some, shown),
).sample(keys[1], (2,))[..., 0]
alone = np.moveaxis(np.asarray(alone), 1, -1)


def completed(values):
    """Pictures (8, 8) whose missing pixels are drawn."""
    full = np.broadcast_to(test[some], (*values.shape[:-2], *test[some].shape)).copy()
    full[..., order] = values
    return full.reshape(*full.shape[:-1], 8, 8)


columns = [("the picture", test[some].reshape(-1, 8, 8))]
columns += [("drawn together" if s == 0 else "", x) for s, x in enumerate(completed(np.asarray(joint)))]
columns += [("each pixel alone" if s == 0 else "", x) for s, x in enumerate(completed(alone))]
figure, axes = plt.subplots(len(some), len(columns), figsize=(7.2, 6.4), layout="constrained")
for axis_column, (title, pixels) in zip(axes.T, columns, strict=True):
    axis_column[0].set_title(title, fontsize=9, loc="left")
    for axis, picture in zip(axis_column, pixels, strict=True):
        axis.imshow(picture, cmap="gray_r", vmin=0, vmax=16)
        axis.axhline(3.5, color=BLUE, lw=1)
        axis.set(xticks=(), yticks=())
figure.suptitle("the lower half, drawn given the upper one", fontsize=11)
figure.savefig(options.out / "completions.png", dpi=110)
plt.close(figure)

# %%
# What it is worth
# ----------------
#
# Bits a pixel that the missing pixels of test pictures cost, given some that are known at random: by what the network
# says of each alone, and of all together. Beside them what a general compressor needs for whole pictures.
which = rng.choice(TEST, options.pictures, replace=False)
rows = []
places = rng.permutation(64)
order = places[:32]
for known in (4, 8, 16, 24):
    seen = np.isin(np.arange(64), places[32 : 32 + known])
    value = jnp.asarray(test[which][:, order], jnp.float32)
    distribution = predictive(which, seen, order, orders=options.orders if options.orders > 1 else None)
    together = -np.asarray(distribution.log_prob(value)) / len(order) / np.log(2)
    apart = -np.asarray(predictive(which, seen, order).marginals(value)).mean(-1) / np.log(2)
    rows.append((known, apart.mean(), together.mean(), (apart - together).std() / np.sqrt(len(which))))
    print(f"{known:3d} pixels known: {apart.mean():.3f} bits a pixel each alone, {together.mean():.3f} together")
packed = 8 * len(zlib.compress(test.astype(np.uint8).tobytes(), 9)) / test.size
print(f"zlib, on all {TEST} test pictures at once: {packed:.3f} bits a pixel")

known, apart, together, error = np.array(rows).T
figure, axis = plt.subplots(figsize=(5.2, 3.4), layout="constrained")
axis.plot(known, apart, "o-", color=GREY, label="each pixel alone")
axis.errorbar(known, together, error, fmt="o-", color=BLUE, label="together")
axis.axhline(packed, color="0.8", ls="--")
axis.annotate("zlib", (known[-1], packed), va="top", ha="right", color="0.5")
axis.set(xlabel="pixels known", ylabel="bits a pixel, of 32 others", xscale="log", xticks=known)
axis.set_xticks([], minor=True)
axis.set_xticklabels([f"{x:.0f}" for x in known])
axis.legend(frameon=False)
figure.savefig(options.out / "known.png", dpi=110)
plt.close(figure)
print(f"Written to {options.out}/: completions.png, known.png")
