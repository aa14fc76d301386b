"""A class is abstract or final: what is written once stays, and nobody reaches into another's objects."""

import ast

from tests.rules.classes import OWN_MATTER, classes
from tests.rules.source import RATCHETS, functions, modules

# Questions to objects of other libraries, whose versions differ. Nothing of our own is asked what it can do.
FOREIGN = {
    "ppl_buffer/arviz/convert.py": "NumPyro keeps the arguments of a run in a private name",
    "ppl_buffer/arviz/versions.py": "a DataTree of ArviZ 1 has children, an InferenceData has not",
    "ppl_buffer/diagnostics/ranges.py": "an MCMC of NumPyro or Pyro, an object of ArviZ, or a dict of draws",
    "ppl_buffer/files.py": "a tensor of torch, which NumPy cannot read before it is detached",
    "ppl_buffer/network/arguments.py": "whatever array a user hands over",
    "ppl_buffer/network/backend.py": "whatever a user hands over in place of a network",
    "ppl_buffer/network/jax/execution.py": "an operating system that has no affinity of processes",
    "ppl_buffer/network/torch/attention.py": "a build of torch without the kernel",
    "ppl_buffer/numpyro/simulator.py": "a callable of the user may have no name",
    "ppl_buffer/numpyro/trace.py": "a value of a site, which need not be an array",
    "ppl_buffer/ppl/simulator.py": "a constraint of NumPyro or Pyro that wraps another",
    "ppl_buffer/ppl/trace.py": "a distribution of NumPyro or Pyro that wraps another",
    "ppl_buffer/pyro/simulator.py": "a callable of the user may have no name",
}
# Attributes that are set on objects of other libraries, or on what the same function has just made.
SET_OUTSIDE = {
    "ppl_buffer/workflow/cli/errors.py": "how warnings are shown: the hook that Python's module has for it",
    "ppl_buffer/workflow/cli/formulas.py": "click's context takes defaults of options through this attribute",
    "ppl_buffer/pyro/priors.py": "Pyro's protocol of `expand`: the copy keeps the choice to validate",
}

# Abstract, though Python does not know it: the languages' classes have metaclasses of their own.
MIXINS = {
    "ppl_buffer.ppl.joint.JointPredictiveBase": "the languages' distributions",
    "ppl_buffer.ppl.support.TrialSupportBase": "the languages' constraints",
}


def test_no_object_is_made_behind_its_constructor():
    found = [f"{module.file}:{node.lineno}" for module in modules().values() for node in ast.walk(module.tree)
             if isinstance(node, ast.Attribute) and ast.unparse(node) == "object.__new__"]  # fmt: skip
    assert found == []


def asked(module):
    """Calls of `getattr` and `hasattr` with a name that is written down."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr"):
            if isinstance(node.args[1], ast.Constant):
                yield f"{module.file}:{node.lineno}: {ast.unparse(node)}"


def test_no_object_of_ours_is_asked_what_it_can_do():
    assert_within(asked, "attributes_asked_for", FOREIGN)


def set_from_outside(module):
    """Attributes that are set on anything but `self` and `cls`."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del):
            if ast.unparse(node.value) not in ("self", "cls"):
                yield f"{module.file}:{node.lineno}: {ast.unparse(node)}"
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("setattr", "object.__setattr__"):
            if ast.unparse(node.args[0]) != "self":
                yield f"{module.file}:{node.lineno}: {ast.unparse(node)}"


def test_no_attribute_is_set_from_outside():
    assert_within(set_from_outside, "attributes_set_from_outside", SET_OUTSIDE)


def assert_within(finder, table, exceptions):
    """No more finds in a file than its ratchet says, where the file is no exception."""
    found = {module.file: list(finder(module)) for module in modules().values() if module.file not in exceptions}
    ceiling = RATCHETS[table]
    assert {file: places for file, places in found.items() if len(places) > ceiling.get(file, 0)} == {}


def test_no_concrete_method_is_overridden():
    found = {
        f"{one.name}.{method}": base.name
        for one in classes().values()
        for base in one.ancestors
        for method in one.methods
        if base.methods.get(method) and method not in OWN_MATTER
    }
    assert found == RATCHETS["methods_overridden"]


def test_a_class_that_others_extend_is_abstract():
    extended = {base.name: base for one in classes().values() for base in one.bases}
    concrete = {name for name, base in extended.items() if not base.is_abstract}
    assert concrete == set(MIXINS)


def test_the_lists_of_exceptions_are_about_files_that_need_them():
    assert set(FOREIGN) <= {module.file for module in modules().values() if list(asked(module))}
    assert set(SET_OUTSIDE) <= {module.file for module in modules().values() if list(set_from_outside(module))}


def test_classes_and_functions_are_found():
    assert ("ppl_buffer.network.network", "Network") in classes()
    torch_network = classes()["ppl_buffer.network.torch.weights", "TorchNetwork"]
    assert "ppl_buffer.network.network.Network" in {base.name for base in torch_network.ancestors}
    assert "Schema.to_dict" in {function.name for function in functions(modules()["ppl_buffer.schema"])}
