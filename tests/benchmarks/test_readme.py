"""The code of the README and of the documentation runs as written, with smaller numbers."""

import re
import warnings
from pathlib import Path

import numpy as np
import pytest

import ppl_buffer as pb

# Programs run for a moment and are compiled for as short a time.
pytestmark = pytest.mark.usefixtures("quick_compilation")

README = Path(__file__).parents[2] / "README.md"
SIMULATOR = Path(__file__).parents[2] / "docs" / "bring_a_simulator.md"


def test_quickstart_runs():
    pytest.importorskip("numpyro")
    block = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL).group(1)
    assert len([line for line in block.splitlines() if line.strip()]) <= 20
    small = "num_warmup=7, num_samples=11, progress_bar=False"
    fewer, count = re.subn(r"num_warmup=300, num_samples=500", small, block)
    assert count == 1
    names = {}
    exec(compile(fewer, str(README), "exec"), names)
    draws = names["mcmc"].get_samples()
    assert set(draws) == set(pb.load("noisy_q").schema.params)
    for name, (low, high) in names["net"].box.items():
        assert draws[name].shape == (11, 1)
        assert (draws[name] >= low).all() and (draws[name] <= high).all()


def test_the_three_functions_are_those_of_a_model_without_inputs(tmp_path, monkeypatch):
    """The README's stubs, filled in: the signatures are the README's, and so is the call that trains."""
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    (stubs,) = re.findall(r"```python notest\n(.*?)```", README.read_text(), re.DOTALL)
    bodies = {
        "prior(self, rng, size): ...": "prior(self, rng, size): return {k: rng.random(size) for k in ('rate', 'beta')}",
        "inputs(self, rng, size, trials): ...": "inputs(self, rng, size, trials): return {}",
        "inputs, trials): ...": "inputs, trials): return draw(rng, params, trials)",
        "minutes=20": 'steps=2, parts="buffer", held_out=8, batch_size=2, workers=0, progress=False',
    }

    def draw(rng, params, trials):
        values, rows = np.full((len(params["rate"]), 2), 0.5), np.arange(len(params["rate"]))
        data = {name: np.zeros((len(rows), trials)) for name in ("choice", "reward")}
        for k in range(trials):
            chance = 1 / (1 + np.exp(params["beta"] * (values[:, 0] - values[:, 1])))
            choice = (rng.random(len(rows)) < chance).astype(int)
            reward = rng.random(len(rows)) < 0.3 + 0.4 * choice
            values[rows, choice] += params["rate"] * (reward - values[rows, choice])
            data["choice"][:, k], data["reward"][:, k] = choice, reward
        return data

    names = {"pb": pb, "draw": draw}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(compile(shrink(stubs, bodies), str(README), "exec"), names)
    assert (tmp_path / "mine.safetensors").is_file() and names["net"].schema.inputs == {}


def shrink(code, smaller):
    """The code with each of the settings replaced by a quick one; every one of them must be there."""
    for full, small in smaller.items():
        assert code.count(full) == 1, full
        code = code.replace(full, small)
    return code


def test_the_page_on_simulators_runs(tmp_path, monkeypatch):
    for module in ("numpyro", "torch", "matplotlib", "pandas"):
        pytest.importorskip(module)
    monkeypatch.chdir(tmp_path)
    rows = [f"{person}\t{1 + k % 2}\t{1 + k % 4}\t{k % 3 % 2}" for person in (1, 2) for k in range(8)]
    text = "\n".join(["subjID\tlevel1_choice\tlevel2_choice\treward", *rows])
    (tmp_path / "ts_exampleData.txt").write_text(text + "\n")
    monkeypatch.setenv("PPL_BUFFER_DATA", str(tmp_path))
    blocks = re.findall(r"```python\n(.*?)```", SIMULATOR.read_text(), re.DOTALL)
    code = "\n".join(blocks)
    smaller = {
        "minutes=5,": "steps=3, held_out=16, batch_size=4, workers=0, progress=False,",
        'trials=(40, 200), out="runs': 'trials=(5, 11), out="runs',
        "likelihood(net, TwoStep())": "likelihood(net, TwoStep(), sets=11, trials=7, progress=False)",
        "num_warmup=500, num_samples=500": "num_warmup=3, num_samples=10, progress_bar=False",
        "[::10] for": "[::5] for",
        "environment=TwoStep.environment)": "environment=TwoStep.environment, progress=False)",
    }
    code = shrink(code, smaller)
    names = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a network of three steps has a lot to be warned of
        exec(compile(code, str(SIMULATOR), "exec"), names)
    assert set(names["mcmc"].get_samples()) > set(names["TwoStep"].schema.params)
    assert (tmp_path / "likelihood.png").exists() and (tmp_path / "two_step.safetensors").exists()
    assert names["replicated"].value.shape == (2, 2, 8, 2)
    # The environment that the page shows is one.
    once = np.ones((3, 1, 1))
    given, state = names["Reversals"]()(0, {}, {"choice": once}, 0.5 * once[..., None], {"better": once})
    assert given["reward"].shape == state["better"].shape == once.shape
    assert names["environment"](0, {}, {"choice": once}, 0.5 * once[..., None])["reward"].shape == once.shape


def test_the_page_on_simulators_prepares_distillation_sets(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```py\n(.*?)```", SIMULATOR.read_text(), re.DOTALL)
    smaller = {
        "sets=600, trials=400": "sets=4, trials=5, progress=False",
        "trials=(100, 400)": "trials=(2, 5)",
        "context=(0, 400)": "context=(0, 3)",
        "batch_size=20": "batch_size=4",
        "warmup=200": "warmup=1",
        "steps=7000": "steps=3, held_out=8, workers=0, progress=False",
    }
    code = shrink(code, smaller)
    names = {"pb": pb}
    exec(compile(code, str(SIMULATOR), "exec"), names)
    assert names["net"].config.depth == pb.load("multisensory_rho1").config.depth + 2
    assert names["net"].record.provenance["distillation"]["source"].startswith("MultisensoryDepartures")


@pytest.mark.parametrize("page", ["hierarchies", "missing_and_ragged", "model_comparison"])
def test_the_how_to_pages_run(page, capsys):
    for module in ("numpyro", "torch", "pandas"):
        pytest.importorskip(module)
    import jax
    from numpyro import handlers

    path = SIMULATOR.parent / "howto" / f"{page}.md"
    names = {}
    exec(compile("\n".join(re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)), str(path), "exec"), names)
    if page != "hierarchies":
        return
    for model in ("hierarchical", "regression", "subsampled"):
        trace = handlers.trace(handlers.seed(names[model], jax.random.PRNGKey(0))).get_trace()
        site = trace["choice"]
        people = 2 if model == "subsampled" else 5
        assert site["is_observed"] and site["value"].shape == (people, 60)
        # People who are left out of a subsample count through those who are in it.
        assert site["scale"] in (None, 1) if people == 5 else site["scale"] == 2.5
        assert np.isfinite(site["fn"].log_prob(site["value"])).all()
    assert np.isfinite(names["result"].losses).all()


def test_the_page_on_formulas_runs(capsys):
    for module in ("numpyro", "formulae"):
        pytest.importorskip(module)
    import jax
    from numpyro import handlers

    path = SIMULATOR.parent / "howto" / "formulas.md"
    names = {}
    exec(compile("\n".join(re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)), str(path), "exec"), names)
    assert "'conflict': 'trial'" in capsys.readouterr().out
    trace = handlers.trace(handlers.seed(names["model"], jax.random.PRNGKey(0))).get_trace()
    assert trace["drift~conflict|subject_offset"]["value"].shape == (8, 1)
    assert np.isfinite(trace["trials"]["fn"].log_prob(trace["trials"]["value"])).all()


def test_the_page_on_unknown_functions_is_a_model():
    """What a sampler sees of the page's model: the network's density, the level's and that of the counts."""
    pytest.importorskip("numpyro")
    from numpyro.infer.util import potential_energy
    from scipy import stats

    page = SIMULATOR.parent / "howto" / "function_prior.md"
    (block,) = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    names = {}
    exec(compile(block, str(page), "exec"), names)
    f, level = np.random.default_rng(0).normal(size=12).astype(np.float32), 1.7
    places = {"x": (np.arange(12) * 10.0 - 55) / 30}
    expected = names["JointPredictive"](names["net"], places).log_prob(f) + stats.norm(2, 1).logpdf(level)
    kept = names["kept"]
    expected += stats.poisson(np.exp(level + f)[kept]).logpmf(names["counts"][kept]).sum()
    energy = potential_energy(names["model"], (), {}, {"f": f, "level": level})
    np.testing.assert_allclose(energy, -expected, rtol=1e-5)


def test_the_hierarchy_in_pyro_runs():
    """Not a run of NUTS: tests/pyro/test_hierarchy.py has twenty."""
    pyro = pytest.importorskip("pyro")
    from tests.pyro.hierarchy import documented_hierarchy

    names = documented_hierarchy()
    pyro.set_rng_seed(0)
    trace = pyro.poutine.trace(names["hierarchical"]).get_trace()
    assert trace.nodes["choice"]["is_observed"] and trace.nodes["choice"]["value"].shape == (5, 60)
    assert trace.log_prob_sum().isfinite()
