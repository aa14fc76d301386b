"""Simulations that were made elsewhere (R, Matlab, a slow simulator) in place of a simulator."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ppl_buffer.checks import check_mapping, check_number, check_path, check_seed
from ppl_buffer.datasets.stored_arrays import (
    GROUPS,
    Columns,
    as_stored,
    read_arrays,
    read_data,
)
from ppl_buffer.extras import needs
from ppl_buffer.prior import Prior
from ppl_buffer.schema import Schema
from ppl_buffer.stored import Arrays, StoredData, StoredSets, digest_of

if TYPE_CHECKING:
    import pandas

# With fewer a network learns them by heart, whatever is held out.
_FEWEST = 100
# Names in an .npz file beside those of arrays.
_SCHEMA, _ORDERED = "schema", "ordered"
_DATA_SET = "data_set"


class StoredSimulations:
    """Pairs of parameters and data that were simulated elsewhere, as something that `train` takes for a simulator.

    The network is that of any simulator: a likelihood, an evidence, a predictive. It is as good as the simulations are
    many: tens of thousands where it would otherwise see as many in a minute. Training draws from those that are not
    held out, again and again, and ends where it begins to over-fit; checks (`ppl_buffer.diagnostics.check_likelihood`)
    take those that are. What needs new simulations is refused.

    Of an ordered schema a batch of K trials holds the first K of each data set; else any K of its trials. A batch draws
    from those data sets that are long enough.

    Attributes:
        schema: stated, or derived.
        priors: what was stated of where the parameters come from.
        stored_sets: what training and checks draw from.
        name: what records call it.

    Args:
        params: dict name -> (data sets,), what each was simulated with.
        outcomes: dict name -> (data sets, trials). Data sets of unequal length end with NaN in every variable.
        inputs: likewise, known before the outcomes; (trials,) where they are those of all data sets.
        feedback: likewise, known after the outcomes.
        schema: by default arrays of an integer type that begin at 0 and stay below 20 are categories, all others real
            numbers: state it for what is positive or has bounds, and for trials that are independent given the
            parameters, which then have a direct likelihood.
        ordered: of a derived schema, whether a trial depends on those before it.
        prior: the named distributions that the parameters were drawn from, independently; they are compared with the
            parameters, and stored in the checkpoint. Without one the box is the range of the parameters trained on.
        held_out: share of the data sets to hold out.
        seed: of which.
        name: what records call it.

    Raises:
        ValueError: if names, shapes or values do not fit, or there are fewer than a hundred data sets.
    """

    def __init__(
        self,
        params: Columns,
        outcomes: Columns,
        inputs: Columns | None = None,
        feedback: Columns | None = None,
        *,
        schema: Schema | None = None,
        ordered: bool | None = None,
        prior: Mapping[str, Prior] | None = None,
        held_out: float = 0.1,
        seed: int = 0,
        name: str = "StoredSimulations",
    ) -> None:
        given = read_arrays("params", params, None)
        if not given or next(iter(given.values())).ndim != 1:
            raise ValueError(
                "params: expected a dict of arrays (data sets,), one at least; data without parameters are for "
                "DatasetSimulator"
            )
        self.schema, data, lengths = read_data(given, outcomes, inputs, feedback, schema, ordered)
        self.priors = dict(check_mapping("prior", prior))
        self.name, size = str(name), len(lengths)
        if size < _FEWEST:
            raise ValueError(f"params: expected {_FEWEST} simulations at least, and better thousands, got {size}")
        share = check_number("held_out", held_out, "a share between 0 and 1", lambda x: 0 < x < 1)
        count = min(max(round(share * size), 1), size - 1)
        apart = np.zeros(size, dtype=bool)
        apart[np.random.default_rng(check_seed(seed)).permutation(size)[:count]] = True
        stored = as_stored(given), as_stored(data)
        digest = digest_of(*stored, apart)
        summary = StoredData(True, size - count, count, size - count, count, unit="simulations", digest=digest)
        self.stored_sets = StoredSets(*stored, lengths, apart, self.schema.ordered, summary)

    @classmethod
    def from_npz(
        cls,
        path: str | Path,
        *,
        schema: Schema | None = None,
        ordered: bool | None = None,
        prior: Mapping[str, Prior] | None = None,
        held_out: float = 0.1,
        seed: int = 0,
    ) -> StoredSimulations:
        """Of a file of NumPy's, called as the file.

        Its arrays are called ``params/alpha``, ``inputs/cue``, ``outcomes/choice``, ``feedback/reward``. It may hold
        ``ordered`` (0 or 1), and ``schema``, the JSON text of `Schema.to_dict`.

        Args:
            path: of the file.
            schema: as for the class; in place of the file's own.
            ordered: likewise.
            prior: as for the class.
            held_out: likewise.
            seed: likewise.

        Raises:
            ValueError: as the class, or if there is no such file, or it holds other arrays.
        """
        path = check_path("path", path)
        groups: dict[str, Arrays] = {group: {} for group in ("params", *GROUPS)}
        for key, array in _arrays_of(path).items():
            group, slash, name = key.partition("/")
            if slash and group in groups:
                groups[group][name] = array
            elif key == _SCHEMA:
                schema = _read_schema(path, array) if schema is None else schema
            elif key == _ORDERED:
                ordered = bool(array) if ordered is None and schema is None else ordered
            else:
                raise ValueError(
                    f"path: expected arrays called GROUP/NAME, with one of {list(groups)} as the group, and maybe "
                    f"{_SCHEMA!r} and {_ORDERED!r}, got {key!r} in {str(path)!r}"
                )
        ordered = None if schema is not None else ordered
        return cls(
            groups["params"], groups["outcomes"], groups["inputs"], groups["feedback"], schema=schema, ordered=ordered,
            prior=prior, held_out=held_out, seed=seed, name=path.stem,
        )  # fmt: skip

    @classmethod
    def from_folder(
        cls,
        folder: str | Path,
        schema: Schema,
        *,
        prior: Mapping[str, Prior] | None = None,
        held_out: float = 0.1,
        seed: int = 0,
    ) -> StoredSimulations:
        """Of two tables in a folder, called as the folder: ``params`` and ``trials``, each ``.csv`` or ``.parquet``.

        Both have a column ``data_set``, of labels of any kind. ``params`` has a row a data set and a column a
        parameter; ``trials`` a row a trial, in order, and a column an input, outcome and feedback. Other columns are
        not read.

        Args:
            folder: with the two files.
            schema: says which column is what.
            prior: as for the class.
            held_out: likewise.
            seed: likewise.

        Raises:
            ImportError: if pandas is not installed (and, for parquet, pyarrow).
            ValueError: as the class, or if a file or a column is missing, or the two tables have other data sets.
        """
        place = check_path("folder", folder)
        if not isinstance(schema, Schema):
            raise ValueError(f"schema: expected a ppl_buffer.Schema, got {schema!r}")
        named = [name for group in GROUPS for name in vars(schema)[group]]
        params, trials = _table(place, "params", list(schema.params)), _table(place, "trials", named)
        if params[_DATA_SET].duplicated().any() or set(params[_DATA_SET]) != set(trials[_DATA_SET]):
            raise ValueError(
                f"folder: expected a row of params for each data set of trials in {str(place)!r}, and no others"
            )
        row = dict(zip(params[_DATA_SET], range(len(params)), strict=True))
        rows = trials[_DATA_SET].map(row).to_numpy()
        number = trials.groupby(_DATA_SET, sort=False).cumcount().to_numpy()
        groups: dict[str, Arrays] = {}
        for group in GROUPS:
            groups[group] = {}
            for name in vars(schema)[group]:
                padded = np.full((len(params), number.max() + 1), np.nan)
                padded[rows, number] = trials[name]
                groups[group][name] = padded
        given = {name: params[name].to_numpy(dtype=float) for name in schema.params}
        return cls(
            given, groups["outcomes"], groups["inputs"], groups["feedback"], schema=schema, prior=prior,
            held_out=held_out, seed=seed, name=place.resolve().name,
        )  # fmt: skip

    def prior(self, rng: np.random.Generator, size: int) -> Arrays:
        """Parameters of simulations that are trained on, dict name -> (size,)."""
        return self.stored_sets.draw(rng, size, 1, held_out=False)[0]

    def inputs(self, rng: np.random.Generator, size: int, trials: int) -> Arrays:
        """Their inputs, dict name -> (size, trials)."""
        data = self.stored_sets.draw(rng, size, trials, held_out=False)[1]
        return {key: x for key, x in data.items() if key in self.schema.inputs}

    def simulate(self, rng: np.random.Generator, params: Arrays, inputs: Arrays, **sizes: int) -> Arrays:
        """Refuse: the simulator is elsewhere.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            f"simulator: {self.name} holds {self.stored_sets.summary}, and no others can be drawn; what needs new "
            "ones, at parameters of its own choice, has to be asked of a simulator"
        )


def _arrays_of(path: Path) -> Arrays:
    if not path.is_file():
        raise ValueError(f"path: expected a file, but there is none at {str(path)!r}")
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except (zipfile.BadZipFile, ValueError, OSError, AttributeError, TypeError) as error:
        raise ValueError(f"path: expected a whole .npz file of numbers, but {str(path)!r} is none ({error})") from error


def _read_schema(path: Path, text: np.ndarray) -> Schema:
    try:
        return Schema.from_dict(json.loads(str(text)))
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"path: expected the JSON of a schema in {str(path)!r}, got {str(text)[:60]!r}") from error


def _table(folder: Path, name: str, columns: list[str]) -> pandas.DataFrame:
    """A table of the folder, with these columns."""
    with needs("a folder of simulations", "data"):
        import pandas
    csv, parquet = folder / f"{name}.csv", folder / f"{name}.parquet"
    if not (csv.is_file() or parquet.is_file()):
        raise ValueError(f"folder: expected {name}.csv or {name}.parquet in {str(folder)!r}, which has neither")
    table = pandas.read_parquet(parquet) if parquet.is_file() else pandas.read_csv(csv)
    lacking = [column for column in (_DATA_SET, *columns) if column not in table]
    if lacking:
        raise ValueError(f"folder: expected the columns {lacking} in {name} of {str(folder)!r}, got {list(table)}")
    return table
