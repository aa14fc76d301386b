"""The density of a hierarchy by formula, written by hand, in NumPyro and in Pyro."""

import numpy as np
import pytest
from scipy import stats

pytest.importorskip("pandas")
pytest.importorskip("formulae")
pytest.importorskip("numpyro")
pytest.importorskip("pyro")

import ppl_buffer as pb
from ppl_buffer import formulas
from tests.formulas.cases import BY_TRIAL, RECORD, SUBJECTS, Deciders, sites_of
from tests.networks import DISCRIMINATION, array, joint_predictive

pytestmark = pytest.mark.usefixtures("quick_compilation")

DATA = Deciders()
CORRELATION = 0.45


def language_density(backend, design, values, seen=None):
    """Log density of data and sites, and the model's deterministic sites."""
    net, seen = DATA.net(backend), DATA.seen(backend) if seen is None else seen
    if backend == "jax":
        import numpyro
        from numpyro import handlers

        from ppl_buffer.numpyro import JointPredictive, hierarchical_params

        def model():
            params, by_trial = hierarchical_params(net, design)
            with numpyro.plate("subject", SUBJECTS):
                made = JointPredictive(net, seen, params=params, trial_params=by_trial)
                numpyro.sample("y", made, obs=seen.value)

        trace = handlers.trace(handlers.substitute(model, array("jax", values))).get_trace()
        total = sum(
            float(site["fn"].log_prob(site["value"]).sum()) for site in trace.values() if site["type"] == "sample"
        )
        return total, {
            name: np.asarray(site["value"]) for name, site in trace.items() if site["type"] == "deterministic"
        }
    import pyro
    from pyro import poutine

    from ppl_buffer.pyro import JointPredictive, hierarchical_params

    def model():
        params, by_trial = hierarchical_params(net, design)
        with pyro.plate("data_set", SUBJECTS):
            pyro.sample("y", JointPredictive(net, seen, params=params, trial_params=by_trial), obs=seen.value)

    trace = poutine.trace(poutine.condition(model, array("torch", values))).get_trace()
    total = float(trace.log_prob_sum())
    made = [name for name, site in trace.nodes.items() if site.get("infer", {}).get("_deterministic")]
    return total, {name: np.asarray(trace.nodes[name]["value"]) for name in made}


def into(name, real, ceiling=np.inf):
    low, high = RECORD.box[name]
    free = (high - low) * (1e-4 + (1 - 2e-4) / (1 + np.exp(-real)))
    room = np.minimum(0.9999 * (ceiling - low), high - low)
    return low + (free**-8.0 + room**-8.0 - (high - low) ** -8.0) ** (-1 / 8)


def by_hand(values, correlated):
    """Log density, and the drift of each trial."""
    hard = 1.0 * (DATA.cond == "hard")
    offsets = np.stack([values["drift_offset"], values["drift~cond|subject_offset"][:, 0]])
    if correlated:
        offsets = np.array([offsets[0], CORRELATION * offsets[0] + np.sqrt(1 - CORRELATION**2) * offsets[1]])
    drift = values["drift_mean"] + (values["drift_spread"] * offsets[0])[:, None]
    drift = drift + (values["drift~cond|subject_spread"] * offsets[1])[:, None] * hard
    for site, column in (("drift~cond", hard), ("drift~theta", DATA.theta), ("drift~cond:theta", hard * DATA.theta)):
        drift = drift + float(values[site].reshape(())) * (column - DATA.mean(column))
    delay = values["delay_mean"] + values["delay~cond"] * (hard - DATA.mean(hard))
    delay = delay + (values["delay_spread"] * values["delay_offset"])[:, None]
    same = DATA.mask[:, None] & (DATA.cond[:, :, None] == DATA.cond[:, None])
    ceiling = np.where(same, DATA.rt[:, None], np.inf).min(-1)
    bound = values["bound_mean"] + values["bound~age"] * (DATA.age - DATA.age.mean())
    for level, coefficient in zip("bc", values["bound~group"], strict=True):
        bound = bound + coefficient * ((DATA.group == level) - np.mean(DATA.group == level))
    by_trial = {"drift": into("drift", drift), "delay": into("delay", delay, ceiling)}
    joint = joint_predictive(
        DISCRIMINATION, "jax", {"coherence": DATA.coherence}, net=DATA.net("jax"), trial_mask=DATA.mask,
        params={"bound": into("bound", bound).astype(np.float32)},
        trial_params={name: x.astype(np.float32) for name, x in by_trial.items()},
    )  # fmt: skip
    total = float(joint.log_prob(array("jax", DATA.value)).sum())
    mean = DATA.mean(DATA.theta)
    product = hard * DATA.theta
    scales = {
        "drift_mean": 1.5, "delay_mean": 1.5, "bound_mean": 1.5, "drift~cond": 1.0, "delay~cond": 1.0,
        "bound~group": 1.0, "bound~age": 1 / (2 * DATA.age.std()),
        "drift~theta": 0.5 / np.sqrt(DATA.mean((DATA.theta - mean) ** 2)),
        "drift~cond:theta": 0.5 / np.sqrt(DATA.mean((product - DATA.mean(product)) ** 2)),
    }  # fmt: skip
    total += sum(stats.norm(0, scale).logpdf(values[name]).sum() for name, scale in scales.items())
    medians = {"drift_spread": 0.5, "delay_spread": 0.5, "drift~cond|subject_spread": 0.25}
    total += sum(stats.lognorm(0.7, 0, median).logpdf(values[name]).sum() for name, median in medians.items())
    total += sum(stats.norm.logpdf(x).sum() for name, x in values.items() if name.endswith("_offset"))
    if correlated:
        # Of the correlation's density, 3/4 (1 - r^2).
        total += np.log(0.75 * (1 - CORRELATION**2))
    return total, by_trial["drift"]


@pytest.mark.parametrize("correlated", [False, True], ids=["independent", "correlated"])
def test_both_languages_have_the_density_written_by_hand(correlated):
    design = DATA.design(BY_TRIAL, correlated=correlated)
    values = sites_of(design, CORRELATION)
    expected, drift = by_hand(values, correlated)
    totals, made = {}, {}
    for backend in ("jax", "torch"):
        totals[backend], made[backend] = language_density(backend, design, values)
    assert totals["jax"] == pytest.approx(expected, rel=2e-5, abs=2e-3)
    assert totals["torch"] == pytest.approx(totals["jax"], rel=2e-5, abs=2e-3)
    assert set(made["jax"]) == set(made["torch"]) >= {"drift", "bound", "drift_group", "bound_Intercept"}
    for name, value in made["jax"].items():
        np.testing.assert_allclose(made["torch"][name], value, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(made["jax"]["drift_group"], into("drift", values["drift_mean"]), rtol=1e-4)
    # A subject's drift is that at the mean of the trials on the real line, among those of the trials.
    assert (made["jax"]["drift"] < np.where(DATA.mask, drift, -9).max(1) + 1e-6).all()
    off = values["bound~age"] * DATA.age.mean() + values["bound~group"] @ [np.mean(DATA.group == x) for x in "bc"]
    np.testing.assert_allclose(made["jax"]["bound_Intercept"], values["bound_mean"] - off, rtol=1e-4)


@pytest.mark.parametrize("backend", ["torch", pytest.param("jax", marks=pytest.mark.slow)])
def test_conditions_have_the_density_of_their_trials(backend):
    texts = ["drift ~ cond + (1 + cond | subject)", "delay ~ cond + (1 | subject)", "bound ~ age"]
    design, net = DATA.design(texts), DATA.net(backend)
    assert design.at_conditions.parameters["drift"].rows.shape == (SUBJECTS, 2) and len(set(design.conditions[0])) == 2
    inputs = {"coherence": array(backend, 1.0 * (DATA.cond == "hard").astype(np.float32))}
    totals, made = [], []
    for conditions, of_rows in ((None, design), (design.conditions, design.at_conditions)):
        seen = net.observe(inputs, array(backend, DATA.value), trial_mask=DATA.mask, conditions=conditions)
        assert (conditions is None) or seen.sequence.condition is not None
        total, sites = language_density(backend, of_rows, sites_of(design), seen)
        totals.append(total)
        made.append(sites)
    assert totals[0] == pytest.approx(totals[1], rel=2e-5, abs=2e-3)
    for name, value in made[0].items():
        np.testing.assert_allclose(made[1][name], value, rtol=1e-5, err_msg=name)


def test_how_offsets_are_written_changes_no_density_of_the_effects():
    """Centred in part: the density of what the offsets make, less the logarithm of how they are stretched."""
    from numpyro import handlers

    from ppl_buffer.numpyro import linear_predictors

    design, net = DATA.design(["drift ~ cond + (1 + cond | subject)"]), DATA.net("jax")
    rng = np.random.default_rng(2)
    effects = {"drift": rng.normal(size=(SUBJECTS, 1)), "drift~cond|subject": rng.normal(size=(SUBJECTS, 1))}
    spreads = {"drift": 0.7, "drift~cond|subject": 0.4}
    centring = {name: formulas.Centring(np.array([0.3]), rng.uniform(size=(SUBJECTS, 1))) for name in effects}
    values = sites_of(design)
    made = []
    for written in ({}, centring):
        ratios = {
            name: (spread / written[name].spread) ** (1 - written[name].share)
            if written
            else np.full((SUBJECTS, 1), spread)
            for name, spread in spreads.items()
        }
        for name, effect in effects.items():
            values[f"{name}_spread"] = np.full(values[f"{name}_spread"].shape, spreads[name])
            values[f"{name}_offset"] = (effect / ratios[name]).reshape(values[f"{name}_offset"].shape)
        trace = handlers.trace(
            handlers.substitute(linear_predictors, {name: np.asarray(x, np.float32) for name, x in values.items()})
        ).get_trace(net, design, written)
        total = sum(
            float(trace[f"{name}_offset"]["fn"].log_prob(trace[f"{name}_offset"]["value"]).sum()) for name in effects
        )
        made.append(total - sum(np.log(ratio).sum() for ratio in ratios.values()))
    expected = sum(stats.norm(0, spreads[name]).logpdf(effect).sum() for name, effect in effects.items())
    np.testing.assert_allclose(made, expected, rtol=1e-5)


def test_a_prior_of_ones_own_is_that_of_the_site():
    from ppl_buffer import numpyro as ours
    from ppl_buffer import pyro as theirs

    prior = pb.Prior("TruncatedNormal", {"loc": 0.1, "scale": 0.5, "low": -0.2, "high": 2.0})
    site = DATA.design(["bound ~ group"], priors={"bound~group": prior}).sites["bound~group"]
    value = np.array([0.3, 1.1], np.float32)
    exact = stats.truncnorm(-0.6, 3.8, 0.1, 0.5).logpdf(value).sum()
    for backend, module in (("jax", ours), ("torch", theirs)):
        assert float(module.site_distribution(site).log_prob(array(backend, value))) == pytest.approx(exact, rel=1e-5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"net": "ddm"}, "net: expected a trained network, got str"),
        ({"design": ["drift ~ cond"]}, r"design: expected what ppl_buffer\.formulas\.design made, got list"),
        ({"centring": {"bound": None}}, "centring: expected names of random effects, drift, .*, got 'bound'"),
        ({"centring": {"drift": 0.5}}, r"centring\['drift'\]: expected a ppl_buffer\.formulas\.Centring, got 0\.5"),
        (
            {"centring": {"drift": formulas.Centring(np.ones(1), np.ones(2))}},
            r"\['drift'\]: .* share \(5, 1\), got .*2",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_both_languages(change, said):
    from ppl_buffer import numpyro as ours
    from ppl_buffer import pyro as theirs

    arguments = {"design": DATA.design(BY_TRIAL), "centring": None} | change
    for backend, module in (("jax", ours), ("torch", theirs)):
        with pytest.raises(ValueError, match=said):
            module.hierarchical_params(**({"net": DATA.net(backend)} | arguments))
