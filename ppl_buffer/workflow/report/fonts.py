"""Fonts in which labels in any script can be read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

# Fonts of Chinese, Japanese, Korean and other scripts that operating systems bring, in no order that matters.
_OTHERS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Microsoft YaHei", "SimHei", "Yu Gothic",
    "Malgun Gothic", "PingFang SC", "Hiragino Sans GB", "Hiragino Sans", "Apple SD Gothic Neo", "WenQuanYi Micro Hei",
    "Droid Sans Fallback", "Noto Sans Devanagari", "Nirmala UI", "Noto Sans Thai", "Leelawadee UI", "Arial Unicode MS",
)  # fmt: skip


def families(first: Iterable[str], installed: Iterable[str]) -> list[str]:
    """The families of text: the user's own, and behind them what is installed for other scripts."""
    known = set(installed)
    return list(dict.fromkeys([*first, *(name for name in _OTHERS if name in known)]))


@contextmanager
def fonts_of_all_scripts() -> Iterator[None]:
    """Texts of matplotlib that are made meanwhile take the letters that their font lacks from others."""
    from matplotlib import font_manager, rc_context, rcParams

    with rc_context({"font.family": families(rcParams["font.family"], font_manager.get_font_names())}):
        yield
