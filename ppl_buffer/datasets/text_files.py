"""The cells of a text file of data, whoever wrote it: encodings, separators, comments, rows that do not fit."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ppl_buffer.findings import Finding, warn_of

_SEPARATORS = (",", ";", "\t", "|")
_ENCODINGS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
# How files begin that are no text.
_OTHER_PROGRAMS = (
    (b"PK\x03\x04", "an Excel workbook (or another zip archive)"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook"),
    (b"$FL", "an SPSS file"),
    (b"<stata_dta>", "a Stata file"),
    (b"RDX", "an R file"),
    (b"MATLAB", "a MATLAB file"),
    (b"\x89HDF", "an HDF5 file"),
    (b"PAR1", "a Parquet file"),
    (b"ARROW1", "a Feather file"),
    (b"%PDF", "a PDF"),
    (b"{\\rtf", "a text with formats (RTF)"),
)
_SAMPLE = 200  # rows from which the separator is found
_QUOTED = 4  # lines that messages name
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_BLANKS = " \t\r\n\xa0\ufeff\u200b"


@dataclass(frozen=True)
class TextRows:
    """A text file as rows of cells.

    Attributes:
        headings: of the columns, without blanks around them.
        rows: cells of each row that is not empty, without blanks around them, as many as there are headings.
        lines: line of the file on which each row begins, counted from 1.
    """

    headings: list[str]
    rows: list[list[str]]
    lines: list[int]


def read_text(path: Path) -> TextRows:
    """The cells of a file with names in its first row.

    Commas, semicolons, tabs, bars or blanks separate the columns; the text is UTF-8, UTF-16, UTF-32 or else read as
    Windows-1252, which is warned of. Empty rows, lines of comment that begin with ``#`` and repeated headings are
    skipped.

    Raises:
        ValueError: if it is no text, is empty, or a row has more cells than there are headings.
    """
    comments, body = _leading_comments(_decode(path))
    separator = _separator(body)
    records = _records(body, separator, first=len(comments) + 1, source=path)
    line, headings = next(records, (0, []))
    while headings and not any(headings):
        line, headings = next(records, (0, []))
    if not headings:
        raise ValueError(f"{path}: the file is empty; expected a row a trial, with names of columns in the first row")
    rest = list(records)
    if comments and all(map(is_number, headings)):
        # As numpy.savetxt writes them.
        names = [cell.strip() for cell in comments[-1].lstrip("#").split(separator)]
        if len(names) == len(headings):
            rest, headings = [(line, headings), *rest], names
    return _fitting(path, headings, rest)


def _decode(path: Path) -> str:
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError) as error:
            raise ValueError(f"{path}: expected a table, got a gzip file that cannot be read: {error}") from None
    for begin, what in _OTHER_PROGRAMS:
        if data.startswith(begin):
            raise ValueError(
                f"{path}: expected a CSV table, got {what}. Save it from its program as CSV (in Excel: Save as, "
                "'CSV UTF-8'), or read it with pandas and pass the data frame"
            )
    if data.lstrip()[:1] in (b"<", b"{", b"["):
        raise ValueError(f"{path}: expected a CSV table, got a web page or JSON: download the file of data itself")
    encoding = next((name for begin, name in _ENCODINGS if data.startswith(begin)), "utf-8")
    if encoding == "utf-8" and b"\0" in data[:200] and len(data) > 3:
        # UTF-16 without a mark: every other byte of English text is 0.
        halves = data[:200][1::2].count(0), data[:200][::2].count(0)
        if max(halves) > 0.4 * len(data[:200]):
            encoding = "utf-16-le" if halves[0] > halves[1] else "utf-16-be"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "utf-8":
            raise ValueError(f"{path}: expected a CSV table, got a text that is no {encoding}: {error}") from None
        try:
            text = data.decode("cp1252")
        except UnicodeDecodeError:
            text = data.decode("latin-1")
        if "\0" not in text:
            line = data[: error.start].count(b"\n") + 1
            _say(f"{path} is not UTF-8 (line {line}) and was read as Windows-1252: are words and labels right? Save "
                 "it as UTF-8 if not")  # fmt: skip
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise ValueError(f"{path}: expected text, got a NUL byte in line {line}: the file is damaged there, or no text")
    return text


def _leading_comments(text: str) -> tuple[list[str], str]:
    """The lines before the headings (comments, empty ones, Excel's ``sep=;``), and the text from the headings on."""
    lines = list(io.StringIO(text, newline=""))
    before = re.compile(r"\s*(#.*|sep=.)?\s*")
    first = next((index for index, line in enumerate(lines) if not before.fullmatch(line)), len(lines))
    return [line.strip() for line in lines[:first]], "".join(lines[first:])


def _separator(body: str) -> str:
    """The one by which most rows have as many cells as the first, and, of equal ones, most cells."""

    def fit(separator: str) -> tuple[float, int]:
        counts = []
        try:
            reader = csv.reader(io.StringIO(body, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
            for cells in itertools.islice(reader, _SAMPLE):
                if any(cells):
                    counts.append(len(cells) - (separator == " " and not cells[-1]))
        except csv.Error:
            if len(counts) < 2:
                return 0.0, 0
        if not counts or counts[0] < 2:
            return 0.0, 0
        return sum(count == counts[0] for count in counts) / len(counts), counts[0]

    best = max(_SEPARATORS, key=fit)
    if fit(best)[1]:
        return best
    return " " if fit(" ") > (0.99, 1) else ","


def _records(body: str, separator: str, first: int, source: Path) -> Iterator[tuple[int, list[str]]]:
    """Each record with the line on which it begins."""
    reader = csv.reader(io.StringIO(body, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
    begin = first
    try:
        for cells in reader:
            yield begin, [cell.strip(_BLANKS) for cell in cells]
            begin = first + reader.line_num
    except csv.Error as error:
        raise ValueError(
            f"{source}: the record that begins in line {begin} cannot be read ({error}): is a quotation mark never "
            "closed, or one inside a cell not doubled?"
        ) from None


def _fitting(path: Path, headings: list[str], records: list[tuple[int, list[str]]]) -> TextRows:
    """Rows of as many cells as headings; says which lines were skipped or filled up."""
    width = len(headings)
    labelled = sum(cells[0].startswith("#") for _, cells in records if cells) > len(records) / 2
    rows, lines, short, comments, empty, again = [], [], [], [], [], []
    for line, cells in records:
        if len(cells) == width and cells[-1] and cells[0][:1] != "#" and cells != headings:
            rows.append(cells)
            lines.append(line)
            continue
        count = max((index + 1 for index, cell in enumerate(cells) if cell), default=0)
        if not count:
            empty.append(line)
        elif cells == headings:
            again.append(line)
        elif cells[0].startswith("#") and not labelled:
            if count == width:
                raise ValueError(
                    f"{path}: line {line} begins with '#' and is as long as a row of data: delete it if it is a "
                    "comment, and the '#' if it is a trial"
                )
            comments.append(line)
        elif count > width:
            raise ValueError(
                f"{path}: line {line} has {count} cells, but there are {width} names in the first row. "
                f"{_why_long(records, width)}"
            )
        else:
            if len(cells) < width:
                short.append(line)
            rows.append((cells + [""] * width)[:width])
            lines.append(line)
    if not rows:
        raise ValueError(f"{path}: expected a row a trial, got names of columns alone")
    for which, what in (
        (short, "rows of fewer cells than the first row, whose end counts as empty"),
        (comments, "lines that begin with '#', skipped as comments"),
        ([line for line in empty if line < lines[-1]], "empty rows, skipped"),
        (again, "rows that repeat the names of the columns, skipped"),
    ):
        if which:
            more = f" and {len(which) - _QUOTED} more" if len(which) > _QUOTED else ""
            _say(f"{path}: {what}: line{'s' * (len(which) > 1)} {', '.join(map(str, which[:_QUOTED]))}{more}")
    return TextRows(headings, rows, lines)


def _why_long(records: list[tuple[int, list[str]]], width: int) -> str:
    lengths = {len(cells) for _, cells in records if any(cells)}
    if lengths == {width + 1}:
        return (
            "Every row has one more: write the table without names of rows (in R: row.names = FALSE), and decimal "
            "commas with another separator than commas"
        )
    return (
        "Write cells that hold the separator (a comma in a word, a decimal comma) in quotation marks, and delete lines "
        "above the names of the columns"
    )


def is_number(text: str) -> bool:
    """Whether a cell is a finite number."""
    return _NUMBER.fullmatch(text) is not None and math.isfinite(float(text))


def _say(text: str) -> None:
    warn_of(Finding("table", text), stacklevel=6)
