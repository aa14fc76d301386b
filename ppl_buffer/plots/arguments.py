"""What plots and statistics are given, checked: columns of trials, choices, numbers of bins and lags."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ppl_buffer.checks import check_numbers
from ppl_buffer.plots.groups import columns_of_groups, holds_groups

Arrays = dict[str, np.ndarray]


def columns(data: Any) -> Arrays:
    """Columns of trials as numbers, dict name -> (*S, subjects, trials), NaN where there is no trial.

    Args:
        data: a dict of arrays, or a `ppl_buffer.datasets.TrialData`, whose mask then counts, and whose omissions are
            no trials.

    Raises:
        ValueError: if it is neither, or holds no numbers.
    """
    return _columns("data", data)


def _columns(argument: str, data: Any) -> Arrays:
    if isinstance(data, Mapping):
        return {name: check_numbers(f"{argument}[{name!r}]", value) for name, value in data.items()}
    try:
        groups, exists = {**data.inputs, **data.outcomes, **data.feedback}, data.trial_mask
        omissions = data.missing is not None
    except AttributeError:
        raise ValueError(
            f"{argument}: expected a dict name -> (subjects, trials), or TrialData, got {type(data).__name__}"
        ) from None
    numbers = {name: check_numbers(f"{argument}[{name!r}]", value) for name, value in groups.items()}
    return {
        name: np.where(exists & ~(omissions & np.isposinf(value)), value, np.nan) for name, value in numbers.items()
    }


def both(data: object, replicated: object) -> tuple[Arrays, Arrays | None]:
    """Data (subjects, trials), and what a model generates, (draws, subjects, trials), or None.

    Of a converted fit both are known.

    Raises:
        ValueError: if shapes are others, there are no trials, or nothing was generated.
    """
    if holds_groups(data):
        data, generated = columns_of_groups(data)
        replicated = generated if replicated is None else replicated
    observed = columns(data)
    shapes = {name: x.shape for name, x in observed.items()}
    shape = next(iter(shapes.values()), ())
    if len(shape) != 2 or 0 in shape or len(set(shapes.values())) > 1:
        raise ValueError(
            "data: expected arrays (subjects, trials), all of one shape and none of them empty (of one person, a row), "
            f"got {shapes}"
        )
    if replicated is None:
        return observed, None
    generated = _columns("replicated", replicated)
    wrong = {name: x.shape for name, x in generated.items() if x.ndim != 3 or x.shape[1:] != shape or not len(x)}
    if wrong or not generated:
        raise ValueError(
            f"replicated: expected arrays (draws, {shape[0]}, {shape[1]}), of as many subjects and trials as the data, "
            f"got {wrong or 'none'}"
        )
    return observed, generated


def pick(data: Arrays, replicated: Arrays | None, *names: str) -> tuple[list[np.ndarray], list[np.ndarray] | None]:
    """Columns of the data, and of the generated data (those of the data where these lack one).

    Raises:
        ValueError: if the data lack one, hold no trial of it, or none of them was generated.
    """
    observed = [column(data, name) for name in names]
    if replicated is None:
        return observed, None
    if not set(names) & set(replicated):
        raise ValueError(f"replicated: expected a column of {list(names)}, got {list(replicated)}")
    return observed, [
        np.where(np.isfinite(seen), replicated.get(name, seen), np.nan)
        for name, seen in zip(names, observed, strict=True)
    ]


def column(data: Arrays, name: str) -> np.ndarray:
    """A column of the data.

    Raises:
        ValueError: if there is none of that name, no trial in it, or a number that is infinite.
    """
    if name not in data:
        raise ValueError(f"data: expected a column {name!r}, got {list(data)}")
    if not np.isfinite(data[name]).any():
        raise ValueError(f"data[{name!r}]: expected at least one trial, got none")
    if np.isinf(data[name]).any():
        raise ValueError(f"data[{name!r}]: expected finite numbers, NaN where there is no trial, got infinite ones")
    return data[name]


def codes(data: Arrays, name: str) -> np.ndarray:
    """A column of categories, integers from 0.

    Raises:
        ValueError: as `column`, or if there are other numbers.
    """
    return check_codes(f"data[{name!r}]", column(data, name))


def number_of_choices(data: Arrays, replicated: Arrays | None, name: str) -> int:
    """Choices of the data and of what a model generates, at least 2.

    Raises:
        ValueError: if some are no integers from 0.
    """
    most = float(np.nanmax(codes(data, name)))
    if replicated is not None and name in replicated:
        most = max(most, float(np.nanmax(check_codes(f"replicated[{name!r}]", replicated[name]), initial=0.0)))
    return max(2, int(most) + 1)


def check_codes(argument: str, values: object, most: int | None = None) -> np.ndarray:
    """Categories as numbers, NaN where there is no trial.

    Raises:
        ValueError: if some are no integers from 0, or from 0 to `most`.
    """
    codes = check_numbers(argument, values)
    there = codes[~np.isnan(codes)]
    wrong = there[(there < 0) | (there != np.floor(there)) | (there > (np.inf if most is None else most))]
    if wrong.size or np.isinf(there).any():
        which = "integers from 0" if most is None else "integers from 0 to " + str(most) if most > 1 else "0 and 1"
        raise ValueError(f"{argument}: expected {which}, got {float(wrong[0] if wrong.size else np.inf):g}")
    return codes


def trials(argument: str, values: object) -> np.ndarray:
    """Numbers (*S, subjects, trials).

    Raises:
        ValueError: if they are none, or have fewer dimensions.
    """
    numbers = check_numbers(argument, values)
    if numbers.ndim < 2:
        raise ValueError(
            f"{argument}: expected shape (..., subjects, trials), of one person a row, got {numbers.shape}"
        )
    return numbers


def check_levels(levels: object) -> np.ndarray:
    """Levels of quantiles.

    Raises:
        ValueError: if they are no probabilities.
    """
    numbers = check_numbers("levels", levels)
    if numbers.ndim != 1 or not ((numbers >= 0) & (numbers <= 1)).all():
        raise ValueError(f"levels: expected a list of probabilities, got {levels!r}")
    return numbers


def categories(values: np.ndarray) -> list[int]:
    """The categories that occur, in order."""
    return [int(value) for value in np.unique(values[np.isfinite(values)])]


def finite_draws(argument: str, values: object, shape: tuple[str, ...]) -> np.ndarray:
    """Draws, finite numbers.

    Args:
        argument: its name.
        values: the draws.
        shape: names of its dimensions, none of which is empty.

    Raises:
        ValueError: if they are none, or have other dimensions.
    """
    numbers = check_numbers(argument, values)
    if numbers.ndim != len(shape) or not numbers.size:
        raise ValueError(f"{argument}: expected shape ({', '.join(shape)}), not empty, got {numbers.shape}")
    if not np.isfinite(numbers).all():
        raise ValueError(f"{argument}: expected finite numbers, got {int((~np.isfinite(numbers)).sum())} others")
    return numbers


def band_curves(curves: object, points: int) -> np.ndarray:
    """Curves (draws, points), NaN where one has no value.

    Raises:
        ValueError: if there are none, or they have another shape.
    """
    numbers = check_numbers("curves", curves)
    if numbers.ndim != 2 or not len(numbers) or numbers.shape[1] != points:
        raise ValueError(f"curves: expected shape (draws, {points}), a value at each point of x, got {numbers.shape}")
    return numbers
