"""Models of ssm-simulators: what is made of them, by a stand-in for the package; and theirs against our own draws."""

import sys
from types import ModuleType

import numpy as np
import pytest
from scipy import stats

from ppl_buffer.extras import MissingLibraryError
from ppl_buffer.simulators import from_ssms
from ppl_buffer.training.abilities import check_simulator
from ppl_buffer.variables import Categorical, Interval, Positive

MODULES = ("ssms", "ssms.config", "ssms.basic_simulators", "ssms.basic_simulators.simulator")
BOUNDS = [[-2.0, 0.25, 0.0], [2.0, 3.0, 1.5]]
CONFIG = {
    "leap": {"params": ["v", "a", "t"], "param_bounds": BOUNDS, "choices": [-1, 1], "nchoices": 2},
    "late": {"params": ["v", "t", "st"], "param_bounds": BOUNDS, "choices": [1, 0, 2], "nchoices": 3},
    "bare": {"params": ["v", "a", "z"], "param_bounds": BOUNDS, "nchoices": 3},
    "tied": {
        "params": ["a", "b", "z"], "param_bounds": BOUNDS, "choices": [0, 1], "nchoices": 2,
        "parameter_transforms": {"sampling": ["b above z"], "simulation": []},
    },
}  # fmt: skip


@pytest.fixture
def package(monkeypatch):
    """The package as far as it is called, and the arguments of its calls."""
    modules, calls = {name: ModuleType(name) for name in MODULES}, []

    def simulator(theta, model, n_samples, delta_t, max_t, random_state):
        calls.append({"model": model, "delta_t": delta_t, "max_t": max_t, "random_state": random_state})
        params = len(theta["v"])
        # Of sample i and row j: 10 j + i, as the package lays it out.
        rts = (np.arange(n_samples)[:, None] + 10.0 * np.arange(params))[..., None] + theta["v"][:, None] + 5
        choices = np.array(CONFIG[model]["choices"])[(np.arange(n_samples * params) % 2).reshape(rts.shape)]
        return {"rts": rts.astype(np.float32), "choices": choices, "metadata": {}}

    vars(modules["ssms.config"])["model_config"] = CONFIG
    vars(modules["ssms.basic_simulators.simulator"])["simulator"] = simulator
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return calls


def test_parameters_choices_and_times_are_those_of_the_package(package):
    simulator = from_ssms("leap")
    check_simulator(simulator)
    schema = simulator.schema
    assert schema.params == {"v": Interval(-2, 2, closed=True), "a": Interval(0.25, 3, closed=True), "t": Positive()}
    assert {name: prior.range() for name, prior in simulator.priors.items()} == {
        "v": (-2, 2), "a": (0.25, 3), "t": (0, 1.5)
    }  # fmt: skip
    assert schema.outcomes == {"choice": Categorical(2), "rt": Positive(above="t", lapse_range=(0, 20))}
    assert schema.independent and not schema.inputs and simulator.inputs(np.random.default_rng(0), 3, 5) == {}
    params = simulator.prior(np.random.default_rng(0), 3)
    data = simulator.simulate(np.random.default_rng(1), params, {}, trials=7)
    expected = 5 + params["v"][:, None] + 10.0 * np.arange(3)[:, None] + np.arange(7)
    np.testing.assert_allclose(data["rt"], expected, rtol=1e-6)
    np.testing.assert_array_equal(data["choice"], (np.arange(21) % 2).reshape(7, 3).T)
    simulator.simulate(np.random.default_rng(1), params, {}, trials=2)
    simulator.simulate(np.random.default_rng(2), params, {}, trials=2)
    seeds = [call.pop("random_state") for call in package]
    assert seeds[0] == seeds[1] != seeds[2] and package == [{"model": "leap", "delta_t": 0.001, "max_t": 20.0}] * 3


def test_a_non_decision_time_that_varies_bounds_no_response(package):
    simulator = from_ssms("late", max_t=30.0)
    assert simulator.schema.outcomes == {"choice": Categorical(3), "rt": Positive(lapse_range=(0, 30))}
    params = {"v": np.zeros(2), "t": np.full(2, 0.3), "st": np.full(2, 0.1)}
    choice = simulator.simulate(np.random.default_rng(0), params, {}, trials=5)["choice"]
    # Of the list [1, 0, 2] the first two alternate.
    np.testing.assert_array_equal(choice, (np.arange(10) % 2).reshape(5, 2).T)
    assert package[0]["max_t"] == 30.0 and simulator.name == "from_ssms('late', max_t=30)"
    assert from_ssms("bare").schema.outcomes["choice"] == Categorical(3)


def test_bounds_take_the_place_of_the_packages(package):
    simulator = from_ssms("leap", bounds={"a": (0.5, 1.0)}, delta_t=0.01)
    assert simulator.schema.params["a"] == Interval(0.5, 1.0, closed=True)
    assert simulator.priors["a"].range() == (0.5, 1.0) and simulator.priors["v"].range() == (-2.0, 2.0)
    assert list(from_ssms("tied", bounds={"z": (0.0, 0.2)}).schema.params) == ["a", "b", "z"]


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        ("leapt", {}, r"model: expected one of \['bare', 'late', 'leap', 'tied'\], got 'leapt'"),
        ("leap", {"bounds": {"b": (0, 1)}}, r"bounds: expected one of \['v', 'a', 't'\], got 'b'"),
        ("leap", {"bounds": {"a": (1, 0)}}, r"bounds\['a'\]: expected low < high, got \(1.0, 0.0\)"),
        ("leap", {"delta_t": 0.0}, "delta_t: expected a number above 0, got 0"),
        ("leap", {"max_t": np.inf}, "max_t: expected a number above 0, got inf"),
        ("tied", {}, r"bounds: expected some for tied, whose parameters .* \(b above z\), got None"),
    ],
)
def test_what_does_not_fit_is_refused(package, model, arguments, message):
    with pytest.raises(ValueError, match=message):
        from_ssms(model, **arguments)


def test_calls_that_do_not_fit_are_refused(package):
    simulator = from_ssms("leap")
    params = simulator.prior(np.random.default_rng(0), 3)
    with pytest.raises(ValueError, match="trials: expected a number"):
        simulator.simulate(np.random.default_rng(0), params, {})
    with pytest.raises(ValueError, match=r"params\['a'\]: expected a number in \[0.25, 3\], got 9"):
        simulator.simulate(np.random.default_rng(0), params | {"a": np.full(3, 9.0)}, {}, trials=2)


def test_a_missing_package_is_named(monkeypatch):
    if "ssms" in sys.modules or not _is_missing():
        pytest.skip("ssm-simulators is installed")
    with pytest.raises(MissingLibraryError, match=r"from_ssms needs ssms: pip install 'ppl-buffer\[ssms\]'"):
        from_ssms("angle")


def _is_missing():
    import importlib.util

    return importlib.util.find_spec("ssms") is None


# Against the package itself -----------------------------------------------------------------------------------------


def euler(rng, v, a, z, t, theta, trials, step):
    """Choices and response times of a diffusion between boundaries at +-(a - time tan(theta)), from the definition."""
    x, time = np.full(trials, a * (2 * z - 1)), np.zeros(trials)
    moving = np.ones(trials, dtype=bool)
    while moving.any():
        time[moving] += step
        x[moving] += v * step + np.sqrt(step) * rng.standard_normal(moving.sum())
        moving &= np.abs(x) < np.maximum(a - time * np.tan(theta), 0.0)
    return (x > 0).astype(int), t + time


@pytest.mark.parametrize(
    "setting",
    [
        {"v": 0.7, "a": 1.1, "z": 0.42, "t": 0.31, "theta": 0.5},
        {"v": -1.3, "a": 0.8, "z": 0.6, "t": 0.17, "theta": 0.05},
    ],
)
def test_draws_of_the_angle_model_are_those_of_its_definition(setting):
    pytest.importorskip("ssms.basic_simulators.simulator")
    trials = 8009
    simulator = from_ssms("angle")
    params = {name: np.array([value]) for name, value in setting.items()}
    theirs = {name: x[0] for name, x in simulator.simulate(np.random.default_rng(0), params, {}, trials=trials).items()}
    choice, rt = euler(np.random.default_rng(1), **setting, trials=trials, step=simulator.delta_t)
    assert abs(theirs["choice"].mean() - choice.mean()) < 4 * np.sqrt(0.5 / trials)
    for option in (0, 1):
        ours = rt[choice == option]
        assert stats.ks_2samp(theirs["rt"][theirs["choice"] == option], ours).pvalue > 1e-3
    assert theirs["rt"].min() > setting["t"]


@pytest.mark.parametrize("model", ["race_no_bias_3", "full_ddm", "lca_no_bias_4"])
def test_models_of_other_kinds_are_simulators(model):
    pytest.importorskip("ssms.basic_simulators.simulator")
    simulator, rng = from_ssms(model), np.random.default_rng(0)
    check_simulator(simulator)
    params = simulator.prior(rng, 11)
    data = simulator.simulate(rng, params, {}, trials=7)
    for name, x in data.items():
        assert x.shape == (11, 7) and simulator.schema.outcomes[name].contains(np, x).all()
    if simulator.schema.lower_bounds:
        assert (data["rt"] > params["t"][:, None]).all()
