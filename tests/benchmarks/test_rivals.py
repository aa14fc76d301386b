"""The rivals of benchmarks/rivals: densities, samplers, and who reads whom."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

torch = pytest.importorskip("torch")

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import rivals  # noqa: E402
from rivals.batch import Batch  # noqa: E402
from rivals.layers import Sizes, place_features  # noqa: E402
from rivals.tnp_d import Reencoding  # noqa: E402

from ppl_buffer.network.embeddings import features  # noqa: E402

SIZES = Sizes(width=12, depth=2, heads=3, mlp=17, components=5, waves=1)
LABELS = [label for name in rivals.NETWORKS for label in rivals.uses(name, torch.nn.Module())]
# Targets of these see nothing of each other.
INDEPENDENT = ("ours, apart", "TNP-D, independent", "LBANP, independent")
# Targets of these read each other's places: the head is a joint one.
JOINT_HEAD = ("TNP-ND", "TNP-ND, low rank and diagonal")
# The context is a sequence.
SEQUENCES = ("incTNP-Seq", "decoder-only")


@pytest.fixture(scope="module")
def nets():
    """All networks, with weights large enough that everything that is read shows."""
    generator = torch.Generator().manual_seed(1)
    result = {}
    for name in rivals.NETWORKS:
        result[name] = rivals.make(name, SIZES, seed=3).requires_grad_(False)
        for weight in result[name].parameters():
            weight += 0.7 * torch.randn(weight.shape, generator=generator) / weight.shape[-1] ** 0.5
    return result


@pytest.fixture(params=LABELS)
def use(request, nets):
    """A way to use a network, and what it is called."""
    uses = {label: use for name, net in nets.items() for label, use in rivals.uses(name, net).items()}
    return request.param, uses[request.param]


def points(*shape, seed=0):
    return torch.tensor(np.random.default_rng([seed, *shape]).normal(size=(2, *shape)), dtype=torch.float32).unbind()


def uniform(*shape):
    return torch.tensor(np.random.default_rng(5).uniform(0.01, 0.99, shape), dtype=torch.float32)


def repeat(pairs, count):
    return tuple(x.expand(count, -1).contiguous() for x in pairs)


@pytest.mark.parametrize("context", [0, 7])
def test_samplers_draw_from_the_density(use, context):
    """The one-pass density of what was drawn is what the sampler says it drew from; an empty context is legal."""
    draws, targets = 3, 19  # more than a block
    known, (x, _) = points(context), points(targets)
    y, log_probs = use[1].sample(known, x, uniform(draws, targets, 2))
    assert y.shape == log_probs.shape == (draws, targets)
    scored = use[1].log_prob(repeat(known, draws), x.expand(draws, -1), y)
    torch.testing.assert_close(scored, log_probs, atol=2e-4, rtol=1e-4)


def test_densities_integrate_to_one(use):
    """That of the last of three targets, given the two before it."""
    grid = torch.linspace(-25, 25, 1_001)
    known, (x, y) = repeat(points(5), len(grid)), points(3)
    values = torch.cat([y[:2].expand(len(grid), -1), grid[:, None]], 1)
    density = use[1].log_prob(known, x.expand(len(grid), -1), values)[:, -1].double().exp()
    assert torch.trapezoid(density, grid.double()) == pytest.approx(1, abs=2e-3)


def test_draws_follow_the_density(use):
    """The distribution function of the first target, by summing its density, is uniform at the draws."""
    known, (x, _) = points(4), points(2)
    draws = use[1].sample(known, x, torch.rand((601, 2, 2), generator=torch.Generator().manual_seed(2)))[0][:, 0]
    grid = torch.linspace(-25, 25, 1_001)
    density = use[1].log_prob(repeat(known, len(grid)), x[:1].expand(len(grid), 1), grid[:, None])[:, 0].double().exp()
    below = torch.cumulative_trapezoid(density, grid.double()).numpy()
    assert stats.kstest(np.interp(draws.numpy(), grid[1:].numpy(), below), "uniform").pvalue > 1e-3


def gradients(use, known, x, y):
    """(M, 2, M): derivative of the log density of each target by the places and the values of all."""
    x, y = x.clone().requires_grad_(), y.clone().requires_grad_()
    log_probs = use.log_prob(repeat(known, 1), x[None], y[None])[0]
    rows = [torch.autograd.grad(log_prob, (x, y), retain_graph=True, allow_unused=True) for log_prob in log_probs]
    return torch.stack([torch.stack([torch.zeros_like(x) if g is None else g for g in row]) for row in rows])


# The laws hold our network to it.
@pytest.mark.parametrize("use", [label for label in LABELS if not label.startswith("ours")], indirect=True)
def test_who_reads_whom_is_exact(use):
    """No target reads a later one; independent ones read none; joint ones all that come before."""
    label, way = use
    count = 5
    jacobian = gradients(way, points(3), *points(count))
    later = torch.ones((count, count), dtype=torch.bool).triu(1)
    earlier = later.mT
    assert (jacobian[:, 1][later] == 0).all()
    if label not in JOINT_HEAD:
        assert (jacobian[:, 0][later] == 0).all()
    if label in INDEPENDENT:
        assert (jacobian[:, 0][earlier] == 0).all() and (jacobian[:, 1][earlier] == 0).all()
    else:
        assert (jacobian[:, 1][earlier] != 0).all()


def test_a_context_is_a_set_or_a_sequence(use):
    label, way = use
    known, (x, y) = repeat(points(6), 1), (part[None] for part in points(3))
    mixed = tuple(part[:, [4, 0, 5, 2, 1, 3]] for part in known)
    change = (way.log_prob(known, x, y) - way.log_prob(mixed, x, y)).abs().max()
    assert change > 1e-3 if label in SEQUENCES else change < 1e-4


def test_kept_keys_give_the_numbers_of_full_passes(nets):
    known, (x, _), noise = points(6), points(5), uniform(4, 5, 2)
    uses = rivals.uses("tnp_a", nets["tnp_a"])
    pairs = [
        (uses["TNP-A, cached"], uses["TNP-A, published sampler"]),
        # A running mean against the mean anew; a causal network against itself with everything computed anew.
        (nets["cnp"], Reencoding(nets["cnp"])),
        (nets["inctnp"], Reencoding(Encoding(nets["inctnp"].backbone))),
        (nets["decoder"], Reencoding(Encoding(nets["decoder"].backbone))),
    ]
    for kept, anew in pairs:
        torch.testing.assert_close(kept.sample(known, x, noise), anew.sample(known, x, noise), atol=1e-4, rtol=1e-4)


class Encoding:
    """A backbone as a set predictor."""

    def __init__(self, backbone):
        self.backbone, self.head = backbone, backbone.head

    def represent(self, context, x):
        return self.backbone.represent(self.backbone.encode(context), x)


def test_a_triangle_belongs_to_an_order_and_a_diagonal_to_none(nets):
    known, (x, y) = repeat(points(6), 1), (part[None] for part in points(5))
    order = [3, 1, 4, 0, 2]

    def moments(net, order):
        mean, factor = net.distribution(known, x[:, order])
        back = np.argsort(order)
        return mean[0, back], (factor[0] @ factor[0].mT)[back][:, back]

    for name, least, most in (("tnp_nd", 0.05, np.inf), ("tnp_nd_diagonal", 0, 1e-4)):
        net = nets[name]
        straight, mixed = moments(net, list(range(5))), moments(net, order)
        torch.testing.assert_close(straight[0], mixed[0], atol=1e-5, rtol=1e-5)
        assert least <= (straight[1] - mixed[1]).abs().max() <= most
        change = net.log_prob(known, x, y).sum() - net.log_prob(known, x[:, order], y[:, order]).sum()
        assert least <= change.abs() <= max(most, 1e-3)
        normal = stats.multivariate_normal(straight[0].double().numpy(), straight[1].double().numpy())
        assert float(net.log_prob(known, x, y).sum()) == pytest.approx(normal.logpdf(y[0].numpy()), abs=2e-3)


def test_a_prefix_of_a_sequence_is_a_shorter_one(nets):
    """Of incTNP: the density of a sequence is the sum over its parts, wherever the context ends."""
    x, y = (part.expand(2, -1) for part in points(9))
    for name in ("inctnp", "decoder"):
        net = nets[name]
        whole = net.log_prob((x[:, :0], y[:, :0]), x, y)
        for cut in (1, 4, 8):
            rest = net.log_prob((x[:, :cut], y[:, :cut]), x[:, cut:], y[:, cut:])
            torch.testing.assert_close(rest, whole[:, cut:], atol=1e-5, rtol=1e-5)
        cache, longer = (net.backbone.encode((x[:, :n], y[:, :n])) for n in (4, 9))
        torch.testing.assert_close(cache.context[1].keys, longer.context[1].keys[:, :, :4])


LBANPS = {"lbanp": 16, "lbanp_buffer": 16, "lbanp_8": 8, "lbanp_buffer_8": 8, "lbanp_32": 32, "lbanp_buffer_32": 32}


@pytest.mark.parametrize("name", LBANPS)
def test_a_target_reads_as_many_latents_after_any_context(nets, name):
    from torch.utils.flop_counter import FlopCounterMode

    assert set(LBANPS) == {"lbanp", "lbanp_buffer", *rivals.LBANP_SIZES}
    backbone, costs, reading = rivals.make(name, SIZES).requires_grad_(False).backbone, [], []
    for context in (3, 50, 103):
        known, (x, _) = repeat(points(context), 1), (part[None] for part in points(2))
        with FlopCounterMode(display=False) as counter:
            cache = backbone.encode(known)
        reading.append(counter.get_total_flops())
        with FlopCounterMode(display=False) as counter:
            backbone.represent(cache, x)
        costs.append(counter.get_total_flops())
        assert {each.keys.shape[2] for each in cache.context} == {LBANPS[name]}
    assert costs[0] == costs[1] == costs[2] > 0
    # Linear in the context: no pair reads another.
    assert (reading[2] - reading[1]) / 53 == (reading[1] - reading[0]) / 47


def test_all_read_the_same_numbers_of_a_place():
    """Ours through the frequencies of its schema, the others by themselves: to the last bit."""
    place = torch.linspace(-2, 2, 101)
    for waves in (0, 5):
        net = rivals.make("ours", replace(SIZES, waves=waves)).backbone
        read = torch.cat(features(net, net.schema.inputs, {"x": place}), -1)
        assert torch.equal(read, place_features(place, waves))


def test_lbanp_with_a_buffer_of_one_re_encodes(nets):
    """Its targets are marginals, each after a context that all before it have joined."""
    known, (x, y) = repeat(points(6), 2), points(2, 4)
    use = rivals.uses("lbanp_buffer", nets["lbanp_buffer"])["LBANP with a buffer, block 1"]
    anew = Reencoding(Encoding(nets["lbanp_buffer"].backbone))
    torch.testing.assert_close(use.log_prob(known, x, y), anew.log_prob(known, x, y), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", rivals.NETWORKS)
def test_losses_are_mean_densities(nets, name):
    """Where the targets are those of the buffer, each before its own prefix, the loss is that of the joint density."""
    net, labels = nets[name], list(rivals.uses(name, nets[name]))
    context, buffer, targets = (points(3, n, seed=n) for n in (4, 5, 6))
    buffered = name in ("ours", "lbanp_buffer")
    visible = torch.arange(5 if buffered else 6).expand(3, -1)
    batch = Batch(context, buffer, buffer if buffered else targets, visible)
    use = rivals.uses(name, net)[labels[0]]
    if buffered:
        expected = use.log_prob(context, *buffer)
    elif name in ("inctnp", "decoder"):
        expected = use.log_prob(tuple(part[:, :0] for part in context), *batch.whole)
    elif name == "cnp":
        rest = batch.rest
        each = [use.log_prob(context, rest[0][:, k : k + 1], rest[1][:, k : k + 1]) for k in range(11)]
        expected = torch.cat(each, 1)
    else:
        expected = use.log_prob(context, *batch.rest)
    torch.testing.assert_close(net.loss(batch), -expected.mean(), atol=1e-4, rtol=1e-4)
