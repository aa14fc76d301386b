"""``ppl-buffer train``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from ppl_buffer.extras import needs
from ppl_buffer.network.checkpoint import load, save
from ppl_buffer.network.config import Config
from ppl_buffer.network.network import Network
from ppl_buffer.workflow.cli.errors import check_folder, plain_errors
from ppl_buffer.workflow.cli.options import Seed, read_range
from ppl_buffer.workflow.cli.simulators import named_simulator


def train(
    simulator: Annotated[
        str, typer.Argument(help="my_module:MySimulator, from the working folder too; or an .npz file of simulations.")
    ],
    minutes: Annotated[
        float | None, typer.Option(help="Of the whole training; by default 20. More in a later call: it goes on.")
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Optimisation steps of each part, in place of a time; --minutes then limits a call."),
    ] = None,
    parts: Annotated[str, typer.Option(help="all, likelihood or buffer.")] = "all",
    target: Annotated[
        float | None, typer.Option(help="Estimated error, in nats a trial, at which a part is done; 0.001 is good.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; by default runs/MySimulator.")] = None,
    width: Annotated[int | None, typer.Option(help="Of a token's vector; by default 64.")] = None,
    depth: Annotated[int | None, typer.Option(help="Layers; by default 4.")] = None,
    heads: Annotated[int | None, typer.Option(help="Attention heads a layer; by default 4.")] = None,
    mlp: Annotated[int | None, typer.Option(help="Hidden units of a layer; by default 128.")] = None,
    asinh_scales: Annotated[
        int | None, typer.Option(help="Finer scales at which continuous variables are read as well; by default 0.")
    ] = None,
    likelihood_width: Annotated[
        int | None, typer.Option(help="Units of the direct likelihood's layers; by default 64, 0 = none.")
    ] = None,
    likelihood_missing: Annotated[
        bool,
        typer.Option(
            "--likelihood-missing", help="Trials may follow one that lost an outcome or feedback; ordered models."
        ),
    ] = False,
    missing_fraction: Annotated[
        float | None, typer.Option(help="Share of the data sets that lose something then; by default 0.5.")
    ] = None,
    likelihood_trial_params: Annotated[
        bool,
        typer.Option("--likelihood-trial-params", help="Parameters may change from trial to trial; ordered models."),
    ] = False,
    changing_fraction: Annotated[
        float | None, typer.Option(help="Share of the batches in which they change then; by default 0.25.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Data sets in a batch; by default what suits machine and time.")
    ] = None,
    trials: Annotated[
        str | None,
        typer.Option(help="Trials of a data set, LEAST-GREATEST; by default 32-128, or what stored ones hold."),
    ] = None,
    context: Annotated[
        str | None, typer.Option(help="Size of the context, LEAST-GREATEST; exchangeable models; by default 0-64.")
    ] = None,
    targets: Annotated[
        int | None, typer.Option(min=1, help="Trials to predict beside those; by default as many as --trials.")
    ] = None,
    forecasting: Annotated[
        float, typer.Option(help="Share of the data sets whose context is all before some time; exchangeable models.")
    ] = 0.0,
    gap_filling: Annotated[
        float, typer.Option(help="Share of the data sets that lack a stretch of time, with the context on both sides.")
    ] = 0.0,
    in_order: Annotated[
        float, typer.Option(help="Share of the data sets whose trials are realised in the order of time.")
    ] = 0.0,
    order_by: Annotated[
        str | None, typer.Option(help="The input that is that time; by default the only continuous one.")
    ] = None,
    optimizer: Annotated[str | None, typer.Option(help="adamw or muon; by default what suits each part.")] = None,
    outcome_samples: Annotated[
        int, typer.Option(min=1, help="Draws of each target's outcomes: less noise, if the simulator can draw again.")
    ] = 1,
    likelihood_weight: Annotated[
        float | None,
        typer.Option(help="Weight of the data sets whose parameters are all given; 0.9: likelihood first."),
    ] = None,
    use_log_likelihood: Annotated[
        bool,
        typer.Option("--use-log-likelihood", help="Learn the simulator's own likelihood where it can be computed."),
    ] = False,
    start: Annotated[
        str | None,
        typer.Option(help="A checkpoint, or a name of the zoo, to start from; --depth and --asinh-scales grow it."),
    ] = None,
    distillation: Annotated[
        Path | None, typer.Option(help="Folder that prepare_distillation wrote: data sets unlike the model's.")
    ] = None,
    held_out: Annotated[int, typer.Option(min=1, help="Data sets for the held-out loss.")] = 256,
    seed: Seed = 0,
    progress: Annotated[bool, typer.Option(help="Show a progress bar.")] = True,
) -> None:
    """Train a network on a simulator of yours: first its direct likelihood, then its buffered transformer.

    Stop it and call it again: it goes on. With --parts likelihood it has all that a fit by NUTS needs, and a later call
    adds the rest.
    """
    name = Path(simulator).stem if simulator.endswith(".npz") else simulator.partition(":")[2]
    folder = Path("runs") / name if out is None else out
    with plain_errors(folder):
        task = named_simulator(simulator)
        check_folder(folder)
        first = load(start, backend="torch") if start else None
        sizes = {"width": width, "depth": depth, "heads": heads, "mlp": mlp, "asinh_scales": asinh_scales}
        sizes |= {"likelihood_width": likelihood_width, "likelihood_missing": likelihood_missing or None}
        sizes |= {"likelihood_trial_params": likelihood_trial_params or None}
        net = _train()(
            task,
            _config(first, {size: value for size, value in sizes.items() if value is not None}),
            start=first, distillation=distillation, minutes=minutes, steps=steps, parts=parts, target=target, seed=seed,
            out=folder, batch_size=batch_size,
            trials=_range("trials", trials), context=_range("context", context),
            targets=targets, forecasting=forecasting, gap_filling=gap_filling, in_order=in_order, order_by=order_by,
            optimizer=optimizer, outcome_samples=outcome_samples, likelihood_weight=likelihood_weight,
            use_log_likelihood=use_log_likelihood or None, missing_fraction=missing_fraction,
            changing_fraction=changing_fraction, held_out=held_out, progress=progress,
        )  # fmt: skip
        path = folder / f"{name}.safetensors"
        save(net, path)
    typer.echo(f"Written: {path}. Check it: ppl-buffer check {path} --simulator {simulator}")


def _train() -> Callable[..., Any]:
    """The library's `train`, which needs torch."""
    with needs("training", "train"):
        from ppl_buffer.training.loop import train
    return train


def _range(option: str, text: str | None) -> tuple[int, int] | None:
    return None if text is None else read_range(option, text)


def _config(first: Network | None, sizes: dict[str, Any]) -> Config:
    """The network's sizes: those given, else those of the network to start from, else the default ones."""
    if first is not None:
        return replace(first.config, **sizes)
    config = Config()
    if "depth" in sizes:
        sizes["param_depth"] = min(config.param_depth, max(sizes["depth"], 1))
    return replace(config, **sizes)
