"""The quick fit of a design against the exact posterior of a linear model with normal noise."""

import numpy as np
import pytest

pytest.importorskip("pandas")
pytest.importorskip("formulae")
pytest.importorskip("jax")

from ppl_buffer.formulas.priors import SPREAD_SCALE
from ppl_buffer.workflow import design_fit as design_fits
from ppl_buffer.workflow.design_fit import design_fit
from tests.formulas.cases import SUBJECTS, Deciders

DATA = Deciders()
TEXTS = ["drift ~ cond + theta + (1 + cond | subject)", "bound ~ age + (1 | group)"]
FIXED = {"delay": 0.3}


def normal_data(design):
    """Observations of the predictors, with the precision of each: drift of trials, bound of data sets."""
    rng = np.random.default_rng(5)
    noise = {"drift": 0.5 + rng.random(DATA.mask.shape), "bound": 2.0 + rng.random(SUBJECTS)}
    truth = {"drift": 0.5 * (DATA.cond == "hard") + 0.1 * DATA.theta, "bound": 0.01 * DATA.age}
    values = {name: x + rng.normal(size=x.shape) / np.sqrt(noise[name]) for name, x in truth.items()}
    noise["drift"] = noise["drift"] * DATA.mask
    return values, noise


@pytest.mark.parametrize("starts", [None, {"bound": np.linspace(-4.0, 3.0, SUBJECTS)}], ids=["at means", "apart"])
def test_normal_data_are_fitted_exactly(starts):
    design = DATA.design(TEXTS, fixed=FIXED)
    values, noise = normal_data(design)

    def loss(linear):
        apart = {name: linear[name] - values[name] for name in values}
        each = {name: 0.5 * noise[name] * x**2 for name, x in apart.items()}
        return each["drift"].sum(1) + each["bound"], {name: noise[name] * x for name, x in apart.items()}

    fit = design_fit(loss, design, starts)
    # The whole model as one regression, its columns from the covariates themselves.
    hard, there = 1.0 * (DATA.cond == "hard"), DATA.mask
    subject = np.repeat(np.arange(SUBJECTS)[:, None], there.shape[1], 1)[there]
    own = np.eye(SUBJECTS)[subject]
    drift = np.stack([np.ones_like(hard), hard - DATA.mean(hard), DATA.theta - DATA.mean(DATA.theta)], -1)[there]
    group = np.stack([DATA.group == x for x in "abc"], 1)
    bound = np.stack([np.ones(SUBJECTS), DATA.age - DATA.age.mean()], -1)
    columns = {
        "drift_mean": drift[:, :1], "drift~cond": drift[:, 1:2], "drift~theta": drift[:, 2:],
        "bound_mean": bound[:, :1], "bound~age": bound[:, 1:], "drift": own,
        "drift~cond|subject": own * hard[there][:, None],
        "bound~1|group": 1.0 * group,
    }  # fmt: skip
    size = {name: x.shape[1] for name, x in columns.items()}
    assert [block.name for block in [*fit.coefficients, *fit.effects]] == list(columns)
    starts = dict(zip(columns, np.cumsum([0, *size.values()])[:-1], strict=True))
    total = sum(size.values())
    wide = {"drift": np.zeros((int(there.sum()), total)), "bound": np.zeros((SUBJECTS, total))}
    for name, x in columns.items():
        wide[name[:5]][:, starts[name] : starts[name] + size[name]] = x
    scales = [1.5, 1.0, float(design.sites["drift~theta"].scale), 1.5, float(design.sites["bound~age"].scale)]
    for name in list(columns)[5:]:
        scales += [float(fit.spreads[name][0])] * size[name]
    precision, linear = np.diag(np.array(scales) ** -2.0), np.zeros(total)
    for name, matrix in wide.items():
        weight, value = (noise[name][there], values[name][there]) if name == "drift" else (noise[name], values[name])
        precision = precision + matrix.T @ (weight[:, None] * matrix)
        linear = linear + matrix.T @ (weight * value)
    covariance = np.linalg.inv(precision)
    np.testing.assert_allclose(fit.mode, covariance @ linear, atol=0.02)
    # Coefficients are known less well than that; effects as well as before, were the coefficients known.
    np.testing.assert_allclose(fit.covariance[:5, :5], design_fits._WIDER_MEANS * covariance[:5, :5], rtol=1e-5)
    np.testing.assert_allclose(
        np.linalg.inv(fit.covariance)[5:, 5:], np.linalg.inv(covariance)[5:, 5:], rtol=1e-4, atol=1e-5
    )
    own = np.diag(covariance)[5 : 5 + SUBJECTS]
    share = fit.centring["drift"].share[:, 0]
    np.testing.assert_allclose(share, np.clip(1 - own / fit.spreads["drift"][0] ** 2, 0, 1), atol=0.0251)
    known = SPREAD_SCALE**-2 + 2 * (share**2).sum()
    np.testing.assert_allclose(fit.spread_variances["drift"], design_fits._WIDER_SPREADS / known)
