"""A user of one language needs no other installed, and importing changes nothing."""

import json
import subprocess
import sys

import pytest

from tests.rules.source import ROOT

FRAMEWORKS = ("torch", "jax", "numpyro", "pyro")


def run(code):
    """What a fresh interpreter prints, read as JSON."""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


# How each language runs a sampler; all else that a user of it writes is the same.
SAMPLER = {
    "numpyro": """
import jax
def run(model):
    kernel = ppl.infer.NUTS(model, max_tree_depth=3)
    mcmc = ppl.infer.MCMC(kernel, num_warmup=warmup, num_samples=draws, progress_bar=False)
    mcmc.run(jax.random.PRNGKey(0))
    return mcmc
""",
    "pyro": """
def run(model):
    ppl.set_rng_seed(0)
    kernel = ppl.infer.NUTS(model, max_tree_depth=3)
    mcmc = ppl.infer.MCMC(kernel, num_samples=draws, warmup_steps=warmup, disable_progbar=True)
    mcmc.run()
    return mcmc
""",
}


@pytest.mark.parametrize(
    ("language", "backend", "absent"),
    [
        ("numpyro", "jax", ("torch", "pyro", "lightning_fabric")),
        ("pyro", "torch", ("jax", "jaxlib", "numpyro")),
    ],
)
def test_a_user_of_one_language_needs_no_other_installed(language, backend, absent):
    """From the zoo through a short fit to ArviZ, where the other framework cannot be found."""
    pytest.importorskip(language)
    pytest.importorskip("arviz")
    people, trials, draws = 3, 7, 29
    code = f"""
import importlib.util, json, sys, warnings
from importlib.machinery import PathFinder

find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name.split(".")[0] in {absent!r} else find(name, *rest)
assert not any(importlib.util.find_spec(name) for name in {absent!r})

import numpy as np
import {language} as ppl
import ppl_buffer as pb
from ppl_buffer.arviz import from_mcmc, groups_of, import_arviz
from ppl_buffer.{language} import JointPredictive

people, trials, draws, warmup = {people}, {trials}, {draws}, 11
{SAMPLER[language]}
task, rng = pb.simulators.NoisyQ(), np.random.default_rng(1)
inputs = task.inputs(rng, people, trials)
data = task.simulate(rng, task.prior(rng, people), inputs)
net = pb.load("noisy_q", backend={backend!r})
seen = net.observe(inputs, data["choice"], feedback={{"reward": data["reward"]}})

def model():
    with ppl.plate("subject", people):
        theta = {{name: ppl.sample(name, prior) for name, prior in net.prior().items()}}
        ppl.sample("choice", JointPredictive(net, seen, params=theta), obs=seen.value)

mcmc = run(model)
if {language!r} == "numpyro":
    import ppl_buffer.workflow.fitting
early = "scipy.stats" in sys.modules
# Rollouts are compiled for longer than all else here.
result = from_mcmc(mcmc, prior_draws=0, predictive_draws=0, progress=False)
warnings.simplefilter("ignore")  # so few draws
loo = import_arviz().loo(result)

groups = groups_of(result)
table = groups["log_likelihood"]["choice"]
drawn = groups["posterior"]
inside = [bool(((drawn[name] >= low) & (drawn[name] <= high)).all()) for name, (low, high) in net.box.items()]
print(json.dumps({{
    "groups": sorted(groups),
    "sizes": dict(table.sizes),
    "scored": int(loo.n_data_points),
    "observed": groups["observed_data"]["choice"].values.tolist() == data["choice"].astype(int).tolist(),
    "different draws": len(np.unique(drawn["alpha"][0, :, 0])),
    "inside": inside,
    "densities": [float(table.min()), float(table.max())],
    "early": early,
    "loaded": sorted({{name.split(".")[0] for name in sys.modules}}),
}}))
"""
    found = run(code)
    expected = {"posterior", "log_prior", "sample_stats", "log_likelihood", "one_step_ahead"}
    assert set(found["groups"]) == expected | {"observed_data", "constant_data"}
    assert found["sizes"] == {"chain": 1, "draw": draws, "subject": people, "trial": trials}
    assert found["scored"] == people * trials and found["observed"]
    # The sampler moved, inside the trained box; what it says of choices are probabilities.
    assert found["different draws"] > draws / 2 and found["inside"] == [True] * 4
    low, high = found["densities"]
    assert -20 < low < high < 0
    assert set(found["loaded"]) & set(absent) == set()
    # It would take about a quarter of the imports before the first draw.
    assert not found["early"] or language == "pyro"


def test_importing_changes_nothing_global():
    for name in FRAMEWORKS:
        pytest.importorskip(name)
    code = """
import hashlib, importlib.util, json, os, pkgutil, random, sys, warnings

import arviz, jax, lightning_fabric, matplotlib.pyplot, numpy, numpyro.distributions, pandas, pyro, scipy, torch

if importlib.util.find_spec("sbi"):
    import sbi.inference, sbi.neural_nets.estimators
if importlib.util.find_spec("pymc"):
    import pymc

def state():
    digest = lambda value: hashlib.sha256(value).hexdigest()
    return {
        "warning filters": repr(warnings.filters),
        "environment": dict(os.environ),
        "random": digest(repr(random.getstate()).encode()),
        "numpy random": digest(repr(numpy.random.get_state()).encode()),
        "numpy errors": numpy.geterr(),
        "numpy printing": repr(numpy.get_printoptions()),
        "torch random": digest(torch.get_rng_state().numpy().tobytes()),
        "torch dtype": str(torch.get_default_dtype()),
        "torch device": str(torch.get_default_device()),
        "torch gradients": torch.is_grad_enabled(),
        "torch threads": [torch.get_num_threads(), torch.get_num_interop_threads()],
        "torch deterministic": torch.are_deterministic_algorithms_enabled(),
        "torch matmul": torch.get_float32_matmul_precision(),
        "torch validation": repr(torch.distributions.Distribution._validate_args),
        "pyro settings": repr(pyro.settings.get()),
        "pyro parameters": list(pyro.get_param_store().keys()),
        "jax": {name: repr(value) for name, value in jax.config.values.items()},
        "numpyro validation": numpyro.distributions.Distribution._validate_args,
        "matplotlib": repr(sorted(matplotlib.rcParams.items())),
    }


before = state()
import ppl_buffer

imported = []
for module in pkgutil.walk_packages(ppl_buffer.__path__, "ppl_buffer."):
    if module.name.endswith("__main__"):
        continue
    try:
        importlib.import_module(module.name)
    except ImportError as error:
        if (error.name or "").startswith("ppl_buffer"):
            raise  # any other is an optional neighbour that is not installed
    else:
        imported.append(module.name)
after = state()
print(json.dumps({"imported": imported, "changed": [name for name in before if before[name] != after[name]]}))
"""
    result = run(code)
    assert result["changed"] == []
    assert {
        "ppl_buffer.numpyro",
        "ppl_buffer.pyro",
        "ppl_buffer.network.torch.network",
        "ppl_buffer.network.jax.network",
    } <= set(result["imported"])
