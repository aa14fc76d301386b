"""Pairs of data sets, simulated and generated at the same parameters: are they exchangeable?"""

from __future__ import annotations

import numpy as np

from ppl_buffer.diagnostics.statistics import Arrays


def paired(simulated: np.ndarray, generated: np.ndarray, params: Arrays) -> tuple[float, float]:
    """How a statistic of simulated data sets differs from that of generated ones.

    Args:
        simulated: (sets,).
        generated: (sets,), at the same parameters.
        params: name -> (sets,).

    Returns:
        the mean difference in standard deviations; and p, twice the smaller one of a signed-rank test and of a
        regression of the differences on the parameters, which sees those that cancel in the mean.
    """
    from scipy.stats import wilcoxon

    # Squares of what a network calls impossible overflow in single precision.
    simulated, generated = np.asarray(simulated, float), np.asarray(generated, float)
    known = np.isfinite(simulated) & np.isfinite(generated)
    difference = (simulated - generated)[known]
    if not np.any(difference):
        return 0.0, 1.0
    effect = float(difference.mean() / max(simulated[known].std(), 1e-30))
    # Differences of 0 count half for either side.
    pooled = float(wilcoxon(difference, zero_method="zsplit", method="approx").pvalue)
    slopes = _slopes(difference, np.stack([x[known] for x in params.values()], -1)) if params else 1.0
    return effect, min(1.0, 2 * min(pooled, slopes))


def _slopes(difference: np.ndarray, params: np.ndarray) -> float:
    """Probability, by a score test, that differences (n,) have nothing to do with parameters (n, P).

    Pairs are exchangeable under a right network, so that the sign of each difference is a fair coin: of that the
    covariance is known whatever the differences' spread.
    """
    from scipy.stats import chi2

    if len(difference) < 5 * params.shape[1]:
        return 1.0
    ranks = np.argsort(np.argsort(params, axis=0), axis=0) / len(params) - 0.5
    limit = 4 * np.median(np.abs(difference)) + 1e-30
    moments = ranks * np.clip(difference, -limit, limit)[:, None]
    total = moments.sum(0)
    statistic = total @ np.linalg.pinv(moments.T @ moments) @ total
    return float(chi2.sf(statistic, params.shape[1]))
