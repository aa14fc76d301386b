"""numpyro/ and pyro/ are the same house twice: the same files, and in them the same public names."""

import ast

import pytest

from tests.rules.source import PACKAGE, modules

FILES = sorted(path.stem for path in (PACKAGE / "numpyro").glob("*.py"))
# What one language has and the other has no need of.
ALONE = {
    ("pyro", "distribution"): {"ModulePredictive"},  # of torch modules
    ("pyro", "priors"): {"TruncatedNormal"},  # NumPyro ships one
    ("pyro", "simulator"): {"seeded"},  # Pyro's seed is global
}


def public(language, file):
    """Names of functions and classes, and of each function its arguments."""
    name = f"ppl_buffer.{language}" if file == "__init__" else f"ppl_buffer.{language}.{file}"
    found = {}
    for node in modules()[name].tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            arguments = node.args if isinstance(node, ast.FunctionDef) else None
            every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs] if arguments else []
            found[node.name] = [argument.arg for argument in every]
    alone = ALONE.get((language, file), set())
    assert alone <= set(found)
    return {name: arguments for name, arguments in found.items() if name not in alone}


def test_the_same_files():
    assert FILES == sorted(path.stem for path in (PACKAGE / "pyro").glob("*.py"))


@pytest.mark.parametrize("file", FILES)
def test_the_same_public_names_with_the_same_arguments(file):
    assert public("numpyro", file) == public("pyro", file)


def test_the_same_names_to_import():
    def exported(language):
        return {alias.name for node in modules()[f"ppl_buffer.{language}"].tree.body if isinstance(node, ast.ImportFrom)
                for alias in node.names}  # fmt: skip

    alone = set().union(*ALONE.values())
    assert exported("numpyro") - alone == exported("pyro") - alone
