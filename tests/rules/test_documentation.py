"""What the documentation refers to exists, and design pages stay pages."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DESIGN = sorted((ROOT / "docs" / "design").glob("*.md"))
# Pages that point at files of the project. DEVLOG.md does not count: what it tells of may be gone.
POINTING = [ROOT / "CONTRIBUTING.md", ROOT / "README.md", ROOT / "docs" / "api.md", *DESIGN]
PAGES = [*POINTING, *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "howto").glob("*.md"))]
# What a page writes before it is made, or stands for a name of the reader's.
PLACEHOLDERS = ("NAME", "SUBJECT", "runs/", "fit/", "/tmp/", ".venv/")


def titles(path):
    """What a link may point at in a page: the slugs of its headings."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL), re.MULTILINE)
    slugs = [re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings]
    # Sphinx's own anchors leave out a leading number.
    return {*slugs, *(re.sub(r"^[\d\-]+", "", slug) for slug in slugs)}


def named_paths(text):
    """Paths in backquotes, those of a row such as `network/*/joint.py` included."""
    for code in re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        for word in code.split():
            inside = re.fullmatch(r"[\w.*/-]+/[\w.*-]*|[\w-]+\.(?:py|md|json|png)", word)
            if inside and not any(placeholder in word for placeholder in PLACEHOLDERS):
                yield word


@pytest.mark.parametrize("page", DESIGN, ids=lambda page: page.name)
def test_a_design_page_has_one_subject(page):
    lines = page.read_text().splitlines()
    assert len(lines) <= 120
    assert sum(line.startswith("# ") for line in lines) == 1
    if page.name != "index.md":
        assert any(line.startswith("## Figure") for line in lines)
        assert page.stem in (page.parent / "index.md").read_text()


@pytest.mark.parametrize("page", POINTING, ids=lambda page: page.name)
def test_files_that_a_page_names_exist(page):
    places = [ROOT, ROOT / "ppl_buffer", ROOT / "ppl_buffer" / "pretrained", ROOT / "benchmarks", ROOT / "docs"]
    missing = [
        path for path in named_paths(page.read_text()) if not any(any(place.glob(path)) for place in places if path)
    ]
    assert missing == []


@pytest.mark.parametrize("page", sorted(set(PAGES)), ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        file, _, anchor = target.partition("#")
        if "://" in target or file.startswith(("tutorials/", "cards/")):  # made with the site
            continue
        path = (page.parent / file).resolve() if file else page
        if not path.exists() or (anchor and anchor not in titles(path)):
            broken.append(target)
    assert broken == []


def test_history_is_not_part_of_the_site():
    assert (ROOT / "DEVLOG.md").exists() and not list((ROOT / "docs").rglob("DEVLOG*"))
