"""The losses of a run as a table and as a figure."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from ppl_buffer.extras import needs

# [step, loss]
Points = Sequence[Sequence[float]]


def loss_table(losses: Points, held_out: Points) -> str:
    """The losses as CSV with the columns step, loss and held_out."""
    rows: dict[int, dict[str, float]] = {}
    for column, points in (("loss", losses), ("held_out", held_out)):
        for step, value in points:
            rows.setdefault(int(step), {})[column] = value
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["step", "loss", "held_out"])
    for step in sorted(rows):
        writer.writerow([step, rows[step].get("loss", ""), rows[step].get("held_out", "")])
    return text.getvalue()


def loss_curve(losses: Points, held_out: Points, title: str) -> bytes:
    """The losses over the steps as a PNG file's content."""
    # No pyplot: its figures belong to the user.
    with needs("the picture of the losses", "train"):
        from matplotlib.figure import Figure
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    for label, points, style in (("training", losses, "-"), ("held out, averaged", held_out, "o-")):
        axes.plot([step for step, _ in points], [x for _, x in points], style, label=label, linewidth=1, markersize=3)
    axes.set(xlabel="step", ylabel="negative log density of a trial (nats)", title=title)
    axes.legend()
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=120)
    return image.getvalue()
