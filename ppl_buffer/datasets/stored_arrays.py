"""Arrays of data sets as a user has them, checked: for training on them in place of a simulator."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from ppl_buffer.checks import check_flag, check_mapping, check_numbers
from ppl_buffer.files import to_numpy
from ppl_buffer.schema import Schema
from ppl_buffer.stored import Arrays
from ppl_buffer.training.draws import legal
from ppl_buffer.variables import Categorical, Real, Variable

# Whole numbers of an integer type with no more values than this are categories, where no schema says what they are.
_MOST_CATEGORIES = 20
GROUPS = ("inputs", "outcomes", "feedback")
Columns = Mapping[str, ArrayLike]


def read_arrays(argument: str, values: Columns | None, shape: tuple[int, ...] | None) -> Arrays:
    """Arrays of numbers by name, as they came, in the shape of the others; what is (trials,) is that of all data sets.

    Args:
        argument: its name.
        values: dict name -> array of any library.
        shape: (data sets, trials) or (data sets,); None = that of the first.

    Raises:
        ValueError: if they are no numbers, or of another shape.
    """
    arrays: Arrays = {}
    for name, column in check_mapping(argument, values).items():
        numbers = check_numbers(f"{argument}[{name!r}]", column)
        array = np.asarray(to_numpy(column))
        array = array if array.dtype.kind in "biu" else numbers
        if shape is not None and len(shape) == 2 and array.shape == shape[1:]:
            array = np.broadcast_to(array, shape)
        shape = array.shape if shape is None else shape
        if array.shape != shape or not array.size:
            raise ValueError(f"{argument}[{name!r}]: expected shape {shape}, got {array.shape}")
        arrays[name] = array
    return arrays


def read_data(
    params: Arrays,
    outcomes: Columns,
    inputs: Columns | None,
    feedback: Columns | None,
    schema: Schema | None,
    ordered: bool | None,
) -> tuple[Schema, Arrays, np.ndarray]:
    """The schema, stated or derived, all data by name, (S, L), and the trials (S,) of each data set, checked.

    Args:
        params: dict name -> (S,); empty of observed data.
        outcomes: dict name -> (S, L).
        inputs: likewise, or (L,).
        feedback: likewise.
        schema: None = derive it.
        ordered: of a derived schema.

    Raises:
        ValueError: if names, shapes or values do not fit.
    """
    read = read_arrays("outcomes", outcomes, None)
    first = next(iter(read.values())) if read else np.zeros(0)
    size = len(next(iter(params.values()))) if params else (*first.shape, 0)[0]
    if first.ndim != 2 or len(first) != size:
        rows = f"({size}, trials), a row for each of the parameters" if params else "(data sets, trials), one at least"
        raise ValueError(f"outcomes: expected a dict of arrays {rows}")
    groups = {"inputs": read_arrays("inputs", inputs, first.shape), "outcomes": read}
    groups["feedback"] = read_arrays("feedback", feedback, first.shape)
    schema = check_schema(schema, params, groups, ordered)
    data: Arrays = {key: x for arrays in groups.values() for key, x in arrays.items()}
    lengths = lengths_of(data)
    check_values(schema, params, data, lengths)
    return schema, data, lengths


def derived_schema(params: Arrays, groups: Mapping[str, Arrays], ordered: bool | None) -> Schema:
    """A schema of arrays: whole numbers of an integer type, from 0 to at most 19, are categories, the rest is real.

    Raises:
        ValueError: if nobody says whether the trials have an order.
    """
    if ordered is None:
        raise ValueError("ordered: expected True or False where no schema says whether trials depend on those before")
    inputs, outcomes, feedback = ({name: _kind(x) for name, x in groups[group].items()} for group in GROUPS)
    check_flag("ordered", ordered)
    return Schema({name: Real() for name in params}, inputs, outcomes, feedback, ordered=ordered)


def _kind(values: np.ndarray) -> Variable:
    few = values.dtype.kind in "biu" and values.min() >= 0 and 1 <= values.max() < _MOST_CATEGORIES
    return Categorical(int(values.max()) + 1) if few else Real()


def check_schema(schema: object, params: Arrays, groups: Mapping[str, Arrays], ordered: bool | None) -> Schema:
    """The stated schema, which has the names of the arrays, or the derived one.

    Raises:
        ValueError: if it is none, or has other names.
    """
    if schema is None:
        return derived_schema(params, groups, ordered)
    if not isinstance(schema, Schema):
        raise ValueError(f"schema: expected a ppl_buffer.Schema or None, got {schema!r}")
    if ordered is not None and ordered != schema.ordered:
        raise ValueError(f"ordered: expected {schema.ordered}, as the schema says, or None, got {ordered}")
    for argument, arrays in {"params": params, **groups}.items():
        names = list(vars(schema)[argument])
        if sorted(arrays) != sorted(names):
            raise ValueError(f"{argument}: expected {names}, as the schema says, got {sorted(arrays)}")
    return schema


def lengths_of(data: Arrays) -> np.ndarray:
    """Trials (S,) of each data set: after the last one every variable is NaN.

    Raises:
        ValueError: if a data set has none.
    """
    exists = np.any([np.isfinite(x.astype(float)) for x in data.values()], axis=0)
    lengths = exists.shape[1] - np.argmax(exists[:, ::-1], axis=1)
    empty = np.flatnonzero(~exists.any(1))
    if len(empty):
        raise ValueError(f"outcomes: expected data sets with a trial at least, got none in data set {empty[0]}")
    return lengths


def check_values(schema: Schema, params: Arrays, data: Arrays, lengths: np.ndarray) -> None:
    """Refuse data sets with values that are no numbers or not legal.

    Raises:
        ValueError: naming the variable and the first such data set.
    """
    exists = np.arange(next(iter(data.values())).shape[1]) < lengths[:, None]
    parts = [("params", params, np.ones(len(lengths), dtype=bool))]
    parts += [(group, {name: data[name] for name in vars(schema)[group]}, exists) for group in GROUPS]
    for group, arrays, where in parts:
        variables: Mapping[str, Variable] = vars(schema)[group]
        for name, values in arrays.items():
            wrong = where & ~legal(variables[name], values.astype(np.float32))
            if wrong.any():
                rows = np.flatnonzero(wrong.reshape(len(wrong), -1).any(1))
                example = float(values[wrong][0])
                raise ValueError(
                    f"{group}[{name!r}]: expected {variables[name].description} throughout, got {example:g} in data "
                    f"set {rows[0]}, and such values in {len(rows)} of {len(wrong)}; leave out these data sets, or end "
                    "them before (NaN in every variable after the last trial)"
                )


def as_stored(arrays: Arrays) -> Arrays:
    """The arrays as a network reads them, in single precision."""
    return {name: np.nan_to_num(x.astype(np.float32)) for name, x in arrays.items()}
