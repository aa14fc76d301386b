"""The quick fit against the exact posterior of normal data, and the model that is written by it against the other."""

import numpy as np
import pytest
from scipy import stats

pytest.importorskip("numpyro")
pytest.importorskip("pandas")
import jax.numpy as jnp

from ppl_buffer.workflow.chains import _mass_matrix
from ppl_buffer.workflow.hierarchical import SPREAD_MEDIAN, SPREAD_SCALE, write_subjects
from ppl_buffer.workflow.quick_fit import QuickFit, quick_fit
from ppl_buffer.workflow.transport import parameters

SUBJECTS, SCALES = 11, np.array([1.5, 1.0])
STARTS = np.zeros((2, SUBJECTS))


def normal_data(seed=3):
    """Estimates (P, S) of subjects' parameters, and their precisions (S, P, P): correlated, and unlike each other."""
    rng = np.random.default_rng(seed)
    roots = rng.normal(size=(SUBJECTS, 2, 2)) * np.array([3.0, 1.0])
    precisions = roots @ roots.transpose(0, 2, 1) + 0.3 * np.eye(2)
    truth = np.array([[0.4], [-0.9]]) + np.array([[0.6], [0.3]]) * rng.normal(size=(2, SUBJECTS))
    noise = np.stack([rng.multivariate_normal(np.zeros(2), np.linalg.inv(each)) for each in precisions], 1)
    return truth + noise, precisions


def loss_of(estimates, precisions):
    def loss(places):
        apart = (places - estimates).T[..., None]
        slopes = (precisions @ apart)[..., 0]
        return 0.5 * (slopes * apart[..., 0]).sum(1), slopes.T

    return loss


def fitted(starts=STARTS):
    return quick_fit(loss_of(*normal_data()), starts, SCALES, SPREAD_MEDIAN, SPREAD_SCALE)


def joint_precision(spreads, estimates, precisions):
    """Precision matrix of means and all parameters, jointly normal given the spreads, and its product with the mean."""
    size, prior = 2 * (SUBJECTS + 1), np.diag(spreads**-2)
    joint, linear = np.zeros((size, size)), np.zeros(size)
    joint[:2, :2] = np.diag(SCALES**-2.0) + SUBJECTS * prior
    for subject, precision in enumerate(precisions):
        own = slice(2 * subject + 2, 2 * subject + 4)
        joint[own, own] = prior + precision
        joint[own, :2] = joint[:2, own] = -prior
        linear[own] = precision @ estimates[:, subject]
    return joint, linear


@pytest.mark.parametrize("apart", [0.0, 3.0])
def test_normal_data_are_fitted_exactly_wherever_one_starts(apart):
    fit, (estimates, precisions) = fitted(apart * np.linspace(-1.0, 1.0, SUBJECTS) + STARTS), normal_data()
    # Posterior of means m and parameters, jointly normal where the spread is known, by its whole precision matrix.
    joint, linear = joint_precision(fit.spread, estimates, precisions)
    covariance = np.linalg.inv(joint)
    np.testing.assert_allclose(fit.mean, (covariance @ linear)[:2], atol=0.05)
    np.testing.assert_allclose(fit.modes, (covariance @ linear)[2:].reshape(-1, 2).T, atol=0.05)
    np.testing.assert_allclose(fit.mean_covariance, covariance[:2, :2], rtol=1e-6)
    np.testing.assert_allclose(fit.roots, np.linalg.cholesky(precisions), atol=0.026)
    np.testing.assert_allclose(fit.pulls, np.einsum("spq,qs->sp", precisions, estimates), atol=0.026)


def test_spreads_are_known_as_well_as_their_information_says():
    """Fisher's, which is the curvature of the Kullback-Leibler divergence between estimates, here by differences."""
    fit, (_, precisions) = fitted(), normal_data()
    own = np.linalg.inv(precisions)

    def divergence(moved):
        there = own + np.diag(fit.spread**2)
        other = own + np.diag((fit.spread * np.exp(moved)) ** 2)
        ratio = np.linalg.solve(other, there)
        return 0.5 * (np.trace(ratio, axis1=1, axis2=2) - 2 - np.linalg.slogdet(ratio)[1]).sum()

    step = 0.01 * np.eye(2)
    information = [
        [sum(a * b * divergence(a * one + b * two) for a in (-1, 1) for b in (-1, 1)) / 4e-4 for two in step]
        for one in step
    ]
    expected = np.linalg.inv(np.array(information) + np.eye(2) * SPREAD_SCALE**-2)
    np.testing.assert_allclose(fit.spread_covariance, expected, rtol=1e-3)


def test_the_spread_of_a_population_is_that_of_its_marginal_likelihood():
    """With the prior of the spread as two more subjects: the largest marginal likelihood, by a grid."""
    estimates, precisions = normal_data()
    precisions = np.stack([np.diag(np.diag(each)) for each in precisions])
    fit = quick_fit(loss_of(estimates, precisions), STARTS, SCALES, SPREAD_MEDIAN, SPREAD_SCALE)
    grid = np.linspace(0.05, 2.0, 400)
    for index in range(2):
        deviations = np.sqrt(grid[:, None] ** 2 + 1 / precisions[:, index, index])
        score = stats.norm.logpdf(estimates[index], fit.mean[index], deviations).sum(1)
        score -= 2 * np.log(grid) + SPREAD_MEDIAN**2 / grid**2
        assert fit.spread[index] == pytest.approx(grid[score.argmax()], abs=0.03)


def known_subjects(roots, pulls):
    """A quick fit that knows of each subject the roots (S, P, P) and pulls (S, P), and nothing else."""
    size, subjects = roots.shape[1], len(roots)
    return QuickFit(np.zeros(size), np.ones(size), np.zeros((size, subjects)), roots, pulls, np.eye(size), np.eye(size))


def made(fit, means, spreads, offsets):
    """Parameters (P, S) of offsets (P, S)."""
    return np.stack(parameters(np, fit, means, spreads, lambda index, *_: offsets[index]))


@pytest.mark.parametrize("spreads", [[0.1, 2.0], [3.0, 0.4]])
def test_what_is_moved_is_standard_normal_and_independent_of_the_mean_whatever_the_spread(spreads):
    """By the whole precision matrix of means and parameters, which are jointly normal given the spreads."""
    (estimates, precisions), spreads = normal_data(), np.array(spreads)
    fit = known_subjects(np.linalg.cholesky(precisions), np.einsum("spq,qs->sp", precisions, estimates))
    joint, linear = joint_precision(spreads, estimates, precisions)

    def at(moved):
        return np.concatenate([moved[:2], made(fit, moved[:2], spreads, moved[2:].reshape(-1, 2).T).T.reshape(-1)])

    size = len(linear)
    origin = at(np.zeros(size))
    slopes = np.stack([at(one) - origin for one in np.eye(size)], 1)
    precision = slopes.T @ joint @ slopes
    np.testing.assert_allclose(precision[2:, 2:], np.eye(size - 2), atol=1e-9)
    np.testing.assert_allclose(precision[2:, :2], 0.0, atol=1e-9)
    # Nor are they pulled anywhere.
    np.testing.assert_allclose((slopes.T @ (linear - joint @ origin))[2:], 0.0, atol=1e-9)


def test_little_known_subjects_follow_the_population_and_well_known_ones_do_not():
    roots = np.eye(2) * np.repeat([0.05, 30.0], (5, 6))[:, None, None]
    fit = known_subjects(roots, np.zeros((SUBJECTS, 2)))
    offsets = np.random.default_rng(1).normal(size=(2, SUBJECTS))
    before = made(fit, np.zeros(2), np.full(2, 0.5), offsets)
    np.testing.assert_allclose(before[:, :5], 0.5 * offsets[:, :5], atol=0.01)
    after = made(fit, np.array([0.3, -0.7]), np.full(2, 1.0), offsets)
    np.testing.assert_allclose(after[:, :5], np.array([[0.3], [-0.7]]) + offsets[:, :5], atol=0.02)
    np.testing.assert_allclose(after[:, 5:], before[:, 5:], atol=0.01)


def test_the_posterior_is_that_of_the_model_without_a_quick_fit():
    from numpyro.infer.util import log_density

    rng = np.random.default_rng(5)
    mean, spread = np.array([0.1, -0.6, 0.4]), np.array([0.9, 0.3, 1.7])
    fit = known_subjects(np.tril(rng.normal(size=(5, 3, 3))), rng.normal(size=(5, 3)))
    offsets = rng.normal(size=(3, 5))
    for given in (None, fit):
        written = []

        def write(given=given, written=written):
            means, spreads = dict(zip("abc", mean, strict=True)), dict(zip("abc", spread, strict=True))
            written.append(write_subjects(means, spreads, 5, given))

        sites = {f"{name}_offset": jnp.asarray(x, jnp.float32) for name, x in zip("abc", offsets, strict=True)}
        density, _ = log_density(write, (), {}, sites)
        there = np.stack([written[0][name] for name in "abc"])
        if given is None:
            expected, slopes = mean[:, None] + spread[:, None] * offsets, np.diag(np.repeat(spread, 5))
        else:
            expected = made(fit, mean, spread, offsets)
            steps = np.eye(15).reshape(15, 3, 5)
            slopes = [(made(fit, mean, spread, offsets + one) - expected).reshape(-1) for one in steps]
        np.testing.assert_allclose(there, expected, rtol=1e-4, atol=1e-5)
        # The density of the parameters: less the logarithm of how they stretch what is moved.
        expected = stats.norm.logpdf(there, mean[:, None], spread[:, None]).sum()
        assert float(density) - np.linalg.slogdet(slopes)[1] == pytest.approx(expected, rel=1e-4)


def test_steps_are_scaled_by_what_is_known_of_the_population():
    """NumPyro's kinetic energy: of momenta of means and of spreads under their matrices, of offsets as they are."""
    from numpyro.infer.hmc_util import euclidean_kinetic_energy

    fit, rng = fitted(), np.random.default_rng(4)
    momenta = {f"{name}_{kind}": rng.normal(size=shape) for name in "ab" for kind, shape in
               (("mean", ()), ("spread", ()), ("offset", (SUBJECTS,)))}  # fmt: skip
    means, spreads, offsets = (
        np.stack([momenta[f"{name}_{kind}"] for name in "ab"]) for kind in ("mean", "spread", "offset")
    )
    expected = means @ fit.mean_covariance @ means + spreads @ fit.spread_covariance @ spreads + (offsets**2).sum()
    energy = euclidean_kinetic_energy(_mass_matrix(["a", "b"], fit), momenta)
    assert float(energy) == pytest.approx(expected / 2, rel=1e-5)
