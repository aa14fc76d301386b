"""Where an optional library is missing, the error says which extra brings it."""

import json
import re
import subprocess
import sys
import tomllib

import pytest

from ppl_buffer.extras import MissingLibraryError, needs
from tests.rules.source import ROOT

# What only some users install. A finder that does not find them stands for an environment without.
OPTIONAL = (
    "arviz", "arviz_base", "huggingface_hub", "jax", "jaxlib", "lightning_fabric", "matplotlib", "numpyro", "pandas",
    "pymc", "pyro", "pytensor", "sbi", "ssms", "torch", "typer", "xarray",
)  # fmt: skip
WITHOUT = f"""
import json, sys
from importlib.machinery import PathFinder
import importlib.metadata as metadata

find, version = PathFinder.find_spec, metadata.version
PathFinder.find_spec = lambda name, *rest: None if name.split(".")[0] in {OPTIONAL!r} else find(name, *rest)

def absent(name):
    if name.replace("-", "_") in {OPTIONAL!r}:
        raise metadata.PackageNotFoundError(name)
    return version(name)

metadata.version = absent
"""
# What a user runs, and what is said.
CASES = {
    "pb.load('noisy_q')": "load needs jax or torch: pip install 'ppl-buffer[numpyro]' or 'ppl-buffer[pyro]'",
    "pb.load('noisy_q', backend='jax')": "backend='jax' needs jax: pip install 'ppl-buffer[numpyro]'",
    "pb.load('noisy_q', backend='torch')": "backend='torch' needs torch: pip install 'ppl-buffer[pyro]'",
    "import ppl_buffer.numpyro": "ppl_buffer.numpyro needs jax: pip install 'ppl-buffer[numpyro]'",
    "import ppl_buffer.pyro": "ppl_buffer.pyro needs pyro: pip install 'ppl-buffer[pyro]'",
    "import ppl_buffer.pymc": "ppl_buffer.pymc needs pymc: pip install 'ppl-buffer[pymc]'",
    "pb.load('hf://owner/name', backend='jax')": (
        "an address that begins with hf:// needs huggingface_hub: pip install 'ppl-buffer[hub]'"
    ),
    "pb.train": "ppl_buffer.train needs torch: pip install 'ppl-buffer[train]'",
    "pb.sbi": "ppl_buffer.sbi needs torch: pip install 'ppl-buffer[sbi]'",
    "pb.arviz.arviz_version()": "ppl_buffer.arviz needs arviz: pip install 'ppl-buffer[arviz]'",
    "pb.workflow.fit": "ppl_buffer.workflow.fit needs jax: pip install 'ppl-buffer[numpyro]'",
    "pb.plots.plot_traces({'a': [[0.0, 1.0]]})": "a plot needs matplotlib: pip install 'ppl-buffer[arviz]'",
    "pb.simulators.from_ssms('angle')": "from_ssms needs ssms: pip install 'ppl-buffer[ssms]'",
    "pb.datasets.selection_task()": "selection_task needs pandas: pip install 'ppl-buffer[data]'",
}


def test_what_to_install_is_said():
    code = f"""{WITHOUT}
import ppl_buffer as pb
said = {{}}
for case in json.loads(sys.argv[1]):
    try:
        exec(case)
    except ImportError as error:
        said[case] = str(error)
print(json.dumps(said))
"""
    command = [sys.executable, "-c", code, json.dumps(list(CASES))]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == CASES


def test_the_command_line_says_it_in_one_line():
    code = f"{WITHOUT}\nfrom ppl_buffer.workflow.cli import main\nsys.argv = ['ppl-buffer', 'zoo']\nmain()"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "Error: the command line needs typer: pip install 'ppl-buffer[cli]'\n"


def test_an_extra_that_is_named_exists():
    """Every `pip install 'ppl-buffer[...]'` in the package names extras of pyproject.toml."""
    import re

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = set()
    for file in (ROOT / "ppl_buffer").rglob("*.py"):
        text = file.read_text()
        named |= {name for group in re.findall(r"ppl-buffer\[([\w,]+)\]", text) for name in group.split(",")}
        named |= set(re.findall(r'needs\(.*, "(\w+)"\)', text))
    assert named and named <= set(extras)


def test_a_broken_library_is_not_taken_for_a_missing_one():
    with pytest.raises(ModuleNotFoundError) as caught, needs("a plot", "arviz"):
        import json.no_such_module  # noqa: F401
    assert not isinstance(caught.value, MissingLibraryError)


def test_other_errors_pass():
    with pytest.raises(ZeroDivisionError), needs("a plot", "arviz"):
        1 / 0  # noqa: B018


def test_the_lowest_versions_are_those_of_the_requirements():
    """`tests/lowest.txt` pins what pyproject.toml says is enough; torch is taken from the Makefile."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"], *(line for extra in ("all", "numpyro", "pyro", "train", "arviz", "data", "cli")
                                         for line in extras[extra])]  # fmt: skip
    lowest = dict(re.fullmatch(r"([\w-]+)>=([\d.]+)", line).groups() for line in lines if not line.startswith("ppl-"))
    pinned = dict(re.findall(r"^([\w-]+)==([\d.]+)$", (ROOT / "tests" / "lowest.txt").read_text(), re.MULTILINE))
    lowest.pop("torch")
    assert pinned.pop("jaxlib") == pinned["jax"]
    assert set(pinned) == set(lowest)
    for name, version in lowest.items():
        assert pinned[name] == version or pinned[name].startswith(f"{version}."), name
