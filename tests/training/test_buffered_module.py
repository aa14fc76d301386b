"""A torch module that is not ours learns a buffer, and predicts the same without one as before."""

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="such modules are torch's")

from torch.nn import functional  # noqa: E402

import ppl_buffer as pb  # noqa: E402
from tests.networks import FUNCTION, network  # noqa: E402
from tests.training.modules import (  # noqa: E402
    BLOCKS,
    PAGE,
    ExactMean,
    documented_module,
    draw_points,
    exact_log_density,
)

WAYS = ("low_rank", "apart")
SETS, CONTEXT, TARGETS = 2, 4, 5
FEW = {"steps": 3, "context": (1, 7), "targets": TARGETS, "batch_size": 3, "rank": 2}


def points(count, sets=SETS, seed=0):
    return tuple(
        torch.tensor(part, dtype=torch.float32) for part in draw_points(np.random.default_rng(seed), sets, count)
    )


def given():
    """A context, inputs and outcomes."""
    x, y = points(CONTEXT + TARGETS)
    return (x[:, :CONTEXT], y[:, :CONTEXT]), x[:, CONTEXT:], y[:, CONTEXT:]


@pytest.fixture(scope="module")
def module():
    torch.manual_seed(1)
    return documented_module()(width=12, depth=2, heads=3)


@pytest.fixture(params=WAYS)
def buffered(request, module):
    """With a buffer whose weights are large enough that all that is read shows."""
    net = pb.BufferedModule(module, points(CONTEXT), request.param, rank=2)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in net.added.parameters():
            weight += 0.3 * torch.randn(weight.shape, generator=generator)
    return net


@torch.no_grad()
def test_one_pass_gives_the_densities_that_a_rollout_draws_from(buffered):
    (x, y), new, _ = given()
    draws = 3
    torch.manual_seed(3)
    outcomes, log_probs = buffered.rollout((x, y), new, draws)
    assert outcomes.shape == log_probs.shape == (draws, SETS, TARGETS)
    known = tuple(part.repeat(draws, 1) for part in (x, y))
    scored = buffered.conditionals(known, new.repeat(draws, 1), outcomes.flatten(0, 1))
    torch.testing.assert_close(scored.unflatten(0, (draws, SETS)), log_probs, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(buffered.log_prob(known, new.repeat(draws, 1), outcomes.flatten(0, 1)), scored.sum(1))
    torch.manual_seed(3)
    assert torch.equal(buffered.sample((x, y), new, draws), outcomes)


def test_a_target_reads_those_before_it_and_none_later(buffered):
    known, x, y = given()
    y.requires_grad_()
    rows = [torch.autograd.grad(part, y, retain_graph=True)[0][0] for part in buffered.conditionals(known, x, y)[0]]
    jacobian = torch.stack(rows)
    assert (jacobian[torch.ones((TARGETS, TARGETS), dtype=torch.bool).triu(1)] == 0).all()
    assert (jacobian[torch.ones((TARGETS, TARGETS), dtype=torch.bool).tril()] != 0).all()


@torch.no_grad()
def test_without_a_buffer_the_module_is_what_it_was(buffered, module):
    known, x, y = given()
    tokens = module.embed_targets(x)
    for layer, (keys, values) in enumerate(module.encode(*known)):
        read = functional.scaled_dot_product_attention(module.queries(layer, tokens), keys, values)
        tokens = module.finish(layer, tokens, read)
    marginals = buffered.marginals(known, x, y)
    assert torch.equal(marginals, module.predict(tokens).log_prob(y))
    # Its own pass has context and targets in one sequence: other products, other rounding.
    torch.testing.assert_close(marginals, module(*known, x).log_prob(y), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(buffered.conditionals(known, x, y)[:, 0], marginals[:, 0], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_before_anything_is_learnt(module):
    """A buffer of low rank is a causal context; one that is read apart is not there."""
    known, x, y = given()
    # Of one layer: what a token shows depends on nothing that it has read.
    shallow = documented_module()(width=12, depth=1, heads=3)
    net = pb.BufferedModule(shallow, known)
    grown = [
        net.marginals(tuple(torch.cat([a, b[:, :k]], 1) for a, b in zip(known, (x, y), strict=True)), x, y)[:, k]
        for k in range(TARGETS)
    ]
    torch.testing.assert_close(net.conditionals(known, x, y), torch.stack(grown, 1), atol=1e-5, rtol=1e-5)
    apart = pb.BufferedModule(module, known, "apart")
    torch.testing.assert_close(apart.conditionals(known, x, y), apart.marginals(known, x, y), atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("way", WAYS)
def test_points_may_be_of_several_numbers_and_any_precision(way):
    """Places in the plane, two outcomes a point, in double precision: as one pass, and as draws."""

    class Plane(documented_module()):
        def __init__(self):
            super().__init__(width=12, depth=2, heads=3)
            self.pair[0], self.target[0], self.head = (torch.nn.Linear(*sizes) for sizes in ((5, 12), (3, 12), (12, 2)))

        def embed_pairs(self, x, y):
            return self.pair(torch.cat([x, y], -1))

        def embed_targets(self, x):
            return self.target(x)

        def predict(self, tokens):
            return torch.distributions.Independent(torch.distributions.Normal(self.head(tokens), 1.0), 1)

    def draw(rng, size, count):
        return rng.normal(size=(size, count, 3)), rng.normal(size=(size, count, 2))

    net = pb.add_buffer_to_module(Plane().double(), draw, way, **FEW)
    x, y = (torch.tensor(part) for part in draw(np.random.default_rng(0), SETS, CONTEXT + TARGETS))
    known, new = (x[:, :CONTEXT], y[:, :CONTEXT]), x[:, CONTEXT:]
    outcomes, log_probs = net.rollout(known, new, 7)
    assert outcomes.shape == (7, SETS, TARGETS, 2) and outcomes.dtype == net.added.role.dtype == torch.float64
    for drawn, expected in zip(outcomes, log_probs, strict=True):
        torch.testing.assert_close(net.conditionals(known, new, drawn), expected)


@torch.no_grad()
@pytest.mark.parametrize("count", [0, 3])
def test_an_exact_module_gives_the_exact_joint_density(count):
    """Normal data with an unknown mean, a context of any size: one layer counts and sums its buffer too."""
    net = pb.BufferedModule(ExactMean(), points(2))
    (x, y), sets = points(count + TARGETS, sets=7), 7
    known, targets = (x[:, :count], y[:, :count]), (x[:, count:], y[:, count:])
    alone, together = exact_log_density(known[1].numpy(), targets[1].numpy())
    np.testing.assert_allclose(net.marginals(known, *targets).sum(1), alone, rtol=1e-5)
    np.testing.assert_allclose(net.log_prob(known, *targets), together, rtol=1e-5)
    torch.manual_seed(0)
    draws = net.sample(known, targets[0], 4001)
    expected = torch.eye(TARGETS) + 1 / (0.25 + count)
    for drawn in draws.unbind(1)[:2]:
        assert (drawn.T.cov() - expected).abs().max() < 0.12 * expected.max()
    assert draws.shape == (4001, sets, TARGETS)


@pytest.mark.parametrize("way", WAYS)
def test_training_moves_the_buffer_alone(module, way):
    known, x, y = given()
    before = copy.deepcopy(module.state_dict())
    marginals = pb.BufferedModule(module, known, way).marginals(known, x, y)
    net, again = (pb.add_buffer_to_module(module, draw_points, way, **FEW) for _ in range(2))
    assert all(torch.equal(weight, before[name]) for name, weight in module.state_dict().items())
    assert torch.equal(net.marginals(known, x, y), marginals)
    fresh = pb.BufferedModule(module, known, way, rank=2)
    learnt, first = net.added.state_dict(), fresh.added.state_dict()
    assert learnt["role"].any() if way == "low_rank" else learnt["layers.0.merge.weight"].any()
    assert all(torch.equal(weight, again.added.state_dict()[name]) for name, weight in learnt.items())
    assert {name for name, _ in net.named_parameters() if _.requires_grad} == {f"added.{name}" for name in learnt}
    assert any(not torch.equal(weight, first[name]) for name, weight in learnt.items())
    fresh.added.load_state_dict(learnt)
    assert torch.equal(fresh.log_prob(known, x, y), net.log_prob(known, x, y))
    assert not net.train().module.training and not module.training


@pytest.mark.parametrize(
    "name", ["encode", "embed_pairs", "embed_targets", "queries", "keys_values", "finish", "predict"]
)
def test_a_method_that_is_missing_is_refused_by_name(name):
    lacking = type("Lacking", (ExactMean,), {name: None})()
    with pytest.raises(
        ValueError, match=rf"Lacking, which has no method `{name}`; write {name}\(.*\), in the module .*: "
    ):
        pb.add_buffer_to_module(lacking, draw_points)


WRONG = {
    "encode": (lambda self, x, y: [], "a list of keys and values, two tensors for each layer"),
    "embed_pairs": (lambda self, x, y: x, r"shape \(2, 4, any\), got \(2, 4\)"),
    "embed_targets": (lambda self, x: x[..., None], r"shape \(2, 4, 2\), got \(2, 4, 1\)"),
    "queries": (lambda self, layer, tokens: tokens, r"shape \(2, 1, 4, 2\), got \(2, 4, 2\)"),
    "keys_values": (lambda self, layer, tokens: tokens, "keys and values, two tensors, got Tensor"),
    "finish": (lambda self, layer, tokens, read: read, r"shape \(2, 4, 2\), got \(2, 1, 4, 2\)"),
    "predict": (
        lambda self, tokens: torch.distributions.Normal(tokens, 1.0).expand((2, 4, 2)),
        r"module.predict: expected a distribution of outcomes of shape \(2, 4\); log_prob says: ",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_method_that_returns_another_shape_is_refused_by_name(name):
    method, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        pb.BufferedModule(type("Wrong", (ExactMean,), {name: method})(), points(CONTEXT))


def test_what_does_not_fit_is_refused(module):
    known, x, y = given()
    with pytest.raises(ValueError, match="module: expected a torch module, got str"):
        pb.add_buffer_to_module("module", draw_points)
    with pytest.raises(ValueError, match="`add_buffer` adds a buffer to a network"):
        pb.add_buffer_to_module(network(FUNCTION, "torch"), draw_points)
    with pytest.raises(ValueError, match="net: .* got TNP, a torch module of yours: `add_buffer_to_module`"):
        pb.add_buffer(module, None)
    for wrong, message in (
        ({"way": "all"}, "way: expected one of"),
        ({"rank": 0}, "rank: expected an integer of at least 1"),
        ({"context": 3}, "context: expected the least and the largest"),
        ({"context": (5, 2)}, "context: expected a least number"),
        ({"learning_rate": 0.0}, "learning_rate: expected a number above 0"),
        ({"seed": -1}, "seed: expected an integer from 0"),
        ({"draw": lambda rng, size, points: np.zeros(3)}, "draw: expected to return inputs and outcomes"),
        ({"draw": lambda rng, size, points: np.zeros((2, size, 1))}, "draw: expected 3 data sets of"),
        ({"draw": lambda rng, size, points: np.full((2, size, points), 3e19)}, "a finite gradient, got a loss of"),
        (
            {"draw": lambda rng, size, points: np.full((2, size, points), np.nan)},
            "draw: expected outcomes that are finite",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            pb.add_buffer_to_module(module, **{"draw": draw_points, **FEW, **wrong})
    with pytest.raises(ValueError, match="does `finish` leave out the tokens"):
        pb.add_buffer_to_module(ExactMean(), draw_points, "apart", **FEW)
    net = pb.BufferedModule(module, known)
    with pytest.raises(ValueError, match="context: expected at least one point, since module.encode shows no keys"):
        net.log_prob((x[:, :0], y[:, :0]), x, y)
    with pytest.raises(ValueError, match="context: expected inputs and outcomes of the same points"):
        net.log_prob((x, y[:, 1:]), x, y)
    with pytest.raises(ValueError, match=r"targets: expected inputs as a tensor of shape \(2, points, ...\)"):
        net.marginals(known, x[:1], y[:1])
    with pytest.raises(ValueError, match=r"inputs: expected a tensor of shape \(2, K, ...\)"):
        net.sample(known, x[:, :0])
    with pytest.raises(ValueError, match="draws: expected an integer of at least 1"):
        net.sample(known, x, 0)


def test_the_page_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = "\n".join(BLOCKS)
    smaller = {
        "range(3000)": "range(2)", "steps=1500": "steps=2", "width=64, depth=3": "width=12, depth=2",
        "default_rng(1), 200,": "default_rng(1), 7,", "draws=100": "draws=3",
    }  # fmt: skip
    for full, small in smaller.items():
        assert code.count(full) == 1, full
        code = code.replace(full, small)
    names = {}
    exec(compile(code, str(PAGE), "exec"), names)
    assert "each alone" in capsys.readouterr().out and names["draws"].shape == (3, 7, 16)
    torch.testing.assert_close(
        names["again"].log_prob(names["context"], names["new_x"], names["new_y"]), names["together"]
    )


@pytest.mark.slow
def test_most_of_the_gain_of_joint_prediction_is_learnt():
    torch.manual_seed(0)
    module = documented_module()(width=24, depth=2, heads=2)
    optimizer, rng = torch.optim.Adam(module.parameters(), 2e-3), np.random.default_rng(0)
    for _ in range(1500):
        count = rng.integers(1, 8)
        x, y = points(count + 7, sets=32, seed=rng)
        loss = -module(x[:, :count], y[:, :count], x[:, count:]).log_prob(y[:, count:]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    x, y = points(3 + 7, sets=2000, seed=1)
    alone, together = exact_log_density(y[:, :3].numpy(), y[:, 3:].numpy())
    for way in WAYS:
        net = pb.add_buffer_to_module(module, draw_points, way, steps=1000, context=(1, 7), targets=7)
        with torch.no_grad():
            joint = net.log_prob((x[:, :3], y[:, :3]), x[:, 3:], y[:, 3:]).numpy()
        share = (joint - alone).mean() / (together - alone).mean()
        print(f"\n{way}: {share:.3f} of the gain")
        # What is asked of a buffer that is read apart, on functions.
        assert share > 0.75
