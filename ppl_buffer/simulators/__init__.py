"""The shipped simulators."""

from ppl_buffer.simulators.noisy_q import NoisyQ

__all__ = ["NoisyQ"]
