"""Fits by formula: from a table and a file of options to a report, and what is said of mistakes."""

import re
import warnings
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("typer")
pytest.importorskip("formulae")
pandas = pytest.importorskip("pandas")

import ppl_buffer as pb  # noqa: E402
from ppl_buffer.workflow.cli.formulas import read_fixed, read_priors  # noqa: E402
from tests.datasets.tables import table_of_trials  # noqa: E402
from tests.formulas.cases import BY_TRIAL, Deciders  # noqa: E402
from tests.workflow.commands import COLUMNS, run  # noqa: E402

pytestmark = pytest.mark.usefixtures("quick_compilation")

OPTIONS = """
columns = "{columns}"
formula = ["alpha ~ day + (1 + day | subject)", "beta ~ age"]
fix = ["kappa=0.2"]
prior = ["beta~age=Normal(0, 0.01)"]
session = "day"
lapse = "estimate"
where = "rt > 0.415"
chains = 1
warmup = 3
draws = 40
predictive-draws = 5
tree-depth = 1
progress = false
"""


@pytest.mark.slow
def test_fit_takes_formulas_sessions_and_a_file_of_options(checkpoint, tmp_path):
    for module in ("numpyro", "arviz", "matplotlib"):
        pytest.importorskip(module)
    table, out = table_of_trials(), tmp_path / "fit"
    number = table.groupby("subject").cumcount()
    table["day"] = np.where(number < 9, "first", "second")
    table["age"] = table["subject"].map({"s0": 31, "s1": 20, "s2": 44})
    table.to_csv(tmp_path / "trials.csv", index=False)
    (tmp_path / "fit.toml").write_text(OPTIONS.format(columns=COLUMNS))
    with warnings.catch_warnings():
        # Draws this few leave other packages with nothing good to say.
        warnings.simplefilter("ignore")
        done = run("fit", tmp_path / "trials.csv", "--options", tmp_path / "fit.toml", "--model", checkpoint,
                   "--out", out, "--draws", 5, "--correlated")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "3 people, 6 data sets, 50 trials (6 left out); 1 chain of 3 + 5 draws" in done.output
    report = (out / "report.html").read_text()
    assert (
        report.count("What do the formulas say?") == 2 and "6 trials were left out by a condition (--where)" in report
    )
    for text in ("alpha ~ day + (1 + day | subject)", "day: second - first", "day varies by data set", "beta ~ age",
                 "age varies by subject", "kappa is 0.2, and was not estimated",
                 "Normal(loc 0, scale 0.01)", ">each person</td>"):  # fmt: skip
        assert text in report, text
    for text in ("--session day", "--where &#x27;rt &gt; 0.415&#x27;", "--fix kappa=0.2", "--correlated", "--draws 5",
                 "--formula &#x27;beta ~ age&#x27;"):  # fmt: skip
        assert text in report, text
    assert {"effects_alpha.png", "effects_beta.png"} <= {path.name for path in out.glob("*.png")}
    summary = pandas.read_csv(out / "summary.csv", index_col="quantity")
    assert {"alpha_group", "alpha~day[second]", "alpha~day|subject_spread[second]", "beta~age", "zeta_spread",
            "alpha[s0/first]", "beta_Intercept", "lapse_group", "lapse_spread",
            "lapse[s2/second]"} <= set(summary.index)  # fmt: skip
    assert not any(name.startswith("kappa") for name in summary.index)
    from ppl_buffer.arviz import import_arviz

    posterior = import_arviz().from_netcdf(str(out / "posterior.nc")).posterior
    assert posterior["alpha~day"].dims == ("chain", "draw", "alpha~day_level")
    offsets = posterior["alpha~day|subject_offset"]
    assert offsets.dims[2:] == ("subject_level", "alpha~day|subject_level")
    assert offsets["subject_level"].values.tolist() == ["s0", "s1", "s2"]
    # Beta is a function of age alone: the same in both sessions of a person.
    beta = posterior["beta"]
    np.testing.assert_array_equal(beta.sel(subject="s1/first"), beta.sel(subject="s1/second"))


def test_what_the_command_line_says_of_formulas_reaches_the_fit(checkpoint, tmp_path, monkeypatch):
    pytest.importorskip("numpyro")
    from ppl_buffer.workflow import fitting

    asked = {}

    def fit(net, trials, **options):
        asked.update(options, trials=trials)
        raise ValueError("enough")

    monkeypatch.setattr(fitting, "fit", fit)
    table = table_of_trials()
    table["day"] = np.where(table.groupby("subject").cumcount() < 9, "first", "second")
    table.to_csv(tmp_path / "trials.csv", index=False)
    (tmp_path / "fit.toml").write_text(OPTIONS.format(columns=COLUMNS))
    done = run("fit", tmp_path / "trials.csv", "--options", tmp_path / "fit.toml", "--model", checkpoint,
               "--out", tmp_path / "fit", "--draws", 7, "--formula", "zeta ~ 1")  # fmt: skip
    assert done.exit_code == 1 and "enough" in done.output
    # The command line comes before the file.
    assert asked["formulas"] == ["zeta ~ 1"] and asked["draws"] == 7 and asked["warmup"] == 3
    assert asked["fixed"] == {"kappa": 0.2} and not asked["correlated"] and not asked["progress"]
    assert asked["priors"] == {"beta~age": pb.Prior("Normal", {"loc": 0.0, "scale": 0.01})}
    assert asked["trials"].excluded == 6 and len(asked["trials"].subjects) == 6 and asked["hierarchical"]
    done = run("fit", tmp_path / "trials.csv", "--model", checkpoint, "--columns", COLUMNS, "--out", tmp_path / "fit",
               "--no-hierarchical")  # fmt: skip
    assert "enough" in done.output and asked["hierarchical"] is False and asked["formulas"] == []


def test_a_report_says_what_formulas_say(tmp_path):
    for module in ("numpyro", "arviz", "matplotlib"):
        pytest.importorskip(module)
    import xarray

    from ppl_buffer.arviz import container
    from ppl_buffer.workflow.report.effects import draw_effects
    from ppl_buffer.workflow.report.sections import formulas_say
    from tests.workflow.test_report import finished

    data, rng = Deciders(), np.random.default_rng(0)
    design = data.design(BY_TRIAL[1:], fixed={"drift": 0.5})
    middle = {"bound~group": [0.0, 2.0], "delay~cond": [0.0], "bound~age": 0.0}
    sites = {
        name: np.asarray(middle.get(name, 0.5)) + 0.1 * rng.normal(size=(2, 50, *site.shape))
        for name, site in design.sites.items()
    }
    variables = {name: (("chain", "draw", f"{name}_level")[: x.ndim], x) for name, x in sites.items()}
    variables |= {f"{name}_group": (("chain", "draw"), np.ones((2, 50))) for name in design.parameters}
    fit = replace(
        finished(), net=data.net(), design=design, posterior=container({"posterior": xarray.Dataset(variables)})
    )
    assert fit.names == ["delay", "bound"]
    figures = draw_effects(fit)
    assert list(figures) == ["effects_delay", "effects_bound"]
    section = formulas_say(fit, figures)
    assert section.mark == "good" and any("group: c - a" in point for point in section.points)
    assert not any("cond" in point for point in section.points)
    for text in ("delay ~ cond + (1 | subject)", "cond: hard - easy", "drift is 0.5", "cond varies by trial",
                 "delay_spread", "LogNormal(median 0.5, 0.7)", "data:image/png"):  # fmt: skip
        assert text in section.body, text


def test_the_table_of_trials_has_the_parameters_of_each_trial():
    pytest.importorskip("numpyro")
    from ppl_buffer.datasets import TrialData
    from ppl_buffer.workflow.readouts import trial_table
    from tests.networks import DISCRIMINATION, array, joint_predictive
    from tests.workflow.test_report import finished

    data, rng = Deciders(), np.random.default_rng(4)
    shape = data.mask.shape
    params = {"drift": rng.uniform(-0.5, 1.0, (3, *shape)), "delay": rng.uniform(0.1, 0.3, (3, shape[0])),
              "bound": rng.uniform(1.1, 1.9, (3, shape[0]))}  # fmt: skip
    params = {name: x.astype(np.float32) for name, x in params.items()}
    trials = TrialData(np.array(list("abcde")), data.mask.sum(1), {"coherence": data.coherence},
                       {"choice": data.value[..., 0], "rt": data.rt}, {}, data.mask)  # fmt: skip
    fit = replace(finished(), net=data.net(), trials=trials, design=data.design(BY_TRIAL), params=lambda count: params)
    table = trial_table(fit, progress=False)
    densities = []
    for index in range(3):
        made = joint_predictive(
            DISCRIMINATION, "jax", {"coherence": data.coherence}, net=data.net(), trial_mask=data.mask,
            params={name: params[name][index] for name in ("delay", "bound")},
            trial_params={"drift": params["drift"][index]},
        )  # fmt: skip
        densities.append(np.exp(np.asarray(made.conditionals(array("jax", data.value)))))
    np.testing.assert_allclose(table["surprise"], -np.log2(np.mean(densities, 0))[data.mask], rtol=1e-3, atol=1e-3)
    row, place = np.nonzero(data.mask)
    assert table["subject"].tolist() == trials.subjects[row].tolist()
    assert table["trial"].tolist() == (1 + place).tolist()


def test_options_of_formulas_are_read():
    assert read_fixed(["kappa=0.2", "zeta=1e-3"]) == {"kappa": 0.2, "zeta": 0.001}
    assert read_priors(["drift~age=Normal(0, 0.5)", "a~x:y|subject_spread = HalfNormal(0.2)"]) == {
        "drift~age": pb.Prior("Normal", {"loc": 0.0, "scale": 0.5}),
        "a~x:y|subject_spread": pb.Prior("HalfNormal", {"scale": 0.2}),
    }
    for text in ("drift", "drift=Cauchy(0, 1)", "drift=Normal(0)", "drift=Normal(0, x)"):
        with pytest.raises(ValueError, match=re.escape(text)):
            read_priors([text])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("formulas = ['a ~ b']", "there is no option 'formulas'"),
        ("formula = ", "is no TOML"),
        ("[formula]\nalpha = '1'", "got a table"),
    ],
)
def test_files_of_options_with_mistakes_end_in_one_line(text, message, tmp_path):
    (tmp_path / "fit.toml").write_text(text)
    done = run("fit", tmp_path / "none.csv", "--options", tmp_path / "fit.toml", "--model", "noisy_q")
    assert done.exit_code == 1 and message in done.output


def test_draws_of_other_formulas_are_not_gone_on_from():
    pytest.importorskip("numpyro")
    from ppl_buffer.workflow.formula_fit import _arrays, _description
    from ppl_buffer.workflow.sampling import fingerprint

    class Fit:
        centring: dict[str, object] = {}

    data, prior = Deciders(), {"bound~age": pb.Prior("Normal", {"loc": 0.0, "scale": 0.1})}
    designs = [data.design(BY_TRIAL), data.design(BY_TRIAL, priors=prior), data.design(BY_TRIAL, correlated=True),
               data.design(BY_TRIAL[:1]), data.design(BY_TRIAL[:1], fixed={"bound": 1.5}),
               data.design(BY_TRIAL, covariates={"age": 1 + data.age})]  # fmt: skip
    prints = [fingerprint(_description(design), _arrays(design, Fit)) for design in designs]
    assert len(set(prints)) == len(prints)
    assert fingerprint(_description(data.design(BY_TRIAL)), _arrays(designs[0], Fit)) == prints[0]


@pytest.mark.slow
def test_known_effects_are_recovered():
    """A condition within people, a group, and an age, in the drift-diffusion model."""
    pytest.importorskip("numpyro")
    import jax

    from ppl_buffer.datasets import TrialData
    from ppl_buffer.workflow.fitting import fit
    from ppl_buffer.workflow.report.effects import effects_of

    jax.config.update("jax_disable_most_optimizations", False)
    rng, (subjects, trials) = np.random.default_rng(8), (17, 61)
    net = pb.load("ddm", backend="jax")
    hard = rng.permuted(np.arange(trials) % 2 + np.zeros((subjects, trials), int), axis=1)
    age, patient = rng.normal(50.0, 9.0, subjects), np.arange(subjects) % 2

    def natural(name, real):
        return np.asarray(net.into_box(name, np.asarray(real, np.float32)))

    def drift(there):
        return natural("drift", (0.4 + 0.1 * rng.normal(size=subjects))[:, None] - 0.3 * there)

    def boundary(there, years):
        return natural("boundary", -1.1 + 0.5 * there + 0.02 * (years - 50.0))

    own = 0.15 * rng.normal(size=subjects)
    caution = natural("boundary", -1.1 + 0.5 * patient + 0.02 * (age - 50.0) + own)
    size = subjects * trials
    params = {"drift": drift(hard).reshape(size), "boundary": np.repeat(caution, trials)}
    params |= {"starting_point": np.full(size, 0.5), "non_decision_time": np.full(size, 0.3)}
    params["drift_variability"] = np.full(size, 0.2)
    made = pb.simulators.DriftDiffusion().simulate(rng, params, {}, trials=1)
    shape = (subjects, trials)
    data = TrialData(
        np.array([f"s{index}" for index in range(subjects)]), np.full(subjects, trials), {},
        {name: x.reshape(shape) for name, x in made.items()}, {}, np.ones(shape, bool),
        covariates={"hard": hard, "age": np.repeat(age[:, None], trials, 1),
                    "group": np.repeat(np.where(patient, "patient", "control")[:, None], trials, 1)},
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        done = fit(
            net, data, formulas=["drift ~ hard + (1 | subject)", "boundary ~ group + age + (1 | subject)"],
            fixed={"starting_point": 0.5, "drift_variability": 0.2}, draws=300, predictive_draws=20, progress=False,
        )  # fmt: skip
    assert done.r_hat < 1.03 and done.diverging < 0.02
    truth = {
        "hard: 1 - 0": natural("drift", 0.1) - natural("drift", 0.4),
        "group: patient - control": boundary(1.0, age).mean() - boundary(0.0, age).mean(),
    }
    found = {**effects_of(done, "drift").contrasts, **effects_of(done, "boundary").contrasts}
    for label, expected in truth.items():
        middle, spread = found[label].mean(), found[label].std()
        assert abs(middle - expected) < 3 * spread and spread < 0.4 * abs(expected), label
    coefficient = effects_of(done, "boundary").coefficients["boundary~age"]
    assert abs(coefficient.mean() - 0.02) < 3 * coefficient.std() and coefficient.std() < 0.012
