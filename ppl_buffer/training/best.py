"""The checkpoint of a run: all parts that were trained so far, in one file."""

from __future__ import annotations

from pathlib import Path

from ppl_buffer.network import checkpoint
from ppl_buffer.network.torch.weights import TorchNetwork
from ppl_buffer.training.parts import join
from ppl_buffer.training.plan import TrainingPlan
from ppl_buffer.training.recording import join_records
from ppl_buffer.training.state import BEST, parts_begun


def write_best(plan: TrainingPlan) -> None:
    """Write the best weights of each part, those of `start` where a part was not trained, as one checkpoint."""
    folder, start = plan.run.out, plan.start
    trained = [_load(folder / part / BEST) for part in parts_begun(folder)]
    before = () if start is None else start.parts
    # Random weights are left out, unless there are no others.
    trained = [net for net in trained if _steps(net) or net.parts[0] in before] or trained
    net = join(trained if start is None else [start, *trained])
    record = join_records(None if start is None else start.record, [one.record for one in trained if one.record])
    checkpoint.write(net, record, folder / BEST)


def _load(path: Path) -> TorchNetwork:
    net = checkpoint.load(path, backend="torch")
    assert isinstance(net, TorchNetwork)
    return net


def _steps(net: TorchNetwork) -> int:
    assert net.record is not None
    return net.record.stages[-1].step
