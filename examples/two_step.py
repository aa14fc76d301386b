"""From a simulator to the posterior of real people
=================================================

The two-step task: do people plan, or repeat what was rewarded? A model, its likelihood in minutes, and a posterior.

The simulator is written in this page, from nothing. A few minutes of training turn it into a likelihood that knows its
own error; 11 people are fitted with it in a hierarchy by NUTS; and data sets drawn from the posterior show whether the
model does what these people do. What one learns: which functions a simulator has to have, what the error in nats
means for a posterior, and how to go from there to people.

::

    python examples/two_step.py                  # with the network that is stored beside this script
    python examples/two_step.py --minutes 4      # train one
    python examples/two_step.py --quick          # short chains: a first look

Results go to two_step/: weights.png, staying.png, posterior.nc.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import MCMC, NUTS

import ppl_buffer as pb
from ppl_buffer.datasets import TrialData, two_step_task
from ppl_buffer.numpyro import JointPredictive
from ppl_buffer.simulators.two_step import RewardWalks

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # ArviZ announces its next major version on import
    import arviz as az

BLUE = "#2f6fb0"


# %%
# The simulator
# -------------
#
# A first choice leads to one of two states, mostly to its own and in 30 % of the trials to the other one; a second
# choice there is rewarded or not. Who plans goes back to where the state with the best option is likely; who repeats
# goes back to what was followed by a reward, however it came about. The hybrid of Daw et al. (2011) does both.
#
# `schema` says what a data set holds, three functions draw it, for many data sets at once. The fourth gives the
# probabilities that the choices were drawn from: who knows them should say them, since training on a probability takes
# the noise of the draw out of the gradient.
class TwoStep:
    """Two choices and a reward a trial, planned, learned, or both."""

    schema = pb.Schema(
        params={
            "alpha_1": pb.Interval(0, 1),  # learning rates of the two stages
            "alpha_2": pb.Interval(0, 1),
            "beta_1": pb.Positive(),  # how much values count in either choice
            "beta_2": pb.Positive(),
            "model_based": pb.Interval(0, 1),  # the weight of planned values
            "perseveration": pb.Real(),
            "eligibility": pb.Interval(0, 1),  # how much the first stage learns from the reward itself
        },
        inputs={"common": pb.Categorical(2)},  # whether the option leads to its own state
        outcomes={"choice_1": pb.Categorical(2), "choice_2": pb.Categorical(2)},
        feedback={"reward": pb.Real()},
        ordered=True,  # a trial depends on those before it
    )
    priors = {
        "alpha_1": pb.Prior.uniform(0.0, 1.0),
        "alpha_2": pb.Prior.uniform(0.0, 1.0),
        "beta_1": pb.Prior.uniform(0.0, 10.0),
        "beta_2": pb.Prior.uniform(0.0, 10.0),
        "model_based": pb.Prior.uniform(0.0, 1.0),
        "perseveration": pb.Prior.uniform(-2.0, 3.0),
        "eligibility": pb.Prior.uniform(0.0, 1.0),
    }
    environment = RewardWalks()

    def prior(self, rng, size):
        return {name: prior.sample(rng, size) for name, prior in self.priors.items()}

    def inputs(self, rng, size, trials):
        return {"common": rng.random((size, trials)) < 0.7}

    def simulate(self, rng, params, inputs):
        return self.simulate_with_probabilities(rng, params, inputs)[0]

    def simulate_with_probabilities(self, rng, params, inputs):
        size, trials = inputs["common"].shape
        everyone = np.arange(size)
        first, second = np.zeros((size, 2)), np.zeros((size, 2, 2))  # values: of options; of options in states
        walk, previous = rng.uniform(0.25, 0.75, (size, 2, 2)), np.zeros(size)
        choices, chances = np.zeros((2, size, trials), dtype=int), np.zeros((2, size, trials))
        rewards = np.zeros((size, trials))
        for k in range(trials):
            best = second.max(-1)
            planned, learned = 0.4 * (best[:, 1] - best[:, 0]), first[:, 1] - first[:, 0]
            value = params["model_based"] * planned + (1 - params["model_based"]) * learned
            chances[0, :, k] = logistic(params["beta_1"] * value + params["perseveration"] * previous)
            one = choices[0, :, k] = rng.random(size) < chances[0, :, k]
            one = one.astype(int)
            state = np.where(inputs["common"][:, k] == 1, one, 1 - one)
            there = second[everyone, state]
            chances[1, :, k] = logistic(params["beta_2"] * (there[:, 1] - there[:, 0]))
            choices[1, :, k] = rng.random(size) < chances[1, :, k]
            two = choices[1, :, k]
            rewards[:, k] = rng.random(size) < walk[everyone, state, two]
            reached, surprise = there[everyone, two], rewards[:, k] - there[everyone, two]
            to_first = reached - first[everyone, one] + params["eligibility"] * surprise
            first[everyone, one] += params["alpha_1"] * to_first
            second[everyone, state, two] += params["alpha_2"] * surprise
            walk += rng.normal(0.0, 0.025, walk.shape)
            walk = 0.75 - np.abs(0.5 - np.abs(walk - 0.25))  # reflected at both ends
            previous = 2 * one - 1
        data = {"choice_1": choices[0], "choice_2": choices[1], "reward": rewards}
        chances = np.stack([1 - chances, chances], -1)
        return data, {"choice_1": chances[0], "choice_2": chances[1]}


def logistic(x):
    return 0.5 * (1 + np.tanh(0.5 * x))


# %%
# The people
# ----------
#
# 11 people, about 200 trials each: the example data of hBayesDM, which are fetched once. Where that cannot be, people
# are simulated.
def load(path: str | None, subjects: int, trials: int, seed: int) -> tuple[TrialData, str]:
    """The first trials of the first people, or of simulated ones."""
    try:
        data = two_step_task(path)
        source = "people of the two-step task"
    except (FileNotFoundError, ImportError) as error:
        print(f"The two-step task is not here ({error}).")
        print("Simulated people are fitted: the results say nothing of real ones.")
        rng, task = np.random.default_rng(seed), TwoStep()
        centers = {"alpha_1": 0.5, "alpha_2": 0.5, "beta_1": 4.0, "beta_2": 3.0, "model_based": 0.5}
        centers |= {"perseveration": 0.7, "eligibility": 0.6}
        spread = {name: 0.25 * (1 if value < 1 else 4) for name, value in centers.items()}
        params = {name: np.clip(rng.normal(value, spread[name], 11), 0.05, None) for name, value in centers.items()}
        params = {name: x if name in ("beta_1", "beta_2") else np.clip(x, 0.05, 0.95) for name, x in params.items()}
        inputs = {"common": task.inputs(rng, 11, 200)["common"].astype(int)}
        simulated = task.simulate(rng, params, inputs)
        outcomes = {name: simulated[name] for name in task.schema.outcomes}
        data = TrialData(np.arange(11), np.full(11, 200), inputs, outcomes, {"reward": simulated["reward"]},
                         np.ones((11, 200), dtype=bool))  # fmt: skip
        source = "simulated people"
    data = data.select(np.arange(subjects))
    counts, mask = np.minimum(data.trial_counts, trials), data.trial_mask[:, :trials]
    groups = (
        {name: x[:, :trials] for name, x in group.items()} for group in (data.inputs, data.outcomes, data.feedback)
    )
    return TrialData(data.subjects, counts, *groups, mask), source


# %%
# The hierarchy
# -------------
#
# People scatter around a population on the real line, which `net.into_box` maps into the range that the network was
# trained on. All that is new against any other NumPyro model is the last line.
def model(net, seen):
    theta = {}
    for name in net.box:
        mean = numpyro.sample(f"{name}_mean", dist.Normal(0.0, 1.0))
        spread = numpyro.sample(f"{name}_spread", dist.HalfNormal(1.0))
        with numpyro.plate("people", seen.batch_shape[0]):
            offset = numpyro.sample(f"{name}_offset", dist.Normal(0.0, 1.0))
        theta[name] = numpyro.deterministic(name, net.into_box(name, mean + spread * offset))
    with numpyro.plate("people", seen.batch_shape[0]):
        numpyro.sample("choices", JointPredictive(net, seen, params=theta), obs=seen.value)


# %%
# Staying
# -------
#
# The picture of this task since 2011: how often people stay with their first choice, by what happened on the trial
# before. A learner stays after a reward. A planner stays after a reward that followed the common transition, and
# *leaves* after one that followed the rare one.
def staying(choice_1, common, reward, mask):
    """Share (*S, people, 4) of repeated first choices after: rare and no reward, rare and reward, common and so on."""
    stays = choice_1[..., 1:] == choice_1[..., :-1]
    before = (2 * common + reward)[..., :-1]
    both = mask[..., 1:] & mask[..., :-1]
    counts = [((before == kind) & both) for kind in range(4)]
    return np.stack([(stays & kind).sum(-1) / np.maximum(kind.sum(-1), 1) for kind in counts], -1)


def plot_staying(file: Path, observed, generated, title: str) -> None:
    """The people's mean as points, over the 95 % band of data sets drawn from the posterior."""
    figure, axes = plt.subplots(1, 2, figsize=(7.2, 3.6), sharey=True, layout="constrained")
    for axis, transition, kinds in ((axes[0], "common", (3, 2)), (axes[1], "rare", (1, 0))):
        low, high = np.quantile(generated[..., kinds], [0.025, 0.975], axis=0)
        axis.bar((0, 1), high - low, 0.5, bottom=low, color=BLUE, alpha=0.35, label="model, 95 %")
        axis.plot((0, 1), observed[..., kinds], "ko", ms=6, label="people")
        axis.set(title=f"after a {transition} transition", xticks=(0, 1), xticklabels=("reward", "no reward"))
        axis.set(ylim=(0.4, 1), xlim=(-0.6, 1.6))
    axes[0].set(ylabel="share of repeated first choices")
    axes[0].legend(frameon=False, loc="lower left")
    figure.suptitle(title)
    figure.savefig(file, dpi=110)
    plt.close(figure)


# %%
# Options
# -------
#
# On a command line these are its options. In a notebook the defaults hold: change them here.
parser = argparse.ArgumentParser(description="From a simulator to the posterior of real people: the two-step task.")
parser.add_argument("--minutes", type=float, help="train a network for so long; by default the stored one is loaded")
parser.add_argument("--data", help="file or folder of the two-step task")
parser.add_argument("--subjects", type=int, default=11)
parser.add_argument("--trials", type=int, default=200, help="at most so many of each person, the first ones")
parser.add_argument("--chains", type=int, default=2)
parser.add_argument("--warmup", type=int, default=500)
parser.add_argument("--draws", type=int, default=500)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--out", type=Path, default=Path("two_step"), help="folder for the results")
parser.add_argument("--quick", action="store_true", help="one short chain")
options = parser.parse_args([] if "ipykernel" in sys.modules else None)
if options.quick:
    options.chains, options.warmup, options.draws = 1, 50, 50
numpyro.set_host_device_count(options.chains)
options.out.mkdir(parents=True, exist_ok=True)

# %%
# From the simulator to a likelihood
# ----------------------------------
#
# The whole training is one line, and `parts="likelihood"` trains what NUTS needs and nothing else. At its end it says
# what it has reached: nats a trial by which this likelihood is off, on average, and what that does to a posterior. The
# network keeps it, and says it where it is printed.
stored = Path(__file__).with_suffix(".safetensors") if "__file__" in globals() else Path("two_step.safetensors")
if options.minutes is None and stored.is_file():
    net = pb.load(stored, backend="jax")
else:
    pb.train(TwoStep(), minutes=options.minutes or 4, parts="likelihood", trials=(40, 200), out=options.out / "run")
    net = pb.load(options.out / "run" / "best.safetensors", backend="jax")
print(net)

# %%
# From the likelihood to the posterior
# ------------------------------------
data, source = load(options.data, options.subjects, options.trials, options.seed)
print(f"{len(data.subjects)} {source}, {data.trial_counts.sum()} trials.")
seen = net.observe(
    data.inputs,
    np.stack([data.outcomes["choice_1"], data.outcomes["choice_2"]], -1).astype(np.float32),
    feedback=data.feedback,
    trial_mask=data.trial_mask,
)
mcmc = MCMC(
    NUTS(model, max_tree_depth=5 if options.quick else 8),
    num_warmup=options.warmup,
    num_samples=options.draws,
    num_chains=options.chains,
)
began = time.perf_counter()
mcmc.run(jax.random.PRNGKey(options.seed), net, seen)
print(f"NUTS: {time.perf_counter() - began:.0f} s for {options.chains} chains of {options.warmup} + {options.draws}.")
posterior = az.from_numpyro(mcmc, log_likelihood=False)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of R-hat where there is one chain
    print(az.summary(posterior, var_names=[f"{name}_mean" for name in net.box]).to_string())
posterior.to_netcdf(str(options.out / "posterior.nc"))

# %%
# Who plans?
# ----------
#
# The weight of planned values, of each person and of the population: nobody here is a pure learner or a pure planner,
# and 200 trials tell little of a single person.
draws = {name: np.asarray(mcmc.get_samples()[name]) for name in net.box}
population = np.asarray(net.into_box("model_based", mcmc.get_samples()["model_based_mean"]))
figure, axis = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
order = np.argsort(draws["model_based"].mean(0))
for place, person in enumerate(order):
    low, middle, high = np.quantile(draws["model_based"][:, person], [0.05, 0.5, 0.95])
    axis.hlines(place, low, high, color=BLUE, lw=2)
    axis.plot(middle, place, "o", color="k", ms=5)
low, high = np.quantile(population, [0.05, 0.95])
axis.axvspan(low, high, color="0.88", zorder=0)
axis.set(xlabel="weight of planned values", xlim=(0, 1), yticks=range(len(order)), ylabel="person")
axis.set_yticklabels([str(data.subjects[person]) for person in order])
axis.set_title("medians and 90 % intervals; in grey the population's mean", fontsize=10)
figure.savefig(options.out / "weights.png", dpi=110)
plt.close(figure)

# %%
# Does the model do what these people do?
# ---------------------------------------
#
# Data sets drawn from the posterior, each person's with that person's transitions.
some = np.linspace(0, len(draws["alpha_1"]) - 1, min(100, len(draws["alpha_1"]))).astype(int)
replicated = pb.posterior_predictive(
    net, seen, {name: x[some] for name, x in draws.items()}, environment=TwoStep.environment, seed=options.seed,
    progress=False,
)  # fmt: skip
observed = staying(data.outcomes["choice_1"], data.inputs["common"], data.feedback["reward"], data.trial_mask)
generated = staying(replicated.value[..., 0], data.inputs["common"], replicated.feedback["reward"], data.trial_mask)
plot_staying(options.out / "staying.png", observed.mean(0), generated.mean(1), f"{len(data.subjects)} {source}")
print(f"Written to {options.out}/: weights.png, staying.png, posterior.nc")
