"""Importance weights and their proposals against closed forms."""

import numpy as np
import scipy.special
import scipy.stats

from ppl_buffer.inference.importance import importance_weights


def test_importance_weights_find_the_evidence_of_a_normal_model():
    rng = np.random.default_rng(0)
    for std in (1.0, 0.1, 0.01):
        seen = rng.standard_normal((3, 5)) * np.hypot(1, std)

        def log_likelihood(scores, seen=seen, std=std):
            return scipy.stats.norm(scores, std).logpdf(seen).sum(-1)

        truth = scipy.stats.norm(0, np.hypot(1, std)).logpdf(seen).sum(-1)
        weights = importance_weights(log_likelihood, 3, 5, 2000, np.random.default_rng(1))
        estimate = scipy.special.logsumexp(weights, 0) - np.log(2000)
        np.testing.assert_allclose(estimate, truth, atol=0.06)
        # Far fewer draws than this would count under the prior itself at the smallest deviation: about 1 in 10^10.
        assert (scipy.special.logsumexp(weights, 0) * 2 - scipy.special.logsumexp(2 * weights, 0) > np.log(500)).all()


def test_importance_weights_find_the_evidence_of_a_bent_narrow_posterior():
    size, dims, draws = 11, 7, 600
    rng = np.random.default_rng(2)
    centre = rng.normal(size=(size, dims))
    spread = np.linalg.qr(rng.normal(size=(size, dims, dims)))[0] * np.exp(rng.uniform(-3, 0, (size, 1, dims)))
    logarithm = rng.normal(0, 50, size)
    evaluated = []

    def log_likelihood(scores):
        """A density with a bend, over that of the prior: its integral over the prior is known."""
        evaluated.append(len(scores))
        bent = np.einsum("bpq,nbq->nbp", np.linalg.inv(spread), scores - centre)
        bent[..., 0] += 0.3 * bent[..., 1] ** 2
        log_posterior = scipy.stats.norm.logpdf(bent).sum(-1) - np.log(np.abs(np.linalg.det(spread)))
        return log_posterior - scipy.stats.norm.logpdf(scores).sum(-1) + logarithm

    weights = importance_weights(log_likelihood, size, dims, draws, rng)
    relative = np.exp(weights - weights.max(0))
    error = relative.std(0) / relative.mean(0) / np.sqrt(draws)
    assert (error < 0.07).all() and evaluated[-1] == draws
    np.testing.assert_array_less(np.abs(weights.max(0) + np.log(relative.mean(0)) - logarithm), 4 * error)
    # Rounds that forget the draws of the ones before need twice as many.
    assert sum(evaluated[:-1]) < 2200
