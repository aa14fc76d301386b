"""Two theories of multisensory perception
=======================================

Compare two theories of multisensory perception on one person's data, by model evidence.

A sound and a flash are presented together, and one of them is to be located. Does a listener hear places as they are
(rho = 1), or stretched to the wider range of the flashes (rho = 4/3)? Each theory is a network that was trained on
simulations of it; with no parameter told its joint density of all reports is the model evidence, and with all told it
is the likelihood, which importance sampling integrates. What one learns: how two models whose likelihood is an integral
are compared in seconds, how to see that the estimates have settled, and what it means when the two methods disagree.

::

    python examples/multisensory_comparison.py --subject 3
    python examples/multisensory_comparison.py --quick              # fewer trials and orders

Results go to multisensory/: evidence.png, evidence.csv.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

import ppl_buffer as pb
from ppl_buffer.datasets import audiovisual_localization
from ppl_buffer.pyro import JointPredictive

THEORIES = {"rho = 1": "multisensory_rho1", "rho = 4/3": "multisensory_rho43"}
TASKS = ("flash", "sound")
Arrays = dict[str, np.ndarray]


# %%
# One person's reports
# --------------------
#
# Where the file is not at hand a person is simulated.
def one_subject(path: str | None, subject: int, trials: int) -> tuple[Arrays, np.ndarray, str]:
    """Inputs and reports (trials,) of one person, or of a simulated one where the data are not here."""
    try:
        data = audiovisual_localization(path)
    except (FileNotFoundError, ImportError) as error:
        print(f"The audio-visual data are not here ({error}).")
        print("A simulated person who hears with rho = 4/3 takes their place.")
        rng = np.random.default_rng(subject)
        theory = pb.simulators.MultisensoryCausalInference(rho=4 / 3)
        inputs = theory.inputs(rng, 1, trials)
        # A person like many: noise of 2, 4 and 8 degrees for the flash, 6 for the sound.
        params = {"log_sigma_V_low": np.log(2), "log_sigma_V_med": np.log(4), "log_sigma_V_high": np.log(8)}
        params |= {"log_sigma_A": np.log(6), "log_sigma_S": 2.5, "log_sigma_M": 0.0, "logit_p_same": 1.0}
        report = theory.simulate(rng, {name: np.array([x]) for name, x in params.items()}, inputs)["response"]
        return {name: x[0] for name, x in inputs.items()}, report[0], "a simulated person"
    rows = np.flatnonzero(data.subjects == subject)
    if not len(rows):
        raise SystemExit(f"--subject: expected one of {sorted(set(data.subjects.tolist()))}, got {subject}")
    inputs = {name: x[rows[0], :trials] for name, x in data.inputs.items()}
    return inputs, data.outcomes["response"][rows[0], :trials], f"person {subject}"


# %%
# What a theory expects
# ---------------------
#
# The network itself, given all of a person's reports as its context.
def expected_reports(net: Any, inputs: Arrays, response: np.ndarray, sound: np.ndarray) -> np.ndarray:
    """What a theory expects of this person after all trials, at a flash straight ahead: mean report (tasks, sounds)."""
    grid = {
        "r_type": np.repeat([0, 1], len(sound)),
        "s_A": np.tile(sound, 2),
        "s_V": np.zeros(2 * len(sound)),
        "V_level": np.ones(2 * len(sound), dtype=int),
    }
    encoded = net.encode({**inputs, "response": response})
    return JointPredictive(net, grid, context=encoded).mean.numpy().reshape(2, -1)


# %%
# The picture
# -----------
def plot(file: Path, evidences: dict[str, Any], table: Any, curves: dict[str, np.ndarray], sound: np.ndarray,
         inputs: Arrays, response: np.ndarray, title: str) -> None:  # fmt: skip
    """Estimates against the number of orders; both methods side by side; what each theory expects, over the data."""
    figure, axes = plt.subplots(1, 4, figsize=(15, 3.8), layout="constrained", width_ratios=[1.1, 0.8, 1.1, 1.1])
    for name, evidence in evidences.items():
        running = evidence.running()
        axes[0].plot(np.arange(1, len(running) + 1), running, label=name)
    axes[0].set(xlabel="number of orders", ylabel="log evidence (nats)", title="has it settled?")
    axes[0].legend(frameon=False)
    for offset, method in ((-0.1, "autoregressive"), (0.1, "importance")):
        axes[1].plot(np.arange(len(table)) + offset, table[method], "o", label=method)
    axes[1].set(xticks=range(len(table)), xticklabels=table["model"], xlim=(-0.5, len(table) - 0.5))
    axes[1].set(title="two estimates", ylabel="log evidence (nats)")
    axes[1].legend(frameon=False)
    for task, axis in enumerate(axes[2:]):
        shown = (inputs["r_type"] == task) & (np.abs(inputs["s_V"]) < 5)
        axis.plot(inputs["s_A"][shown], response[shown], ".", color="0.6", label="reports, flash within 5 degrees")
        for name, curve in curves.items():
            axis.plot(sound, curve[task], label=name)
        axis.set(title=f"where was the {TASKS[task]}?", xlabel="place of the sound (degrees)")
    axes[2].set(ylabel="report (degrees)")
    axes[2].legend(frameon=False, fontsize="small")
    figure.suptitle(title)
    figure.savefig(file, dpi=110)


# %%
# Options
# -------
#
# On a command line these are its options. In a notebook the defaults hold: change them here.
parser = argparse.ArgumentParser(description="Compare two theories by their model evidence.")
parser.add_argument("--data", default=None, help="file or folder of the audio-visual data")
parser.add_argument("--subject", type=int, default=1)
parser.add_argument("--trials", type=int, default=400, help="at most 400, as the networks were trained")
parser.add_argument("--orders", type=int, default=64, help="random orders of the trials to average over")
parser.add_argument("--draws", type=int, default=2000, help="parameter draws of importance sampling")
parser.add_argument("--checkpoints", nargs=2, default=list(THEORIES.values()), help="names of the zoo, or files")
parser.add_argument("--out", type=Path, default=Path("multisensory"), help="folder for the results")
parser.add_argument("--quick", action="store_true", help="60 trials, 8 orders, 400 draws")
options = parser.parse_args([] if "ipykernel" in sys.modules else None)
if options.quick:
    options.trials, options.orders, options.draws = 60, 8, 400

# %%
# Data and networks
# -----------------
inputs, response, who = one_subject(options.data, options.subject, options.trials)
nets = {name: pb.load(path, backend="torch") for name, path in zip(THEORIES, options.checkpoints, strict=True)}

# %%
# The comparison
# --------------
#
# Both methods, for both theories.
table = pb.compare(nets, inputs, response, orders=options.orders, draws=options.draws)
print(f"\n{who}, {len(response)} trials")
print(table.drop(columns="data_set").to_string(index=False, float_format="{:.2f}".format))
best = table.loc[table["log_evidence"].idxmax()]
print(f"\nThe data are best predicted by {best['model']}, which has probability {best['probability']:.3f}.")
if table["outside"].any():
    print("The two estimates differ by more than their errors: the person does something that the model cannot.")

# %%
# Have the estimates settled?
# ---------------------------
evidences = {
    name: pb.log_evidence(net, inputs, response, method="autoregressive", orders=options.orders)
    for name, net in nets.items()
}  # the orders of `compare` again, kept one by one
sound = np.linspace(-15.0, 15.0, 31)
curves = {name: expected_reports(net, inputs, response, sound) for name, net in nets.items()}
options.out.mkdir(parents=True, exist_ok=True)
table.to_csv(options.out / "evidence.csv", index=False)
title = f"Two theories of where a sound is heard: {who}, {len(response)} trials"
plot(options.out / "evidence.png", evidences, table, curves, sound, inputs, response, title)
print(f"Written to {options.out}/: evidence.csv, evidence.png")
