"""Texts of options that describe a table: names of columns and words are whatever people wrote there."""

import shlex

import pytest

pytest.importorskip("typer")

from ppl_buffer.datasets.columns import recode_option
from ppl_buffer.workflow.cli.parsing import read_codes, read_headings, read_numbers, read_pairs


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("", {}),
        ("choice=response,rt=time", {"choice": "response", "rt": "time"}),
        (" choice = response , rt= time (s) ,", {"choice": "response", "rt": "time (s)"}),
        ("choice=response, key,rt=time", {"choice": "response, key", "rt": "time"}),
        ("choice=a=b,rt=c:d", {"choice": "a=b", "rt": "c:d"}),
        ('choice="a,b=c",rt=time', {"choice": "a,b=c", "rt": "time"}),
        ('choice="say ""a"", b=c"', {"choice": 'say "a", b=c'}),
    ],
)
def test_columns(text, pairs):
    assert read_pairs("columns", text) == pairs


@pytest.mark.parametrize("text", ["choice", "=response", "choice=", "choice=a,choice=b"])
def test_columns_that_are_none(text):
    with pytest.raises(ValueError, match="--columns: expected"):
        read_pairs("columns", text)


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("choice:left=0,right=1", {"left": 0, "right": 1}),
        ("choice: left = 0 , right = 1.5e-3,", {"left": 0, "right": 0.0015}),
        ("choice:a:b=0,c=d=1", {"a:b": 0, "c=d": 1}),
        ("choice:no, left=0,yes=-1", {"no, left": 0, "yes": -1}),
        ("choice:-1=0,1=1", {"-1": 0, "1": 1}),
        ('choice:"a=1,b"=2,c=3', {"a=1,b": 2, "c": 3}),
        ("choice:True=1,False=0", {"True": 1, "False": 0}),
        ("choice:1,5=0,2,5=1", {"1,5": 0, "2,5": 1}),
    ],
)
def test_codes(text, codes):
    assert read_codes("recode", [text]) == {"choice": codes}
    # What a message suggests is read as it was meant.
    suggested = recode_option("choice", codes)
    assert read_codes("recode", shlex.split(suggested)[1:]) == {"choice": codes}


def test_codes_in_several_options():
    assert read_codes("recode", ["a:x=0", "b:y=1", "a:z=2"]) == {"a": {"x": 0, "z": 2}, "b": {"y": 1}}
    for wrong in (["a:x=0", "a:x=1"], ["a:x=0,x=0"], ["a"], ["a:"], [":x=0"], ["a:x"], ["a:x=one"], ["a:=0"]):
        with pytest.raises(ValueError, match="--recode: expected"):
            read_codes("recode", wrong)


def test_factors():
    assert read_numbers("scale", "rt=0.001,x=-2") == {"rt": 0.001, "x": -2.0}
    for wrong in ("rt", "rt=ms", "rt=1/1000", "rt=nan", "rt=1,rt=2"):
        with pytest.raises(ValueError, match="--scale: expected"):
            read_numbers("scale", wrong)


def test_headings():
    assert read_headings("subject", "subject") == ["subject"]
    assert read_headings("subject", " subject , session") == ["subject", "session"]
    assert read_headings("subject", '"name, first",session') == ["name, first", "session"]
    for wrong in ("", " , "):
        with pytest.raises(ValueError, match="--subject: expected names of columns"):
            read_headings("subject", wrong)
