"""Designs from formulas against formulae's own matrices and by hand: rows, names, priors, ceilings, refusals."""

from dataclasses import replace

import numpy as np
import pytest

pandas = pytest.importorskip("pandas")
formulae = pytest.importorskip("formulae")
pytest.importorskip("jax")
pytest.importorskip("numpyro")

from numpyro import handlers  # noqa: E402

import ppl_buffer as pb  # noqa: E402
from ppl_buffer import formulas  # noqa: E402
from ppl_buffer.numpyro import JointPredictive, hierarchical_params  # noqa: E402
from tests.formulas.cases import BY_TRIAL, RECORD, SUBJECTS, Deciders  # noqa: E402
from tests.networks import DIRECT_SIZES, REPORT, Record, data, network  # noqa: E402

DATA = Deciders()


def table():
    """A row a trial that exists."""
    columns = {"cond": DATA.cond, "theta": DATA.theta, "age": np.repeat(DATA.age[:, None], DATA.mask.shape[1], 1)}
    columns["subject"] = np.repeat(np.arange(1, SUBJECTS + 1).astype(str)[:, None], DATA.mask.shape[1], 1)
    return pandas.DataFrame({name: x[DATA.mask] for name, x in columns.items()})


def test_rows_of_trials_are_those_of_formulae():
    text = "cond * scale(theta) + age + (1 + cond | subject)"
    one = DATA.design([f"drift ~ {text}"]).parameters["drift"]
    theirs = formulae.design_matrices(text, table())
    assert one.by_trial and one.rows.shape == DATA.mask.shape
    common = (one.matrix + one.centres)[one.rows[DATA.mask]]
    np.testing.assert_allclose(common, theirs.common.design_matrix, rtol=1e-12, atol=1e-12)
    assert [site.name for site in one.sites] == [
        "drift_mean", "drift~cond", "drift~scale(theta)", "drift~cond:scale(theta)", "drift~age",
    ]  # fmt: skip
    # Columns are centred where each subject counts the same, however many trials they did.
    for column, centre in enumerate(one.centres[1:], start=1):
        padded = np.zeros(DATA.mask.shape)
        padded[DATA.mask] = np.asarray(theirs.common.design_matrix)[:, column]
        assert centre == pytest.approx(DATA.mean(padded))
    (grouping,) = one.groupings
    whole = np.zeros((int(DATA.mask.sum()), 2 * SUBJECTS))
    index = grouping.index[one.rows[DATA.mask]]
    for place, effect in enumerate(grouping.effects):
        whole[np.arange(len(index)), place * SUBJECTS + index] = effect.columns[one.rows[DATA.mask], 0]
    np.testing.assert_array_equal(whole, theirs.group.design_matrix.toarray())
    assert grouping.levels == ("1", "2", "3", "4", "5") and grouping.plate == "subject"
    assert [(effect.spread.name, effect.offset) for effect in grouping.effects] == [
        ("drift_spread", "drift_offset"), ("drift~cond|subject_spread", "drift~cond|subject_offset"),
    ]  # fmt: skip


def test_a_formula_of_subjects_has_a_row_a_data_set():
    made = DATA.design(["bound ~ center(age) + group", "delay ~ 0 + group + (1 | group)"], fixed={"drift": 0.25})
    bound, delay = made.parameters["bound"], made.parameters["delay"]
    assert not bound.by_trial and made.fixed == {"drift": 0.25} and "drift" not in made.parameters
    rows = (bound.matrix + bound.centres)[bound.rows]
    dummies = np.stack([DATA.group == "b", DATA.group == "c"], 1)
    np.testing.assert_allclose(rows[:, 1], DATA.age - DATA.age.mean())
    np.testing.assert_array_equal(rows[:, 2:], dummies)
    assert bound.sites[2].labels == ("b", "c")
    # Without an intercept there are means of groups, which rows are shared by; nothing is centred.
    assert delay.matrix.shape == (3, 3) and not delay.intercept and delay.sites[0].labels == ("a", "b", "c")
    np.testing.assert_allclose(delay.weights, [0.4, 0.4, 0.2])
    assert delay.groupings[0].plate == "group_level" and delay.groupings[0].levels == ("a", "b", "c")
    assert made.levels == {"age": "subject", "group": "subject"}
    shared = DATA.design(["bound ~ 1"]).parameters
    assert len(shared["bound"].matrix) == 1 and not shared["bound"].groupings
    assert len(shared["drift"].matrix) == SUBJECTS and shared["drift"].plain and not shared["bound"].plain


def test_default_priors_are_those_that_are_stated():
    sites = DATA.design(BY_TRIAL).sites
    assert float(sites["drift_mean"].scale) == 1.5 and float(sites["drift~cond"].scale[0]) == 1.0
    assert float(sites["drift_spread"].scale) == 0.5 and float(sites["drift~cond|subject_spread"].scale[0]) == 0.25
    assert float(sites["bound~age"].scale) == pytest.approx(1 / (2 * DATA.age.std()))
    mean = DATA.mean(DATA.theta)
    spread = np.sqrt(DATA.mean((DATA.theta - mean) ** 2))
    assert float(sites["drift~theta"].scale) == pytest.approx(1 / (2 * spread))
    assert sites["bound~age"].description().startswith("Normal(0, 0.035")
    own = {
        "bound~age": pb.Prior("Normal", {"loc": 0.1, "scale": 0.3}),
        "delay_spread": pb.Prior("HalfNormal", {"scale": 0.2}),
    }
    sites = DATA.design(BY_TRIAL, priors=own).sites
    assert sites["bound~age"].prior == own["bound~age"] and sites["drift~cond"].prior is None
    np.testing.assert_allclose(np.concatenate(sites["bound~age"].moments()), [0.1, 0.3], rtol=1e-3)


def test_a_non_decision_time_stays_below_the_responses_that_share_it():
    made = DATA.design(BY_TRIAL).parameters["delay"]
    for subject in range(SUBJECTS):
        for trial in np.flatnonzero(DATA.mask[subject]):
            same = DATA.mask[subject] & (DATA.cond[subject] == DATA.cond[subject, trial])
            ceiling = made.ceilings[made.rows[subject, trial]]
            assert ceiling == pytest.approx(min(DATA.rt[subject][same].min(), 2.0), rel=1e-6)
    shared = DATA.design(["delay ~ 1"]).parameters["delay"]
    np.testing.assert_allclose(shared.ceilings, [DATA.rt[DATA.mask].min()], rtol=1e-6)
    persons = np.array(["x", "y", "x", "x", "y"])
    of_person = DATA.design([], subjects=persons).parameters["delay"]
    theirs = [DATA.rt[who][DATA.mask[who]].min() for who in (persons == "x", persons == "y")]
    np.testing.assert_allclose(of_person.ceilings, theirs, rtol=1e-6)
    assert of_person.groupings[0].plate == "subject_level" and of_person.rows.tolist() == [0, 1, 0, 0, 1]


def test_what_varies_within_a_data_set_is_refused_where_trials_depend_on_each_other():
    record = Record(box={"mu": (-3.0, 3.0)}, priors={"mu": None}, trials=11, context=0, simulator="none")
    net, given = network(REPORT, "jax", record), data(REPORT, batch=2, trials=3)
    seen = net.observe(given.inputs, given.value)
    block = np.array([[1, 1, 2], [1, 2, 2]])
    with pytest.raises(ValueError, match=r"'block' varies within a data set, but trials .*session='block'"):
        formulas.design(net, seen, ["mu ~ block"], {"block": block})
    # The same as data sets of their own, of one person.
    made = formulas.design(net, seen, ["mu ~ block + (1 | subject:block)"], {"block": [1, 2]}, subjects=["p", "p"])
    assert made.parameters["mu"].groupings[0].levels == ("p:1", "p:2")
    assert made.levels == {"block": "data set", "subject": "subject"}
    assert formulas.design(net, seen, subjects=["p", "p"]).parameters["mu"].formula == "1"


def test_learners_go_on_with_other_parameters_where_the_network_has_learnt_such():
    record = Record(box={"mu": (-3.0, 3.0)}, priors={"mu": None}, trials=11, context=0, simulator="none")
    case = replace(REPORT, name="report, changing", config=replace(DIRECT_SIZES, likelihood_trial_params=True))
    net, given = network(case, "jax", record), data(case, batch=2, trials=3)
    block = np.array([[1, 1, 2], [1, 2, 2]])
    made = formulas.design(net, net.observe(given.inputs, given.value), ["mu ~ block"], {"block": block})
    assert made.conditions.tolist() == [[0, 0, 1], [0, 1, 1]]
    seen = net.observe(given.inputs, given.value, conditions=made.conditions)
    with handlers.seed(rng_seed=0), handlers.trace() as trace:
        params, by_trial = hierarchical_params(net, made.at_conditions)
    assert params == {} and by_trial["mu"].shape == (2, 2)
    slope = trace["mu~block"]["value"]
    real = np.asarray(net.from_box("mu", by_trial["mu"]))
    np.testing.assert_allclose(real[:, 1] - real[:, 0], slope.reshape(()), rtol=1e-3)
    each = np.take_along_axis(np.asarray(by_trial["mu"]), made.conditions, 1)
    expected = JointPredictive(net, given.inputs, trial_params={"mu": each}).log_prob(given.value)
    np.testing.assert_allclose(
        JointPredictive(net, seen, trial_params=by_trial).log_prob(seen.value), expected, rtol=1e-5
    )
    with pytest.raises(ValueError, match=r"'block' varies within a data set, but its direct likelihood"):
        formulas.design(net.preferring("buffer"), seen, ["mu ~ block"], {"block": block})


@pytest.mark.parametrize(
    ("texts", "more", "message"),
    [
        (["drift ~ conf"], {}, "there is no column 'conf', but 'cond'; the columns are"),
        (["drif ~ cond"], {}, "no parameter 'drif', but 'drift'"),
        (["drift"], {}, "expected PARAMETER ~ TERMS"),
        ("drift ~ cond", {}, "expected a list of texts"),
        (["drift ~ cond +"], {}, "cannot be read"),
        (["drift ~ nothing(age)"], {}, "cannot be evaluated"),
        (["drift ~ 0"], {}, "expected a term"),
        (["drift ~ cond", "drift ~ age"], {}, "one formula for 'drift'"),
        (["drift ~ age + I(2 * age)"], {}, r"3 coefficients cannot be told apart \(rank 2\)"),
        (["drift ~ one"], {"covariates": {"one": np.ones(5)}}, "cannot be told apart"),
        (["drift ~ (1 | one)"], {"covariates": {"one": np.ones(5)}}, "'one' has one level"),
        (["drift ~ gap"], {"covariates": {"gap": [1.0, np.nan, 3.0, 4.0, 5.0]}}, "'gap' has no value in 5 of 29"),
        (["drift ~ age"], {"covariates": {"age": np.ones(4)}}, r"covariates\['age'\]: expected numbers or text"),
        (["drift ~ age"], {"fixed": {"drift": 0.5}}, "one formula for 'drift', or a fixed value"),
        ([], {"fixed": {"drift": 3.0}}, r"fixed\['drift'\]: expected a number from -1 to 1.5"),
        ([], {"fixed": {"alpha": 3.0}}, "fixed: expected names among"),
        ([], {"fixed": {"drift": 0.0, "delay": 0.2, "bound": 1.5}}, "at least one parameter that is not fixed"),
        (
            [],
            {"priors": {"drift~age": pb.Prior.uniform(0, 1)}},
            "expected names of coefficients or spreads, 'drift_mean'",
        ),
        ([], {"priors": {"drift_spread": pb.Prior.uniform(-1, 1)}}, "expected a prior of numbers above 0"),
        ([], {"subjects": ["a", "b"]}, "subjects: expected 5 labels"),
    ],
)
def test_mistakes_are_named(texts, more, message):
    with pytest.raises(ValueError, match=message):
        DATA.design(texts, **more)


def test_natural_units_are_averages_over_data_sets():
    made, net = DATA.design(BY_TRIAL), DATA.net()
    rng = np.random.default_rng(0)
    draws = {name: rng.normal(0, 0.4, (3, *site.shape)) for name, site in made.sites.items()}
    drift = formulas.effects(net, made, "drift", draws)
    assert list(drift.contrasts)[0] == "cond: hard - easy" and "drift~cond[hard]" in drift.coefficients
    low, high = RECORD.box["drift"]

    def natural(hard, theta):
        product = np.where(DATA.cond == "hard", DATA.theta, 0.0)
        real = draws["drift_mean"][:, None, None] + draws["drift~cond"][:, 0, None, None] * (
            hard - DATA.mean(1.0 * (DATA.cond == "hard"))
        )
        real = real + draws["drift~theta"][:, None, None] * (theta - DATA.mean(DATA.theta))
        real = real + draws["drift~cond:theta"][:, 0, None, None] * (hard * theta - DATA.mean(product))
        value = low + (high - low) * (1e-4 + (1 - 2e-4) / (1 + np.exp(-real)))
        return np.array([DATA.mean(each) for each in np.broadcast_to(value, (3, *DATA.mask.shape))])

    expected = natural(1.0, DATA.theta) - natural(0.0, DATA.theta)
    np.testing.assert_allclose(drift.contrasts["cond: hard - easy"], expected, rtol=1e-4)
    mean = DATA.mean(DATA.theta)
    spread = np.sqrt(DATA.mean((DATA.theta - mean) ** 2))
    label = next(label for label in drift.contrasts if label.startswith("theta:") and "(cond = hard)" in label)
    np.testing.assert_allclose(
        drift.contrasts[label], natural(1.0, mean + spread) - natural(1.0, mean - spread), rtol=1e-3
    )
    bound = formulas.effects(net, made, "bound", draws)
    groups = {f"group: {more} - {less}" for more, less in ("ba", "ca", "cb")}
    assert groups <= set(bound.contrasts) and len(bound.means) == 5
