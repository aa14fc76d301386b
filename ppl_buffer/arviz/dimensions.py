"""Names of all dimensions of a model's sites, from its plates and from what a user says of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ppl_buffer.arviz.layout import Coordinate, Labelled, TrialLayout, trial_variables
from ppl_buffer.arviz.terms import is_missing, is_trial
from ppl_buffer.ppl.trace import PosteriorTrace


class DimensionNames:
    """Names of the dimensions of all sites of a traced model.

    Args:
        traced: the model's sites.
        coords: dimension -> labels.
        dims: variable -> names of its dimensions after chain and draw, where plates do not tell them.

    Attributes:
        layouts: joint site -> where its trials go.

    Raises:
        ValueError: if `dims` names no variable, or `coords` names no dimension, does not fit one, or gives two places
            of one the same label.
    """

    def __init__(self, traced: PosteriorTrace, coords: Mapping[str, Any], dims: Mapping[str, Sequence[str]]) -> None:
        self._traced = traced
        self._dims_of = {name: _several_names(name, names) for name, names in dims.items()}
        unknown = [name for name in self._dims_of if name not in {*traced.values, *traced.observed}]
        if unknown:
            raise ValueError(f"dims: expected names among {[*traced.values, *traced.observed]}, got {unknown}")
        self._rename = self._subject_plates()
        self._labels = {self._rename.get(name, name): _checked_labels(name, x) for name, x in coords.items()}
        for site_plates in traced.plates.values():
            for plate, size in site_plates.values():
                self._labels.setdefault(self._rename.get(plate, plate), np.arange(size))
        sites = traced.joint_sites
        counts = Counter(key for site in sites.values() for key in trial_variables(site))
        shared = {key for key, count in counts.items() if count > 1}
        self._site_dims = {
            name: self._batch_dims(name, site.batch_shape, subjects=site.trials > 1) for name, site in sites.items()
        }
        self.layouts = {
            name: TrialLayout(name, site, self._site_dims[name], len(sites) > 1, shared, self._labels)
            for name, site in sites.items()
        }
        known = self._all_dims()
        unknown = [name for name in coords if self._rename.get(name, name) not in known]
        if unknown:
            plates = [plate for plate, name in self._rename.items() if plate != name]
            raise ValueError(f"coords: expected dimensions among {[*known, *plates]}, got {unknown}")

    def _all_dims(self) -> list[str]:
        """Names of the dimensions that sites have."""
        values = {**self._traced.values, **self._traced.observed}
        shapes = {name: x.shape[1:] if name in self._traced.values else x.shape for name, x in values.items()}
        dims = [dim for name, shape in shapes.items() for dim in self._variable_dims(name, shape, batch_only=False)]
        dims += [dim for layout in self.layouts.values() for dim in layout.labelled_dims]
        return list(dict.fromkeys(dim for dim in dims if dim is not None))

    def _subject_plates(self) -> dict[str, str]:
        """Plates to call `subject`: the only one of a site that has no other dimension, whatever its name.

        Not where each data set is a single trial, as in regressions on trials: that plate numbers trials.
        """
        rename: dict[str, str] = {}
        for name, site in self._traced.joint_sites.items():
            plates = self._plates(name, len(site.batch_shape))
            wide = [plate for plate, size in zip(plates, site.batch_shape, strict=True) if plate or size > 1]
            if len(wide) == 1 and wide[0] and site.trials > 1:
                rename[wide[0]] = "subject"
        return rename

    def _plates(self, name: str, ndim: int) -> list[str | None]:
        """Names of the plates at a site's batch dimensions."""
        plates = self._traced.plates.get(name, {})
        return [plates[axis - ndim][0] if axis - ndim in plates else None for axis in range(ndim)]

    def _batch_dims(self, name: str, shape: Sequence[int], subjects: bool = False) -> list[str | None]:
        """Names of a site's batch dimensions; None for one of size 1 that has no name.

        Where `subjects` holds, a single dimension without a plate is that of the subjects.
        """
        dims = [None if plate is None else self._rename.get(plate, plate) for plate in self._plates(name, len(shape))]
        unnamed = [axis for axis, size in enumerate(shape) if dims[axis] is None and size > 1]
        single = subjects and len(unnamed) == 1 and "subject" not in dims
        for axis in unnamed:
            dims[axis] = "subject" if single else f"{name}_dim_{axis}"
        return dims

    def _variable_dims(self, name: str, shape: Sequence[int], batch_only: bool) -> list[str | None]:
        """Names of a variable's dimensions after chain and draw; None for one to drop."""
        if name in self._dims_of and not batch_only:
            if len(self._dims_of[name]) != len(shape):
                raise ValueError(f"dims[{name!r}]: expected {len(shape)} names, got {list(self._dims_of[name])}")
            return list(self._dims_of[name])
        ndim = self._traced.batch_ndim.get(name)
        if ndim is None and self._traced.plates.get(name):
            ndim = len(shape)  # a deterministic site in a plate
        if ndim is None:
            # A conditioned parameter that was computed from other sites, under its own name.
            for site_name, site in self._traced.joint_sites.items():
                if name in site.params and tuple(shape) == site.batch_shape:
                    return self._site_dims[site_name]
            ndim = 0
        batch = self._batch_dims(name, shape[:ndim])
        return [*batch, *(f"{name}_dim_{axis}" for axis in range(ndim, len(shape)))]

    def labelled(
        self, values: Mapping[str, np.ndarray], *, batch_only: bool = False, sampled: bool = True
    ) -> dict[str, Labelled]:
        """Arrays of sites with the names of their dimensions.

        Args:
            values: site -> ([chain, draw,] *shape).
            batch_only: whether the shapes are the sites' batch shapes.
            sampled: whether chain and draw come first.

        Raises:
            ValueError: if `dims` or `coords` do not fit a site's shape.
        """
        sample = ("chain", "draw") if sampled else ()
        variables = {}
        for name, value in values.items():
            shape = value.shape[len(sample) :]
            dims = self._variable_dims(name, shape, batch_only)
            kept = [(dim, size) for dim, size in zip(dims, shape, strict=True) if dim is not None]
            coords: dict[str, Coordinate] = {}
            for dim, size in kept:
                coords[dim] = self._labels.get(dim, np.arange(size))
                if len(coords[dim]) != size:
                    raise ValueError(f"coords[{dim!r}]: expected {size} labels for {name!r}, got {len(coords[dim])}")
            inner = [size for _, size in kept]
            value = value.reshape((*value.shape[: len(sample)], *inner))
            variables[name] = Labelled((*sample, *(dim for dim, _ in kept)), value, coords, {})
        return variables


def _several_names(variable: str, names: Sequence[str]) -> tuple[str, ...]:
    """The names of a variable's dimensions."""
    if isinstance(names, str) or len(set(names)) < len(names):
        raise ValueError(f"dims[{variable!r}]: expected a list of different names, got {names!r}")
    return tuple(names)


def _checked_labels(name: str, labels: Any) -> np.ndarray:
    """The labels of a dimension: one for each place, all different, those of trials in their order."""
    array = np.asarray(labels)
    if array.ndim != 1 or is_missing(array).any():
        raise ValueError(f"coords[{name!r}]: expected a list of labels, none of them missing, got {labels!r}")
    twice = [label for label, count in Counter(array.tolist()).items() if count > 1]
    if twice:
        raise ValueError(f"coords[{name!r}]: expected a different label at each place, got {twice[0]!r} several times")
    if is_trial(name) and array.dtype.kind in "iuf" and (np.diff(array) < 0).any():
        raise ValueError(f"coords[{name!r}]: expected numbers that increase, as the trials follow each other")
    return array


def dataset(variables: Mapping[str, Labelled]) -> Any:
    """An `xarray.Dataset` of labelled arrays; dimensions without labels are numbered."""
    import xarray

    coords: dict[str, Coordinate] = {}
    for variable in variables.values():
        coords |= variable.coords
    for variable in variables.values():
        for dim, size in zip(variable.dims, variable.values.shape, strict=True):
            coords.setdefault(dim, np.arange(size))
    return xarray.Dataset({name: (x.dims, x.values, x.attrs) for name, x in variables.items()}, coords=coords)
