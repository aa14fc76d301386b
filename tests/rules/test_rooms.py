"""Rooms of the package import one way, and no modules import each other in a circle."""

import pytest

from tests.rules.source import Import, imports, modules

# From left to right: a room imports those to its left and none to its right.
ORDER = [
    ("variables", "schema", "prior", "simulator", "checks", "files", "findings", "extras", "version", "stored"),
    ("simulators",),
    ("network",),
    ("predictive",),
    ("ppl", "formulas"),
    ("numpyro", "pyro", "pymc"),
    ("inference",),
    ("training",),
    ("diagnostics", "arviz", "scores", "sbi", "datasets", "plots"),
    ("workflow",),
]
RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}
# What a user asks for by name, and who may look it up: a name that is computed points nowhere that a graph could show.
BY_NAME = {
    "ppl_buffer": "the table of contents imports what is asked for",
    "ppl_buffer.workflow": "lists the fit and the report, which need NumPyro, without importing it",
    "ppl_buffer.workflow.cli.simulators": "the user's own module, named on the command line",
}
# Who outside of network/torch and network/jax may import them.
KNOWS_BACKENDS = {"ppl_buffer.network.checkpoint": "loads a network for the backend that the user names"}
APART = [
    ("ppl_buffer.network.torch", {"jax", "jaxlib", "numpyro", "ppl_buffer.network.jax", "ppl_buffer.numpyro"}),
    ("ppl_buffer.network.jax", {"torch", "pyro", "lightning_fabric", "ppl_buffer.network.torch", "ppl_buffer.pyro"}),
    ("ppl_buffer.pyro", {"jax", "jaxlib", "numpyro", "ppl_buffer.network.jax", "ppl_buffer.numpyro"}),
    ("ppl_buffer.numpyro", {"torch", "pyro", "lightning_fabric", "ppl_buffer.network.torch", "ppl_buffer.pyro"}),
    (
        "ppl_buffer.pymc",
        {"torch", "pyro", "numpyro", "ppl_buffer.network.torch", "ppl_buffer.pyro", "ppl_buffer.numpyro"},
    ),
    ("ppl_buffer.training", {"jax", "jaxlib", "numpyro", "pyro", "ppl_buffer.network.jax"}),
    ("ppl_buffer.network", {"pyro", "numpyro", "pymc"}),
    ("ppl_buffer.predictive", {"torch", "jax", "pyro", "numpyro", "pymc"}),
    ("ppl_buffer.ppl", {"torch", "jax", "pyro", "numpyro", "pymc"}),
    ("ppl_buffer.formulas", {"torch", "jax", "pyro", "numpyro", "pymc"}),
    ("ppl_buffer.simulators", {"torch", "jax", "pyro", "numpyro", "pymc"}),
]
INSIDE = [name for name in modules() if name != "ppl_buffer"]


def room(name):
    return name.split(".")[1]


def within(name, folder):
    return name == folder or name.startswith(f"{folder}.")


def reached(name):
    """Modules that a module imports, with the line; lookups that are allowed aside."""
    for found in imports(modules()[name]):
        if not (found.by_name and name in BY_NAME):
            yield from ((found.line, module) for module in found.modules - {name})


@pytest.mark.parametrize("name", INSIDE)
def test_a_room_imports_those_to_its_left(name):
    # The table of contents stands above all: whoever needs a name imports the module that defines it.
    wrong = [(line, module) for line, module in reached(name) if module == "ppl_buffer"]
    wrong += [found for found in reached(name) if found[1] != "ppl_buffer" and RANK[room(found[1])] > RANK[room(name)]]
    assert wrong == []


@pytest.mark.parametrize("name", modules())
def test_modules_are_looked_up_by_name_in_few_places(name):
    looked_up = [found for found in imports(modules()[name]) if found.by_name]
    assert looked_up == [] or name in BY_NAME


@pytest.mark.parametrize(("folder", "forbidden"), APART, ids=[folder for folder, _ in APART])
def test_backends_and_languages_stay_apart(folder, forbidden):
    wrong = []
    for name in modules():
        if not within(name, folder):
            continue
        for found in imports(modules()[name]):
            wrong += [(name, found.line, found.target) for other in forbidden if within(found.target, other)]
    assert wrong == []


def test_backends_are_imported_by_languages_and_by_those_who_load():
    wrong = []
    for name in INSIDE:
        if room(name) != "network" and room(name) not in ("predictive", "ppl"):
            continue
        for found in imports(modules()[name]):
            for backend in ("ppl_buffer.network.torch", "ppl_buffer.network.jax"):
                if within(found.target, backend) and not within(name, backend) and name not in KNOWS_BACKENDS:
                    wrong.append((name, found.line, found.target))
    assert wrong == []


def circles(edges):
    """Strongly connected components of more than one node (Tarjan 1972)."""
    index, low, stack, result = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(edges.get(node, ())):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            component = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(component) > 1:
                result.append(sorted(component))

    for node in sorted(edges):
        if node not in index:
            visit(node)
    return result


def test_no_modules_import_each_other_in_a_circle():
    assert circles({name: {module for _, module in reached(name)} for name in modules()}) == []


def test_no_rooms_import_each_other_in_a_circle():
    edges = {}
    for name in INSIDE:
        rooms = {room(module) for _, module in reached(name) if module != "ppl_buffer"}
        edges.setdefault(room(name), set()).update(rooms - {room(name)})
    assert circles(edges) == []


def test_circles_are_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set(), "e": {"d"}}) == [["a", "b", "c"]]


def test_the_rules_are_checked_on_the_files_they_are_about():
    assert {room(name) for name in INSIDE} == set(RANK)
    assert {*BY_NAME, *KNOWS_BACKENDS, *(folder for folder, _ in APART)} <= set(modules())
    found = {module for _, module in reached("ppl_buffer.network.torch.network")}
    assert {"ppl_buffer.network.config", "ppl_buffer.network.torch.attention"} & found
    assert Import("ppl_buffer.network.{}", 1, by_name=True).modules >= {
        "ppl_buffer.network.torch",
        "ppl_buffer.network.jax",
    }
