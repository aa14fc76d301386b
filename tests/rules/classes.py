"""The classes of the package, and which of their methods stand in which other class."""

import ast
import functools
from collections.abc import Iterator
from dataclasses import dataclass

from tests.rules.source import Module, imports, modules

ABSTRACT = {"abstractmethod", "abc.abstractmethod"}
# How an instance is made or shown is each class's own matter.
OWN_MATTER = {"__init__", "__new__", "__post_init__", "__repr__", "__str__", "__doc__"}


@dataclass(frozen=True)
class Class:
    """A class of the package."""

    module: Module
    node: ast.ClassDef

    @property
    def name(self) -> str:
        return f"{self.module.name}.{self.node.name}"

    @property
    def is_protocol(self) -> bool:
        return any(ast.unparse(base).split("[")[0].split(".")[-1] == "Protocol" for base in self.node.bases)

    @property
    def is_abstract(self) -> bool:
        return self.is_protocol or any(ast.unparse(base) in ("ABC", "abc.ABC") for base in self.node.bases)

    @property
    def methods(self) -> dict[str, bool]:
        """Name of each method, and whether it is concrete."""
        found = {}
        for node in self.node.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                marks = {ast.unparse(mark) for mark in node.decorator_list}
                found[node.name] = not (marks & ABSTRACT or self.is_protocol)
        return found

    @property
    def bases(self) -> list["Class"]:
        """Its bases that are classes of the package."""
        found = []
        for base in self.node.bases:
            name = ast.unparse(base).split("[")[0]
            for home in (self.module.name, *_sources(self.module, name)):
                if (home, name.split(".")[-1]) in classes():
                    found.append(classes()[home, name.split(".")[-1]])
                    break
        return found

    @property
    def ancestors(self) -> Iterator["Class"]:
        for base in self.bases:
            yield base
            yield from base.ancestors


def _sources(module: Module, name: str) -> list[str]:
    """Modules from which a module may have the name."""
    return sorted(found.target for found in imports(module) if found.target in modules())


@functools.cache
def classes() -> dict[tuple[str, str], Class]:
    """Every class of the package by module and name, those inside functions aside."""
    return {
        (module.name, node.name): Class(module, node)
        for module in modules().values()
        for node in module.tree.body
        if isinstance(node, ast.ClassDef)
    }
