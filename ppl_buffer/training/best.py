"""The checkpoint of a run: all parts that were trained so far, in one file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ppl_buffer.network import checkpoint
from ppl_buffer.network.torch.weights import TorchNetwork
from ppl_buffer.training.parts import join
from ppl_buffer.training.plan import TrainingPlan
from ppl_buffer.training.recording import join_records
from ppl_buffer.training.start import grow
from ppl_buffer.training.state import BEST, parts_begun


def write_best(plan: TrainingPlan, *, begun: bool = True) -> None:
    """Write the best weights of each part, those of `start` where a part was not trained, as one checkpoint.

    Args:
        plan: of the part that is trained.
        begun: whether it has made a step. Random weights are left out, unless there are no others.
    """
    folder, start = plan.run.out, plan.start
    parts = parts_begun(folder)
    if not begun and plan.begins_with is None and (len(parts) > 1 or start is not None):
        parts = tuple(part for part in parts if part != plan.part)
    trained = [_load(folder / part / BEST) for part in parts]
    if start is not None and not trained:  # what there is yet
        checkpoint.write(start, start.record, folder / BEST)
        return
    net = join(trained if start is None else [_with_scales(start, plan.config.asinh_scales), *trained])
    record = join_records(None if start is None else start.record, [one.record for one in trained if one.record])
    checkpoint.write(net, record, folder / BEST)


def _with_scales(start: TorchNetwork, scales: int) -> TorchNetwork:
    """The start, grown to read as many scales as what is trained now; it predicts the same."""
    if start.config.asinh_scales == scales:
        return start
    net = TorchNetwork(start.schema, replace(start.config, asinh_scales=scales), start.standardization)
    grow(start, net)
    return net


def _load(path: Path) -> TorchNetwork:
    net = checkpoint.load(path, backend="torch")
    assert isinstance(net, TorchNetwork)
    return net
