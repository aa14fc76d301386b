"""A table of trials as what a network reads, checked: a mistake in a column is said in words, with what to write."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ppl_buffer.checks import check_choice
from ppl_buffer.datasets.cells import quoted, read_cells, to_numbers
from ppl_buffer.datasets.columns import TableColumn, listed, missing_columns, read_column
from ppl_buffer.datasets.covariates import read_covariates, select_rows
from ppl_buffer.datasets.labels import read_labels
from ppl_buffer.datasets.missing_cells import MissingCells
from ppl_buffer.datasets.options import ReadOptions, two_categories
from ppl_buffer.datasets.order import trial_order
from ppl_buffer.datasets.ranges import OUTSIDE, check_ranges
from ppl_buffer.datasets.trials import TrialData
from ppl_buffer.datasets.words import read_words, word_column, word_columns
from ppl_buffer.network.missing_rule import allows_lost, can_be_lost
from ppl_buffer.network.network import Network
from ppl_buffer.schema import Categorical, Discrete, Schema, Variable
from ppl_buffer.simulator import Simulator

if TYPE_CHECKING:
    import pandas


def read_trials(
    table: str | os.PathLike[str] | pandas.DataFrame,
    net: Network,
    *,
    subject: str | Sequence[str] = "subject",
    session: str | Sequence[str] | None = None,
    where: str | None = None,
    order: str | Sequence[str] | None = None,
    columns: Mapping[str, str] | None = None,
    recode: Mapping[str, Mapping[str, float]] | None = None,
    scale: Mapping[str, float] | None = None,
    signed: Mapping[str, str] | None = None,
    missing: object = None,
    deadline: float | str | None = None,
    withheld: Mapping[str, int] | None = None,
    simulator: Simulator | None = None,
    outside: str = "error",
) -> TrialData:
    """Read and check a table with a row a trial.

    Args:
        table: a CSV file (of any encoding, separator and decimal sign that can be told), or a pandas data frame.
        net: the network that the trials are for; its schema names the inputs, outcomes and feedback.
        subject: column that tells people apart. Labels are text: "7" and "007" are two people. Several columns, such
            as ("subject", "session"), where each session begins anew, as another person would.
        session: columns that divide the trials of a person into data sets, each of which begins anew; whose they are
            stays known (`TrialData.persons`), so that formulas can group by subject.
        where: condition on the table's own columns, as pandas evaluates it, such as "instruction == 'speed'"; rows
            for which it does not hold are left out before anything else, and counted (`TrialData.excluded`).
        order: columns whose numbers (or dates) say in which order a person did the trials, the one that changes most
            slowly first, such as ("block", "trial"); "file" where the rows lie in that order. By default a column
            named ``trial`` or alike counts where the model reads trials in order: rows are sorted by it, which is
            warned of, where it has every number once a person.
        columns: name of the schema -> column; names that are missing are their own columns.
        recode: name of the schema -> {value in the table, as text: number for the model}. Words of an input that has as
            many categories count in alphabetical order, which is warned of.
        scale: name of the schema -> factor, such as 0.001 for response times in milliseconds.
        signed: positive variable -> outcome of two categories for which its sign stands, such as {"rt": "choice"}:
            negative = 0, positive = 1.
        missing: cells of outcomes in which the outcome is missing: "empty" for empty ones, a code such as -999, a list
            of them, or a dict outcome -> those. What is known of such trials counts (`ppl_buffer.Missing`). Where later
            trials depend on them, cells of feedback may be missing as well, and the network has to read it
            (``Config(likelihood_missing=True)``) unless a response did not come in time. Without it such cells are
            refused.
        deadline: time after which a response counts as none, in the unit of the table: a number, or a column, empty
            where there is none. A row without any outcome, or with a time past it and nothing else, is then a response
            that did not come in time. Rows that were lost for another reason must be deleted, where trials are
            independent given the parameters.
        withheld: the choice that is made by not responding, {"choice": 0}, in a go/no-go task with a deadline.
        simulator: what the network was trained on, for a network whose record does not say where its training data
            lay.
        outside: what happens where a subject's values are unlike those of the training. "error": what can hardly be
            data is refused (another unit or code, a code for a missing value, numbers far outside), and what lies
            outside the trained range is warned of; "warn": all is warned of; "ignore".

    Returns:
        the trials; ``subjects`` are the labels of the table, as text. All columns that the model does not read are
        ``covariates``, whose ``levels`` tell where they vary.

    Raises:
        ValueError: if a column is missing, empty somewhere, in another unit or another code than the network's, the
            order of the trials is not certain, rows come twice, or people have fewer than two trials. The message says
            what is wrong and what to write.
        FileNotFoundError: if there is no such file.
        ImportError: if pandas is not installed.
    """
    schema = _schema(net)
    variables: dict[str, Variable] = {**schema.inputs, **schema.outcomes, **schema.feedback}
    options = ReadOptions.of(
        schema, subject=subject, order=order, columns=columns, recode=recode, scale=scale, signed=signed,
        session=session,
    )  # fmt: skip
    check_choice("outside", outside, OUTSIDE)
    lacking = MissingCells.of(net, missing, deadline, withheld)
    cells, excluded = select_rows(read_cells(table), where)
    headings = {name: options.columns.get(name, name) for name in variables}
    from_sign = {code: headings.pop(code) for code in options.signed.values()}
    absent = {name: heading for name, heading in headings.items() if heading not in cells}
    unknown = [heading for heading in options.data_set if heading not in cells]
    if absent or unknown:
        raise missing_columns(absent, unknown, cells)
    labels = read_labels(cells, options.data_set)
    persons = read_labels(cells, options.subject) if options.session else labels
    may_lack = can_be_lost(schema) if allows_lost(net) else ()
    table_columns = {
        name: TableColumn(name, variables[name], heading, cells, labels, can_be_missing=name in may_lack)
        for name, heading in headings.items()
    }
    values = _read_values(schema, options, lacking, table_columns)
    for name, code in options.signed.items():
        sign = np.where(np.isnan(values[name]), np.nan, values[name] > 0)
        values[name], values[code] = np.abs(values[name]), sign
        _check_sign(sign, TableColumn(code, variables[code], from_sign[code], cells, labels), name)
    answers = lacking.trials(schema, values, table_columns, options.scale) if lacking else None
    codes = {name: _codes(column, values[name]) for name, column in table_columns.items()
             if isinstance(variables[name], Categorical)}  # fmt: skip
    words = read_words(cells, {name: headings[name] for name in codes}, codes, values)
    codes |= words
    codes |= {code: {0: f"negative {name}", 1: f"positive {name}"} for name, code in options.signed.items()}
    check_ranges(table_columns, {name: values[name] for name in table_columns}, net, options.scale, simulator, outside)
    rows = trial_order(
        cells,
        labels,
        options.order,
        subject_columns=options.data_set,
        ordered=schema.ordered,
        used=headings,
    )
    for name, variable in variables.items():
        whole = isinstance(variable, Discrete) and not np.isnan(values[name]).any()
        values[name] = values[name][rows].astype(int if whole else float)
    used = [*headings.values(), *(word_column(headings[name]) for name in words)]
    trials = TrialData.from_rows(
        labels[rows],
        inputs={name: values[name] for name in schema.inputs},
        outcomes={name: values[name] for name in schema.outcomes},
        feedback={name: values[name] for name in schema.feedback},
        fill={name: variable.fill for name, variable in variables.items()},
        covariates={name: x[rows] for name, x in read_covariates(cells, used).items()},
        persons=persons[rows] if options.session else None,
        excluded=excluded,
    )
    return replace(
        trials, codes=codes, missing=None if answers is None else answers.of_trials(trials, labels[rows], rows)
    )


def _read_values(
    schema: Schema, options: ReadOptions, lacking: MissingCells, columns: Mapping[str, TableColumn]
) -> dict[str, np.ndarray]:
    """Checked numbers of each variable, (rows,), NaN where an outcome is missing."""
    values = {}
    for name, column in columns.items():
        lost = lacking.lost(column)
        values[name] = np.full(len(lost), np.nan)
        values[name][~lost] = read_column(
            lacking.without(column, lost) if lost.any() else column,
            is_input=name in schema.inputs,
            recode=options.recode.get(name),
            scale=options.scale.get(name),
            signed=name in options.signed,
            sign_codes=two_categories(schema),
        )
    return values


def write_trials(trials: TrialData, path: str | os.PathLike[str]) -> None:
    """Write trials as the CSV table that `read_trials` reads: a row a trial, people below each other.

    A label that a spreadsheet would take for a formula (``=1+1``) is written with an apostrophe before it, which
    `read_trials` takes off. Covariates are written where no column has their name already. Outcomes that are missing
    are empty cells, and deadlines a column: ``missing="empty", deadline="deadline"`` reads them again. Where the table
    that was read had words for a category, ``choice`` has the model's numbers and ``choice_word`` the words, which
    `read_trials` knows again.

    Args:
        trials: of people whose `subjects` differ.
        path: the file; its folder must exist.

    Raises:
        ValueError: if two people have one label, a variable is called 'subject', or there is no such folder.
    """
    import pandas

    labels = [str(label) for label in trials.subjects]
    again = sorted({label for label in labels if labels.count(label) > 1})
    if again:
        raise ValueError(
            f"trials: expected a label for each person, got {listed(again[:5])} more than once: a table cannot tell "
            "them apart. Give them labels of their own: dataclasses.replace(trials, subjects=...)"
        )
    exists = trials.trial_mask
    variables = {**trials.inputs, **trials.outcomes, **trials.feedback}
    if "subject" in variables:
        raise ValueError("trials: expected no variable called 'subject', which is the column of the labels")
    if not Path(path).parent.is_dir():
        raise ValueError(f"path: expected a file in a folder that exists, got {path}")
    columns = {"subject": np.repeat([quoted(label) for label in labels], trials.trial_counts)}
    if "trial" not in variables:
        columns["trial"] = 1 + np.nonzero(exists)[1]
    columns |= {name: np.where(np.isinf(x[exists]), np.nan, x[exists]) for name, x in variables.items()}
    if trials.missing is not None and trials.missing.deadline is not None and "deadline" not in columns:
        columns["deadline"] = np.broadcast_to(trials.missing.deadline, exists.shape)[exists]
    others = {name: _text_quoted(x[exists]) for name, x in trials.covariates.items() if name not in columns}
    numbers = {name: x[exists].astype(float) for name, x in variables.items()}
    words = word_columns(trials.codes, numbers)
    columns |= {name: np.array(x) for name, x in words.items() if name not in {*columns, *others}}
    pandas.DataFrame(columns | others).to_csv(path, index=False)


def _text_quoted(values: np.ndarray) -> np.ndarray:
    return np.array([quoted(text) for text in values.tolist()]) if values.dtype.kind == "U" else values


def _codes(column: TableColumn, numbers: np.ndarray) -> dict[int, str]:
    """What the table says where each number of a category was read."""
    said: dict[int, str] = {}
    for number in np.unique(numbers[np.isfinite(numbers)]):
        words = list(dict.fromkeys(cell for cell, code in zip(column.cells, numbers, strict=True) if code == number))
        said[int(number)] = ", ".join([*words[:3], "..."] if len(words) > 3 else words)
    return said


def _schema(net: Network) -> Schema:
    try:
        return net.schema
    except AttributeError:
        raise ValueError(
            f"net: expected a network from ppl_buffer.load or ppl_buffer.train, got {type(net).__name__}"
        ) from None


def _check_sign(signs: np.ndarray, column: TableColumn, name: str) -> None:
    """Refuse signs that contradict a column of the variable for which they stand."""
    if column.heading in column.table:
        other = ~np.isnan(signs) & (signs != to_numbers(column.cells, column.title))
        if other.any():
            raise ValueError(
                f"{column.title} is not what the sign of {name} says in {column.table.where(other)}: where the column "
                f"is right, write the absolute value of {name} into the table, and delete the column where the sign is"
            )
