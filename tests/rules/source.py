"""The package as text: its modules, what they import, their classes and functions. Nothing is imported to read them."""

import ast
import functools
import io
import re
import tokenize
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "ppl_buffer"
# What does not obey a rule yet: how many, and where. The figures may fall, never rise.
RATCHETS = tomllib.loads((Path(__file__).with_name("ratchets.toml")).read_text())


@dataclass(frozen=True)
class Module:
    """A file of the package, under its dotted name."""

    name: str
    path: Path

    @property
    def file(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    @functools.cached_property
    def text(self) -> str:
        return self.path.read_text()

    @functools.cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def package(self) -> str:
        """What a relative import starts from."""
        return self.name if self.path.name == "__init__.py" else self.name.rpartition(".")[0]


@functools.cache
def modules() -> dict[str, Module]:
    """Every module of the package by its dotted name."""
    result = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        result[name] = Module(name, path)
    return result


@dataclass(frozen=True)
class Import:
    """One import statement, or one call of `importlib.import_module`."""

    # A module's name; of a call as far as it is written down, `{}` in place of what is computed.
    target: str
    line: int
    by_name: bool = False

    @property
    def modules(self) -> set[str]:
        """Modules of the package that it may import."""
        if not self.by_name:
            return {self.target} & modules().keys()
        pattern = re.compile(".*".join(re.escape(part) for part in self.target.split("{}")))
        return {name for name in modules() if pattern.fullmatch(name)}


@functools.cache
def imports(module: Module) -> list[Import]:
    """What a module imports at any level; a name out of a package's module counts as an import of that module."""
    result = []
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            result += [Import(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = module.package.split(".")
            base = base[: len(base) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                result.append(Import(inner if inner in modules() else source, node.lineno))
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("importlib.import_module", "import_module"):
            result.append(Import(_written(node.args[0]), node.lineno, by_name=True))
    return result


def _written(name: ast.expr) -> str:
    """A module's name as far as it is written down, with `{}` for what is not."""
    if isinstance(name, ast.Constant):
        return str(name.value)
    if isinstance(name, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in name.values)
    return "{}"


@dataclass(frozen=True)
class Function:
    """A function or a method, under its name within the module."""

    module: Module
    name: str
    node: ast.FunctionDef | ast.AsyncFunctionDef
    owner: ast.ClassDef | None

    @property
    def lines(self) -> int:
        """Lines of its body that hold code: no docstring, no comment, no blank line."""
        body = self.node.body
        first = body[0]
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            body = body[1:]
        if not body:
            return 0
        return len(_code_lines(self.module) & set(range(body[0].lineno, (body[-1].end_lineno or 0) + 1)))

    @property
    def arguments(self) -> int:
        """How many arguments it takes, `self` aside."""
        every = self.node.args
        names = [argument.arg for argument in [*every.posonlyargs, *every.args, *every.kwonlyargs]]
        return len([name for name in names if name not in ("self", "cls")])


@functools.cache
def _code_lines(module: Module) -> frozenset[int]:
    ignored = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(module.text).readline):
        if token.type not in ignored:
            lines.update(range(token.start[0], token.end[0] + 1))
    return frozenset(lines)


def functions(module: Module) -> Iterator[Function]:
    """Functions and methods, those inside others too."""

    def visit(node: ast.AST, prefix: str, owner: ast.ClassDef | None) -> Iterator[Function]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                yield Function(module, prefix + child.name, child, owner)
                yield from visit(child, f"{prefix}{child.name}.", None)
            elif isinstance(child, ast.ClassDef):
                yield from visit(child, f"{prefix}{child.name}.", child)
            else:
                yield from visit(child, prefix, owner)

    yield from visit(module.tree, "", None)


def names(text: str) -> Iterator[tuple[str, int]]:
    """Identifiers of a program and their lines."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.NAME:
            yield token.string, token.start[0]
