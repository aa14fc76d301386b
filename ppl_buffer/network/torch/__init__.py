"""The network, its heads and joint prediction in torch: all that `ppl_buffer.network.backend.Backend` asks for."""

from ppl_buffer.network import torch as this_package
from ppl_buffer.network.backend import register_backend
from ppl_buffer.network.torch import ops
from ppl_buffer.network.torch.cache import Cache
from ppl_buffer.network.torch.events import event_cdf, event_log_probs
from ppl_buffer.network.torch.execution import bucket, on_devices, on_processor, one_program, rollout_memory, workers
from ppl_buffer.network.torch.joint import (
    block_conditionals,
    block_rollout,
    cdf,
    conditionals,
    leave_one_out,
    moments,
    one_step,
    prepare_joint,
    prepare_marginal,
    representations,
    rollout,
    start_cache,
)
from ppl_buffer.network.torch.likelihood import (
    encode_conditions,
    prepare_alone,
    prepare_sequence,
    rollout_sequence,
)
from ppl_buffer.network.torch.network import encode_params
from ppl_buffer.network.torch.speculative import speculative_rollout
from ppl_buffer.network.torch.stepping import start_steps, step_buffer, step_state

__all__ = [
    "Cache",
    "block_conditionals",
    "block_rollout",
    "bucket",
    "cdf",
    "conditionals",
    "encode_conditions",
    "encode_params",
    "event_cdf",
    "event_log_probs",
    "leave_one_out",
    "moments",
    "on_devices",
    "on_processor",
    "one_program",
    "one_step",
    "ops",
    "prepare_alone",
    "prepare_joint",
    "prepare_marginal",
    "prepare_sequence",
    "representations",
    "rollout",
    "rollout_memory",
    "rollout_sequence",
    "speculative_rollout",
    "start_cache",
    "start_steps",
    "step_buffer",
    "step_state",
    "workers",
]

register_backend("torch", this_package)
