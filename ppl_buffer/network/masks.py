"""Who may see whom, beyond what the list of segments says.

The rules R1 to R4 (Hassan et al. 2026, section 3) are mostly structure: a token reads the segments that it is given.
What is left for a mask is the prefix of the buffer, and trials that do not exist.
"""

from __future__ import annotations

from types import ModuleType

from ppl_buffer.network.backend import Array


def prefix_mask(xp: ModuleType, visible: Array, valid: Array) -> Array:
    """Mask of tokens that see the first `visible` tokens of a buffer, of which `valid` stand for a trial.

    Buffer token j itself sees the first j + 1 (R2); target k of a one-pass density sees the first k (R4).

    Args:
        xp: ``torch`` or ``jax.numpy``.
        visible: (T,) or (B, R, T) numbers of buffer tokens.
        valid: (B, r, K) bool.

    Returns:
        bool, broadcast against (B, 1, R, T, K).
    """
    index = xp.arange(valid.shape[-1], **({"device": valid.device} if xp.__name__ == "torch" else {}))
    prefix = index < visible[..., None]
    if visible.ndim == 3:
        prefix = prefix[:, None]
    return prefix & valid[:, None, :, None, :]
