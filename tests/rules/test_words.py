"""The field's words: identifiers that say what a thing is, and texts that a user of the wheel can follow."""

import collections
import re
import subprocess

import pytest

from tests.rules.source import RATCHETS, ROOT, modules, names

# Words of an earlier, private language; docs/glossary.md says what is written in their place.
BANNED = frozenset(
    """
    lesson lessons prepare_lessons taught told told_sets told_weight told_prior redraw redraws known_density
    special_value special_values no_context fine_scales counters curriculum pilot front room Arrangement
    NetworkVerbs floors deviation contamination TrialSite replay find_joint people members chosen found here mine drawn
    """.split()
)
FOLDERS = ("ppl_buffer", "benchmarks", "examples")


@pytest.mark.parametrize("folder", FOLDERS)
def test_identifiers_are_the_fields_words(folder):
    found = collections.Counter()
    places = collections.defaultdict(list)
    for path in sorted((ROOT / folder).rglob("*.py")):
        for word, line in names(path.read_text()):
            if word in BANNED:
                found[word] += 1
                places[word].append(f"{path.relative_to(ROOT)}:{line}")
    ceiling = RATCHETS["words"].get(folder, {})
    assert {word: places[word] for word, count in found.items() if count > ceiling.get(word, 0)} == {}


def test_the_package_cites_no_page_of_the_documentation():
    # A wheel has none.
    found = [f"{module.file}:{number}" for module in modules().values()
             for number, line in enumerate(module.text.splitlines(), 1) if "docs/" in line]  # fmt: skip
    assert len(found) <= RATCHETS["pages_cited"], found


def tracked():
    """Text files under version control, or all files where there is none."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    files = [ROOT / name for name in listed.stdout.splitlines()] if listed.returncode == 0 else []
    for path in files or [path for folder in (*FOLDERS, "tests", "docs") for path in (ROOT / folder).rglob("*")]:
        if path.is_file() and path.suffix in {
            ".py",
            ".md",
            ".toml",
            ".txt",
            ".cfg",
            ".json",
            ".yml",
            ".yaml",
            ".sh",
            "",
        }:
            yield path


def test_no_file_names_a_package_registry_or_a_ticket():
    # Written in parts, so that this file does not find itself.
    patterns = [
        "index" + "-url",
        "INDEX" + "_URL",
        r"pypi\.org" + "/simple",
        "python" + "hosted",
        r"\b[Ii]ssue" + r" #?\d",
    ]
    pattern = re.compile("|".join(patterns))
    found = [f"{path.relative_to(ROOT)}: {match.group()}" for path in tracked()
             for match in pattern.finditer(path.read_text(errors="replace"))]  # fmt: skip
    assert found == []
