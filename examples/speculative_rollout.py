"""Drawing a long sequence in few passes
=====================================

Draw many dependent outcomes at once by speculative rollout, where it wins, and see where it does not.

A rollout draws one outcome a pass: each enters the buffer before the next one is predicted. Where outcomes hardly
depend on each other once a large context is known, most of these passes tell nothing new. Speculative rollout drafts
all outcomes from their marginals, tests them in one pass against the conditionals given the drafts before them, and
redraws those that fail, until none does. The draws have exactly the distribution of the rollout, as in the speculative
decoding of language models (Leviathan, Kalman & Matias 2023; Chen et al. 2023). What one learns: how to ask for it
(``method="speculative"``), how to read from the share of accepted drafts whether it pays, and when to leave it.

Use it in torch, for one draw or a few, after a large context. Leave it

- for many draws at once: a pass waits for the slowest of them, and the rollout's passes are shared by all;
- with JAX on a processor, whose compiled rollout has little overhead to save, except for one draw from a large context;
- where each outcome depends much on those before it, as a learner's choices do: many drafts fail;
- with an environment that keeps a state of its own: it is asked about drafts too.

::

    python examples/speculative_rollout.py
    python examples/speculative_rollout.py --quick              # a smaller context, fewer outcomes

Results go to speculative_rollout/: functions.png.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import matplotlib.pyplot as plt
import numpy as np
import torch

import ppl_buffer as pb
from ppl_buffer.pyro import JointPredictive


# %%
# A smooth function, and a watch
# ------------------------------
def smooth_function(points: int) -> tuple[np.ndarray, np.ndarray]:
    """Places and values (points,) of a random smooth function, as the network was trained on."""
    simulator, rng = pb.simulators.GaussianProcess(), np.random.default_rng(4)
    inputs = simulator.inputs(rng, 1, points)
    y = simulator.simulate(rng, simulator.prior(rng, 1), inputs)["y"]
    return inputs["x"][0].astype(np.float32), y[0].astype(np.float32)


def milliseconds(draw: Callable[[], object], repeats: int) -> float:
    """Median time of a call; the first, which touches everything for the first time, does not count."""
    draw()
    times = []
    for _ in range(repeats):
        start = perf_counter()
        draw()
        times.append(1e3 * (perf_counter() - start))
    return float(np.median(times))


# %%
# Both ways of drawing, side by side
# ----------------------------------
def compare(joint: JointPredictive, draws: int, repeats: int) -> tuple[float, float]:
    """Print both ways of drawing side by side; milliseconds of the rollout and of the speculative one."""
    plain = milliseconds(lambda: joint.sample((draws,)), repeats)
    speculative = milliseconds(lambda: joint.sample((draws,), method="speculative"), repeats)
    drafts = joint.speculate((draws,))
    print(
        f"{draws:5d}   {plain:9.1f} ms   {speculative:11.1f} ms   {plain / speculative:5.1f} x   "
        f"{drafts.acceptance_rate:8.2f}   {drafts.passes:6d}"
    )
    return plain, speculative


# %%
# The picture
# -----------
def plot(file: Path, context: tuple[np.ndarray, np.ndarray], x: np.ndarray, joint: JointPredictive,
         times: dict[int, tuple[float, float]]) -> None:  # fmt: skip
    """Draws of both methods over the context; times side by side."""
    order = np.argsort(x)
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained", width_ratios=[1, 1, 0.8])
    for axis, method in zip(axes, ("rollout", "speculative"), strict=False):
        axis.plot(*context, ".", color="0.75", ms=2, label="context")
        for value in joint.sample((3,), method=method).numpy():
            axis.plot(x[order], value[order], lw=1, marker=".", ms=3)
        axis.set(title=f"draws, {method}", xlabel="x", ylabel="y")
    places = np.arange(len(times))
    for shift, index, label in ((-0.2, 0, "rollout"), (0.2, 1, "speculative")):
        axes[2].bar(places + shift, [both[index] for both in times.values()], 0.4, label=label)
    axes[2].set(title="time", xlabel="draws at once", ylabel="milliseconds", yscale="log")
    axes[2].set_xticks(places, [str(draws) for draws in times])
    axes[2].legend(frameon=False)
    figure.savefig(file, dpi=120)


# %%
# Options
# -------
#
# On a command line these are its options. In a notebook the defaults hold: change them here.
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--context", type=int, default=1024, help="points of the function that are known")
parser.add_argument("--trials", type=int, default=64, help="points that are drawn")
parser.add_argument("--repeats", type=int, default=10, help="calls that a time is the median of")
parser.add_argument("--out", type=Path, default=Path("speculative_rollout"))
parser.add_argument("--quick", action="store_true", help="a smaller context, fewer points and calls")
options = parser.parse_args([] if "ipykernel" in sys.modules else None)
if options.quick:
    options.context, options.trials, options.repeats = 64, 12, 2

# %%
# The network, and what is known
# ------------------------------
torch.manual_seed(0)
net = pb.load("gp", backend="torch")
x, y = smooth_function(options.context + options.trials)
known, asked = slice(None, options.context), slice(options.context, None)
# Encoded once, and shared by all draws.
encoded = net.encode({"x": x[known], "y": y[known]})
joint = JointPredictive(net, {"x": torch.as_tensor(x[asked])}, context=encoded)

# %%
# How long each takes
# -------------------
print(f"{options.trials} points of a smooth function, given {options.context} others")
print("draws        rollout       speculative     faster   accepted   passes")
times = {draws: compare(joint, draws, options.repeats) for draws in ((1, 8) if options.quick else (1, 8, 64))}

# %%
# Draws of both
# -------------
options.out.mkdir(parents=True, exist_ok=True)
plot(options.out / "functions.png", (x[known], y[known]), x[asked], joint, times)
print(f"Wrote {options.out / 'functions.png'}.")
