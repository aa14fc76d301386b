"""The network, its heads and joint prediction in torch: all that `ppl_buffer.network.backend.Backend` asks for."""

import sys

from ppl_buffer.network.backend import register_backend
from ppl_buffer.network.torch import execution, ops
from ppl_buffer.network.torch.joint import (
    block_conditionals,
    block_rollout,
    cdf,
    conditionals,
    join_arrays,
    join_trials,
    leave_one_out,
    moments,
    one_step,
    prepare_joint,
    prepare_marginal,
    rollout,
    start_cache,
)
from ppl_buffer.network.torch.network import Cache, encode_params
from ppl_buffer.network.torch.speculative import speculative_rollout

__all__ = [
    "Cache",
    "block_conditionals",
    "block_rollout",
    "cdf",
    "conditionals",
    "encode_params",
    "execution",
    "join_arrays",
    "join_trials",
    "leave_one_out",
    "moments",
    "one_step",
    "ops",
    "prepare_joint",
    "prepare_marginal",
    "rollout",
    "speculative_rollout",
    "start_cache",
]

register_backend("torch", sys.modules[__name__])
