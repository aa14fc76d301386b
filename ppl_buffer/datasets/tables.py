"""A table of trials as what a network reads, checked: a mistake in a column is said in words, with what to write."""

from __future__ import annotations

import difflib
import math
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ppl_buffer.datasets import TrialData
from ppl_buffer.schema import Categorical, Positive, Variable
from ppl_buffer.training.draws import draw_data, draw_params

# Standard deviations of the training's distribution (of a logarithm) beyond which a median has another unit.
_FAR = 4.0
# A variable that takes no more values than this in simulations takes only these.
_FEW = 5


def read_trials(
    table: Any,
    net: Any,
    *,
    subject: str = "subject",
    columns: Mapping[str, str] | None = None,
    recode: Mapping[str, Mapping[str, float]] | None = None,
    scale: Mapping[str, float] | None = None,
    simulator: Any = None,
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
            people have fewer than two trials. The message says what was found and what to write.
        FileNotFoundError: if there is no such file.
        ImportError: if pandas is not installed.
    """
    frame, source = _frame(table)
    schema = net.schema
    variables: dict[str, Variable] = {**schema.inputs, **schema.outcomes, **schema.feedback}
    columns, recode, scale = dict(columns or {}), dict(recode or {}), dict(scale or {})
    for argument, given in (("map", columns), ("recode", recode), ("scale", scale)):
        unknown = [name for name in given if name not in variables]
        if unknown:
            raise ValueError(
                f"{argument}: the model has no {_listed(unknown)}; it knows {_listed(variables)}. Names of the model "
                "come first: --map NAME=COLUMN"
            )
    for name in [*variables, None]:
        column = subject if name is None else columns.get(name, name)
        if column not in frame:
            raise ValueError(_missing(name, column, list(frame), source))
    people = frame[subject]
    if people.isna().any():
        where = _rows(people.isna())
        raise ValueError(f"{source}: column {subject!r} (subject) is empty in {where}; fill it or delete the row")
    counts = people.value_counts(sort=False)
    if counts.max() < 2:
        raise ValueError(
            f"{source}: every subject has one trial, since column {subject!r} has {len(counts)} different values in "
            f"{len(frame)} rows. A subject does many trials: --subject must name the column that tells people apart"
        )
    if counts.min() < 2:
        few = [str(label) for label, count in counts.items() if count < 2]
        raise ValueError(
            f"{source}: subject {', '.join(few[:5])} has one trial, from which nothing can be learnt; delete "
            f"{'these rows' if len(few) > 1 else 'this row'}, or check column {subject!r}"
        )
    examples = None if simulator is None else _examples(simulator)
    read = {
        name: _column(
            name, variable, frame[columns.get(name, name)], source, people, net, recode.get(name), scale.get(name),
            None if examples is None or name in schema.outcomes else examples.get(name),
        )
        for name, variable in variables.items()
    }  # fmt: skip
    return _by_person(people, read, schema)


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


def _frame(table: Any) -> tuple[Any, str]:
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


def _listed(names: Any) -> str:
    return ", ".join(repr(str(name)) for name in names)


def _rows(bad: Any, offset: int = 2) -> str:
    """Where a column is bad, as line numbers of the file (the first line holds the names)."""
    where = np.flatnonzero(np.asarray(bad))
    more = f" and {len(where) - 3} more" if len(where) > 3 else ""
    return f"line{'s' * (len(where) > 1)} {', '.join(str(row + offset) for row in where[:3])}{more}"


def _missing(name: str | None, column: str, found: list[str], source: str) -> str:
    like = difflib.get_close_matches(column.lower(), [str(x).lower() for x in found], 1, 0.5)
    guess = next((str(x) for x in found if like and str(x).lower() == like[0]), "COLUMN")
    write = f"--subject {guess}" if name is None else f"--map {name}={guess}"
    what = "tells people apart" if name is None else f"holds the model's {name!r}"
    return f"{source}: there is no column {column!r}; the columns are {_listed(found)}. Say which one {what}: {write}"


def _examples(simulator: Any) -> dict[str, np.ndarray]:
    """What the simulator gives, all data sets together, by name."""
    rng = np.random.default_rng(0)
    size, trials = 50, 20
    data, _ = draw_data(simulator, rng, draw_params(simulator, rng, size), size, trials, probabilities=False)
    return {name: np.asarray(x, dtype=float).ravel() for name, x in data.items()}


def _column(
    name: str,
    variable: Variable,
    column: Any,
    source: str,
    people: Any,
    net: Any,
    recode: Mapping[str, float] | None,
    scale: float | None,
    example: np.ndarray | None,
) -> np.ndarray:
    """Checked numbers of a column (rows,)."""
    import pandas

    title = f"{source}: column {str(column.name)!r} ({name})"
    empty = column.isna().to_numpy()
    if empty.any():
        raise ValueError(
            f"{title} is empty (NaN) in {_rows(empty)}, subject {people[empty].iloc[0]}. A trial without it cannot be "
            "used: delete these rows if nothing happened on these trials, or fill in what did"
        )
    if recode is None and name in net.schema.inputs and isinstance(variable, Categorical):
        recode = _by_alphabet(name, variable, column)
    if recode is not None:
        table = {_text(key): float(value) for key, value in recode.items()}
        texts = [_text(value) for value in column]
        unknown = sorted({text for text in texts if text not in table})
        if unknown:
            raise ValueError(f"{title} holds {_listed(unknown[:8])}, for which --recode {name}:... gives no number")
        number = np.array([table[text] for text in texts])
    else:
        number = pandas.to_numeric(column, errors="coerce").to_numpy(dtype=float)
    words = ~np.isfinite(number)
    if isinstance(variable, Categorical) and (words.any() or not variable.contains(np, number).all()):
        raise ValueError(f"{title} {_codes(name, variable, column)}")
    if words.any():
        raise ValueError(
            f"{title} should be numbers, but holds {str(column[words].iloc[0])!r} in {_rows(words)}. "
            f"Write numbers, or say what the words stand for: --recode {name}:WORD=NUMBER,..."
        )
    if scale is not None:
        number = number * scale
    wrong = ~np.asarray(variable.contains(np, number), dtype=bool)
    if wrong.any():
        raise ValueError(
            f"{title} should be {variable.description}, but is {number[wrong][0]:g} in {_rows(wrong)}. Delete these "
            "rows if they are codes for a missed response; else check the column"
        )
    if isinstance(variable, Positive) and name in net.standardization:
        _check_unit(title, name, number, *net.standardization[name])
    if example is not None:
        few = np.unique(example)
        new = np.setdiff1d(number, few)
        if len(few) <= _FEW and len(new):
            found = sorted(set(map(_text, column)))
            values = dict(zip(found, few, strict=False)) if len(found) <= len(few) else {}
            write = ",".join(f"{key}={value:g}" for key, value in values.items()) or f"{_text(column.iloc[0])}=..."
            raise ValueError(
                f"{title} holds {_listed(found[:8])}, but the model was trained with {_listed(map(_text, few))} alone "
                f"and knows nothing of other values; write: --recode {name}:{write}"
            )
    return number


def _text(value: Any) -> str:
    """A cell as a person would type it: 1, not 1.0."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return str(value).strip()
    return f"{number:g}" if math.isfinite(number) else str(value)


def _codes(name: str, variable: Categorical, column: Any) -> str:
    """What to do about categories that are not 0 to n - 1."""
    import pandas

    number = pandas.to_numeric(column, errors="coerce")
    cells = column if number.isna().any() else number
    found = [_text(value) for value in sorted(cells.unique(), key=lambda x: (isinstance(x, str), x))]
    expected = " or ".join(map(str, range(variable.n))) if variable.n < 4 else f"0 to {variable.n - 1}"
    text = f"holds {_listed(found[:8])}{' ...' if len(found) > 8 else ''}, but should be coded {expected}"
    if len(found) > variable.n:
        return (
            f"{text}. The model knows {variable.n} categories and the column has {len(found)}: is it the right column? "
            f"Otherwise join categories by --recode {name}:..., or train a model that has more"
        )
    codes = ",".join(f"{value}={code}" for code, value in enumerate(found))
    return f"{text}. If {found[0]!r} is what the model calls 0, write: --recode {name}:{codes}"


def _by_alphabet(name: str, variable: Categorical, column: Any) -> dict[str, float] | None:
    """Numbers for an input of as many words as the model knows categories, in alphabetical order; says so."""
    words = sorted({_text(value) for value in column})
    if len(words) != variable.n or any(_is_number(word) for word in words):
        return None
    codes = {word: float(code) for code, word in enumerate(words)}
    text = ",".join(f"{word}={code:g}" for word, code in codes.items())
    warnings.warn(
        f"{name}: the words of column {str(column.name)!r} count in alphabetical order, as by --recode {name}:{text}",
        stacklevel=4,
    )
    return codes


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _check_unit(title: str, name: str, number: np.ndarray, mean: float, std: float) -> None:
    """Refuse numbers that are powers of ten away from those of training."""
    middle = float(np.log(np.median(number)))
    if abs(middle - mean) < _FAR * std:
        return
    found = f"has a median of {math.exp(middle):.4g}, while the model was trained on values about {math.exp(mean):.2g}"
    if abs(middle - math.log(1000) - mean) < abs(middle - mean):
        raise ValueError(
            f"{title} {found}: these look like milliseconds, and the model reads seconds; write: --scale {name}=0.001"
        )
    raise ValueError(f"{title} {found}: check its unit, and convert it by --scale {name}=FACTOR")


def _by_person(people: Any, read: dict[str, np.ndarray], schema: Any) -> TrialData:
    """Columns of trials (rows,) as padded arrays, a row a person."""
    import pandas

    person, labels = pandas.factorize(people)
    trial = pandas.Series(person).groupby(person).cumcount().to_numpy()
    counts = np.bincount(person)
    mask = np.arange(counts.max()) < counts[:, None]

    def group(variables: Mapping[str, Variable]) -> dict[str, np.ndarray]:
        padded = {}
        for name, variable in variables.items():
            kind = int if isinstance(variable, Categorical) else float
            padded[name] = np.full(mask.shape, variable.fill, dtype=kind)
            padded[name][person, trial] = read[name].astype(kind)
        return padded

    return TrialData(
        subjects=np.asarray(labels),
        trial_counts=counts,
        inputs=group(schema.inputs),
        outcomes=group(schema.outcomes),
        feedback=group(schema.feedback),
        trial_mask=mask,
    )
