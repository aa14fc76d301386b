import pytest

import ppl_buffer as pb
from ppl_buffer.network.config import Config
from tests.networks import Case, Record, network

TASK = pb.simulators.NoisyQ()


def record_of(task):
    """That of a network which knows a task's priors."""
    box = {name: prior.range() for name, prior in task.priors.items()}
    return Record(box=box, priors=task.priors, trials=50, context=0, simulator=type(task).__name__)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A tiny network of the selection task, with random weights."""
    pytest.importorskip("jax")
    config = Config(width=8, depth=1, heads=2, mlp=8, components=2, param_depth=1, contextual_positions=1)
    path = tmp_path_factory.mktemp("net") / "tiny.safetensors"
    pb.save(network(Case("tiny", TASK.schema, TASK.environment, config), "jax", record_of(TASK)), path)
    return path
