"""What the repository holds beside programs, and what its programs never read or write."""

import ast
import sys

from tests.rules.source import PACKAGE, ROOT, imports, modules


def test_what_ships_weights_ships_recipe_measurements_and_card():
    weights = sorted(path.stem for path in (PACKAGE / "pretrained").glob("*.safetensors"))
    assert weights
    for kind in ("toml", "json", "md"):
        assert sorted(path.stem for path in (PACKAGE / "pretrained").glob(f"*.{kind}")) == weights, kind


def test_a_page_on_design_has_at_most_120_lines():
    pages = {page.name: len(page.read_text().splitlines()) for page in (ROOT / "docs" / "design").glob("*.md")}
    assert pages
    assert {page: lines for page, lines in pages.items() if lines > 120} == {}


def test_nothing_reads_or_writes_pickles():
    pickles = {"pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib"}
    for module in modules().values():
        assert not {found.target.split(".")[0] for found in imports(module)} & pickles, module.file
        for node in ast.walk(module.tree):
            place = f"{module.file}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "torch":
                assert node.attr not in ("load", "save"), place
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert isinstance(node.value, ast.Constant) and node.value.value is False, place


def test_no_module_is_named_utils():
    assert [name for name in modules() if name.split(".")[-1] in ("utils", "util", "helpers", "misc")] == []


def test_no_script_hides_a_module_of_the_standard_library():
    # A script's folder comes first on the path, and libraries ask for modules of later Pythons: JAX for `compression`.
    later = {"annotationlib", "compression"}
    scripts = [path for folder in ("benchmarks", "examples") for path in (ROOT / folder).glob("*.py")]
    assert scripts
    assert [path.name for path in scripts if path.stem in sys.stdlib_module_names | later] == []
