"""A hierarchy by formula is the same model in PyMC as in NumPyro: density, what follows from sites, labels."""

import json
import subprocess
import sys

import numpy as np
import pytest

from tests.formulas.cases import BY_TRIAL, PRIORS, RECORD, SUBJECTS, Deciders, sites_of
from tests.networks import DISCRIMINATION, Record, array, network
from tests.rules.source import ROOT

pm = pytest.importorskip("pymc", reason="PyMC is not installed: `make test-neighbours` has it")

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpyro  # noqa: E402
import pytensor  # noqa: E402
import pytensor.tensor as pt  # noqa: E402
from numpyro import handlers  # noqa: E402
from pymc.model.transform.conditioning import remove_value_transforms  # noqa: E402

import ppl_buffer as pb  # noqa: E402
import ppl_buffer.arviz  # noqa: E402
import ppl_buffer.numpyro as ours  # noqa: E402
import ppl_buffer.pymc as theirs  # noqa: E402
from ppl_buffer import formulas  # noqa: E402
from ppl_buffer.pymc.symbolic import SymbolicNetwork  # noqa: E402

pytestmark = pytest.mark.usefixtures("quick_compilation")

DATA = Deciders()
# A subject's trials differ in condition and in a number; three effects of subjects go together.
SLOPES = ["drift ~ cond * theta + (1 + cond + theta | subject)", *BY_TRIAL[1:]]
OWN = {
    "drift~cond|subject_spread": pb.Prior("HalfNormal", {"scale": 0.3}),
    "drift_spread": pb.Prior("Gamma", {"concentration": 2.0, "rate": 3.0}),
    "bound~group": pb.Prior("TruncatedNormal", {"loc": 0.1, "scale": 0.5, "low": -3.0, "high": 4.0}),
    "drift~theta": pb.Prior("Uniform", {"low": -4.0, "high": 5.0}),
}


def pymc_model(design, centring=None, **coords):
    net, seen = DATA.net(), DATA.seen()
    with pm.Model(coords=coords) as model:
        params, by_trial = theirs.hierarchical_params(net, design, centring)
        theirs.JointPredictive("y", net, seen, params=params, trial_params=by_trial, observed=seen.value)
    return model


def numpyro_model(design, centring=None):
    net, seen = DATA.net(), DATA.seen()
    params, by_trial = ours.hierarchical_params(net, design, centring)
    with numpyro.plate("subject", SUBJECTS):
        joint = ours.JointPredictive(net, seen, params=params, trial_params=by_trial)
        numpyro.sample("y", joint, obs=seen.value)


def in_numpyro(design, values, centring):
    """Log density of each site, and the deterministic sites."""
    model = handlers.substitute(numpyro_model, array("jax", values))
    trace = handlers.trace(model).get_trace(design, centring)
    made = {name: np.asarray(site["value"]) for name, site in trace.items() if site["type"] == "deterministic"}
    latent = [site for site in trace.values() if site["type"] == "sample"]
    return {site["name"]: float(site["fn"].log_prob(site["value"]).sum()) for site in latent}, made


def in_pymc(model, values):
    """The same, on the scale of the variables themselves."""
    plain = remove_value_transforms(model)
    names = [rv.name for rv in plain.basic_RVs]
    outputs = plain.replace_rvs_by_values([*plain.deterministics])
    function = pytensor.function(
        plain.value_vars, [*plain.logp(sum=False), *outputs], mode="FAST_COMPILE", on_unused_input="ignore"
    )
    result = function(*(np.asarray(values[value.name], float) for value in plain.value_vars))
    scores, made = result[: len(names)], result[len(names) :]
    return (
        {name: float(np.sum(score)) for name, score in zip(names, scores, strict=True)},
        {variable.name: x for variable, x in zip(plain.deterministics, made, strict=True)},
    )


def factor(halves):
    """The Cholesky factor below its diagonal of three effects' partial correlations, which count from 0 to 1."""
    z = 2 * halves - 1
    # r20 and r21 by Pearson's partial correlation, then the factor of the matrix.
    r21 = z[0] * z[1] + z[2] * jnp.sqrt((1 - z[0] ** 2) * (1 - z[1] ** 2))
    matrix = jnp.array([[1.0, z[0], z[1]], [z[0], 1.0, r21], [z[1], r21, 1.0]])
    return jnp.linalg.cholesky(matrix)[np.tril_indices(3, -1)]


def with_partial(values, design):
    """Sites as PyMC has them where effects are correlated, and the logarithm of how that stretches volumes."""
    values = dict(values)
    (grouping,) = [each for one in design.parameters.values() for each in one.groupings if each.correlation]
    below = values.pop(grouping.correlation)
    matrix = (below @ below.T).astype(float)
    (r10, r20), r21 = matrix[1:, 0], matrix[2, 1]
    z = np.array([r10, r20, (r21 - r10 * r20) / np.sqrt((1 - r10**2) * (1 - r20**2))])
    halves = (1 + z) / 2
    stretch = np.linalg.slogdet(jax.jacobian(factor)(halves))[1]
    values[grouping.correlation.replace("correlation", "partial")] = halves
    return values, float(stretch)


@pytest.mark.parametrize("priors", [{}, OWN], ids=["default priors", "priors of one's own"])
@pytest.mark.parametrize("kind", ["independent", "centred in part", "correlated"])
def test_the_density_is_numpyros(kind, priors):
    design = DATA.design(SLOPES if kind == "correlated" else BY_TRIAL, correlated=kind == "correlated", priors=priors)
    rng, centring = np.random.default_rng(3), None
    if kind == "centred in part":
        effects = [effect for one in design.parameters.values() for each in one.groupings for effect in each.effects]
        centring = {
            effect.site: formulas.Centring(np.array([0.3]), rng.uniform(size=(SUBJECTS, 1))) for effect in effects
        }
    values = sites_of(design)
    expected, made = in_numpyro(design, values, centring)
    theirs_at, stretch = with_partial(values, design) if kind == "correlated" else (values, 0.0)
    found, also = in_pymc(pymc_model(design, centring), theirs_at)
    assert sum(found.values()) - stretch == pytest.approx(sum(expected.values()), rel=2e-5, abs=2e-3)
    # Each site by itself, so that no two errors cancel.
    for name in found.keys() & expected.keys():
        assert found[name] == pytest.approx(expected[name], rel=2e-5, abs=2e-4), name
    moved = found.keys() ^ expected.keys()
    assert moved == (values.keys() ^ theirs_at.keys())
    for name, value in made.items():
        np.testing.assert_allclose(also[name], value, rtol=1e-4, atol=1e-5, err_msg=name)
    for name in also.keys() - made.keys():
        np.testing.assert_allclose(also[name], values[name], rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("texts", [["drift ~ cond + (1 | subject)", "bound ~ age"], ["drift ~ age", "bound ~ cond"]])
def test_parameters_that_count_from_others_have_the_networks_values(texts):
    # One of the two varies by trial, and the other does not.
    priors = PRIORS | {"bound": pb.Prior("Uniform", {"low": 0.1, "high": 0.7}, relative_to="drift")}
    record = Record(box=RECORD.box, priors=priors, trials=300, context=0, simulator="none")
    net = network(DISCRIMINATION, "jax", record)
    design = formulas.design(net, DATA.seen(), texts, DATA.covariates, fixed={"delay": 0.3})
    rng = np.random.default_rng(5)
    linear = {name: rng.normal(size=len(one.weights)) for name, one in design.parameters.items()}
    numbers, symbolic = array("jax", linear), SymbolicNetwork(net)
    tensors = {name: pt.constant(x) for name, x in linear.items()}
    expected = [*design.natural(net, numbers), design.typical(net, numbers)]
    found = [*design.natural(symbolic, tensors), design.typical(symbolic, tensors)]
    assert [list(x) for x in found] == [list(x) for x in expected] and "bound" in expected[1]
    for group, other in zip(found, expected, strict=True):
        for name, tensor in group.items():
            assert tensor.type.shape == other[name].shape
            np.testing.assert_allclose(tensor.eval(mode="FAST_COMPILE"), other[name], rtol=1e-4, err_msg=name)


def test_draws_have_the_labels_of_the_design_and_go_where_numpyros_do():
    design = DATA.design(SLOPES, correlated=True)
    model = pymc_model(design, subject=list("vwxyz"))
    names = [rv.name for rv in model.unobserved_RVs]
    with model, pytensor.config.change_flags(mode="FAST_COMPILE"):
        prior = pm.sample_prior_predictive(11, var_names=names, random_seed=3).prior
    assert prior["drift"].dims == ("chain", "draw", "subject") and list(prior.subject.values) == list("vwxyz")
    assert list(prior["bound~group"]["bound~group_level"].values) == ["b", "c"]
    assert prior["drift~cond|subject_offset"].dims == ("chain", "draw", "subject", "drift~cond|subject_level")
    draws = {name: prior[name].values for name in prior}
    # The draws are those of NumPyro's model under the same names: its log likelihoods, terms and means are theirs.
    kept = ppl_buffer.arviz.from_samples(
        numpyro_model, draws, language="numpyro", args=(design,), prior_draws=0, predictive_draws=0, progress=False
    )
    np.testing.assert_allclose(kept.posterior["drift"], prior["drift"], rtol=1e-4)
    flat = {name: x[0] for name, x in draws.items()}
    made = formulas.effects(DATA.net(), design, "drift", flat)
    np.testing.assert_allclose(made.coefficients["drift~theta"], flat["drift~theta"])
    # Correlations of so many draws are those of the prior, a Beta(2, 2) in the upper left one.
    assert np.abs(np.einsum("dij,dij->di", *[flat["drift|subject_correlation"]] * 2) - 1).max() < 1e-6


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"net": "ddm"}, "net: expected a trained network, got str"),
        ({"design": ["drift ~ cond"]}, r"design: expected what ppl_buffer\.formulas\.design made, got list"),
        ({"coords": {"subject": [1, 2]}}, r"coords\['subject'\]: expected 5 labels, as the design has, got 2"),
        ({"centring": {"drift": 0.5}}, r"centring\['drift'\]: expected a ppl_buffer\.formulas\.Centring, got 0\.5"),
        ({"centring": {"bound": None}}, r"centring: expected names of random effects, drift, drift~cond\|subject"),
    ],
)
def test_what_does_not_fit_is_refused(change, said):
    arguments = {"net": DATA.net(), "design": DATA.design(BY_TRIAL), "centring": None} | change
    with pm.Model(coords=arguments.pop("coords", {})), pytest.raises(ValueError, match=said):
        theirs.hierarchical_params(*arguments.values())


def test_there_has_to_be_a_model():
    with pytest.raises(TypeError, match="model"):
        theirs.hierarchical_params(DATA.net(), DATA.design(BY_TRIAL))


@pytest.mark.slow
def test_the_comparison_of_posteriors_runs(tmp_path):
    # In a process of its own: PyMC switches JAX to double precision for all that is in the same one.
    command = [sys.executable, "-W", "ignore", "benchmarks/pymc_hierarchy.py", "--quick", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=1800, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "pymc_hierarchy.json").read_text())["results"]["rows"]
    names = {row["effect"] for row in rows}
    assert {"drift~hard", "boundary~group patient", "boundary~age", "drift|subject_correlation"} <= names
    assert all(np.isfinite(value) for row in rows for value in list(row.values())[1:])
