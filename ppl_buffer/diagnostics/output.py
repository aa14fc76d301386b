"""Tables and figures of the checks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_buffer.extras import needs

if TYPE_CHECKING:
    import pandas


def data_frame(rows: list[dict[str, Any]]) -> pandas.DataFrame:
    """Rows as a table; pandas is imported when it is asked for."""
    import pandas

    return pandas.DataFrame(rows)


def panels(columns: int, rows: int = 1, height: float = 2.6) -> tuple[Any, np.ndarray]:
    """A matplotlib figure and its axes (rows, columns)."""
    # Without pyplot: nothing global, and no window.
    with needs("a plot", "arviz"):
        from matplotlib.figure import Figure
    figure = Figure(figsize=(3.2 * columns + 0.4, height * rows + 0.4), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)
