"""Whatever program wrote a table it reads the same, and a damaged one is refused by name or reads as what it says."""

import csv
import io
import warnings

import numpy as np
import pytest

pytest.importorskip("pandas")

import pandas

from ppl_buffer.findings import FindingWarning
from tests.datasets.tables import RLDDM, read, table_of_trials

TABLE = table_of_trials().round({"rt": 3})
TABLE["subject"] = TABLE["subject"].map({"s0": "007", "s1": "Zo\xeb, 2", "s2": "=1+1"})
RIGHT = read(TABLE, net=RLDDM, simulator=None)


def written(rng, table):
    """The bytes of a file that holds a table, in a form drawn at random."""
    table = table.assign(
        note=rng.choice(["a, b", 'say "c"', "d;e", ""], len(table)), weight=rng.normal(size=len(table))
    )
    table = table[rng.permutation(table.columns)]
    # Rows of people alternate, each person's in their order.
    if rng.random() < 0.5:
        table = table.iloc[np.argsort(table.groupby("subject").cumcount() + rng.random(len(table)), kind="stable")]
    elif rng.random() < 0.5:
        table = table.assign(trial=table.groupby("subject").cumcount()).sample(
            frac=1, random_state=int(rng.integers(99))
        )
    separator, comma = rng.choice([",", ";", "\t", "|"]), rng.random() < 0.3
    out = io.StringIO(newline="")
    writer = csv.writer(
        out,
        delimiter=str(separator),
        quoting=int(rng.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])),
        lineterminator=str(rng.choice(["\n", "\r\n", "\r"])),
    )
    blank = " " * int(rng.integers(2))
    out.write("# a comment, of two\n\n" * int(rng.integers(2)))
    writer.writerow([f"{name}{blank}" for name in table.columns])
    for row in table.itertuples(index=False):
        texts = [str(cell) for cell in row]
        if comma:
            texts = [
                text.replace(".", ",") if text.replace(".", "", 1).lstrip("-").isdigit() else text for text in texts
            ]
        writer.writerow([f"{text}{blank}" for text in texts])
    out.write(separator * (table.shape[1] - 1) + "\n" if rng.random() < 0.3 else "")
    return out.getvalue().encode(str(rng.choice(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])))


@pytest.mark.parametrize("seed", range(40))
def test_a_table_reads_the_same_however_it_is_written(tmp_path, seed):
    path = tmp_path / "trials.csv"
    path.write_bytes(written(np.random.default_rng(seed), TABLE))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", category=UserWarning)
        warnings.filterwarnings("ignore", message=".*were sorted by it", category=FindingWarning)
        trials = read(path, net=RLDDM, simulator=None)
    order = [trials.subjects.tolist().index(label) for label in RIGHT.subjects]
    np.testing.assert_array_equal(trials.trial_counts[order], RIGHT.trial_counts)
    for group in ("inputs", "outcomes", "feedback"):
        for name, values in getattr(RIGHT, group).items():
            np.testing.assert_array_equal(getattr(trials, group)[name][order], values)


def damaged(rng, content):
    """A file of which some bytes are others, missing, or there twice."""
    content = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 5, 20])):
        place, length = int(rng.integers(len(content))), int(rng.choice([1, 3, 50]))
        how = rng.integers(4)
        if how == 0:
            content[place] = int(rng.integers(256))
        elif how == 1 and len(content) > 2 * length:
            del content[place : place + length]
        elif how == 2:
            content[place:place] = rng.choice(
                [b",", b'"', b"\n", b"\xff", b"#", b";", b"-", b".", b"\r", b"1e400", b"nan"]
            )
        else:
            content[place:place] = content[place // 2 : place // 2 + length]
    return bytes(content)


TEXTS = ["", "a", b"a", "1,5", "=1"]
NUMBERS = [np.nan, np.inf, -1, 1e300, 1e-300, True, 1 + 2j, np.float32(1), np.int8(3), 10**400]
CELLS = [*TEXTS, *NUMBERS, None, pandas.NA, pandas.NaT, [1], {}, np.arange(2), object(), pandas.Timestamp("2026-01-01")]


def spoiled(rng, table):
    """A data frame in which some cells hold something else."""
    table = table.astype(object).reset_index(drop=True)
    for _ in range(rng.choice([1, 2, 5])):
        table.iat[int(rng.integers(len(table))), int(rng.integers(table.shape[1]))] = CELLS[rng.integers(len(CELLS))]
    return table.set_index("subject") if rng.random() < 0.1 else table


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_a_damaged_table_is_refused_by_name_or_read(tmp_path, seed):
    rng = np.random.default_rng(seed)
    path = tmp_path / "trials.csv"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(200):
            table = spoiled(rng, TABLE) if rng.random() < 0.4 else path
            path.write_bytes(damaged(rng, written(rng, TABLE)))
            try:
                trials = read(table, net=RLDDM, simulator=None)
            except ValueError as error:
                assert type(error) is ValueError and str(error).startswith(("table: ", str(path)))
                continue
            assert len(set(trials.subjects)) == len(trials.subjects) and trials.trial_mask.any(1).all()
            for group, variables in (("inputs", RLDDM.schema.inputs), ("outcomes", RLDDM.schema.outcomes)):
                for name, variable in variables.items():
                    assert variable.contains(np, getattr(trials, group)[name]).all()
