"""A buffer for a module: stopped and gone on with, in blocks, and as a distribution of Pyro."""

import os
import signal

import pytest

torch = pytest.importorskip("torch", reason="such modules are torch's")

import ppl_buffer as pb  # noqa: E402
from ppl_buffer.findings import FindingWarning  # noqa: E402
from tests.training.modules import ExactMean, draw_points  # noqa: E402
from tests.training.test_buffered_module import FEW, SETS, TARGETS, given  # noqa: E402


def stopped_in(step):
    """Draws points, and once sends Ctrl-C in a step."""
    calls = []

    def draw(rng, size, points):
        calls.append(points)
        # The first call is for the sizes alone.
        if len(calls) == step + 2:
            os.kill(os.getpid(), signal.SIGINT)
        return draw_points(rng, size, points)

    return draw


def test_a_training_that_was_stopped_ends_where_the_whole_one_does(tmp_path):
    few = FEW | {"steps": 7}
    whole = pb.add_buffer_to_module(ExactMean(), draw_points, **few)
    with pytest.raises(KeyboardInterrupt, match="the same call goes on"):
        pb.add_buffer_to_module(ExactMean(), stopped_in(2), **few, out=tmp_path / "run")
    parts = pb.add_buffer_to_module(ExactMean(), draw_points, **few, out=tmp_path / "run")
    for name, weight in whole.added.state_dict().items():
        assert torch.equal(weight, parts.added.state_dict()[name])
    assert whole.added.state_dict()["role"].any()

    def never(rng, size, points):
        assert points == few["targets"] or not seen, "what has ended needs no data"
        seen.append(points)
        return draw_points(rng, size, points)

    seen = []
    again = pb.add_buffer_to_module(ExactMean(), never, **few, out=tmp_path / "run")
    assert len(seen) == 1 and torch.equal(again.added.role, whole.added.role)
    with pytest.raises(ValueError, match="out: .* steps was 7, is 8. Choose another folder"):
        pb.add_buffer_to_module(ExactMean(), draw_points, **few | {"steps": 8}, out=tmp_path / "run")


def test_without_a_folder_what_was_learnt_is_returned():
    with pytest.warns(FindingWarning, match="stopped after 3 of 7 steps"):
        net = pb.add_buffer_to_module(ExactMean(), stopped_in(2), **FEW | {"steps": 7})
    assert net.added.role.any() and not net.training


@torch.no_grad()
def test_blocks_are_joined_to_the_context():
    net, (known, x, y) = pb.add_buffer_to_module(ExactMean(), draw_points, **FEW), given()
    torch.testing.assert_close(net.conditionals(known, x, y, TARGETS), net.conditionals(known, x, y))
    # One at a time is what the module says of each with all before it as its context.
    for block in (1, 2):
        each = net.conditionals(known, x, y, block)
        for k in range(TARGETS):
            first = k - k % block
            before = tuple(torch.cat([part, more[:, :first]], 1) for part, more in zip(known, (x, y), strict=True))
            expected = net.conditionals(before, x[:, first : k + 1], y[:, first : k + 1])[:, -1]
            torch.testing.assert_close(each[:, k], expected)
        torch.manual_seed(1)
        outcomes, log_probs = net.rollout(known, x, 3, block)
        assert outcomes.shape == (3, SETS, TARGETS)
        for drawn, said in zip(outcomes, log_probs, strict=True):
            torch.testing.assert_close(net.conditionals(known, x, drawn, block), said, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="block: expected an integer of at least 1"):
        net.log_prob(known, x, y, 0)


def test_a_distribution_of_pyro_is_the_modules_density():
    pyro = pytest.importorskip("pyro")
    from pyro.infer import Predictive

    net, (known, x, y) = pb.add_buffer_to_module(ExactMean(), draw_points, **FEW), given()
    made = net.distribution(known, x, block=2)
    assert made.batch_shape == (SETS,) and made.event_shape == (TARGETS,)
    torch.testing.assert_close(made.log_prob(y), net.log_prob(known, x, y, 2))
    torch.manual_seed(2)
    draws = made.sample((3, 7))
    assert draws.shape == (3, 7, SETS, TARGETS)
    torch.testing.assert_close(made.log_prob(draws)[2, 5], net.log_prob(known, x, draws[2, 5], 2))

    def model(value=None):
        shift = pyro.sample("shift", pyro.distributions.Normal(torch.tensor(0.0), 1.0))
        with pyro.plate("sets", SETS):
            pyro.sample("y", net.distribution((known[0], known[1] + shift), x), obs=value)

    trace = pyro.poutine.trace(pyro.poutine.condition(model, {"shift": torch.tensor(0.5, requires_grad=True)}))
    total = trace.get_trace(y).log_prob_sum()
    expected = net.log_prob((known[0], known[1] + 0.5), x, y).sum() + torch.distributions.Normal(0, 1).log_prob(
        torch.tensor(0.5)
    )
    torch.testing.assert_close(total, expected)
    total.backward()
    assert Predictive(model, num_samples=3)()["y"].shape == (3, SETS, TARGETS)
    with pytest.raises(ValueError, match="inputs: expected 2 data sets"):
        net.distribution(known, x[:1])
    with pytest.raises(ValueError, match="context: expected inputs and outcomes"):
        net.distribution(known[0], x)
    from ppl_buffer.pyro import JointPredictive

    with pytest.raises(ValueError, match=r"got BufferedModule; .*joint.distribution\(context, inputs\)"):
        JointPredictive(net, {}, trials=TARGETS)
