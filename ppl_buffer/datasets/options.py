"""How a table is to be read: what users say of it, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ppl_buffer.checks import check_number
from ppl_buffer.datasets.columns import listed
from ppl_buffer.datasets.order import AS_IT_LIES
from ppl_buffer.schema import Categorical, Positive, Schema


@dataclass(frozen=True)
class ReadOptions:
    """What is said of a table.

    Attributes:
        subject: columns that tell people apart.
        order: columns that give the order of trials, 'file', or None where nothing is said.
        columns: name of the schema -> column.
        recode: name of the schema -> {text: number}.
        scale: name of the schema -> factor.
        signed: positive outcome -> outcome of two categories.
        session: columns that divide the trials of a person into data sets.
    """

    subject: list[str]
    order: list[str] | str | None
    columns: dict[str, str]
    recode: dict[str, dict[str, float]]
    scale: dict[str, float]
    signed: dict[str, str]
    session: list[str]

    @property
    def data_set(self) -> list[str]:
        """Columns that tell data sets apart."""
        return [*self.subject, *self.session]

    @classmethod
    def of(
        cls,
        schema: Schema,
        *,
        subject: object,
        order: object,
        columns: object,
        recode: object,
        scale: object,
        signed: object,
        session: object = None,
    ) -> ReadOptions:
        """The arguments of `read_trials`, checked against the variables of a schema.

        Raises:
            ValueError: if one is of another kind, or about a name that the schema does not have.
        """
        names = [*schema.inputs, *schema.outcomes, *schema.feedback]
        options = cls(
            subject=_headings("subject", subject),
            order=AS_IT_LIES
            if isinstance(order, str) and order == AS_IT_LIES
            else None
            if order is None
            else _headings("order", order),
            columns={name: _heading(name, value) for name, value in _by_name("columns", columns, names).items()},
            recode={name: _codes(name, value) for name, value in _by_name("recode", recode, names).items()},
            scale={
                name: check_number(f"scale: {name}", value, "a factor other than 0", lambda factor: factor != 0)
                for name, value in _by_name("scale", scale, names).items()
            },
            signed={name: str(value) for name, value in _by_name("signed", signed, names).items()},
            session=[] if session is None else _headings("session", session),
        )
        both = sorted({*options.subject} & {*options.session})
        if both:
            raise ValueError(f"session: expected other columns than those of subject, got {listed(both)} in both")
        for name, code in options.signed.items():
            if not isinstance(schema.outcomes.get(name), Positive) or code not in two_categories(schema):
                raise ValueError(
                    f"signed: expected a positive outcome and one of two categories, got {name}={code}; the model's "
                    f"outcomes of two categories are {listed(two_categories(schema)) or 'none'}"
                )
        return options


def two_categories(schema: Schema) -> list[str]:
    """Outcomes for which a sign may stand."""
    return [name for name, kind in schema.outcomes.items() if isinstance(kind, Categorical) and kind.n == 2]


def _headings(argument: str, names: object) -> list[str]:
    """One name or several as a list."""
    listing = [names] if isinstance(names, str) else list(names) if isinstance(names, list | tuple) else []
    if not listing or not all(isinstance(name, str) for name in listing) or len(set(listing)) < len(listing):
        raise ValueError(f"{argument}: expected the name of a column, or a list of names, got {names!r}")
    return [name.strip() for name in listing]


def _by_name(argument: str, given: object, names: Sequence[str]) -> Mapping[str, object]:
    """What is said of each variable."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise ValueError(f"{argument}: expected a dict with names of the model as keys, got {given!r}")
    unknown = [name for name in given if name not in names]
    if unknown:
        raise ValueError(
            f"{argument}: the model has no {listed(unknown)}; it knows {listed(names)}. Names of the model come first: "
            "--columns NAME=COLUMN"
        )
    return given


def _heading(name: str, value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"columns: {name}: expected the name of a column, got {value!r}")
    return str(value).strip()


def _codes(name: str, codes: object) -> dict[str, float]:
    if not isinstance(codes, Mapping) or not codes:
        raise ValueError(f"recode: {name}: expected a dict of words to numbers, got {codes!r}")
    return {
        str(word).strip(): check_number(f"recode: {name}: {word}", number, "a number", lambda _: True)
        for word, number in codes.items()
    }
