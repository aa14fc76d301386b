"""Pieces of HTML: tables, shares, figures inside the file."""

from __future__ import annotations

import base64
import html
import io
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

# Name of a file -> figure and caption.
Figures = dict[str, tuple[Any, str]]


def table(
    head: Sequence[str], rows: Sequence[Sequence[Any]], bad: Sequence[bool] = (), words: Sequence[int] = ()
) -> str:
    """Rows as an HTML table; `bad` ones stand out, columns of `words` begin at the left."""

    def cell(value: Any, tag: str, mark: bool, column: int) -> str:
        if isinstance(value, (float, np.floating)):
            value = "–" if math.isnan(value) else f"{value:.3g}"
        kinds = [name for name, holds in (("bad", mark), ("words", column in words)) if holds]
        kind = f' class="{" ".join(kinds)}"' if kinds else ""
        return f"<{tag}{kind}>{html.escape(str(value))}</{tag}>"

    # Comparisons of NumPy are no bool, and cannot say how often.
    marks = [bool(mark) for mark in bad] or [False] * len(rows)
    lines = ["".join(cell(name, "th", False, column) for column, name in enumerate(head))]
    lines += ["".join(cell(x, "td", mark, column) for column, x in enumerate(row)) for row, mark in
              zip(rows, marks, strict=True)]  # fmt: skip
    return f'<div class="wide"><table>{"".join(f"<tr>{line}</tr>" for line in lines)}</table></div>'


def percent(share: float) -> str:
    """A share from 0 to 1 as a percentage."""
    if 0 < share < 0.0005:
        return "below 0.1%"
    return f"{share:.1%}" if 0 < share < 0.1 else f"{share:.0%}"


def as_text(fragment: str) -> str:
    """A sentence without its HTML, for a terminal."""
    return html.unescape(re.sub(r"<[^>]+>", "", fragment))


def images(figures: Figures, names: Sequence[str]) -> str:
    """Those of the named figures that there are, with their captions, inside the file."""
    out = []
    for name in [name for name in names if name in figures]:
        figure, caption = figures[name]
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=110)
        code = base64.b64encode(content.getvalue()).decode()
        width = int(figure.get_figwidth() * 72)
        alternative = html.escape(caption, quote=True)
        out.append(
            f'<figure><div class="wide"><img width="{width}" alt="{alternative}" src="data:image/png;base64,{code}">'
            f"</div><figcaption>{html.escape(caption)}</figcaption></figure>"
        )
    return "".join(out)
