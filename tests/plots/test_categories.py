"""Pictures call categories by the words of their table, and by numbers where the table had numbers."""

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from ppl_buffer import plots  # noqa: E402
from ppl_buffer.datasets import TrialData  # noqa: E402

TWO = {"choice": {0: "wrong", 1: "$right$"}, "cue": {0: "AB", 1: "a name of more than twenty-four letters"}}
THREE = {"choice": {0: "left", 1: "middle", 2: "right"}, "cue": {0: "1", 1: "2, 7"}}
NUMBERS = {"choice": {0: "1", 1: "2"}}


def trials(options, codes):
    rng = np.random.default_rng(7)
    shape = (5, 61)
    return TrialData(
        subjects=np.arange(5),
        trial_counts=np.full(5, 61),
        inputs={"cue": rng.integers(0, 2, shape)},
        outcomes={"choice": rng.integers(0, options, shape), "rt": 0.3 + rng.gamma(2.0, 0.3, shape)},
        feedback={},
        trial_mask=np.ones(shape, dtype=bool),
        codes=codes,
    )


def said(panels):
    """All that stands in a picture, as matplotlib draws it."""
    (figure,) = {panel.figure for panel in np.ravel(panels)}
    figure.canvas.draw()
    return [text.get_text() for text in figure.findobj(lambda x: hasattr(x, "get_text")) if text.get_text()]


def test_words_are_those_of_tables_without_numbers():
    assert trials(2, TWO).words == TWO
    assert trials(3, THREE).words == {"choice": THREE["choice"]}
    assert trials(2, NUMBERS).words == {} and trials(2, {}).words == {}
    assert trials(2, {"choice": {0: "", 1: "x"}}).words == {"choice": {1: "x"}}


def test_every_picture_of_two_choices_says_the_words():
    data, right = trials(2, TWO), r"choice = \$right\$"
    again = {name: x[None] for name, x in data.outcomes.items()}
    times = said(plots.plot_response_times(data, again, condition="cue"))
    assert {"cue = AB", "cue = a name of more than twe…", "model, choice = wrong", f"model, {right}"} <= set(times)
    assert {"data, choice = wrong", f"data, {right}"} <= set(said(plots.plot_quantile_probability(data)))
    assert f"share of {right}" in said(plots.plot_conditional_accuracy(data))
    assert f"share of {right}" in said(plots.plot_learning_curves(data, cue="cue"))
    assert f"response time after choice = wrong\nminus after {right} (s)" in said(plots.plot_post_error_slowing(data))


def test_a_word_with_a_dollar_sign_is_no_formula():
    from matplotlib.figure import Figure

    panel = plots.plot_conditional_accuracy(trials(2, TWO), axes=Figure().subplots())
    text, math = panel.yaxis.label._preprocess_math(panel.get_ylabel())
    assert (text, math) == ("share of choice = $right$", False)


def test_three_choices_and_tables_of_numbers():
    data = trials(3, THREE)
    again = {name: x[None] for name, x in data.outcomes.items()}
    expected = {f"model, choice = {word}" for word in ("left", "middle", "right")}
    assert expected | {"cue = 0", "cue = 1"} <= set(said(plots.plot_response_times(data, again, condition="cue")))
    assert {f"data, choice = {word}" for word in ("left", "middle", "right")} <= set(
        said(plots.plot_quantile_probability(data))
    )
    numbers = trials(2, NUMBERS)
    assert "share of choice = 1" in said(plots.plot_conditional_accuracy(numbers))
    assert {"data, choice = 0", "data, choice = 1"} <= set(said(plots.plot_quantile_probability(numbers)))
    # What a user writes comes before the table's words.
    times = plots.plot_response_times(data, again, choice_labels=["a", "b", "c"])
    assert {"model, a", "model, b", "model, c"} <= set(said(times))
