"""Each score against what it claims: an AR(1) process with exact answers, and Gaussian processes."""

import numpy as np
import pytest
from scipy.stats import norm

import ppl_buffer as pb
from tests.networks import FUNCTION, LEARNING, array, data, joint_predictive, network

pytest.importorskip("arviz")
xarray = pytest.importorskip("xarray")

from ppl_buffer import scores  # noqa: E402
from ppl_buffer.arviz import arviz_version, container, groups_of, import_arviz  # noqa: E402

# An AR(1) process y_t = phi y_(t-1) + noise whose coefficient all people share, phi ~ Normal(0, PRIOR).
NOISE, PRIOR, PEOPLE, TRIALS = 0.7, 0.5, 5, 23


@pytest.fixture(scope="module")
def series():
    """(people, trials + 1), the first value given."""
    rng = np.random.default_rng(3)
    y = rng.normal(size=(PEOPLE, TRIALS + 1))
    for trial in range(1, TRIALS + 1):
        y[:, trial] = 0.6 * y[:, trial - 1] + NOISE * rng.normal(size=PEOPLE)
    return y


def posterior(y, keep):
    """Mean and standard deviation of phi from the kept factors (people, trials)."""
    before, now = y[:, :-1][keep], y[:, 1:][keep]
    precision = PRIOR**-2 + (before**2).sum() / NOISE**2
    return (before * now).sum() / NOISE**2 / precision, precision**-0.5


def predictive(y, keep, person, trial):
    """Exact log density of a trial given its predecessor and the kept factors."""
    mean, std = posterior(y, keep)
    before, now = y[person, trial], y[person, trial + 1]
    return norm.logpdf(now, mean * before, np.hypot(NOISE, std * before))


@pytest.fixture(scope="module")
def fit(series):
    """Independent draws of the exact posterior: (chain, draw, subject, trial)."""
    mean, std = posterior(series, np.ones((PEOPLE, TRIALS), bool))
    phi = np.random.default_rng(4).normal(mean, std, (2, 3000))
    values = norm.logpdf(series[:, 1:], phi[..., None, None] * series[:, :-1], NOISE)
    sizes = dict(zip(("chain", "draw", "subject", "trial"), values.shape, strict=True))
    coords = {name: np.arange(size) for name, size in sizes.items()}
    return container(
        {
            "posterior": xarray.Dataset({"phi": (("chain", "draw"), phi)}, {k: coords[k] for k in ("chain", "draw")}),
            "log_likelihood": xarray.Dataset({"y": (tuple(sizes), values)}, coords),
        }
    )


def ragged(fit, lengths):
    """The same with the first trials of each person alone, as observations in reversed order."""
    groups = groups_of(fit)
    table = groups["log_likelihood"]["y"]
    subject, trial = np.nonzero(np.arange(TRIALS) < np.asarray(lengths)[:, None])
    subject, trial = subject[::-1], trial[::-1]
    flat = xarray.Dataset(
        {"y": (("chain", "draw", "observation"), table.values[:, :, subject, trial])},
        {"subject": ("observation", subject), "trial": ("observation", trial)},
    )
    return container({**groups, "log_likelihood": flat})


def test_loo_leaves_out_one_factor_and_is_what_arviz_sums(fit, series):
    score = scores.loo(fit)
    assert score.kind == "loo" and score.pointwise.dims == ("subject", "trial")
    for person, trial in [(0, 0), (2, 11), (4, TRIALS - 1)]:
        keep = np.ones((PEOPLE, TRIALS), bool)
        keep[person, trial] = False
        expected = predictive(series, keep, person, trial)
        assert abs(float(score.pointwise[person, trial]) - expected) < 0.005
    theirs = import_arviz().loo(fit)
    assert abs(score.elpd - (theirs.elpd_loo if arviz_version() < 1 else theirs.elpd)) < 0.02
    # The variance of the terms is divided by their number in 0.2x, by one less in 1.x.
    terms = score.pointwise.size
    ours = score.standard_error * (1 if arviz_version() < 1 else (terms / (terms - 1)) ** 0.5)
    assert abs(ours - theirs.se) < 0.02
    assert score.doubtful == 0 and "later trials have informed" in str(score)


def test_a_trial_that_is_a_lapse_at_every_draw_is_to_be_trusted():
    """The density of a lapse bounds the weights: a tail of equal ones is none, which ArviZ calls infinite."""
    rng = np.random.default_rng(5)
    few = np.where(rng.random(1000) < 0.02, -1.0, -40.0)
    decision = np.stack([rng.normal(-3.0, 1.0, 1000), np.full(1000, -40.0), few], -1)
    values = np.logaddexp(np.log(0.98) + decision, np.log(0.02) - 1.6)
    values[:, 0] = decision[:, 0] * 3.0
    score = scores.psis_loo("loo", xarray.DataArray(values[None], dims=("chain", "draw", "trial")))
    expected = -np.log(np.exp(-values).mean(0))
    assert score.pareto_k[0] > 0.7 and score.pareto_k[1] == score.pareto_k[2] == 0.0 and score.doubtful == 1
    np.testing.assert_allclose(score.pointwise[1:], expected[1:], atol=0.01)


def test_lfo_sees_a_persons_past_and_the_other_people(fit, series):
    score = scores.lfo(fit, first=2, progress=False)
    assert score.pointwise.size == score.pareto_k.size == PEOPLE * (TRIALS - 2)
    assert set(score.pointwise.coords) >= {"subject", "trial"}
    expected = np.zeros((PEOPLE, TRIALS))
    for person in range(PEOPLE):
        for trial in range(TRIALS):
            keep = np.ones((PEOPLE, TRIALS), bool)
            keep[person, trial:] = False
            expected[person, trial] = predictive(series, keep, person, trial)
    where = score.pointwise.subject.values, score.pointwise.trial.values
    assert where[1].min() == 2
    np.testing.assert_allclose(score.pointwise.values, expected[where], atol=0.04)
    assert abs(score.elpd - expected[:, 2:].sum()) < 0.2
    # With the last trial the two scores agree by definition, elsewhere they do not.
    last = score.pointwise.values[where[1] == TRIALS - 1]
    one = scores.loo(fit)
    np.testing.assert_allclose(last, one.pointwise[:, -1].values, atol=1e-6)
    shapes = score.pareto_k.values[where[1] == TRIALS - 1]
    np.testing.assert_allclose(shapes, one.pareto_k[:, -1].values, atol=1e-6)


def test_data_sets_of_one_person_have_futures_of_their_own(fit):
    table = groups_of(fit)["log_likelihood"]["y"].values[:, :, :4]
    crossed = table.reshape(*table.shape[:2], 2, 2, TRIALS)
    dims = ("chain", "draw", "condition", "subject", "trial")
    coords = {name: np.arange(size) for name, size in zip(dims, crossed.shape, strict=True)}
    score = scores.lfo(container({"log_likelihood": xarray.Dataset({"y": (dims, crossed)}, coords)}), progress=False)
    expected = scores.lfo(fit, progress=False).pointwise.values[: 4 * TRIALS]
    np.testing.assert_allclose(score.pointwise.values, expected)
    assert set(score.pointwise.coords) >= {"condition", "subject", "trial"}


def test_logo_predicts_all_trials_of_a_person_from_the_others(fit, series):
    score = scores.logo(fit)
    assert score.pointwise.dims == ("subject",)
    for person in range(PEOPLE):
        keep = np.ones((PEOPLE, TRIALS), bool)
        keep[person] = False
        expected = 0.0
        for trial in range(TRIALS):
            expected += predictive(series, keep, person, trial)
            keep[person, trial] = True
        assert abs(float(score.pointwise[person]) - expected) < 0.05
    theirs = import_arviz().loo(scores.by_subject(fit))
    assert abs(score.elpd - (theirs.elpd_loo if arviz_version() < 1 else theirs.elpd)) < 0.05


def test_ragged_people_in_any_order_score_as_rectangular_ones(fit):
    lengths = [23, 7, 11, 2, 5]
    cut = ragged(fit, lengths)
    rectangular = scores.loo(fit).pointwise
    flat = scores.loo(cut).pointwise
    expected = [float(rectangular[s, t]) for s, t in zip(flat.subject.values, flat.trial.values, strict=True)]
    np.testing.assert_allclose(flat.values, expected, atol=1e-9)
    assert scores.logo(cut).pointwise.size == PEOPLE
    sums = groups_of(fit)["log_likelihood"]["y"].values
    by_person = groups_of(scores.by_subject(cut))["log_likelihood"]["y"]
    np.testing.assert_allclose(by_person.sel(subject=3), sums[:, :, 3, :2].sum(-1))
    # The last trial of a person is scored with nothing but itself removed, the one before with two removed.
    ahead = scores.lfo(cut, progress=False).pointwise
    last = ahead.values[(ahead.subject.values == 3) & (ahead.trial.values == 1)]
    np.testing.assert_allclose(last, float(rectangular[3, 1]), atol=1e-6)


def test_a_score_that_cannot_be_trusted_says_so(series):
    # A person unlike all others, of whose own parameter the others know nothing but a wide prior.
    rng = np.random.default_rng(0)
    values = norm.logpdf(rng.normal(4.0, 0.1, (3, 19)), rng.normal(4.0, 0.02, (2, 500, 3, 1)), 0.1)
    coords = {
        name: np.arange(size) for name, size in zip(("chain", "draw", "subject", "trial"), values.shape, strict=True)
    }
    wild = container({"log_likelihood": xarray.Dataset({"y": (tuple(coords), 3 * values)}, coords)})
    with pytest.warns(UserWarning, match="logo: Pareto k is above 0.6") as warned:
        score = scores.logo(wild)
    assert warned[0].message.finding.share == score.doubtful / 3
    assert score.doubtful > 0 and f"in {score.doubtful} of 3" in str(score)
    with pytest.warns(UserWarning, match="lfo: Pareto k .*first="):
        scores.lfo(wild, progress=False)


def test_few_draws_are_no_reason_to_fail_but_to_doubt(fit):
    few = container({"log_likelihood": groups_of(fit)["log_likelihood"].isel(draw=slice(7))})
    values = groups_of(few)["log_likelihood"]["y"].values
    with pytest.warns(UserWarning, match=f"loo: Pareto k is above .* in {PEOPLE * TRIALS} of"):
        score = scores.loo(few)
    assert np.isinf(score.pareto_k).all()
    # Importance sampling without smoothing: the harmonic mean of the likelihood.
    np.testing.assert_allclose(score.pointwise, -np.log(np.exp(-values).mean((0, 1))), atol=1e-9)


def test_scores_compare_with_their_own_kind(fit):
    one, other = scores.loo(fit), scores.logo(fit)
    groups = groups_of(fit)
    worse = container({**groups, "log_likelihood": groups["log_likelihood"] - 0.25})
    difference, error = one.difference(scores.loo(worse))
    assert difference == pytest.approx(0.25 * PEOPLE * TRIALS) and error == pytest.approx(0, abs=1e-9)
    with pytest.raises(ValueError, match="other: expected a score of the same kind 'loo', got 'logo'"):
        one.difference(other)
    with pytest.raises(ValueError, match="same trials"):
        scores.lfo(fit, progress=False).difference(scores.lfo(fit, first=3, progress=False))


def scored(values, outcomes=None, **labels):
    """A score of observations with labels, and with what was observed."""
    coords = {name: ("observation", np.asarray(x)) for name, x in labels.items()}
    if outcomes is not None:
        coords["outcomes"] = ("observation", np.asarray(outcomes))
    return scores.Score("loo", xarray.DataArray(np.asarray(values, float), dims="observation", coords=coords))


def test_a_difference_pairs_terms_by_their_labels():
    # Differences 1, 2, 3 and 4: their variance is 1.25, and that of their sum four times as much.
    one = scored([1, 2, 3, 4], subject=["a", "a", "b", "b"], trial=[1, 2, 1, 2])
    other = scored([0, 0, 0, 0], subject=["b", "a", "b", "a"], trial=[2, 2, 1, 1])
    assert one.difference(other) == pytest.approx((10, np.sqrt(4 * 1.25)))
    assert one.standard_error == pytest.approx(np.sqrt(4 * 1.25))
    shuffled = scored([4, 2, 3, 1], subject=["b", "a", "b", "a"], trial=[2, 2, 1, 1])
    assert one.difference(shuffled) == pytest.approx((0, 0))
    alone = scored([1.0], subject=["a"], trial=[1])
    assert np.isnan(alone.standard_error) and np.isnan(alone.difference(alone)[1])
    assert "elpd 1.0 (standard error unknown)" in str(alone)


def test_people_in_another_order_have_the_same_difference(fit):
    groups = groups_of(fit)
    noise = np.random.default_rng(0).normal(size=(PEOPLE, TRIALS))
    worse = container({**groups, "log_likelihood": groups["log_likelihood"] - noise})
    expected = scores.loo(fit).difference(scores.loo(worse))
    assert expected == pytest.approx((noise.sum(), np.sqrt(noise.size * noise.var())), abs=1e-6)
    backwards = container(
        {**groups, "log_likelihood": groups_of(worse)["log_likelihood"].isel(subject=[4, 2, 0, 3, 1])}
    )
    for score in (scores.loo, scores.logo):
        assert score(fit).difference(score(backwards)) == pytest.approx(score(fit).difference(score(worse)))
    # Without labels nothing but the data tells that people are in another order.
    y = xarray.Dataset({"y": (("subject", "trial"), noise)})
    told = container({**groups, "observed_data": y})
    other = container({**groups, "observed_data": y.isel(subject=[4, 2, 0, 3, 1])})
    for score, text in ((scores.loo, f"in {4 * TRIALS} of {PEOPLE * TRIALS}"), (scores.logo, "such as subject 0")):
        assert score(told).difference(score(told)) == pytest.approx((0, 0))
        with pytest.raises(ValueError, match=f"other: expected a score of the same data.*{text}"):
            score(told).difference(score(other))


def test_axes_in_another_order_are_the_same_terms():
    names = {"subject": ["a", "b"], "trial": [1, 2, 3]}
    values = xarray.DataArray(np.arange(6.0).reshape(2, 3) ** 2, coords=names, dims=list(names))
    one = scores.Score("loo", values)
    assert one.difference(scores.Score("loo", (values - 1).transpose("trial", "subject"))) == pytest.approx((6, 0))


def test_pareto_k_is_judged_by_the_number_of_draws():
    terms = xarray.DataArray([0.0, 0.0, 0.0], dims="observation")
    for draws, threshold in ((None, 0.7), (100, 0.5), (1000, 2 / 3), (10**6, 0.7)):
        shapes = xarray.DataArray([threshold - 0.01, threshold, threshold + 0.01], dims="observation")
        score = scores.Score("loo", terms, shapes, draws)
        assert score.threshold == pytest.approx(threshold) and score.doubtful == 1


def test_a_difference_refuses_other_people_trials_and_outcomes():
    one = scored([1, 2], subject=["a", "b"], trial=[1, 1], outcomes=[7, 8])
    with pytest.raises(ValueError, match="lacks 1 of its 2 terms, such as subject b, trial 1 and has more, 1 of its 2"):
        one.difference(scored([1, 2], subject=["a", "c"], trial=[1, 1]))
    with pytest.raises(ValueError, match="other outcomes in 1 of 2 terms, such as subject b, trial 1"):
        one.difference(scored([1, 2], subject=["a", "b"], trial=[1, 1], outcomes=[7, 9]))
    with pytest.raises(ValueError, match=r"labelled by \['subject', 'trial'\], got \['subject'\]"):
        one.difference(scored([1, 2], subject=["a", "b"]))
    with pytest.raises(ValueError, match="other: expected each label once, got subject a, trial 1 several times"):
        one.difference(scored([1, 2, 3], subject=["a", "b", "a"], trial=[1, 1, 1]))
    with pytest.raises(ValueError, match="other: expected a Score, got float"):
        one.difference(3.0)


def test_people_of_one_label_are_not_merged(fit):
    twice = groups_of(ragged(fit, [23, 7, 11, 2, 5]))["log_likelihood"]
    twice = twice.assign_coords(subject=("observation", np.where(twice.subject == 3, 2, twice.subject)))
    for score in (scores.loo, scores.logo, scores.by_subject, scores.lfo):
        with pytest.raises(ValueError, match="each subject and trial once, got subject 2, trial 1 several times"):
            score(container({"log_likelihood": twice}))
    gaps = twice.assign_coords(subject=("observation", np.where(twice.subject == 2, np.nan, twice.subject)))
    gaps = gaps.isel(observation=np.flatnonzero(gaps.trial > 6))
    with pytest.raises(ValueError, match="a label of everybody in 'subject'"):
        scores.logo(container({"log_likelihood": gaps}))


def test_trials_follow_each_other_as_numbers_do_or_as_they_lie(fit):
    groups = groups_of(fit)
    expected = scores.lfo(fit, progress=False).pointwise.values
    named = groups["log_likelihood"].assign_coords(trial=[f"{t + 1}" for t in range(TRIALS)])
    # As text "10" comes before "2".
    np.testing.assert_allclose(
        scores.lfo(container({"log_likelihood": named}), progress=False).pointwise.values, expected
    )
    without = groups["log_likelihood"].rename(trial="time")
    with pytest.raises(ValueError, match=r"a coordinate 'trial'.*got \['subject', 'time'\]"):
        scores.lfo(container({"log_likelihood": without}), progress=False)


def test_a_regression_on_trials_names_its_plate(fit):
    groups = groups_of(fit)
    expected = scores.lfo(fit, progress=False).pointwise
    alone = groups["log_likelihood"].isel(subject=3, drop=True).rename(trial="trials")
    alone = container({"log_likelihood": alone.isel(trials=slice(None, None, -1))})
    with pytest.raises(ValueError, match=r"\['trials'\] tell all trials apart; trial=... names"):
        scores.lfo(alone, progress=False)
    found = scores.lfo(alone, trial="trials", progress=False).pointwise
    np.testing.assert_allclose(found.values[::-1], expected.values[expected.subject.values == 3])
    with pytest.raises(ValueError, match=r"trial: expected one of the coordinates \['trials'\], got 'row'"):
        scores.lfo(alone, trial="row", progress=False)


def test_people_have_a_plate_of_another_name(fit):
    groups = groups_of(fit)
    named = container({"log_likelihood": groups["log_likelihood"].rename(subject="people")})
    with pytest.raises(ValueError, match=r"coordinate 'subject', got \['people', 'trial'\]; subject=... names another"):
        scores.logo(named)
    np.testing.assert_allclose(scores.logo(named, subject="people").pointwise, scores.logo(fit).pointwise)
    assert groups_of(scores.by_subject(named, subject="people"))["log_likelihood"]["y"].dims[2:] == ("people",)


def test_draws_that_rule_the_data_out_are_refused(fit):
    table = groups_of(fit)["log_likelihood"].copy(deep=True)
    table["y"][1, 7, 2, 11] = -np.inf
    with pytest.raises(ValueError, match="at 1 of 6000 draws in 1 of 115 terms, first at subject 2, trial 11"):
        scores.loo(container({"log_likelihood": table}))


def test_what_cannot_be_scored_is_refused(fit):
    for wrong in (None, {}, 3.0, "fit.nc"):
        with pytest.raises(ValueError, match="data: expected what from_mcmc or from_svi returned"):
            scores.loo(wrong)
    with pytest.raises(ValueError, match=r"var_name: expected one of \['y'\], got 'z'"):
        scores.loo(fit, var_name="z")
    with pytest.raises(ValueError, match="first: expected fewer trials"):
        scores.lfo(fit, first=TRIALS, progress=False)
    groups = groups_of(fit)
    with pytest.raises(ValueError, match="group log_likelihood"):
        scores.lfo(container({"posterior": groups["posterior"]}))
    alone = container({"log_likelihood": groups["log_likelihood"].isel(subject=0, drop=True)})
    with pytest.raises(ValueError, match="coordinate 'subject'"):
        scores.logo(alone)
    assert scores.lfo(alone, progress=False).pointwise.size == TRIALS
    torch = pytest.importorskip("torch")
    given = data(LEARNING)
    with pytest.raises(ValueError, match="exchangeable"):
        scores.leave_one_out(
            network(LEARNING, "torch"), given.inputs, torch.as_tensor(given.value), feedback=given.feedback
        )


def test_leave_one_out_predicts_each_trial_with_all_others_as_its_context():
    pytest.importorskip("torch")
    given = data(FUNCTION, batch=2, trials=5)
    mask = np.arange(5) < np.array([[5], [3]])
    score = scores.leave_one_out(network(FUNCTION, "torch"), given.inputs, given.value, trial_mask=mask)
    assert score.pareto_k is None and score.pointwise.size == 8
    for term, person, trial in zip(
        score.pointwise.values, score.pointwise.subject.values, score.pointwise.trial.values, strict=True
    ):
        others = (np.arange(5) != trial) & mask[person]
        context = {"x": given.inputs["x"][person, others], "y": given.value[person, others]}
        one = joint_predictive(FUNCTION, "torch", {"x": given.inputs["x"][person, [trial]]}, context=context)
        expected = float(one.log_prob(array("torch", given.value[person, [trial]])))
        assert abs(term - expected) < 1e-4


def test_leave_one_out_of_a_gaussian_process():
    pytest.importorskip("torch")
    from tests.references.gaussian_process import log_evidence

    simulator, net = pb.simulators.GaussianProcess(), pb.load("gp", backend="torch")
    rng, size, trials = np.random.default_rng(8), 6, 7
    inputs = simulator.inputs(rng, 1, trials)
    inputs = {name: np.repeat(x, size, 0) for name, x in inputs.items()}
    y = simulator.simulate(rng, simulator.prior(rng, size), inputs)["y"]
    x = inputs["x"][0]
    score = scores.leave_one_out(net, inputs, y)
    exact = np.zeros((size, trials))
    for trial in range(trials):
        others = np.arange(trials) != trial
        whole, rest = (log_evidence(x[kept], y[:, kept], simulator.kernels, net.box) for kept in (slice(None), others))
        exact[:, trial] = whole - rest
    error = score.pointwise.values.reshape(size, trials) - exact
    # The network is an approximation: 0.05 nats a target are its card's figure, single terms may be further off.
    assert abs(error.mean()) < 0.15 and np.sqrt((error**2).mean()) < 0.4
    assert np.corrcoef(score.pointwise.values, exact.reshape(-1))[0, 1] > 0.9
