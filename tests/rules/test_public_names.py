"""`ppl_buffer` is a table of contents: every name is there, and is imported when it is first asked for."""

import ast
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ppl_buffer as pb

ROOT = Path(__file__).resolve().parents[2]
NAMES = {
    "BufferedModule", "Categorical", "Config", "DatasetSimulator", "DistillationSets", "Evidence", "Integer",
    "Interval", "Lapse", "Missing", "Positive", "Prior", "RandomEffects", "Real", "Schema", "Simulated", "Simulator",
    "StoredSimulations", "TrainingRecord", "__version__", "add_buffer", "add_buffer_to_module", "compare", "compress",
    "decompress", "load", "log_evidence", "posterior_predictive", "prepare_distillation", "publish", "random_effects",
    "save", "sequential_posterior", "train", "trial_regressors", "zoo",
}  # fmt: skip
MODULES = {
    "arviz": ("arviz",),
    "datasets": ("pandas",),
    "diagnostics": (),
    "formulas": (),
    "numpyro": ("numpyro",),
    "plots": ("matplotlib",),
    "pymc": ("pymc",),
    "pyro": ("pyro",),
    "sbi": ("sbi",),
    "scores": (),
    "simulators": (),
    "workflow": (),
}


def fresh(code):
    """What a fresh interpreter prints, read as JSON."""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def test_the_directory_lists_every_name_and_nothing_else():
    assert set(dir(pb)) == NAMES | set(MODULES)
    assert set(pb.__all__) == NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_name_is_what_its_module_defines(name):
    if name == "train":
        pytest.importorskip("torch")
    value = getattr(pb, name)
    if name != "__version__":
        assert value.__module__.startswith("ppl_buffer.")
        assert getattr(importlib.import_module(value.__module__), name) is value


@pytest.mark.parametrize("name", MODULES)
def test_a_sub_module_is_an_attribute(name):
    for needed in MODULES[name]:
        pytest.importorskip(needed)
    code = f"import json, ppl_buffer as pb; print(json.dumps([pb.{name}.__name__, pb.{name}.__name__]))"
    assert fresh(code) == [f"ppl_buffer.{name}"] * 2


def test_a_type_checker_reads_the_same_names():
    tree = ast.parse((ROOT / "ppl_buffer" / "__init__.py").read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    stated = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        for alias in node.names:
            stated[alias.name] = node.module.removeprefix("ppl_buffer").lstrip(".")
    assert stated == {**pb._HOME, **dict.fromkeys(MODULES, "")}


def test_the_page_on_the_interface_has_every_name():
    page = (ROOT / "docs" / "api.md").read_text()
    directives = "\n".join(re.findall(r"```\{eval-rst\}\n(.*?)```", page, re.DOTALL))
    documented = set(re.findall(r"\w+", directives))
    assert NAMES - {"__version__"} <= documented
    assert set(MODULES) <= documented


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'ppl_buffer' has no attribute 'densities'"):
        _ = pb.densities


def test_a_function_is_not_taken_for_a_module():
    assert callable(pb.posterior_predictive)
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("ppl_buffer.posterior_predictive")


def test_training_says_what_to_install_where_torch_is_missing():
    code = """
import json
from importlib.machinery import PathFinder

find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name.split(".")[0] == "torch" else find(name, *rest)
import ppl_buffer
try:
    ppl_buffer.train
except ImportError as error:
    print(json.dumps(str(error)))
"""
    assert fresh(code) == "ppl_buffer.train needs torch: pip install 'ppl-buffer[train]'"


def test_importing_the_package_imports_next_to_nothing():
    code = "import json, sys, ppl_buffer; print(json.dumps(list(sys.modules)))"
    loaded = fresh(code)
    # `network.priors` is told which language writes priors for which backend.
    own = {"ppl_buffer", "ppl_buffer.extras", "ppl_buffer.version", "ppl_buffer.network", "ppl_buffer.network.priors"}
    assert {name for name in loaded if name.startswith("ppl_buffer")} == own
    heavy = {"torch", "jax", "jaxlib", "numpyro", "pyro", "arviz", "lightning_fabric", "matplotlib", "pandas", "scipy"}
    assert {name.split(".")[0] for name in loaded} & {*heavy, "numpy"} == set()
