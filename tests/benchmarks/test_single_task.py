"""Networks of one task: what each pixel or sample reads, and that probabilities sum to 1."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from rivals.single_task import MADE, DilatedConvolutions, MaskedConvolutions, fit  # noqa: E402


@pytest.mark.parametrize("name", ["made", "pixels"])
def test_networks_of_one_task_are_distributions_in_raster_order(name):
    """Probabilities of all pictures of 3 x 3 pixels and two levels sum to 1, and no pixel reads a later one."""
    torch.manual_seed(2)
    net = {"made": MADE(9, 2, width=37), "pixels": MaskedConvolutions(3, 2, width=7, depth=2)}[name]
    for weight in net.parameters():
        weight.data = 0.7 * torch.randn_like(weight)
    every = torch.tensor(list(itertools.product((0, 1), repeat=9)))
    with torch.no_grad():
        by_pixel = net.log_prob(every)
    assert by_pixel.sum(1).exp().sum().item() == pytest.approx(1, abs=1e-4)
    # Pictures that agree up to a pixel agree in its probability given the pixels before it.
    for place in (0, 3, 7):
        same = (every[:, : place + 1] == every[37, : place + 1]).all(1)
        assert torch.allclose(by_pixel[same, place], by_pixel[37, place].expand(int(same.sum())), atol=1e-5)
    # And it depends on those before it.
    assert by_pixel[:, 8].std() > 0.05


def test_dilated_convolutions_read_the_past_alone_and_integrate_to_one():
    torch.manual_seed(3)
    net = DilatedConvolutions(2, width=5, dilations=(1, 2, 4), components=3)
    for weight in net.parameters():
        weight.data = 0.4 * torch.randn_like(weight)
    x = torch.randn(3, 2, 11)
    changed = x.clone()
    changed[:, :, 6:] += 1
    with torch.no_grad():
        before, after = net.log_prob(x), net.log_prob(changed)
        assert torch.allclose(before[:, :6], after[:, :6], atol=1e-5) and not torch.allclose(
            before[:, 7:], after[:, 7:]
        )
        # The density of the last instant over a grid of both channels.
        grid = torch.linspace(-20, 20, 161)
        pairs = torch.cartesian_prod(grid, grid)
        sets = x[:1].repeat(len(pairs), 1, 1)
        sets[:, :, -1] = pairs
        mass = torch.cat([net.log_prob(part)[:, -1] for part in sets.split(20_000)]).exp().sum() * (40 / 160) ** 2
    assert mass.item() == pytest.approx(1, abs=0.02)


@pytest.mark.slow
def test_the_best_weights_of_a_network_of_one_task_are_kept():
    torch.manual_seed(4)
    x = (torch.rand(60, 4) < torch.tensor([0.9, 0.5, 0.2, 0.5])).long()
    net, epochs = fit(MADE(4, 2, width=16), x[:40], x[40:], batch=20, patience=3)
    with torch.no_grad():
        loss = -net.log_prob(x[40:]).mean().item()
    # Below that of fair coins, by what two of the four know.
    assert epochs >= 4 and loss < 0.62
