"""What plots are given and cannot draw is refused by name; a wrong picture is worse than none."""

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from ppl_buffer import plots  # noqa: E402

RNG = np.random.default_rng(0)


def draw(*lead):
    return {"choice": RNG.integers(0, 2, (*lead, 20)).astype(float), "rt": 0.3 + RNG.gamma(2.0, 0.2, (*lead, 20))}


DATA, AGAIN = {**draw(3), "cue": RNG.integers(0, 2, (3, 20))}, draw(5, 3)
PLOTS = {
    "response_times": lambda data, again, **more: plots.plot_response_times(data, again, condition="cue", **more),
    "learning_curves": lambda data, again, **more: plots.plot_learning_curves(data, again, cue="cue", **more),
    "conditional_accuracy": plots.plot_conditional_accuracy,
    "quantile_probability": plots.plot_quantile_probability,
    "post_error_slowing": plots.plot_post_error_slowing,
    "repetition": lambda data, again, **more: plots.plot_repetition(data, again, cue="cue", **more),
    "autocorrelation": plots.plot_autocorrelation,
}
ONE = {name: x[0] for name, x in DATA.items()}
WRONG_DATA = [
    (None, None, "data: expected a dict .* got NoneType"),
    ("fit.csv", None, "data: expected a dict .* got str"),
    ({}, None, "data: expected arrays"),
    (ONE, None, r"data: expected arrays \(subjects, trials\).*of one person, a row"),
    ({name: x[:0] for name, x in DATA.items()}, None, "data: expected arrays .* none of them empty"),
    ({**DATA, "rt": DATA["rt"][:, :7]}, None, "data: expected arrays .* all of one shape"),
    ({name: x * np.nan for name, x in DATA.items()}, None, "expected at least one trial, got none"),
    ({**DATA, "choice": np.full((3, 20), "left")}, None, r"data\['choice'\]: expected an array of numbers, got 'left'"),
    # A single generated data set would be taken for as many draws as there are people.
    (DATA, {name: x[0] for name, x in AGAIN.items()}, r"replicated: expected arrays \(draws, 3, 20\)"),
    (DATA, {name: x[:, :2] for name, x in AGAIN.items()}, r"replicated: expected arrays \(draws, 3, 20\)"),
    (DATA, {name: x[:0] for name, x in AGAIN.items()}, r"replicated: expected arrays \(draws, 3, 20\)"),
    (DATA, {"other": AGAIN["rt"]}, "replicated: expected a column of .* got \\['other'\\]"),
    (DATA, {}, r"replicated: expected arrays \(draws, 3, 20\), .* got none"),
]


@pytest.mark.parametrize("plot", PLOTS.values(), ids=PLOTS)
@pytest.mark.parametrize(("data", "again", "text"), WRONG_DATA)
def test_other_data_are_refused_by_every_plot(plot, data, again, text):
    with pytest.raises(ValueError, match=text):
        plot(data, again)


@pytest.mark.parametrize(
    ("plot", "options", "text"),
    [
        ("response_times", {"bins": 0}, "bins: expected an integer of at least 1"),
        ("response_times", {"rt": None}, "data: expected a column None"),
        ("response_times", {"choice_labels": "ab"}, "labels of choice: expected a list of 2"),
        ("response_times", {"axes": "x"}, "axes: expected 2 of matplotlib"),
        ("learning_curves", {"width": 2.5}, "width: expected an integer"),
        ("learning_curves", {"correct": "right"}, "data: expected a column 'right'"),
        ("conditional_accuracy", {"bins": None}, "bins: expected an integer"),
        ("conditional_accuracy", {"correct": "rt"}, "correct: expected 0 and 1"),
        ("quantile_probability", {"levels": (0.5, 2.0)}, "levels: expected a list of probabilities"),
        ("quantile_probability", {"least": 0}, "least: expected an integer of at least 1"),
        ("quantile_probability", {"choice": "rt"}, r"data\['rt'\]: expected integers from 0"),
        ("post_error_slowing", {"lags": 0}, "lags: expected an integer of at least 1"),
        ("repetition", {"lags": "8"}, "lags: expected an integer"),
        ("autocorrelation", {"value": "choice"}, r"data\['choice'\]: expected positive numbers.*log=False"),
    ],
)
def test_options_are_refused_by_name(plot, options, text):
    with pytest.raises(ValueError, match=text):
        PLOTS[plot](DATA, AGAIN, **options)


def test_draws_are_refused_by_name():
    draws = RNG.normal(size=(7, 3))
    with pytest.raises(ValueError, match=r"draws: expected shape \(draws, subjects\)"):
        plots.plot_subjects(draws[0])
    with pytest.raises(ValueError, match="draws: expected finite numbers, got 1 others"):
        plots.plot_subjects(np.where(draws == draws[2, 1], np.nan, draws))
    with pytest.raises(ValueError, match="labels of subjects: expected a list of 3"):
        plots.plot_subjects(draws, labels=["a"])
    with pytest.raises(ValueError, match="truth: expected finite numbers"):
        plots.recovery([0.0, np.nan, 1.0], draws)
    with pytest.raises(ValueError, match=r"draws: expected a dict name -> \(chains, draws\), not empty"):
        plots.plot_traces({})
    with pytest.raises(ValueError, match=r"draws\['mu'\]: expected shape \(chains, draws\)"):
        plots.plot_traces({"mu": draws[:, 0]})
    with pytest.raises(ValueError, match=r"curves: expected shape \(draws, 2\)"):
        plots.bands(None, [1, 2], draws)


def test_one_person_and_choices_that_only_the_model_makes():
    person, again = {name: x[:1] for name, x in DATA.items()}, {name: x[:, :1] for name, x in AGAIN.items()}
    for plot in PLOTS.values():
        assert plot(person, again) is not None
    # The third choice once counted as the next data set's first.
    third = {**again, "choice": np.full_like(again["choice"], 2.0)}
    (panel,) = plots.plot_response_times(person, third)
    edges = np.linspace(0, 2, 3)
    density = plots.defective_density(again["rt"], edges, third["choice"], 3)
    assert density[:, :2].sum() == 0 and panel.get_legend_handles_labels()[1][-1] == "data: lines of these colours"
    with pytest.raises(ValueError, match="choice: expected 0 and 1, got 2"):
        plots.defective_density(again["rt"], edges, third["choice"], 2)


@pytest.mark.parametrize("ragged", [False, True])
def test_a_converted_fit_stands_for_its_data_and_what_it_generates(ragged):
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("arviz")
    from ppl_buffer.arviz import container

    kept = np.ones((3, 20), dtype=bool)
    if ragged:
        kept[1, 13:] = False
    data = {name: np.where(kept, x, np.nan) for name, x in DATA.items()}
    again = {name: np.where(kept, x, np.nan) for name, x in AGAIN.items()}

    def dataset(columns, *sample):
        if not ragged:
            made = {name: ((*sample, "subject", "trial"), x[None] if sample else x) for name, x in columns.items()}
            return xarray.Dataset(made)
        made = {name: ((*sample, "observation"), (x[None] if sample else x)[..., kept]) for name, x in columns.items()}
        return xarray.Dataset(made, {"subject": ("observation", np.array(["b", "c", "a"])[np.nonzero(kept)[0]])})

    outcomes = {name: data[name] for name in ("choice", "rt")}
    fit = container({
        "observed_data": dataset(outcomes),
        "constant_data": dataset({"cue": data["cue"]}),
        "posterior_predictive": dataset(again, "chain", "draw"),
    })  # fmt: skip
    for plot in PLOTS.values():
        for panels in zip(np.ravel(plot(fit, None)), np.ravel(plot(data, again)), strict=True):
            lines = [[line.get_xydata() for line in panel.lines] for panel in panels]
            bands = [[x.get_paths()[0].vertices for x in panel.collections if x.get_paths()] for panel in panels]
            for one, other in (lines, bands):
                assert len(one) == len(other)
                for ours, theirs in zip(one, other, strict=True):
                    np.testing.assert_allclose(ours, theirs)
