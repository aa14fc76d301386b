"""The losses of a run as a table and as a figure."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from ppl_buffer.extras import needs

# [step, loss]
Points = Sequence[Sequence[float]]


def loss_table(losses: Points, held_out: Points, given: Points) -> str:
    """The losses as CSV with the columns step, loss, held_out and given.

    Args:
        losses: of the batches.
        held_out: of held-out data.
        given: the same, of the data sets with all parameters given: the likelihood's.
    """
    columns = {"loss": losses, "held_out": held_out, "given": given}
    rows: dict[int, dict[str, float]] = {}
    for column, points in columns.items():
        for step, value in points:
            rows.setdefault(int(step), {})[column] = value
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["step", *columns])
    for step in sorted(rows):
        writer.writerow([step, *(rows[step].get(column, "") for column in columns)])
    return text.getvalue()


def loss_curve(losses: Points, held_out: Points, given: Points, title: str) -> bytes:
    """The losses over the steps as a PNG file's content; see `loss_table`."""
    # No pyplot: its figures belong to the user.
    with needs("the picture of the losses", "train"):
        from matplotlib.figure import Figure
    figure = Figure(figsize=(10, 4), layout="constrained")
    axes, fine = figure.subplots(1, 2)
    for label, points, style in (("training", losses, "-"), ("held out, averaged", held_out, "o-")):
        axes.plot([step for step, _ in points], [x for _, x in points], style, label=label, linewidth=1, markersize=3)
    axes.set(xlabel="step", ylabel="negative log density of a trial (nats)", title=title)
    axes.legend()
    if len(given) > 1:
        # A loss curve hides what matters to a likelihood, a few thousandths of a nat: what was gained since does not.
        least = min(x for _, x in given)
        points = [(step, x - least) for step, x in given if x > least]
        fine.plot([step for step, _ in points], [x for _, x in points], "o-", linewidth=1, markersize=3)
        fine.set_yscale("log")
    fine.set(xlabel="step", ylabel="nats a trial above the least", title="held out, all parameters given")
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=120)
    return image.getvalue()
