"""The checkpoint of a run: all parts that were trained so far, in one file."""

from __future__ import annotations

from pathlib import Path

from ppl_buffer.network import checkpoint
from ppl_buffer.network.torch.weights import TorchNetwork
from ppl_buffer.training.parts import join
from ppl_buffer.training.plan import TrainingPlan
from ppl_buffer.training.recording import join_records
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
    # A start that reads fewer scales than what is trained now has a place here once it has grown.
    fits = start is not None and start.config.asinh_scales == plan.config.asinh_scales
    net = join([start, *trained] if start is not None and fits else trained)
    record = join_records(None if start is None else start.record, [one.record for one in trained if one.record])
    checkpoint.write(net, record, folder / BEST)


def _load(path: Path) -> TorchNetwork:
    net = checkpoint.load(path, backend="torch")
    assert isinstance(net, TorchNetwork)
    return net
