"""A table of trials as what a network reads, checked: a mistake in a column is said in words, with what to write."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_buffer.datasets.columns import TableColumn, lines, listed, missing_column, read_column
from ppl_buffer.datasets.trials import TrialData
from ppl_buffer.network.network import Network
from ppl_buffer.schema import Categorical, Variable
from ppl_buffer.simulator import Simulator
from ppl_buffer.training.draws import draw_data, draw_params

if TYPE_CHECKING:
    import pandas


def read_trials(
    table: Any,
    net: Network,
    *,
    subject: str = "subject",
    columns: Mapping[str, str] | None = None,
    recode: Mapping[str, Mapping[str, float]] | None = None,
    scale: Mapping[str, float] | None = None,
    simulator: Simulator | None = None,
) -> TrialData:
    """Read and check a table with a row a trial, in the order in which each person did them.

    Args:
        table: a CSV file, or a pandas data frame.
        net: the network that the trials are for; its schema names the inputs, outcomes and feedback.
        subject: column that tells people apart, by numbers or words.
        columns: name of the schema -> column; names that are missing are their own columns.
        recode: name of the schema -> {value in the table, as text: number for the model}. Words of an input that has as
            many categories count in alphabetical order, which is warned of.
        scale: name of the schema -> factor, such as 0.001 for response times in milliseconds.
        simulator: what the network was trained on: values of inputs and feedback that it never produces are refused.

    Returns:
        the trials; ``subjects`` are the labels of the table.

    Raises:
        ValueError: if a column is missing, empty somewhere, in another unit or another code than the network's, or
            people have fewer than two trials. The message says what is wrong and what to write.
        FileNotFoundError: if there is no such file.
        ImportError: if pandas is not installed.
    """
    frame, source = _frame(table)
    schema = net.schema
    variables: dict[str, Variable] = {**schema.inputs, **schema.outcomes, **schema.feedback}
    columns, recode, scale = dict(columns or {}), dict(recode or {}), dict(scale or {})
    for argument, given in (("columns", columns), ("recode", recode), ("scale", scale)):
        unknown = [name for name in given if name not in variables]
        if unknown:
            raise ValueError(
                f"{argument}: the model has no {listed(unknown)}; it knows {listed(variables)}. Names of the model "
                "come first: --columns NAME=COLUMN"
            )
    for name in [*variables, None]:
        column = subject if name is None else columns.get(name, name)
        if column not in frame:
            raise missing_column(name, column, list(frame), source)
    labels = frame[subject]
    _check_subjects(labels, source)
    examples = {} if simulator is None else _examples(simulator)
    values = {}
    for name, variable in variables.items():
        numbers = read_column(
            TableColumn(name, variable, frame[columns.get(name, name)], labels, source),
            is_input=name in schema.inputs,
            recode=recode.get(name),
            scale=scale.get(name),
            trained=net.standardization.get(name),
            examples=None if name in schema.outcomes else examples.get(name),
        )
        values[name] = numbers.astype(int if isinstance(variable, Categorical) else float)
    return TrialData.from_rows(
        labels,
        inputs={name: values[name] for name in schema.inputs},
        outcomes={name: values[name] for name in schema.outcomes},
        feedback={name: values[name] for name in schema.feedback},
        fill={name: variable.fill for name, variable in variables.items()},
    )


def write_trials(trials: TrialData, path: str | os.PathLike[str]) -> None:
    """Write trials as the CSV table that `read_trials` reads: a row a trial, people below each other.

    Args:
        trials: of people whose `subjects` differ.
        path: the file; its folder must exist.
    """
    import pandas

    exists = trials.trial_mask
    variables = {**trials.inputs, **trials.outcomes, **trials.feedback}
    columns = {"subject": np.repeat(trials.subjects, trials.trial_counts)}
    columns["trial"] = 1 + np.nonzero(exists)[1]
    pandas.DataFrame(columns | {name: x[exists] for name, x in variables.items()}).to_csv(path, index=False)


def _frame(table: Any) -> tuple[pandas.DataFrame, str]:
    """The table, and what messages call it."""
    try:
        import pandas
    except ImportError as error:
        raise ImportError("read_trials reads tables with pandas: pip install 'ppl-buffer[data]'") from error
    if isinstance(table, pandas.DataFrame):
        return table.reset_index(drop=True), "table"
    path = Path(os.fspath(table))
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    try:
        # The engine that finds out whether commas, semicolons or tabs separate the columns.
        frame = pandas.read_csv(path, sep=None, engine="python", skipinitialspace=True)
    except (pandas.errors.ParserError, pandas.errors.EmptyDataError, UnicodeDecodeError, ValueError) as error:
        raise ValueError(f"{path}: expected a CSV table, a row a trial, with names in the first row: {error}") from None
    if frame.empty:
        raise ValueError(f"{path}: expected a row a trial, got names of columns alone")
    return frame, str(path)


def _check_subjects(labels: pandas.Series, source: str) -> None:
    """Every row has a subject, and every subject at least two."""
    column = labels.name
    if labels.isna().any():
        where = lines(labels.isna())
        raise ValueError(f"{source}: column {column!r} (subject) is empty in {where}; fill it or delete the row")
    counts = labels.value_counts(sort=False)
    if counts.max() < 2:
        raise ValueError(
            f"{source}: every subject has one trial, since column {column!r} has {len(counts)} different values in "
            f"{len(labels)} rows. A subject does many trials: --subject must name the column that tells people apart"
        )
    if counts.min() < 2:
        few = [str(label) for label, count in counts.items() if count < 2]
        raise ValueError(
            f"{source}: subject {', '.join(few[:5])} has one trial, from which nothing can be learnt; delete "
            f"{'these rows' if len(few) > 1 else 'this row'}, or check column {column!r}"
        )


def _examples(simulator: Simulator) -> dict[str, np.ndarray]:
    """What the simulator gives, all data sets together, by name."""
    rng = np.random.default_rng(0)
    size, trials = 50, 20
    data, _ = draw_data(simulator, rng, draw_params(simulator, rng, size), size, trials, probabilities=False)
    return {name: np.asarray(x, dtype=float).ravel() for name, x in data.items()}
