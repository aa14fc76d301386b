"""Gaussian-process functions against their covariance, the references against brute force, `gp` against both."""

import math

import numpy as np
import pytest
from scipy import stats

import ppl_buffer as pb
from ppl_buffer.predictive import density
from ppl_buffer.predictive.query import Query
from ppl_buffer.simulators import GaussianProcess, gaussian_process
from ppl_buffer.training.abilities import check_simulator
from ppl_buffer.training.batch_options import BatchOptions
from ppl_buffer.training.batches import TRAINING, draw, make_batch
from tests.references import gaussian_process as reference

KERNELS = ("squared_exponential", "matern32", "matern52")
POINTS = np.array([-1.9, -0.3, -0.25, 0.4, 1.7])


def covariance(kernel, x, lengthscale, variance, noise):
    """(T, T), the Matern kernels by their definition with a Bessel function."""
    r = np.abs(x[:, None] - x) / lengthscale
    unit = np.exp(-(r**2) / 2) if kernel in (None, "squared_exponential") else None
    if unit is None:
        unit = reference.matern_by_bessel(reference.SMOOTHNESS[kernel], r)
    return variance * unit + noise**2 * np.eye(len(x))


def simulated(simulator, datasets, trials, seed=0, **fixed):
    """Parameters, x and y of data sets from the prior, or with parameters at fixed values."""
    rng = np.random.default_rng(seed)
    params = simulator.prior(rng, datasets) | {name: np.full(datasets, value) for name, value in fixed.items()}
    x = simulator.inputs(rng, datasets, trials)["x"]
    return params, x, simulator.simulate(rng, params, {"x": x})["y"]


def second_moments(simulator, datasets, seed, **fixed):
    """Mean of y_i y_j over data sets at POINTS, and of y."""
    rng = np.random.default_rng(seed)
    params = {name: np.full(datasets, value) for name, value in fixed.items()}
    y = simulator.simulate(rng, params, {"x": np.broadcast_to(POINTS, (datasets, len(POINTS)))})["y"]
    return y.T @ y / datasets, y.mean(0)


# The simulator ----------------------------------------------------------------------------------------------------


def test_predicted_outcomes_are_those_of_the_mixture_of_conditional_normals():
    """Of each target its own number of points is seen; the kernels' weights are their densities of these."""
    simulator, count = GaussianProcess(), 4001
    params = {"lengthscale": np.array([0.3, 0.9]), "variance": np.array([0.7, 1.2]), "noise": np.array([0.1, 0.3])}
    rng = np.random.default_rng(4)
    x, y = np.stack([POINTS, POINTS[::-1]]), rng.normal(size=(2, 5))
    targets, visible = np.array([[0.1, -1.0, 1.6], [0.3, -0.2, 0.0]]), np.array([[5, 0, 3], [2, 5, 1]])
    given = {"x": x, "y": y}
    drawn = simulator.predict_outcomes(rng, params, {"x": targets}, given, visible, count)["y"]
    assert drawn.shape == (2, 3, count)
    for row, target in np.ndindex(2, 3):
        seen = visible[row, target]
        points = np.append(x[row, :seen], targets[row, target])
        weights, parts = [], []
        for kernel, probability in simulator.kernels.items():
            full = covariance(kernel, points, *(params[name][row] for name in ("lengthscale", "variance", "noise")))
            among, across = full[:seen, :seen], full[:seen, seen]
            density = stats.multivariate_normal(cov=among).pdf(y[row, :seen]) if seen else 1.0
            weights.append(probability * density)
            solved = np.linalg.solve(among, across)
            parts.append(stats.norm(solved @ y[row, :seen], np.sqrt(full[seen, seen] - solved @ across)))
        weights = np.array(weights) / sum(weights)
        for level in (0.03, 0.4, 0.8):
            at = np.quantile(drawn[row, target], level)
            # Evenly spread levels leave a fraction of the error of independent draws.
            assert sum(w * part.cdf(at) for w, part in zip(weights, parts, strict=True)) == pytest.approx(
                level, abs=0.02
            )


@pytest.mark.parametrize("kernel", KERNELS)
def test_draws_have_the_kernels_covariance(kernel):
    datasets = 40_009
    expected = covariance(kernel, POINTS, 0.6, 1.3, 0.2)
    simulator = GaussianProcess(kernels={kernel: 1.0})
    moments, mean = second_moments(simulator, datasets, 1, lengthscale=0.6, variance=1.3, noise=0.2)
    diagonal = np.diagonal(expected)
    error = np.sqrt((diagonal[:, None] * diagonal + expected**2) / datasets)
    assert (np.abs(moments - expected) < 4.5 * error).all()
    assert (np.abs(mean) < 4.5 * np.sqrt(diagonal / datasets)).all()
    # The same bound tells the kernels apart.
    others = [covariance(other, POINTS, 0.6, 1.3, 0.2) for other in KERNELS if other != kernel]
    assert all((np.abs(moments - other) > 6 * error).any() for other in others)


def test_kernels_are_drawn_with_their_probabilities():
    datasets = 40_009
    moments, _ = second_moments(GaussianProcess(noise=0.1), datasets, 2, lengthscale=0.9, variance=0.7)
    each = np.stack([covariance(kernel, POINTS, 0.9, 0.7, 0.1) for kernel in KERNELS])
    share = np.array([0.4, 0.3, 0.3])[:, None, None]
    expected, diagonal = (share * each).sum(0), np.diagonal(each[0])
    # Variance of y_i y_j under a mixture of normal distributions.
    spread = diagonal[:, None] * diagonal + 2 * (share * each**2).sum(0) - expected**2
    assert (np.abs(moments - expected) < 4.5 * np.sqrt(spread / datasets)).all()


def test_a_data_set_has_one_kernel():
    """The posterior probability of a kernel averages to its prior probability; it would not if points mixed them."""
    simulator = GaussianProcess(noise=0.1, kernels={"matern52": 0.25, "squared_exponential": 0.75})
    params, x, y = simulated(simulator, 307, 30, seed=17, lengthscale=1.0)
    each = {
        kernel: reference.prefix_log_density(params | {"noise": np.full(307, 0.1)}, x, y, {kernel: 1.0})[:, -1]
        for kernel in simulator.kernels
    }
    posterior = 1 / (1 + np.exp(each["matern52"] - each["squared_exponential"]) * 0.25 / 0.75)
    assert abs(posterior.mean() - 0.75) < 4.5 * math.sqrt(0.75 * 0.25 / 307)
    assert posterior.std() > 0.1


@pytest.mark.parametrize("kernel", KERNELS)
def test_each_data_set_follows_its_own_parameters(kernel):
    params, x, y = simulated(GaussianProcess(kernels={kernel: 1.0}), 997, 7, seed=3)

    def whitened(params):
        """Independent standard normal numbers (997, 7) if the parameters are right, and the log density (997,)."""
        factors = np.linalg.cholesky([covariance(kernel, *row) for row in zip(x, *params.values(), strict=True)])
        white = np.linalg.solve(factors, y[..., None])[..., 0]
        return white, (-0.5 * white**2 - np.log(np.diagonal(factors, axis1=1, axis2=2))).sum(1)

    white, log_density = whitened(params)
    assert stats.kstest(white.ravel(), "norm").pvalue > 1e-3
    # Those of another data set do not fit.
    for name in params:
        lost = log_density - whitened(params | {name: np.roll(params[name], 1)})[1]
        assert lost.mean() > 4.5 * lost.std() / math.sqrt(997)


def test_the_order_of_the_points_does_not_matter():
    """Exchangeable: the law of (x, y) pairs is the same in any order; nothing depends on an index."""
    simulator = GaussianProcess(noise=0.2, kernels={"matern32": 1.0})
    datasets = 40_009
    order = np.array([3, 0, 4, 1, 2])
    params = {"lengthscale": np.full(datasets, 0.6), "variance": np.full(datasets, 1.3)}
    x = np.broadcast_to(POINTS[order], (datasets, 5))
    y = simulator.simulate(np.random.default_rng(4), params, {"x": x})["y"][:, np.argsort(order)]
    expected = covariance("matern32", POINTS, 0.6, 1.3, 0.2)
    diagonal = np.diagonal(expected)
    error = np.sqrt((diagonal[:, None] * diagonal + expected**2) / datasets)
    assert (np.abs(y.T @ y / datasets - expected) < 4.5 * error).all()
    assert not simulator.schema.ordered and not simulator.schema.independent


def test_equal_inputs_differ_by_noise_alone():
    simulator = GaussianProcess(noise=0.03, kernels={"squared_exponential": 1.0})
    params = {"lengthscale": np.full(5003, 0.7), "variance": np.full(5003, 1.1)}
    y = simulator.simulate(np.random.default_rng(5), params, {"x": np.full((5003, 2), 0.3)})["y"]
    assert abs(np.var(y[:, 0] - y[:, 1]) / (2 * 0.03**2) - 1) < 4.5 * math.sqrt(2 / 5003)
    assert abs(np.var(y[:, 0]) / (1.1 + 0.03**2) - 1) < 4.5 * math.sqrt(2 / 5003)


def test_many_points_with_the_least_noise():
    simulator = GaussianProcess(noise=1e-4, kernels={"squared_exponential": 1.0})
    params, x, y = simulated(simulator, 2, 1152, seed=6, lengthscale=1.0)
    assert np.isfinite(y).all()
    # A smooth function: neighbours are as close as its slope allows.
    order = np.argsort(x, 1)
    gap, step = np.diff(np.take_along_axis(x, order, 1)), np.diff(np.take_along_axis(y, order, 1))
    assert (np.abs(step) < 6 * gap * np.sqrt(params["variance"])[:, None] + 6 * math.sqrt(2) * 1e-4).all()


def test_prior_and_inputs_fill_their_box():
    simulator = GaussianProcess(noise=(0.05, 0.5))
    rng = np.random.default_rng(7)
    params = simulator.prior(rng, 10_007)
    box = {"lengthscale": (0.1, 1.0), "variance": (0.5, 1.5), "noise": (0.05, 0.5)}
    assert list(params) == list(simulator.schema.params) == list(box)
    for name, (low, high) in box.items():
        assert stats.kstest(params[name], "uniform", (low, high - low)).pvalue > 1e-3
        assert simulator.priors[name].range() == (low, high)
    x = simulator.inputs(rng, 101, 103)["x"]
    assert x.shape == (101, 103) and stats.kstest(x.ravel(), "uniform", (-2, 4)).pvalue > 1e-3
    assert list(GaussianProcess(noise=0.1).schema.params) == ["lengthscale", "variance"]


def test_a_sobol_design_has_no_gaps_and_no_order():
    simulator = GaussianProcess(design="sobol")
    rng = np.random.default_rng(14)
    x = simulator.inputs(rng, 503, 64)["x"]
    # 64 places of equal distance, around the interval.
    np.testing.assert_allclose(np.diff(np.sort(x, 1)), 4 / 64, atol=1e-12)
    assert stats.kstest(x[:, 0], "uniform", (-2, 4)).pvalue > 1e-3
    assert abs(np.corrcoef(x[:, 0], x[:, 1])[0, 1]) < 4.5 / math.sqrt(503)
    x = np.sort(simulator.inputs(rng, 7, 23)["x"], 1)
    around = np.concatenate([x, x[:, :1] + 4], 1)
    assert x.min() >= -2 and x.max() < 2 and np.diff(around).max() < 2 * 4 / 23 and np.diff(around).min() > 4 / 33
    assert simulator.inputs(rng, 3, 1)["x"].shape == (3, 1)


def test_values_are_legal_and_batches_are_made():
    simulator = GaussianProcess()
    check_simulator(simulator)
    drawn, counts = draw(simulator, 0, 0, TRAINING, 211, 13)
    assert counts.dropped == 0 and drawn is not None
    batch = make_batch(simulator, BatchOptions(batch_size=7, trials=(5, 5), context=(3, 11)), 0, 0).data
    assert batch["context"]["inputs"]["x"].shape[-1] >= 3 and batch["buffer"]["outcomes"]["y"].shape[-1] == 5
    # Given all parameters, points of a function still depend on each other: the buffer is used.
    assert (batch["visible"] > 0).any()


def test_seeds():
    simulator = GaussianProcess()
    state = np.random.get_state()[1].copy()
    first, second, other = (simulated(simulator, 11, 5, seed=seed)[2] for seed in (8, 8, 9))
    np.testing.assert_array_equal(first, second)
    assert (first != other).all()
    np.testing.assert_array_equal(np.random.get_state()[1], state)


def test_data_sets_are_factorised_in_parts(monkeypatch):
    whole = simulated(GaussianProcess(), 23, 7, seed=10)[2]
    monkeypatch.setattr(gaussian_process, "_AT_ONCE", 3 * 7**2)
    np.testing.assert_allclose(simulated(GaussianProcess(), 23, 7, seed=10)[2], whole, rtol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"noise": 0.0}, r"noise: expected standard deviations of at least 0.0001, got 0.0"),
        ({"noise": (0.0, 0.5)}, r"noise: expected standard deviations of at least 0.0001"),
        ({"noise": math.nan}, r"noise: expected standard deviations of at least"),
        ({"noise": "much"}, r"noise: expected standard deviations of at least"),
        ({"noise": (0.5, 0.1)}, r"noise: expected a number or a range \(low, high\) with low < high, got \(0.5, 0.1\)"),
        ({"noise": (0.1, 0.2, 0.3)}, r"noise: expected a number or a range"),
        ({"design": "grid"}, r"design: expected .*'uniform'.*'sobol'.*, got 'grid'"),
        ({"kernels": {"cosine": 1.0}}, r"kernels: expected names among .*'matern32'.*, got \['cosine'\]"),
        ({"kernels": {}}, r"kernels: expected names among"),
        ({"kernels": {"matern32": 0.7}}, r"kernels: expected probabilities that sum to 1"),
        ({"kernels": {"matern32": 1.5, "matern52": -0.5}}, r"kernels: expected probabilities that sum to 1"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        GaussianProcess(**arguments)


# The references ---------------------------------------------------------------------------------------------------


def test_exact_density_is_a_mixture_of_normal_densities():
    probabilities = {"squared_exponential": 0.4, "matern32": 0.25, "matern52": 0.35}
    params, x, y = simulated(GaussianProcess(kernels=probabilities), 5, 7, seed=11)
    prefixes = reference.prefix_log_density(params, x, y, probabilities)
    for row in range(5):
        for length in (1, 4, 7):
            each = [
                stats.multivariate_normal.pdf(
                    y[row, :length], cov=covariance(kernel, x[row, :length], *(params[name][row] for name in params))
                )
                for kernel in probabilities
            ]
            expected = np.log(np.dot(list(probabilities.values()), each))
            np.testing.assert_allclose(prefixes[row, length - 1], expected, rtol=1e-9)


def test_evidence_is_the_integral_over_the_prior():
    simulator = GaussianProcess()
    box = {name: prior.range() for name, prior in simulator.priors.items()}
    rng = np.random.default_rng(12)
    x = np.array([-0.4, -0.1, 0.3, 1.5])
    params = simulator.prior(rng, 2)
    y = simulator.simulate(rng, params, {"x": np.broadcast_to(x, (2, 4))})["y"]
    evidence = reference.log_evidence(x, y, simulator.kernels, box)
    # Gauss-Legendre in each of the three, every node through the density given the hyperparameters.
    nodes, weights = np.polynomial.legendre.leggauss(9)
    axes = [low + (high - low) * (nodes + 1) / 2 for low, high in box.values()]
    grid = [axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")]
    weight = np.einsum("i,j,k->ijk", *[weights / 2] * 3).ravel()
    for row in range(2):
        conditioned = dict(zip(box, grid, strict=True))
        size = len(weight)
        density = reference.prefix_log_density(
            conditioned, np.broadcast_to(x, (size, 4)), np.broadcast_to(y[row], (size, 4)), simulator.kernels
        )[:, -1]
        assert abs(evidence[row] - np.log(weight @ np.exp(density))) < 1e-3


def test_quadrature_is_fine_enough_for_many_points():
    simulator = GaussianProcess()
    box = {name: prior.range() for name, prior in simulator.priors.items()}
    rng = np.random.default_rng(13)
    # Corners where the posterior is narrowest.
    lengthscale, variance = np.array([0.11, 0.2, 0.9]), np.array([0.6, 1.0, 1.4])
    params = {"lengthscale": lengthscale, "variance": variance, "noise": np.full(3, 0.055)}
    x = rng.uniform(-2, 2, 80)
    y = simulator.simulate(rng, params, {"x": np.broadcast_to(x, (3, 80))})["y"]
    fine = {"lengthscale": 96, "variance": 30, "noise": 96}
    expected = reference.log_evidence(x, y, simulator.kernels, box, fine)
    np.testing.assert_allclose(reference.log_evidence(x, y, simulator.kernels, box), expected, atol=0.02)


# The shipped network ----------------------------------------------------------------------------------------------

# Functions drawn anew, unlike those of the card.
FUNCTIONS, TARGETS, CONTEXTS = 24, 64, (0, 16, 128)
# Nats a target, KL(exact || network): about twice what was measured on these very functions.
BARS = {0: 0.08, 16: 0.06, 128: 0.11}


@pytest.fixture(scope="module", params=CONTEXTS)
def scored(request):
    """Context size, and log densities (FUNCTIONS,) of the targets: exact, of the network jointly, and of each apart."""
    torch = pytest.importorskip("torch")
    context = request.param
    simulator = GaussianProcess()
    params, x, y = simulated(simulator, FUNCTIONS, context + TARGETS, seed=18 + context)
    prefixes = reference.prefix_log_density(params, x, y, simulator.kernels)
    exact = prefixes[:, -1] - (prefixes[:, context - 1] if context else 0.0)
    tensors = {name: torch.tensor(value, dtype=torch.float32) for name, value in params.items()}
    points = {name: torch.tensor(value, dtype=torch.float32) for name, value in (("x", x), ("y", y))}
    query = Query.build(
        pb.load("gp", backend="torch"),
        {"x": points["x"][:, context:]},
        params=tensors,
        context={name: value[:, :context] for name, value in points.items()} if context else None,
    )
    value = points["y"][:, context:]
    joint, apart = density.conditionals(query, value), density.marginals(query, value)
    return context, exact, joint.sum(-1).numpy(), apart.sum(-1).numpy()


def test_the_network_knows_the_exact_joint_density(scored):
    context, exact, joint, _ = scored
    gap = (exact - joint) / TARGETS
    error = gap.std(ddof=1) / math.sqrt(FUNCTIONS)
    # A divergence is never below zero; if it were, the reference would be wrong.
    assert -3 * error < gap.mean() < BARS[context]


def test_the_buffer_tells_what_the_context_does_not(scored):
    """Much after few points; after many, the buffer can say nothing new but must not harm either."""
    context, exact, joint, apart = scored
    gained = (joint - apart).mean() / TARGETS
    assert gained > {0: 0.5, 16: 0.1, 128: -0.01}[context]


def test_the_card_holds_on_new_functions(scored):
    context, exact, joint, _ = scored
    entry = next(entry for entry in pb.zoo() if entry.name == "gp")
    gap = (exact - joint) / TARGETS
    error = gap.std(ddof=1) * math.sqrt(1 / FUNCTIONS + 1 / 128)
    assert abs(gap.mean() - entry.measured[f"all parameters given, context of {context}: KL per target"]) < 4 * error
