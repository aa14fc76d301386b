"""What users write of formulas and fixed parameters, checked against a model's parameters."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from functools import partial

from ppl_buffer.checks import check_mapping, check_number
from ppl_buffer.extras import needs
from ppl_buffer.network.network import Network


def split_formulas(formulas: object, names: Sequence[str], fixed: Mapping[str, float]) -> dict[str, str]:
    """Parameter -> what stands after its tilde.

    Args:
        formulas: texts such as "drift ~ condition".
        names: of the parameters that can have one.
        fixed: parameters that have a value instead.

    Raises:
        ValueError: if a text is no formula, or of a parameter that is not there or has one.
    """
    if not isinstance(formulas, list | tuple) or not all(isinstance(text, str) for text in formulas):
        raise ValueError(f"formulas: expected a list of texts such as 'drift ~ condition', got {formulas!r}")
    stated: dict[str, str] = {}
    for text in formulas:
        left, tilde, right = (part.strip() for part in text.partition("~"))
        if not (tilde and left and right) or "~" in right:
            raise ValueError(f"formulas: expected PARAMETER ~ TERMS, such as 'drift ~ condition', got {text!r}")
        if left not in names:
            like = difflib.get_close_matches(left, names, 1, 0.5)
            raise ValueError(
                f"formulas: the model has no parameter {left!r}{f', but {like[0]!r}' if like else ''}; its parameters "
                f"are {', '.join(map(repr, names))}"
            )
        if left in stated or left in fixed:
            raise ValueError(f"formulas: expected one formula for {left!r}, or a fixed value, got more")
        stated[left] = right
    return stated


def check_fixed(net: Network, fixed: Mapping[str, float] | None) -> dict[str, float]:
    """Values of parameters that are not estimated, inside their trained range.

    Raises:
        ValueError: if one is outside, not known, or there is no other parameter.
    """
    constants = {}
    for name, value in check_mapping("fixed", fixed).items():
        if name not in net.schema.params:
            raise ValueError(f"fixed: expected names among {list(net.schema.params)}, got {name!r}")
        low, high = net.box[name]
        expected = f"a number from {low:g} to {high:g}, where the network was trained"
        constants[name] = check_number(f"fixed[{name!r}]", value, expected, partial(_between, low, high))
    if len(constants) == len(net.schema.params):
        raise ValueError("fixed: expected at least one parameter that is not fixed, got all of them")
    return constants


def _between(low: float, high: float, value: float) -> bool:
    return low <= value <= high


def variables_of(formula: str) -> set[str]:
    """Names of variables in a formula.

    Raises:
        ValueError: if it cannot be read.
    """
    with needs("a formula", "data"):
        from formulae import model_description
    try:
        return {str(name) for name in model_description(formula).var_names if str(name)}
    except Exception as error:  # whatever its scanner, parser and resolver raise
        raise ValueError(f"formulas: {formula!r} cannot be read: {error}") from None
