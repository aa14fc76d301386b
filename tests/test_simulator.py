"""What a simulator can do is what its members say, and members that nothing reads are said to be so."""

import warnings

import numpy as np
import pytest

import ppl_buffer as pb
from ppl_buffer.findings import FindingWarning
from ppl_buffer.simulator import (
    OPTIONAL,
    Simulator,
    WithAtoms,
    WithEnvironment,
    WithLogLikelihood,
    WithName,
    WithPriors,
    WithProbabilities,
    WithProposal,
    WithResampling,
    WithSeenLogLikelihood,
    WithSymmetries,
    name_of,
    simulate_keywords,
)
from ppl_buffer.training.abilities import FORMER_NAMES, check_simulator, edit_distance, misspelt_members
from ppl_buffer.training.draws import augment_data, draw_data, draw_params, draw_trials, resample
from ppl_buffer.training.log_likelihoods import known_log_likelihood

SHIPPED = [
    pb.simulators.NoisyQ(),
    pb.simulators.NoisyQTasks(),
    pb.simulators.DriftDiffusion(),
    pb.simulators.CollapsingDriftDiffusion(),
    pb.simulators.RLDriftDiffusion(),
    pb.simulators.ForgettingQ(),
    pb.simulators.TwoStep(),
    pb.simulators.GaussianProcess(),
    pb.simulators.Sawtooth(),
    pb.simulators.RegressionTable(),
    pb.simulators.MultisensoryCausalInference(),
    pb.simulators.MultisensoryDepartures(),
]


class Shift:
    schema = pb.Schema(params={"mu": pb.Real()}, outcomes={"y": pb.Real()}, independent=True)

    def prior(self, rng, size):
        return {"mu": rng.normal(size=size)}

    def inputs(self, rng, size, trials):
        return {}

    def simulate(self, rng, params, inputs, trials):
        return {"y": params["mu"][:, None] + rng.normal(size=(len(params["mu"]), trials))}


def with_members(**members):
    return type("Mine", (Shift,), members)()


@pytest.mark.parametrize("simulator", SHIPPED, ids=name_of)
def test_shipped_simulators_keep_the_protocol_and_have_no_stray_members(simulator):
    assert isinstance(simulator, Simulator) and isinstance(simulator, WithPriors)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_simulator(simulator)


def test_abilities_are_those_of_the_members():
    learner, diffusion = pb.simulators.RLDriftDiffusion(), pb.simulators.DriftDiffusion()
    for ability in (WithProposal, WithResampling, WithLogLikelihood, WithSeenLogLikelihood, WithProbabilities):
        assert isinstance(learner, ability)
    assert isinstance(learner, WithEnvironment)
    for ability in (WithAtoms, WithProbabilities, WithLogLikelihood):
        assert isinstance(diffusion, ability)
    for ability in (WithProposal, WithResampling, WithEnvironment, WithSymmetries, WithName):
        assert not isinstance(diffusion, ability)
    assert isinstance(pb.simulators.MultisensoryCausalInference(), WithSymmetries)
    # A method that a subclass takes away.
    assert not isinstance(with_members(proposal=None), WithProposal)


def test_each_optional_protocol_has_one_member_and_says_what_it_is_for():
    for member, protocol in OPTIONAL.items():
        assert protocol.__doc__ and len(protocol.__doc__) > 60
        assert member in {**vars(protocol), **protocol.__annotations__}
    assert set(FORMER_NAMES.values()) <= set(OPTIONAL)


@pytest.mark.parametrize(
    ("member", "right"),
    [
        ("told_priors", "proposal"),
        ("told_prior", "proposal"),
        ("special_value", "atoms"),
        ("special_values", "atoms"),
        ("redraw", "resample_outcomes"),
        ("redraws", "resample_outcomes"),
        ("log_density", "log_likelihood"),
        ("log_likelihoods", "log_likelihood"),
        ("atom", "atoms"),
        ("propposal", "proposal"),
        ("simulate_with_probability", "simulate_with_probabilities"),
        ("resample", "resample_outcomes"),
        ("log_lik", "log_likelihood"),
        ("logLikelihood", "log_likelihood"),
        ("simulate_many", None),
        ("simulate_with_probabilites", "simulate_with_probabilities"),
        ("resample_outcome", "resample_outcomes"),
        ("in_proces", "in_process"),
        ("enviroment", "environment"),
        ("priors_", "priors"),
        ("pairs", None),
        ("noise", None),
        ("share", None),
        ("_atom", None),
    ],
)
def test_a_member_that_nearly_has_a_known_name_is_warned_of(member, right):
    simulator = with_members(**{member: {}})
    if right is None:
        assert misspelt_members(simulator) == []
        return
    (finding,) = misspelt_members(simulator)
    assert (finding.kind, finding.parameter) == ("simulator", member)
    assert f"simulator.{member}" in finding.text and f"write {right} " in finding.text
    assert OPTIONAL[right].__name__ in finding.text
    with pytest.warns(FindingWarning, match=f"nothing reads a member of this name of Mine; write {right}"):
        check_simulator(simulator)


def test_beside_the_right_member_another_name_is_the_simulators_own():
    assert misspelt_members(with_members(atom=1.0, atoms={"mu": 0.0}, names=(), name="mine")) == []


def test_two_wrong_members_are_said_when_training_starts(tmp_path):
    pytest.importorskip("torch", reason="training needs torch")
    simulator = with_members(told_priors=lambda self, rng, size: {}, special_value={"mu": 0.0}, in_process=True)
    config = pb.Config(width=8, depth=1, heads=2, mlp=8, components=2, param_depth=1, contextual_positions=1)
    with pytest.warns(FindingWarning) as caught:
        pb.train(simulator, config, steps=1, out=tmp_path, batch_size=2, trials=(2, 3), held_out=2, progress=False)
    assert sorted(each.message.finding.parameter for each in caught) == ["special_value", "told_priors"]
    assert {each.filename for each in caught} == {__file__}


def test_an_optional_method_must_be_one():
    with pytest.raises(ValueError, match=r"simulator.log_likelihood: expected a method, but Mine has none"):
        check_simulator(with_members(log_likelihood=np.zeros(3)))


def test_edit_distance():
    known = {("", "abc"): 3, ("abc", "abc"): 0, ("kitten", "sitting"): 3, ("prior", "priors"): 1, ("ab", "ba"): 2}
    for (first, second), distance in known.items():
        assert edit_distance(first, second) == edit_distance(second, first) == distance


class Counting(Shift):
    """Every call is as documented; a category indexes an array, which a floating-point number cannot."""

    schema = pb.Schema(
        params={"mu": pb.Real()},
        inputs={"cue": pb.Categorical(2)},
        outcomes={"choice": pb.Categorical(3), "y": pb.Real()},
        feedback={"points": pb.Categorical(2)},
        independent=True,
    )

    def inputs(self, rng, size, trials):
        return {"cue": rng.integers(0, 2, (size, trials))}

    def simulate(self, rng, params, inputs):
        shift = np.array([-1.0, 1.0])[inputs["cue"]]
        choice = rng.integers(0, 3, shift.shape)
        y = params["mu"][:, None] + shift + rng.normal(size=shift.shape)
        return {"choice": choice, "y": y, "points": choice % 2}

    def resample_outcomes(self, rng, params, data, count):
        assert [np.eye(3)[data["choice"]].shape[-1], np.eye(2)[data["points"]].shape[-1]] == [3, 2]
        drawn = [self.simulate(rng, params, {"cue": data["cue"]}) for _ in range(count)]
        return {name: np.stack([one[name] for one in drawn], -1) for name in ("choice", "y")}

    def log_likelihood(self, params, data):
        shift = np.array([-1.0, 1.0])[data["cue"]] + np.zeros(3)[data["choice"]]
        return -0.5 * (data["y"] - params["mu"][:, None] - shift) ** 2 - np.log(3) - 0.5 * np.log(2 * np.pi)

    def augment(self, rng, data):
        assert all(data[name].dtype == np.int64 for name in ("cue", "choice", "points"))
        return data


def test_categories_come_to_every_method_as_integers():
    rng, simulator = np.random.default_rng(0), Counting()
    params = draw_params(simulator, rng, 5)
    data, _ = draw_data(simulator, rng, params, 5, 7)
    assert set(np.unique(data["cue"])) == {0.0, 1.0}
    assert resample(simulator, rng, params, data, 2)["choice"].shape == (5, 7, 2)
    known = known_log_likelihood(simulator, simulator.schema, params, data)
    assert known.shape == (5, 7) and (known < -np.log(3)).all()
    augment_data(simulator, rng, data)
    trial = draw_trials(simulator, rng, params, {"cue": data["cue"][:, 0]})[0]
    assert trial["choice"].shape == (5,)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (
            {"simulate": lambda self, rng, params, inputs: {}},
            r"simulator.simulate: expected a method that can be called as simulate\(rng, params, inputs, trials=...\), "
            r"got simulate\(rng, params, inputs\) .*Where the schema has no inputs",
        ),
        (
            {"schema": pb.Schema(outcomes={"y": pb.Real()})},
            r"simulate\(rng, params, inputs, trials=..., size=...\), got simulate\(rng, params, inputs, trials\)",
        ),
        ({"prior": lambda self, rng: {}}, r"simulator.prior: .* called as prior\(rng, size\), got prior\(rng\)"),
        ({"inputs": lambda self, size, trials: {}}, r"simulator.inputs: .* called as inputs\(rng, size, trials\)"),
        ({"augment": lambda self, data: data}, r"simulator.augment: .* called as augment\(rng, data\)"),
        ({"environment": lambda self, outcomes: {}}, r"called as environment\(trial, inputs, outcomes, uniform\)"),
        ({"environment": lambda self, t, i, o, u, state: {}}, r"A state is for an object with an initial_state"),
        (
            {"environment": type("Env", (), {"initial_state": {}, "__call__": lambda self, t, i, o, u: {}})()},
            r"called as environment\(trial, inputs, outcomes, uniform, state\)",
        ),
    ],
)
def test_a_method_that_cannot_be_called_as_it_will_be_is_refused(members, message):
    with pytest.raises(ValueError, match=message):
        check_simulator(with_members(**members))


def test_simulate_is_given_the_numbers_that_it_names():
    def three(rng, params, inputs):
        raise AssertionError

    def four(rng, params, inputs, trials):
        raise AssertionError

    def five(rng, params, inputs, size=None, trials=None):
        raise AssertionError

    with_inputs, without = Counting.schema, Shift.schema
    assert simulate_keywords(three, with_inputs, 5, 7) == {}
    assert simulate_keywords(four, with_inputs, 5, 7) == simulate_keywords(four, without, 5, 7) == {"trials": 7}
    assert simulate_keywords(five, with_inputs, 5, 7) == {"trials": 7, "size": 5}
    assert simulate_keywords(three, pb.Schema(outcomes={"y": pb.Real()}), 5, 7) == {"trials": 7, "size": 5}

    class Same(Counting):
        def simulate(self, rng, params, inputs, trials):
            assert inputs["cue"].shape == (len(params["mu"]), trials)
            return super().simulate(rng, params, inputs)

    rng = np.random.default_rng(0)
    check_simulator(Same())
    data, _ = draw_data(Same(), rng, draw_params(Same(), rng, 5), 5, 7)
    assert data["choice"].shape == (5, 7)
