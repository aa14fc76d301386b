"""Weights before training: the distance biases of an ordered model, and mixtures that can part."""

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

import ppl_buffer as pb
from ppl_buffer.network.torch.weights import TorchNetwork
from ppl_buffer.predictive import density
from ppl_buffer.predictive.query import Query

CONFIG = pb.Config(width=16, depth=2, heads=4, mlp=24, components=5, param_depth=1, contextual_positions=3)
WALK = pb.Schema(outcomes={"y": pb.Real()}, ordered=True)


def initial(seed, schema=WALK):
    return TorchNetwork(schema, CONFIG, dict.fromkeys(schema.standardized, (0.0, 1.0)), seed=seed)


def test_slopes_are_those_of_alibi():
    """Press et al. (2022): a geometric sequence from 1/2 down to 1/256, a head each, on the count of trials."""
    net = initial(seed=3)
    for layer in range(2):
        bias = net.weights[f"layers.{layer}.slope.bias"].detach().numpy().reshape(4, 4)
        slopes = np.logaddexp(0, bias)  # the softplus that the bias goes through
        np.testing.assert_allclose(slopes[:, 0], [2**-1, 2 ** -(10 / 3), 2 ** -(17 / 3), 2**-8], rtol=1e-5)
        learned = slopes[:, 1:]
        assert ((learned > 0.003) & (learned < 0.3)).all() and learned.max() > 5 * learned.min()


def test_what_was_long_ago_counts_less_before_any_training():
    """How far an earlier outcome moves the density of the last of 40 trials, by how long ago it was."""
    influence = np.zeros(39)
    for seed in range(8):
        net = initial(seed).eval()
        y = torch.randn((16, 40), generator=torch.Generator().manual_seed(seed)).requires_grad_()
        last = density.conditionals(Query.build(net, {}, trials=40), y)[:, -1].sum()
        influence += torch.autograd.grad(last, y)[0][:, :39].abs().mean(0).numpy()[::-1]
    recent, before, long_ago = influence[:3].mean(), influence[8:14].mean(), influence[25:].mean()
    assert recent > 2 * before > 2.5 * long_ago


def test_the_components_of_a_mixture_begin_apart():
    bias = initial(seed=0).weights["heads.y.out.bias"].detach().numpy()
    np.testing.assert_allclose(bias, [0] * 5 + [-1.5, -0.75, 0, 0.75, 1.5] + [0] * 5, atol=1e-6)
