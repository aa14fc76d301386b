"""Files of any program are read as what they hold, or refused with what to do."""

import gzip
import re
import warnings

import numpy as np
import pytest

pytest.importorskip("pandas")

from ppl_buffer.findings import FindingWarning
from tests.datasets.tables import RLDDM, read, table_of_trials

CSV = table_of_trials().round({"rt": 3}).to_csv(index=False)
ROWS = CSV.splitlines()
THOUSANDS = re.sub(r"0[.](\d+)", lambda match: "1," + match[1].ljust(3, "0"), CSV.replace(",", ";"))
RIGHT = read(table_of_trials().round({"rt": 3}), net=RLDDM, simulator=None)


def between(line, *rows):
    """The file with rows before a line, counted from 1."""
    return "\n".join([*ROWS[: line - 1], *rows, *ROWS[line - 1 :]]) + "\n"


@pytest.fixture
def file(tmp_path):
    def write(content):
        path = tmp_path / "trials.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def assert_right(path, subjects=("s0", "s1", "s2")):
    trials = read(path, net=RLDDM, simulator=None)
    assert trials.subjects.tolist() == list(subjects)
    for group in ("inputs", "outcomes", "feedback"):
        for name, values in getattr(RIGHT, group).items():
            np.testing.assert_array_equal(getattr(trials, group)[name], values)
    np.testing.assert_array_equal(trials.trial_mask, RIGHT.trial_mask)


SILENT = {
    "byte order mark": "\ufeff" + CSV,
    "utf-16": CSV.encode("utf-16"),
    "utf-16 without mark": CSV.encode("utf-16-le"),
    "utf-16 of the other end": CSV.encode("utf-16-be"),
    "utf-32": CSV.encode("utf-32"),
    "gzip": gzip.compress(CSV.encode()),
    "windows": CSV.replace("\n", "\r\n"),
    "old mac": CSV.replace("\n", "\r"),
    "semicolons and decimal commas": CSV.replace(",", ";").replace(".", ","),
    "tabs and decimal commas": CSV.replace(",", "\t").replace(".", ","),
    "quoted decimal commas": CSV.replace("0.", '"0,').replace("\n", '"\n').replace('rt"', "rt"),
    "bars": CSV.replace(",", "|"),
    "blanks": CSV.replace(",", "   "),
    "blanks before and after": "".join(f"  {row.replace(',', '  ')} \n" for row in ROWS),
    "blanks after rows": ROWS[0].replace(",", " ") + "\n" + "".join(f"{row.replace(',', ' ')}  \n" for row in ROWS[1:]),
    "blanks around": CSV.replace(",", " , "),
    "what Excel is told": "sep=;\n" + CSV.replace(",", ";"),
    "comment above": "# exported, by me\n\n#\n" + CSV,
    "empty rows at the end": CSV + ",,,,\n\n\n , , , ,\n",
    "trailing separators": CSV.replace("\n", ",,\n"),
    "names of rows of R": '"",' + ROWS[0] + "\n" + "".join(f'"{i}",{row}\n' for i, row in enumerate(ROWS[1:])),
    "all quoted": "".join('"' + row.replace(",", '","') + '"\n' for row in ROWS),
    "quoted after blanks": ROWS[0] + ", note\n" + "".join(f'{row}, "one, two"\n' for row in ROWS[1:]),
    "breaks and commas in a note": ROWS[0] + ",note\n" + "".join(f'{x},"one, two\nand ""three"""\n' for x in ROWS[1:]),
    "a column twice that is not read": "".join(row + ",x,x\n" for row in ROWS),
}  # fmt: skip


@pytest.mark.parametrize("kind", SILENT)
def test_read_without_a_word(file, kind):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_right(file(SILENT[kind]))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (CSV.replace("s1", "s\xe9").encode("latin-1"), "not UTF-8 .line 22. and was read as Windows-1252"),
        (between(10, "# a break, of two minutes"), "begin with '#', skipped as comments: line 10"),
        (between(10, ",,,,"), "empty rows, skipped: line 10"),
        (between(30, "", ""), "empty rows, skipped: lines 30, 31"),
        (between(30, ROWS[0], "\ufeff" + ROWS[0]), "repeat the names of the columns, skipped: lines 30, 31"),
        (
            CSV.replace("rt\n", "rt,note\n"),
            "fewer cells than the first row, whose end counts as empty: lines 2, 3, 4, 5 and 52 more",
        ),
    ],
)
def test_read_and_said(file, content, said):
    subjects = ("s0", "s\xe9", "s2") if b"s\xe9" in bytes(content if isinstance(content, bytes) else b"") else None
    with pytest.warns(FindingWarning, match=said):
        assert_right(file(content), subjects or ("s0", "s1", "s2"))


REFUSED = {
    "empty": ("", "the file is empty"),
    "blanks": (" \n\t\n", "the file is empty"),
    "comments": ("# nothing\n", "the file is empty"),
    "names alone": (ROWS[0] + "\n", "got names of columns alone"),
    "no names": ("\n".join(ROWS[1:]), "first row should hold names"),
    "workbook": (b"PK\x03\x04" + b"\0" * 99, "Excel workbook.*Save as, 'CSV UTF-8'"),
    "old workbook": (b"\xd0\xcf\x11\xe0\xa1\xb1", "old Excel workbook"),
    "spss": (b"$FL2@(#) SPSS", "SPSS"),
    "web page": ("<!DOCTYPE html><html>", "web page or JSON"),
    "json": ('[{"subject": 1}]', "web page or JSON"),
    "damaged gzip": (gzip.compress(CSV.encode())[:50], "gzip file that cannot be read"),
    "nul": (CSV.replace("s1,", "s\0001,", 1), "NUL byte in line 22"),
    "bytes": (bytes(range(256)), "NUL byte in line 1"),
    "decimal commas among commas": (CSV.replace(".", ","), "line 2 has 6 cells.*decimal commas with another separator"),
    "a cell too many": (between(10, "s0,1,1,1,0.5,7"), "line 10 has 6 cells, but there are 5 names"),
    "names of rows": (ROWS[0] + "\n" + "".join(f"1,{row}\n" for row in ROWS[1:]), "row.names = FALSE"),
    "title above": ("My study\n" + CSV, "delete lines above the names"),
    "open quotation": (CSV.replace("s1,", '"s1,', 1), "record that begins in line 22.*quotation mark never closed"),
    "row or comment": (between(10, "#" + ROWS[9]), "line 10 begins with '#'"),
    "points and commas": (between(10, 's0,1,1,1,"0,5"'), "'0,5' beside '0.4'"),
    "thousands": (THOUSANDS, "1,400., which may be 1400 or 1.400"),
    "a column twice": ("".join(f"{row},{row.rsplit(',', 1)[1]}\n" for row in ROWS), "2 columns 'rt' .the 5. and the 6"),
    "infinite": (between(10, "s0,1,1,1,inf"), "should be numbers, but holds 'inf' in line 10"),
    "not a number": (between(10, "s0,1,1,1,0.5s"), "holds '0.5s' in line 10"),
    "computed": (between(10, "s0,1,1,1,#DIV/0!"), "holds '#DIV/0!' in line 10"),
    "missing": (between(10, "s0,1,1,1,NA"), r"empty \(NaN\) in line 10, subject s0"),
    "missing at the end": (between(10, "s0,1,1,1"), r"empty \(NaN\) in line 10, subject s0"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_refused_with_what_to_do(file, kind):
    content, said = REFUSED[kind]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FindingWarning)
        with pytest.raises(ValueError, match=said):
            read(file(content), net=RLDDM, simulator=None)


def test_lines_are_those_of_the_file(file):
    content = between(10, "", "# two\n", "s0,1,1,1,-9")
    with pytest.warns(FindingWarning), pytest.raises(ValueError, match="-9 in line 14"):
        read(file("# one\n" + content), net=RLDDM, simulator=None)


def test_names_in_a_comment_as_numpy_writes_them(file):
    numbers = CSV.replace("s0", "0").replace("s1", "1").replace("s2", "2")
    assert_right(file("# made by numpy\n# " + numbers), "012")
    # Other comments are no names.
    with pytest.raises(ValueError, match="first row should hold names"):
        read(file("# one, two\n" + numbers.split("\n", 1)[1]), net=RLDDM, simulator=None)


def test_what_is_no_table(tmp_path):
    for wrong in (None, 3, {"subject": [1]}, [1, 2], np.zeros(3)):
        with pytest.raises(ValueError, match="table: expected the path of a CSV file or a pandas data frame, got"):
            read(wrong)
    with pytest.raises(ValueError, match="got a folder"):
        read(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        read(tmp_path / "none.csv")
    with pytest.raises(ValueError, match="data frame without rows"):
        read(table_of_trials().iloc[:0])
