"""Where the trials of one site go: their variables' names, dimensions and coordinates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from ppl_buffer.files import to_numpy
from ppl_buffer.ppl.trace import ObservedSite
from ppl_buffer.schema import Discrete, Variable

# Labels of the dimension of the same name, or (dimension, labels).
Coordinate: TypeAlias = np.ndarray | tuple[str, np.ndarray]


class Labelled(NamedTuple):
    """An array with the names of its dimensions and their coordinates, as a variable of a group.

    Attributes:
        dims: name of each dimension.
        values: the array.
        coords: coordinate name -> its labels.
        attrs: what else is said of the variable.
    """

    dims: tuple[str, ...]
    values: np.ndarray
    coords: dict[str, Coordinate]
    attrs: dict[str, str]


def trial_variables(site: ObservedSite) -> dict[str, Variable]:
    """The schema's variables that a site has on each trial."""
    schema = site.query.net.schema
    return {**schema.inputs, **schema.outcomes, **schema.feedback}


class TrialLayout:
    """Names of one site's trials, and where the existing ones are.

    Args:
        name: of the site.
        site: its trials.
        batch_dims: names of its batch dimensions; None = of size 1, and of no plate.
        several: whether there are other such sites, so that names must tell them apart.
        shared: outcome names that several sites have.
        labels: dimension -> labels.

    Attributes:
        names: variable of the schema -> its name in the groups.
        score: name of the log likelihood.
        labelled_dims: dimensions that labels may be given of.

    Raises:
        ValueError: if there are not as many labels of a dimension as it is long.
    """

    def __init__(
        self,
        name: str,
        site: ObservedSite,
        batch_dims: Sequence[str | None],
        several: bool,
        shared: set[str],
        labels: Mapping[str, np.ndarray],
    ) -> None:
        schema = site.query.net.schema
        prefix = f"{name}_" if several else ""
        self.names = {key: f"{name}_{key}" if key in shared else key for key in trial_variables(site)}
        self.score = name if schema.event_shape_tail else self.names[next(iter(schema.outcomes))]
        self._integers = {
            # The smallest type that holds all values, of either sign.
            key: np.min_scalar_type(-1 - max(abs(variable.low), abs(variable.low + variable.n - 1)))
            for key, variable in trial_variables(site).items()
            if isinstance(variable, Discrete)
        }
        self._exists = site.exists
        self._depth = site.exists.ndim
        sizes = {dim: size for dim, size in zip(batch_dims, site.batch_shape, strict=True) if dim is not None}
        # Where each data set is a single trial, a plate numbers the trials.
        trial = f"{prefix}trial" if site.trials > 1 or not sizes else None
        if trial is not None:
            sizes[trial] = site.trials
        self._shape = tuple(sizes.values())
        self.labelled_dims = tuple(sizes)
        places = {dim: labels.get(dim, np.arange(size)) for dim, size in sizes.items()}
        for dim, size in sizes.items():
            if np.shape(places[dim]) != (size,):
                raise ValueError(f"coords[{dim!r}]: expected {size} labels, got shape {np.shape(places[dim])}")
        rows = site.exists.reshape(-1, site.trials)
        self._columns: np.ndarray | slice | None = None
        self._coords: dict[str, Coordinate] = {**places}
        self._dims = tuple(sizes)
        if trial is not None and (rows == rows[0]).all():
            self._columns = np.flatnonzero(rows[0])
            self._coords[trial] = places[trial][self._columns]
        elif rows.all():
            self._columns = slice(None)
        else:
            observation = f"{prefix}observation"
            self._dims = (observation,)
            indices = np.nonzero(site.exists.reshape(self._shape))
            self._coords = {observation: np.arange(len(indices[0]))}
            for (dim, values), index in zip(places.items(), indices, strict=True):
                self._coords[dim] = (observation, np.asarray(values)[index])

    def _existing(self, values: np.ndarray) -> np.ndarray:
        """Existing trials of an array (*sample, *B, K)."""
        sample = values.shape[: values.ndim - self._depth]
        if self._columns is None:
            return values.reshape(*sample, -1)[..., self._exists.reshape(-1)]
        return values.reshape((*sample, *self._shape))[..., self._columns]

    def variable(self, values: np.ndarray, **attrs: str) -> Labelled:
        """Existing trials of an array (*sample, *B, K); sample is (chain, draw), or nothing."""
        existing = self._existing(values)
        sample = ("chain", "draw") if existing.ndim > len(self._dims) else ()
        return Labelled((*sample, *self._dims), existing, self._coords, attrs)

    def variables(self, columns: Mapping[str, np.ndarray], **attrs: str) -> dict[str, Labelled]:
        """Variables of the schema under their names in the groups; categories and integers as integers.

        Where one is missing (NaN, or infinity of a time) no type of integers could say so, and they stay numbers.
        """
        variables = {}
        for name, column in columns.items():
            variable = self.variable(np.asarray(column), **attrs)
            if name in self._integers and np.isfinite(variable.values).all():
                # After the selection: padding may hold what is no value.
                variable = variable._replace(values=variable.values.astype(self._integers[name]))
            variables[self.names[name]] = variable
        return variables

    def constant(self, site: ObservedSite) -> dict[str, Labelled]:
        """Inputs and feedback."""
        given = {**site.query.inputs, **(site.query.feedback or {})}
        return self.variables({name: np.broadcast_to(to_numpy(x), site.exists.shape) for name, x in given.items()})
