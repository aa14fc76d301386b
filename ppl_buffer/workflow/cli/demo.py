"""``ppl-buffer demo``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from ppl_buffer.datasets import selection_task, simulated_selection_task, write_trials
from ppl_buffer.workflow.cli.errors import check_folder, plain_errors
from ppl_buffer.workflow.cli.fit import fit
from ppl_buffer.workflow.cli.options import Draws, Out, PredictiveDraws, Progress, Seed, Warmup


def demo(
    subjects: Annotated[str, typer.Option(help="How many people, fewest trials first, or all.")] = "13",
    simulated: Annotated[bool, typer.Option(help="Simulated people, of which nothing has to be fetched.")] = False,
    out: Out = Path("demo"),
    warmup: Warmup = 200,
    draws: Draws = 2000,
    predictive_draws: PredictiveDraws = 150,
    seed: Seed = 0,
    progress: Progress = True,
) -> None:
    """Fit people who learn from rewards: data of the selection task, as `fit` does it with a table of yours."""
    with plain_errors():
        if subjects != "all" and not (subjects.isdigit() and int(subjects) > 1):
            raise ValueError(f"--subjects: expected 'all' or a number of at least 2, got {subjects!r}")
        check_folder(out)
        trials = None
        if not simulated:
            try:
                trials = selection_task()
            except FileNotFoundError as error:
                typer.secho(f"The selection task is not here ({error}).", fg=typer.colors.YELLOW)
        if trials is None:
            typer.echo("Simulated people of the same design are fitted: the results say nothing about real ones.")
            # The first population that seeds draw reaches the end of the box, where a sampler is slow, the third not.
            trials = simulated_selection_task(seed + 2)
        everybody = len(trials.subjects)
        if subjects != "all" and int(subjects) < everybody:
            trials = trials.select(np.sort(np.argsort(trials.trial_counts, kind="stable")[: int(subjects)]))
            typer.echo(f"{subjects} of {everybody} people, those with the fewest trials; --subjects all takes all.")
        out.mkdir(parents=True, exist_ok=True)
        table = out / "trials.csv"
        write_trials(trials, table)
    options: dict[str, Any] = {"warmup": warmup, "draws": draws, "predictive_draws": predictive_draws, "seed": seed}
    words = "".join(f" --{name.replace('_', '-')} {value}" for name, value in options.items())
    typer.echo(f"$ ppl-buffer fit {shlex.quote(str(table))} --model noisy_q --out {shlex.quote(str(out))}{words}")
    fit(table, "noisy_q", out=out, progress=progress, **options)
