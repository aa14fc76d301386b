"""Training in torch: from a simulator to a network, resumable at any moment.

Everything random is a function of (seed, step), and everything that a step changes is in the run's state files, so
that an interrupted run of so many steps ends exactly where the uninterrupted one would have.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ppl_buffer.checks import check_flag, check_path
from ppl_buffer.extras import needs
from ppl_buffer.files import make_folder
from ppl_buffer.findings import Finding, warn_of
from ppl_buffer.network import checkpoint
from ppl_buffer.network.config import Config
from ppl_buffer.network.network import Network
from ppl_buffer.network.record import StageRecord
from ppl_buffer.network.torch.weights import TorchNetwork
from ppl_buffer.simulator import Simulator, name_of
from ppl_buffer.training.abilities import check_simulator
from ppl_buffer.training.batch_options import BatchOptions
from ppl_buffer.training.changing_params import choose_changing_fraction
from ppl_buffer.training.distillation import DistillationSets
from ppl_buffer.training.environment import try_environment
from ppl_buffer.training.interrupts import collect_interrupts
from ppl_buffer.training.loading import suited_workers, with_possible_workers
from ppl_buffer.training.lock import locked
from ppl_buffer.training.missing import choose_missing_fraction
from ppl_buffer.training.options import OptimizationOptions, RunOptions
from ppl_buffer.training.plan import TrainingPlan, choose_sizes, load_distillation, make_plans
from ppl_buffer.training.randomness import check_randomness
from ppl_buffer.training.run import INTERRUPTED, TIME, Crew, run_parts
from ppl_buffer.training.state import BEST, check_version, forget_run
from ppl_buffer.training.stopwatch import Stopwatch
from ppl_buffer.training.stored_lengths import choose_lengths

# Share of dropped data sets from which on the user is told: fewer change nothing that could be measured.
_FEW_DROPPED = 1e-3
# What a training takes where neither steps nor minutes are given.
_MINUTES = 20.0


def train(
    simulator: Simulator,
    config: Config | None = None,
    *,
    minutes: float | None = None,
    steps: int | None = None,
    parts: str = "all",
    target: float | None = None,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    batch_size: int | None = None,
    trials: tuple[int, int] | None = None,
    context: tuple[int, int] | None = None,
    targets: int | None = None,
    forecasting: float = 0.0,
    gap_filling: float = 0.0,
    in_order: float = 0.0,
    order_by: str | None = None,
    context_only: float = 0.5,
    learning_rate: float | None = None,
    warmup: int | None = None,
    weight_decay: float = 0.01,
    optimizer: str | None = None,
    learns: str = "all",
    condition_masks: int = 2,
    likelihood_weight: float | None = None,
    context_free_fraction: float = 0.25,
    outcome_samples: int = 1,
    use_log_likelihood: bool | None = None,
    missing_fraction: float | None = None,
    changing_fraction: float | None = None,
    start: Network | str | os.PathLike[str] | None = None,
    distillation: DistillationSets | str | os.PathLike[str] | None = None,
    distillation_share: float = 0.5,
    held_out: int = 256,
    evaluate_every: int | None = None,
    patience: int = 5,
    devices: int = 1,
    accelerator: str = "auto",
    workers: int | None = None,
    resume: bool = True,
    progress: bool = True,
) -> TorchNetwork:
    """Train a network on a simulator.

    A network has two parts, which are trained one after the other: the direct likelihood, which learns fastest and is
    all that a sampler of posteriors needs, and the buffered transformer. The learning rate of each rises, stays, and
    falls to zero in the last 40 % of its steps, or of its time. What nobody states is chosen: from what the machine
    does in the first seconds where the time is given.

    The run folder `out` holds ``best.safetensors``, all that was trained so far: the best averaged weights of each
    part, a checkpoint for `load`. In a folder of each part are ``state.safetensors`` and ``before_decay.safetensors``
    (all that a later call needs to go on), ``log.csv`` and ``loss.png``. Each file is replaced atomically, so that a
    kill at any moment leaves files that load. The same call on the same folder goes on where the run stopped, with
    what is left of the steps (it ends where it would have ended without the stop, to the last bit) or of the time. A
    call with more steps or more minutes goes on from the weights before the rate fell, one with fewer steps if the rate
    would not have begun to fall by now, and with ``parts="all"`` after ``parts="likelihood"`` the other part is added.

    Data sets with values that are no numbers, or not legal ones, are dropped and counted (in the checkpoint's
    record); more than one in a thousand is warned of, more than 5 % end the run.

    Args:
        simulator: what draws the data sets; see `Simulator`. Or data sets that exist already, a
            `ppl_buffer.StoredSimulations` or a `ppl_buffer.DatasetSimulator`.
        config: the network's sizes; `Config()` by default.
        minutes: of the whole run, in all calls together; 20 where there are no `steps` either. A third is for the
            direct likelihood where both parts are trained. Everything counts, evaluations too, but a laptop's sleep.
            With `steps` it only limits a call, for machines with a time limit: it saves the state and returns, and a
            warning says so.
        steps: optimisation steps of each part, in place of a time: the same numbers on every machine.
        parts: ``"all"``, or ``"likelihood"`` or ``"buffer"`` alone. The direct likelihood exists for ordered trials and
            for independent ones.
        target: an error in nats a trial, 0.001 for instance. Where the estimated error of a part is below it, the
            learning rate falls, and the part is done.
        seed: of the initial weights and of all data. A batch depends on the seed and the step alone.
        out: the run folder, made if it does not exist; ``runs/`` and the simulator's name by default.
        batch_size: data sets in a batch of typical length; longer sequences come in smaller batches. By default 32,
            more where they cost nothing, fewer where time is short.
        trials: least and greatest number of trials of a sequence, or of the buffer of an exchangeable model; by default
            (32, 128), of stored data sets as far as half of them reach.
        context: least and greatest size of the context; ignored for an ordered schema. By default (0, 64), of stored
            data sets about a third of their trials.
        targets: trials of an exchangeable data set that are predicted, beside those of its context and its buffer; by
            default as many as those of the buffer. More cost little: a target is read by nobody. The simulator draws
            data sets of the sum of all three.
        forecasting: share of the exchangeable data sets that are put in the order of an input, time for instance: all
            trials before some point are the context, buffer and targets come after it. Without such sets a network
            interpolates, and what it says of what comes next is an extrapolation. Stored data sets that forecast are
            stretches without gaps.
        gap_filling: share of the exchangeable data sets in which buffer and targets are a stretch along that input,
            with the context before and after it: a part of a recording that is missing. Its length is what the sizes of
            all three leave. At most what `forecasting` leaves.
        in_order: share of the exchangeable data sets whose buffer is in that order, each target seeing the trials
            before it: draws along time, or along a grid, arise so. Independent of the two before: in a forecast the
            buffer comes right after the context, without a gap, in a gap at its beginning. The other buffers are in
            random order.
        order_by: name of that input; by default the only one that is continuous.
        context_only: share of the targets of an exchangeable data set that see its context and nothing of its buffer.
            1 trains a set predictor, which `add_buffer` can teach more later.
        learning_rate: its peak, of all parts; by default what suits each.
        warmup: steps in which the learning rate rises; by default a twentieth of all, at most 1000.
        weight_decay: of the weight matrices.
        optimizer: ``"adamw"``, or ``"muon"``: Muon for the matrices inside the layers, AdamW for the rest. Muon needs
            about a third of the steps on small networks. By default what suits each part.
        learns: ``"all"`` weights, or ``"buffer"``: those that `add_buffer` added to a network, which predicts the same
            without a buffer as before, to the last bit.
        condition_masks: choices of parameters that each data set is conditioned on: the first holds all parameters,
            each other none or a random subset (Gloeckler et al. 2024, arXiv 2404.09636). 1 trains the likelihood
            alone.
        likelihood_weight: weight in the buffered transformer's loss of the first of these, the likelihood, in (0, 1);
            the others share the rest. By default all count the same, and the first little where there is a direct
            likelihood. Where parameters are hidden the gradient is far noisier: 0.9 trains a better likelihood in the
            same number of steps.
        context_free_fraction: share of the batches without a context, where the least context is 0. Raise it for the
            evidence of many trials in one pass, which starts without one.
        outcome_samples: how often the outcomes of a target are drawn, each time given the same parameters and past:
            most of the gradient's noise is theirs, and a further sample costs the heads alone. For simulators whose
            trials are independent given the parameters, or that have a method ``resample_outcomes`` or, of exchangeable
            trials, ``predict_outcomes``.
        use_log_likelihood: where all parameters are conditioned on, learn the simulator's own ``log_likelihood`` in
            place of draws. By default the direct likelihood does, where the simulator does not tell the probabilities
            of all outcomes. For the buffered transformer: for the last steps of a likelihood, with `start` and a low
            learning rate; early in a training it may cost more than it gives.
        missing_fraction: of a network that reads which outcomes are missing (`Config.likelihood_missing`), the share of
            the data sets of the direct likelihood in which outcomes and feedback are lost, in 2 to 100 % of the trials;
            0.5 by default. What follows a lost outcome is learnt from draws, or from the probabilities of these, or
            from ``seen_log_likelihood``, never from ``log_likelihood``. The held-out loss and the error that the record
            states are of complete data sets; which weights are kept is judged by others, made as those of the training.
        changing_fraction: of a network that takes parameters that change from trial to trial
            (`Config.likelihood_trial_params`), the share of the batches of the direct likelihood in which they do, in
            blocks of any length; 0.25 by default. The held-out loss and the stated error are of parameters that stay,
            and the weights that are kept are judged likewise.
        start: a trained network, or what `load` takes, to start from instead of random weights: fine-tuning, or the
            network of a similar simulator. Its schema must be the same; `config` is taken from it, unless one is given
            with more layers (`depth`), more `asinh_scales`, `likelihood_missing` or `likelihood_trial_params`: then the
            network grows, and predicts the same at first. The record of the result goes on from the start's
            (`TrainingRecord.stages`).
        distillation: what `prepare_distillation` returned, or its folder: data sets in which the model need not hold,
            to learn what the model predicts after them, and what density it gives them. They come to the batches of the
            buffered transformer beside simulated ones, and to its held-out loss, which is then not comparable with that
            of a run without.
        distillation_share: share of the batches that come from distillation sets.
        held_out: data sets for the held-out loss, the same in all runs of the same settings; four times as many for the
            direct likelihood.
        evaluate_every: steps between two evaluations; by default a twenty-fourth of the steps, from 50 to 500, or of
            the time.
        patience: a training on stored data sets ends after so many evaluations in turn that were clearly worse on
            held-out data than the best before: by more than two standard errors of the difference. The best weights
            are kept, and a warning says so.
        devices: number of processes that share each batch. Above 1, Lightning Fabric starts them afresh: the
            simulator must be importable, and a script must call `train` under ``if __name__ == "__main__":``.
        accelerator: ``"auto"`` (CUDA where there is one), ``"cpu"`` or ``"cuda"``.
        workers: background processes that simulate; 0 simulates in the training process. By default one, and where a
            GPU trains as many as there are cores to spare, up to eight: it waits for the simulator most of the time.
            Batches do not depend on it.
        resume: go on with the run in `out`. False starts it anew, the parts that are trained.
        progress: show a progress bar, and at the end of each part what its error is.

    Returns:
        the best averaged weights, frozen, on the CPU, with their `TrainingRecord` in ``net.record``.

    Raises:
        ValueError: if an argument or what the simulator returns does not fit, too many data sets had to be dropped,
            another call is training in `out`, or it holds a run with other settings, of more steps, of an earlier
            version or of a simulator that drew other data.
        FloatingPointError: if the gradient is no number in step after step.
        KeyboardInterrupt: on Ctrl-C, after the state was saved.
    """
    stopwatch = Stopwatch()
    check_simulator(simulator)
    given = {
        "batch_size": batch_size, "learning_rate": learning_rate, "warmup": warmup, "optimizer": optimizer,
        "evaluate_every": evaluate_every, "likelihood_weight": likelihood_weight,
        "use_log_likelihood": use_log_likelihood,
    }  # fmt: skip
    stated = {name: value for name, value in given.items() if value is not None}
    batches = {
        **choose_lengths(simulator, trials, context, targets), "condition_masks": condition_masks,
        "context_free_fraction": context_free_fraction, "outcome_samples": outcome_samples,
        "targets": targets, "forecasting": forecasting, "gap_filling": gap_filling, "in_order": in_order,
        "order_by": order_by, "context_only": context_only,
    }  # fmt: skip
    sizes, begun = choose_sizes(simulator, config, start)
    batches["missing_fraction"] = choose_missing_fraction(missing_fraction, simulator.schema, sizes)
    batches["changing_fraction"] = choose_changing_fraction(changing_fraction, simulator, sizes)
    if steps is None and minutes is None:
        minutes = _MINUTES
    folder = Path("runs") / name_of(simulator) if out is None else check_path("out", out)
    run = {"held_out": held_out, "devices": devices, "accelerator": accelerator}
    run |= {"workers": 1 if workers is None else workers}
    run |= {"progress": progress, "minutes": minutes, "target": target, "patience": patience}
    asked = TrainingPlan(
        simulator=simulator,
        config=sizes,
        seed=seed,
        batches=_options(BatchOptions, stated, batches),
        optimization=_options(
            OptimizationOptions, stated, {"steps": steps, "weight_decay": weight_decay, "learns": learns}
        ),
        run=_options(RunOptions, stated, {"out": folder, **run}),
        start=begun,
        distillation=None if distillation is None else load_distillation(distillation, simulator),
        distillation_share=distillation_share,
        open=frozenset({*given, "growing"}) - frozenset(stated),
    )
    if workers is None:
        suited = suited_workers(_device(asked.run.accelerator), asked.run.devices)
        asked = replace(asked, run=replace(asked.run, workers=suited))
    plans = tuple(map(with_possible_workers, make_plans(asked, parts)))
    check_flag("resume", resume)
    check_randomness(simulator)
    try_environment(simulator)
    return _train(plans, resume, stopwatch)


def _options(kind: type[Any], stated: dict[str, Any], others: dict[str, Any]) -> Any:
    """Options of a kind, from arguments of several."""
    return kind(**others, **{name: value for name, value in stated.items() if name in kind.__dataclass_fields__})


def _train(plans: Sequence[TrainingPlan], resume: bool, stopwatch: Stopwatch) -> TorchNetwork:
    """Train the parts in the run folder, which nobody else uses meanwhile, and load what came of it."""
    run = plans[0].run
    make_folder("out", run.out)
    device = _device(run.accelerator)
    with locked(run.out):
        if not resume:
            forget_run(run.out, tuple(plan.part for plan in plans))
        check_version(run.out)
        if run.devices > 1:
            ended = _launch(plans, device)
        else:
            with collect_interrupts() as interrupts:
                ended = run_parts(plans, Crew(device, stopwatch, interrupts))
    if ended == INTERRUPTED:
        raise KeyboardInterrupt(f"training stopped; its state is in {run.out}, and the same call goes on")
    net = checkpoint.load(run.out / BEST, backend="torch")
    assert isinstance(net, TorchNetwork) and net.record is not None
    untrained = net.record.stages[-1].step == 0
    if ended == TIME or (untrained and plans[0].steps is None):
        warn_of(_out_of_time(plans[0], ended, untrained), stacklevel=3)
    for stage in net.record.stages[-len(plans) :]:
        if stage.dropped_data_sets > _FEW_DROPPED * stage.data_sets:
            warn_of(_dropped(stage), stacklevel=3)
            break
    return net


def _dropped(stage: StageRecord) -> Finding:
    """What to know of a network whose training left data sets out."""
    share = stage.dropped_data_sets / stage.data_sets
    text = (
        f"{stage.dropped_data_sets} of {stage.data_sets} simulated data sets ({share:.1%}) were left out, since they "
        "held values that are no numbers or not legal: the network knows the model given that this does not happen, "
        "which is another likelihood and another prior. Let the simulator return legal values, or narrow its prior"
    )
    return Finding("simulator", text, share=share)


def _out_of_time(plan: TrainingPlan, ended: str, untrained: bool) -> Finding:
    """What to know of a network whose training was stopped by `minutes`."""
    goes_on = "the same call" if ended == TIME else "a call with more minutes"
    text = f"training stopped after minutes={plan.run.minutes}; {goes_on} goes on with the run in {plan.run.out}"
    if untrained:
        weights = "random weights" if plan.begins_with is None else "the weights of start"
        text += f". The network is untrained: it has {weights}, since no evaluation came before the end. Do not use it"
    return Finding("training", text)


def _device(accelerator: str) -> torch.device:
    available = torch.cuda.is_available()
    if accelerator == "cuda" and not available:
        raise ValueError("accelerator: expected 'auto' or 'cpu' on a machine without CUDA, got 'cuda'")
    return torch.device("cuda" if available and accelerator != "cpu" else "cpu")


def _launch(plans: Sequence[TrainingPlan], device: torch.device) -> str:
    """Train in several processes; returns how it ended."""
    with needs("training on several devices", "train"):
        from lightning_fabric import Fabric
        from lightning_fabric.strategies import DDPStrategy
    # Spawned processes work from any function, with threads and with CUDA. Not every batch uses every weight: there
    # may be no context in it.
    strategy = DDPStrategy(start_method="spawn", find_unused_parameters=True)
    fabric = Fabric(accelerator=device.type, devices=plans[0].run.devices, strategy=strategy)
    with collect_interrupts():
        # Bound, not handed over as an argument: Fabric looks into dataclasses that are, and refuses frozen ones.
        return fabric.launch(functools.partial(_run_process, plans=plans))


def _run_process(fabric: Any, plans: Sequence[TrainingPlan]) -> str:
    with collect_interrupts() as interrupts:
        return run_parts(plans, Crew(fabric.device, Stopwatch(), interrupts, fabric))
