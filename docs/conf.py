"""Sphinx configuration. `make docs` builds the site into docs/_build/html; the tutorials run at build time."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import ppl_buffer

# Where the tutorials write, a folder for each.
RESULTS = Path(tempfile.mkdtemp(prefix="ppl_buffer_docs_"))

project = "ppl_buffer"
author = "The ppl_buffer authors"
release = ppl_buffer.__version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "matplotlib.sphinxext.plot_directive",
    "sphinx.ext.viewcode",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "_static", "tutorials/sg_execution_times.rst", "sg_execution_times.rst"]
html_theme = "furo"
html_title = f"ppl_buffer {release}"
html_static_path = ["_static"]
html_css_files = ["layout.css"]
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
autodoc_typehints = "description"
autodoc_member_order = "bysource"
napoleon_use_ivar = True
# Not installed for every reader of the documentation, and not needed to describe the interface.
autodoc_mock_imports = ["pymc", "pytensor", "sbi"]
default_role = "code"
plot_include_source = True
plot_html_show_formats = False
plot_html_show_source_link = False
plot_formats = [("png", 110)]
suppress_warnings = ["config.cache", "myst.header"]


def arguments(gallery: Any, script: dict[str, Any]) -> list[str]:
    """The tutorials' command lines: small, and with a folder of their own."""
    return ["--quick", "--out", str(RESULTS / Path(script["src_file"]).stem)]


def pictures(block: Any, variables: dict[str, Any], gallery: dict[str, Any]) -> str:
    """Hand the pictures that a script wrote to the gallery."""
    from sphinx_gallery.scrapers import figure_rst

    written = sorted((RESULTS / Path(variables["src_file"]).stem).rglob("*.png"))
    places = []
    for file, place in zip(written, variables["image_path_iterator"], strict=False):
        shutil.move(file, place)
        places.append(place)
    return figure_rst(places, gallery["src_dir"])


def plain(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Docstrings say (*B, K) and |x|, which are no markup; a table in one stays as it is written."""
    out: list[str] = []
    table = False
    for line in lines:
        if line.lstrip().startswith("|"):
            if not table:
                out += ["::", ""]
            table = True
            out.append(f"    {line}")
            continue
        if table:
            out.append("")
        table = False
        parts = line.split("`")
        # Between backquotes it is code.
        parts[::2] = [re.sub(r"(?<![*\w])\*(?=\w+(?![\w*]))|\|", r"\\\g<0>", part) for part in parts[::2]]
        out.append("`".join(parts))
    lines[:] = out


def without_bars(app: Any, name: str, text: list[str]) -> None:
    """Of what tutorials print, progress bars and the folder of this build stay out, and what then is empty."""
    if name.startswith("tutorials/"):
        bar = re.compile(r"\d+%\|.*\| *\d+/\d+ \[|\| *\d+/\d+ \[\d")
        lines = text[0].replace(f"{RESULTS}/", "").splitlines()
        kept = "\n".join(line for line in lines if not bar.search(line)) + "\n"
        empty = r"\.\. rst-class:: sphx-glr-script-out\n\s*\.\. code-block:: none\n\s*\n(?=\S|\Z)"
        text[0] = re.sub(empty, "", kept)


def setup(app: Any) -> None:
    """Docstrings are read as they are meant, and the networks' cards are pages as well."""
    app.connect("source-read", without_bars)
    app.connect("autodoc-process-docstring", plain, priority=400)  # before the sections are parsed
    cards = Path(__file__).parent / "cards"
    cards.mkdir(exist_ok=True)
    for card in sorted((Path(ppl_buffer.__file__).parent / "pretrained").glob("*.md")):
        shutil.copy(card, cards / card.name)


sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "tutorials",
    "filename_pattern": (
        r"/(two_step|selection_task|multisensory_comparison|conflict_ddm|digits|eeg|table|learning_ddm"
        r"|speculative_rollout|function_prior)\.py$"
    ),
    "ignore_pattern": r"__init__\.py",
    "reset_argv": arguments,
    "image_scrapers": (pictures,),
    "download_all_examples": False,
    "show_memory": False,
    "remove_config_comments": True,
    "within_subsection_order": "FileNameSortKey",
}
