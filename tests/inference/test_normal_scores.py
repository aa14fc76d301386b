"""Parameters as functions of normal scores, exact and tabulated."""

import numpy as np
import pytest

from ppl_buffer.inference.normal_scores import NormalScores
from ppl_buffer.prior import Prior


def test_priors_are_the_same_in_numpy_and_on_the_normal_scale() -> None:
    stats = pytest.importorskip("scipy.stats")
    scale = NormalScores(
        {
            "rate": Prior("Gamma", {"concentration": 2.0, "rate": 3.0}),
            "low": Prior("TruncatedNormal", {"loc": 0.0, "scale": 1.0, "low": -1.0, "high": 2.0}),
            "high": Prior("Uniform", {"low": 0.5, "high": 1.5}, relative_to="low"),
        }
    )
    scores = np.random.default_rng(0).normal(size=(11, 3))
    params = scale.interpolate(np, scores)
    np.testing.assert_allclose(params["rate"], stats.gamma(2, scale=1 / 3).ppf(stats.norm.cdf(scores[:, 0])), rtol=1e-3)
    low = stats.truncnorm(-1, 2).ppf(stats.norm.cdf(scores[:, 1]))
    np.testing.assert_allclose(params["low"], low, atol=1e-4)
    np.testing.assert_allclose(params["high"], params["low"] + 0.5 + stats.norm.cdf(scores[:, 2]), atol=1e-4)
    exact = scale.params(scores[:, None], (1,))
    for name, values in params.items():
        np.testing.assert_allclose(exact[name][:, 0], values, rtol=1e-3, atol=1e-4)
