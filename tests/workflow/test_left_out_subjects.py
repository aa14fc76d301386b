"""Scores of subjects from the others, their random effects integrated, against a linear model with normal noise."""

import numpy as np
import pytest
from scipy.linalg import block_diag
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, norm

pytest.importorskip("pandas")
pytest.importorskip("formulae")
pytest.importorskip("jax")
xarray = pytest.importorskip("xarray")

from ppl_buffer.formulas.terms import Centring  # noqa: E402
from ppl_buffer.scores import psis_loo  # noqa: E402
from ppl_buffer.workflow.left_out_subjects import (  # noqa: E402
    EffectDraws,
    conditional_normal,
    effects_of_design,
    left_out_log_likelihood,
)
from tests.formulas.cases import SUBJECTS, Deciders  # noqa: E402

DATA = Deciders()
# Subject 3 alone is of group c; conflict differs between subjects, theta does not, so that it stays a coefficient.
TEXTS = ["drift ~ cond + theta + (1 + cond | subject)", "bound ~ age + (1 | group)"]
NOISE, DRAWS = 0.6, 4001
# Spreads of populations that are equally likely before the data.
POPULATIONS = np.array([[0.5, 0.3, 0.6], [0.9, 0.2, 0.4], [0.3, 0.6, 0.9]])


def regression():
    """Of each observation: columns of coefficients, columns of effects, and the subject; and whose spread each has."""
    hard, there = 1.0 * (DATA.cond == "hard"), DATA.mask
    subject = np.repeat(np.arange(SUBJECTS)[:, None], there.shape[1], 1)[there]
    own = np.eye(SUBJECTS)[subject]
    slopes = own * hard[there][:, None]
    drift = np.stack([np.ones_like(hard), hard - DATA.mean(hard), DATA.theta - DATA.mean(DATA.theta)], -1)[there]
    bound = np.stack([np.ones(SUBJECTS), DATA.age - DATA.age.mean()], -1)
    group = 1.0 * np.stack([DATA.group == x for x in "abc"], 1)
    coefficients = block_diag(drift, bound)
    effects = block_diag(np.concatenate([own, slopes], 1), group)
    which = np.repeat([0, 1, 2], [SUBJECTS, SUBJECTS, 3])
    return coefficients, effects, np.concatenate([subject, np.arange(SUBJECTS)]), which


def exact(y, covariances, kept):
    """Log density of the observations that are kept under each of some covariances."""
    parts = [multivariate_normal(np.zeros(kept.sum()), x[np.ix_(kept, kept)]) for x in covariances]
    return np.array([part.logpdf(y[kept]) for part in parts])


def test_subjects_are_scored_from_the_others_with_all_that_is_their_own_integrated():
    rng = np.random.default_rng(0)
    design = DATA.design(TEXTS, fixed={"delay": 0.3})
    columns, effects, subject, which = regression()
    scales = np.concatenate([site.scale.reshape(-1) for one in design.parameters.values() for site in one.sites])
    both = np.concatenate([columns, effects], 1)
    prior = [np.concatenate([scales, spreads[which]]) ** 2 for spreads in POPULATIONS]
    covariances = [both * variance @ both.T + NOISE**2 * np.eye(len(both)) for variance in prior]
    y = rng.multivariate_normal(np.zeros(len(both)), covariances[0])
    # Draws of the exact posterior.
    whole = exact(y, covariances, np.ones(len(y), bool))
    population = rng.choice(len(prior), DRAWS, p=np.exp(whole - logsumexp(whole)))
    vector = np.empty((DRAWS, both.shape[1]))
    for index, variance in enumerate(prior):
        covariance, rows = np.linalg.inv(both.T @ both / NOISE**2 + np.diag(1 / variance)), population == index
        vector[rows] = rng.multivariate_normal(covariance @ both.T @ y / NOISE**2, covariance, rows.sum())
    sites, centring = sites_of(design, vector, POPULATIONS[population], rng)
    each = norm(vector @ both.T, NOISE).logpdf(y)
    by_subject = np.stack([each[:, subject == index].sum(1) for index in range(SUBJECTS)], 1)
    result = left_out_log_likelihood(*effects_of_design(design, centring, sites), by_subject)
    score = psis_loo("logo", xarray.DataArray(result[None], dims=("chain", "draw", "subject")))
    others = [logsumexp(exact(y, covariances, subject != index)) for index in range(SUBJECTS)]
    expected = logsumexp(whole) - np.array(others)
    np.testing.assert_allclose(score.pointwise.values, expected, atol=0.1)
    assert score.doubtful <= 1
    # Without the integration all are too high.
    plain = psis_loo("logo", xarray.DataArray(by_subject[None], dims=("chain", "draw", "subject")))
    assert (plain.pointwise.values > expected + 0.2).all() and plain.doubtful > score.doubtful


def test_correlated_effects_have_the_density_of_their_population():
    pytest.importorskip("numpyro")
    from numpyro import handlers

    from ppl_buffer.numpyro import linear_predictors

    rng = np.random.default_rng(7)
    design = DATA.design(["drift ~ cond + (1 + cond | subject)"], fixed={"delay": 0.3, "bound": 1.5}, correlated=True)
    (grouping,) = design.parameters["drift"].groupings
    root = np.array([[1.0, 0.0], [-0.6, 0.8]])
    sites = {site.name: np.zeros((1, *site.shape)) for site in design.sites.values()}
    sites |= {effect.spread.name: np.full((1, *effect.spread.shape), x)
              for effect, x in zip(grouping.effects, (0.5, 0.2), strict=True)}  # fmt: skip
    sites |= {x.offset: rng.normal(size=(1, SUBJECTS, *x.spread.shape)) for x in grouping.effects}
    sites[grouping.correlation] = root[None]
    share = rng.random((SUBJECTS, 2))
    centring = {x.site: Centring(np.array([0.4]), share[:, [i]]) for i, x in enumerate(grouping.effects)}
    draws = EffectDraws.of(design, design.parameters["drift"], grouping, centring, sites)
    assert draws.owner.tolist() == list(range(SUBJECTS))
    ratio = (np.array([0.5, 0.2]) / 0.4) ** (1 - share)
    effects = draws.values[0] * ratio
    wide = np.diag([0.5, 0.2]) @ root
    expected = multivariate_normal(np.zeros(2), wide @ wide.T).logpdf(effects) + np.log(ratio).sum(1)
    np.testing.assert_allclose(draws.log_prior[0], expected)
    with handlers.block(), handlers.substitute(data={name: x[0] for name, x in sites.items()}):
        linear, _ = linear_predictors(DATA.net(), design)
    hard = 1.0 * (DATA.cond == "hard")
    trials = effects[:, :1] + effects[:, 1:] * hard
    theirs = np.asarray(linear["drift"])[design.parameters["drift"].rows]
    np.testing.assert_allclose(theirs[DATA.mask], trials[DATA.mask], atol=1e-5)


def sites_of(design, vector, spreads, rng):
    """The draws (S, coefficients and effects) as a fit has them, and how their offsets are written."""
    sites, centring, start = {}, {}, 0
    for one in design.parameters.values():
        for site in one.sites:
            sites[site.name] = vector[:, start : start + site.size].reshape(-1, *site.shape)
            start += site.size
    effects = [(g, x) for one in design.parameters.values() for g in one.groupings for x in g.effects]
    for (grouping, effect), spread in zip(effects, spreads.T, strict=True):
        count = len(grouping.levels)
        written = Centring(np.array([0.4]), rng.random((count, 1)))
        offset = vector[:, start : start + count] / (spread[:, None] / 0.4) ** (1 - written.share[:, 0])
        sites[effect.spread.name] = spread.reshape(-1, *effect.spread.shape)
        sites[effect.offset] = offset.reshape(-1, count, *effect.spread.shape)
        centring[effect.site], start = written, start + count
    assert start == vector.shape[1]
    return sites, centring


def test_without_formulas_the_likelihood_of_a_person_is_averaged_over_the_population():
    """Normal data about normal parameters, whose marginal likelihood is known, and the prior that the model samples."""
    numpyro = pytest.importorskip("numpyro")
    from numpyro.infer.util import log_density

    from ppl_buffer.workflow.hierarchical import write_subjects
    from ppl_buffer.workflow.left_out_subjects import effects_of_population
    from ppl_buffer.workflow.quick_fit import QuickFit

    rng, names, draws, subjects, noise = np.random.default_rng(11), ["alpha", "beta"], 3001, 3, 0.4
    fit = QuickFit(
        np.zeros(2), np.ones(2), np.zeros((2, subjects)), np.tril(rng.normal(0, 2, (subjects, 2, 2))),
        rng.normal(size=(subjects, 2)), np.eye(2), np.eye(2),
    )  # fmt: skip
    means, spreads, data = np.array([0.3, -0.2]), np.array([0.5, 1.1]), rng.normal(size=(subjects, 2))
    precision = noise**-2 + spreads**-2.0
    posterior = (data * noise**-2 + means * spreads**-2.0) / precision
    places = posterior + rng.normal(size=(draws, subjects, 2)) / np.sqrt(precision)
    # As `transport` says: what NUTS moves is L'w - c.
    known = fit.roots @ fit.roots.transpose(0, 2, 1)
    root = np.linalg.cholesky(np.eye(2) + spreads[:, None] * known * spreads)
    shift = np.linalg.solve(root, (spreads * (fit.pulls - known @ means))[..., None])[..., 0]
    offsets = np.einsum("slp,dsl->dsp", root, (places - means) / spreads) - shift
    sites = {}
    for index, name in enumerate(names):
        sites[f"{name}_offset"] = offsets[..., index]
        sites |= {f"{name}_mean": np.full(draws, means[index]), f"{name}_spread": np.full(draws, spreads[index])}
    effects, population = effects_of_population(sites, names, fit)

    def model():
        at = ({name: float(x) for name, x in zip(names, values, strict=True)} for values in (means, spreads))
        for name, value in write_subjects(*at, subjects, fit).items():
            numpyro.deterministic(name, value)

    for draw in range(2):
        given = {f"{name}_offset": sites[f"{name}_offset"][draw] for name in names}
        total, trace = log_density(model, (), {}, given)
        assert effects[0].log_prior[draw].sum() == pytest.approx(float(total), rel=1e-4)
        np.testing.assert_allclose(trace["beta"]["value"], places[draw, :, 1], rtol=1e-4)
    log_likelihood = norm(places, noise).logpdf(data).sum(-1)
    result = left_out_log_likelihood(effects, population, log_likelihood)
    expected = norm(means, np.hypot(spreads, noise)).logpdf(data).sum(-1)
    np.testing.assert_allclose(np.log(draws) - logsumexp(-result, axis=0), expected, atol=0.02)


def crossed(sessions, items, trials, rng):
    """Trials of people who come for several sessions and see the same items: columns, whose spread each has, person."""
    count = sessions * trials
    person = np.repeat(np.arange(7), count)
    session = np.repeat(np.arange(7 * sessions), trials)
    item = np.concatenate([rng.permutation(np.resize(np.arange(items), count)) for _ in range(7)])
    parts = [np.ones((len(person), 1)), np.eye(7)[person], np.eye(7 * sessions)[session], np.eye(items)[item]]
    which = np.repeat([-1, 0, 1, 2], [part.shape[1] for part in parts])
    return np.concatenate(parts, 1), which, person


def test_people_with_sessions_who_see_the_same_items_are_scored_from_the_others():
    """Against the exact marginal likelihood: of one spread each, by the determinant lemma."""
    rng, sessions, draws = np.random.default_rng(3), 4, 3000
    columns, which, person = crossed(sessions, 5, 10, rng)
    spreads = np.array([0.5, 0.4, 0.6])
    variance = np.append(1.0, spreads**2)[which + 1]
    y = columns @ (rng.normal(size=len(which)) * np.sqrt(variance)) + NOISE * rng.normal(size=len(person))

    def evidence(kept):
        design, data = columns[kept], y[kept]
        precision, along = design.T @ design / NOISE**2 + np.diag(1 / variance), design.T @ data / NOISE**2
        square = data @ data / NOISE**2 - along @ np.linalg.solve(precision, along)
        log_determinant = np.linalg.slogdet(precision)[1] + np.log(variance).sum() + 2 * len(data) * np.log(NOISE)
        return -0.5 * (square + log_determinant + len(data) * np.log(2 * np.pi))

    whole = evidence(np.ones(len(y), bool))
    expected = whole - np.array([evidence(person != index) for index in range(7)])
    covariance = np.linalg.inv(columns.T @ columns / NOISE**2 + np.diag(1 / variance))
    vector = rng.multivariate_normal(covariance @ columns.T @ y / NOISE**2, covariance, draws)
    log_likelihood = norm(vector @ columns.T, NOISE).logpdf(y)
    log_likelihood = np.stack([log_likelihood[:, person == index].sum(1) for index in range(7)], 1)
    owners = (np.arange(7), np.repeat(np.arange(7), sessions), np.full(5, -1))
    values = [vector[:, which == kind] for kind in range(3)]
    items = vector @ np.where(which == 2, columns, 0.0).T

    def score(told):
        effects = []
        for kind, owner in enumerate(owners):
            seen = columns[:, which == kind]
            mean = (items @ seen / seen.sum(0))[..., None] if told and kind < 2 else None
            log_prior = norm(0, spreads[kind]).logpdf(values[kind])
            effects.append(EffectDraws(owner, values[kind][..., None], log_prior, shared=mean))
        each = left_out_log_likelihood(effects, vector[:, :1], log_likelihood)
        return psis_loo("logo", xarray.DataArray(each[None], dims=("chain", "draw", "subject")))

    right, without = score(True), score(False)
    np.testing.assert_allclose(right.pointwise.values, expected, atol=0.12)
    assert abs((right.pointwise.values - expected).mean()) < 0.04 and right.doubtful == 0
    # What they share tells of their own: without it the weights are heavy.
    assert float(without.pareto_k.mean()) > float(right.pareto_k.mean()) + 0.15


def test_a_density_is_no_higher_at_the_draws_than_the_one_that_they_have():
    """Of many effects a normal density that was fitted to the draws themselves is: by 20 * 23 / (2 * 200) nats."""
    values = np.random.default_rng(0).normal(size=(200, 20))
    apart = conditional_normal(values, np.empty((200, 0))) - norm.logpdf(values).sum(1)
    assert -3.0 < apart.mean() < -0.3


def test_what_subjects_share_is_told_along_the_columns_of_their_own_effects():
    rng = np.random.default_rng(9)
    texts = ["drift ~ theta + (1 + theta | subject) + (1 | cond)", "bound ~ (1 | subject) + (1 | group)"]
    design = DATA.design(texts, fixed={"delay": 0.3})
    sites = sites_of_effects(design, rng)
    effects, _ = effects_of_design(design, {}, sites)
    slopes, conditions, intercepts, groups = effects
    assert [each.owner.min() for each in effects] == [0, -1, 0, -1] and slopes.values.shape == (2, SUBJECTS, 2)
    levels = list(design.parameters["drift"].groupings[1].levels)
    of_cond = sites["drift~1|cond_spread"][:, None] * sites["drift~1|cond_offset"]
    of_trial = of_cond[:, np.where(DATA.cond == "hard", levels.index("hard"), levels.index("easy"))]
    for subject in range(SUBJECTS):
        there = DATA.mask[subject]
        seen, values = DATA.theta[subject, there], of_trial[:, subject, there]
        np.testing.assert_allclose(slopes.shared[:, subject, 0], values.mean(1))
        np.testing.assert_allclose(slopes.shared[:, subject, 1], values @ seen / (seen @ seen))
    # Subject 3 alone is of group c: of the boundary groups a and b are shared, and c says nothing of others.
    group = sites["bound~1|group_spread"][:, None] * sites["bound~1|group_offset"]
    expected = np.where(DATA.group == "c", 0.0, group[:, [0, 1, 0, 2, 1]])
    np.testing.assert_allclose(intercepts.shared[..., 0], expected)
    np.testing.assert_allclose(groups.shared[:, 2, 0], 0.0)
    assert groups.owner.tolist() == [-1, -1, 3] and conditions.shared.shape == (2, 2, 1)


def sites_of_effects(design, rng):
    """Two draws of all latent sites."""
    sites = {name: np.exp(rng.normal(size=(2, *site.shape))) for name, site in design.sites.items()}
    for one in design.parameters.values():
        for grouping in one.groupings:
            sites |= {x.offset: rng.normal(size=(2, len(grouping.levels), *x.spread.shape)) for x in grouping.effects}
    return sites
