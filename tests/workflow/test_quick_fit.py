"""The quick fit against the exact posterior of normal data, and the model that is written by it against the other."""

import numpy as np
import pytest
from scipy import stats

pytest.importorskip("numpyro")
pytest.importorskip("pandas")
import jax.numpy as jnp

from ppl_buffer.workflow import quick_fit as quick_fits
from ppl_buffer.workflow.chains import _mass_matrix
from ppl_buffer.workflow.hierarchical import SPREAD_MEDIAN, SPREAD_SCALE, write_subjects
from ppl_buffer.workflow.quick_fit import QuickFit, quick_fit

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


@pytest.mark.parametrize("apart", [0.0, 3.0])
def test_normal_data_are_fitted_exactly_wherever_one_starts(apart):
    fit, (estimates, precisions) = fitted(apart * np.linspace(-1.0, 1.0, SUBJECTS) + STARTS), normal_data()
    # Posterior of means m and parameters, jointly normal where the spread is known, by its whole precision matrix.
    prior, size = np.diag(fit.spread**-2), 2 * (SUBJECTS + 1)
    joint, linear = np.zeros((size, size)), np.zeros(size)
    joint[:2, :2] = np.diag(SCALES**-2.0) + SUBJECTS * prior
    for subject, precision in enumerate(precisions):
        own = slice(2 * subject + 2, 2 * subject + 4)
        joint[own, own] = prior + precision
        joint[own, :2] = joint[:2, own] = -prior
        linear[own] = precision @ estimates[:, subject]
    covariance = np.linalg.inv(joint)
    np.testing.assert_allclose(fit.mean, (covariance @ linear)[:2], atol=0.05)
    np.testing.assert_allclose(fit.modes, (covariance @ linear)[2:].reshape(-1, 2).T, atol=0.05)
    # z = parameters - (1 - C) m.
    written = np.eye(size)
    for subject in range(SUBJECTS):
        written[2 * subject + 2 : 2 * subject + 4, :2] = fit.centring[subject] - np.eye(2)
    written = written @ covariance @ written.T
    np.testing.assert_allclose(fit.mean_covariance / quick_fits._WIDER_MEANS, written[:2, :2], rtol=1e-6)
    blocks = [written[start : start + 2, start : start + 2] for start in range(2, size, 2)]
    np.testing.assert_allclose(fit.subject_covariance, blocks, rtol=1e-6)


def test_what_is_moved_is_hardly_correlated_with_the_mean():
    """As offsets it would be, where much is known, and as parameters where little is."""
    estimates, precisions = normal_data()
    informed = np.array([0.01, 300.0])  # of the first half of the subjects, and of the others
    precisions = np.eye(2) * np.repeat(informed, (5, 6))[:, None, None]
    fit = quick_fit(loss_of(estimates, precisions), STARTS, SCALES, SPREAD_MEDIAN, SPREAD_SCALE)
    own = np.diagonal(fit.centring, axis1=1, axis2=2)
    assert (own[:5] < 0.1).all() and (own[5:] > 0.9).all()


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


def test_the_posterior_is_that_of_the_model_without_a_quick_fit():
    from numpyro.infer.util import log_density

    centring = np.array([[[0.35, 0.1], [-0.2, 0.8]], [[0.7, 0.0], [0.15, 0.4]], [[0.0, 0.05], [0.3, 1.0]]])
    fit = QuickFit(mean=np.zeros(2), spread=np.array([0.7, 0.4]), modes=np.zeros((2, 3)), centring=centring,
                   mean_covariance=np.eye(2), spread_variance=np.ones(2), subject_covariance=np.ones((3, 2, 2)),
                  )  # fmt: skip
    mean, spread = np.array([0.1, -0.6]), np.array([0.9, 0.3])
    parameters = np.array([[-0.4, 1.3, 0.2], [0.0, -1.1, -0.5]])
    own = np.diagonal(centring, axis1=1, axis2=2).T
    ratio = (spread[:, None] / fit.spread[:, None]) ** (1 - own)
    pulled = (centring @ mean).T
    for given, moved, stretch in (
        (None, (parameters - mean[:, None]) / spread[:, None], np.repeat(spread[:, None], 3, 1)),
        (fit, pulled + (parameters - mean[:, None]) / ratio, ratio),
    ):
        made = []

        def write(given=given, made=made):
            means, spreads = dict(zip("ab", mean, strict=True)), dict(zip("ab", spread, strict=True))
            made.append(write_subjects(means, spreads, 3, given))

        sites = {f"{name}_offset": jnp.asarray(x) for name, x in zip("ab", moved, strict=True)}
        density, _ = log_density(write, (), {}, sites)
        np.testing.assert_allclose(np.stack([made[0][name] for name in "ab"]), parameters, rtol=1e-5, atol=1e-6)
        # The density of the parameters: less the logarithm of how they stretch what is moved.
        expected = stats.norm.logpdf(parameters, mean[:, None], spread[:, None]).sum()
        assert float(density) - np.log(stretch).sum() == pytest.approx(expected, rel=1e-5)


def test_steps_are_scaled_by_the_covariance_of_each_subject():
    """NumPyro's kinetic energy: of each subject's momenta under its own matrix, of the means and of the spreads."""
    from numpyro.infer.hmc_util import euclidean_kinetic_energy

    fit, rng = fitted(), np.random.default_rng(4)
    momenta = {f"{name}_{kind}": rng.normal(size=shape) for name in "ab" for kind, shape in
               (("mean", ()), ("spread", ()), ("offset", (SUBJECTS,)))}  # fmt: skip
    means, spreads, offsets = (
        np.stack([momenta[f"{name}_{kind}"] for name in "ab"]) for kind in ("mean", "spread", "offset")
    )
    expected = means @ fit.mean_covariance @ means + (fit.spread_variance * spreads**2).sum()
    for subject, covariance in enumerate(fit.subject_covariance):
        expected += offsets[:, subject] @ covariance @ offsets[:, subject]
    energy = euclidean_kinetic_energy(_mass_matrix(["a", "b"], fit), momenta)
    assert float(energy) == pytest.approx(expected / 2, rel=1e-5)
