"""Parameters that equal another one: one learning rate in place of two."""

from __future__ import annotations

from collections.abc import Mapping

from ppl_buffer.checks import check_mapping
from ppl_buffer.network.backend import Array
from ppl_buffer.network.network import Network


def split_ties(net: Network, params: Mapping[str, Array | str] | None) -> tuple[dict[str, Array], dict[str, str]]:
    """Parameters with values, and those that equal another one, by its name.

    Raises:
        ValueError: if that is no other parameter that is integrated over.
    """
    given = check_mapping("params", params)
    ties = {name: other for name, other in given.items() if isinstance(other, str)}
    free = [name for name in net.schema.params if name not in given]
    for name, other in ties.items():
        if name not in net.schema.params or other not in free:
            raise ValueError(
                f"params[{name!r}]: expected numbers, or the name of a parameter that is integrated over, {free}, got "
                f"{other!r}"
            )
    return {name: value for name, value in given.items() if name not in ties}, ties
