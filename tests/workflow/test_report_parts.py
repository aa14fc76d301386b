"""What the report says of the data, the network, single people and prediction, by hand."""

from dataclasses import replace

import numpy as np
import pytest

pandas = pytest.importorskip("pandas")

from tests.workflow.test_report import finished  # noqa: E402


@pytest.fixture(scope="module")
def fit():
    return finished()


def test_the_words_of_the_table_and_the_trials_left_out_are_told(fit):
    from ppl_buffer.workflow.report.accuracy import accuracy
    from ppl_buffer.workflow.report.fitted import fitted

    told = replace(fit, trials=replace(fit.trials, codes={"choice": {0: "left", 1: "right <b>"}}, excluded=1234))
    text = fitted(told, accuracy(told))
    share = told.trials.outcomes["choice"][told.trials.trial_mask].mean()
    assert f"1 &quot;right &lt;b&gt;&quot; ({share:.0%})" in text and "1,234 trials were left out" in text
    # The middle of the range in logistic units is its middle in natural ones, and the prior covers most of it.
    assert "<td>boundary, median person</td><td>0.944</td><td>2.8</td><td>4.66</td><td>0.6</td><td>5</td>" in text
    assert "non_decision_time ends at each person&#x27;s fastest response" in text
    alone = replace(fit, settings={**fit.settings, "hierarchical": False})
    assert "Each person&#x27;s number is Normal(0, 1.5)" in fitted(alone, accuracy(alone))


def test_covariates_of_formulas_are_told(fit):
    from types import SimpleNamespace

    from ppl_buffer.workflow.report.accuracy import accuracy
    from ppl_buffer.workflow.report.fitted import fitted

    shape = fit.trials.trial_mask.shape
    day = np.broadcast_to(np.where(np.arange(shape[1]) % 2, "late", "<early>"), shape)
    covariates = {"day": day, "age": np.arange(shape[0])[:, None] + np.zeros(shape), "unused": np.ones(shape)}
    covariates["theta"] = np.arange(day.size).reshape(shape) / 10
    design = SimpleNamespace(
        levels={"day": "trial", "age": "subject", "theta": "trial", "subject": "subject"}, sites={}
    )
    told = replace(fit, trials=replace(fit.trials, covariates=covariates), design=design)
    told = replace(told, design=SimpleNamespace(**vars(design), fixed={}))
    text = fitted(told, accuracy(told))
    share = (day[fit.trials.trial_mask] == "late").mean()
    assert f"&quot;&lt;early&gt;&quot; ({1 - share:.0%}), &quot;late&quot; ({share:.0%})" in text
    assert "a number that varies by subject" in text and "0 to " in text and "unused" not in text
    assert "have the priors that stand beside them above" in text


def test_read_trials_keeps_the_words_of_categories():
    from ppl_buffer.datasets import read_trials
    from tests.datasets.tables import NOISY_Q, table_of_trials

    table = table_of_trials()
    table["response"] = np.where(table["response"] == 1, "better", "worse")
    columns = {"choice": "response", "reward": "feedback", "pair": "cond"}
    trials = read_trials(table, NOISY_Q, columns=columns, recode={"choice": {"worse": 0, "better": 1}}, order="file")
    assert trials.codes["choice"] == {0: "worse", 1: "better"} and trials.select([0]).codes == trials.codes


def test_a_network_that_nobody_measured_is_never_green_though_it_has_a_card(fit, monkeypatch):
    from ppl_buffer.workflow.report import accuracy, answers

    monkeypatch.setattr(accuracy, "_shipped", lambda fit: ("ddm", "<p>figures</p>"))
    record = fit.net.record
    try:
        fit.net.record = replace(record, errors={})
        section = answers(fit)[-1]
    finally:
        fit.net.record = record
    assert section.mark == "look" and any("does not say how far" in line for line in section.lines)


def test_the_person_whom_the_model_does_not_fit_comes_first(fit):
    from ppl_buffer.diagnostics import DataCheck
    from ppl_buffer.workflow.report.misfits import draw_misfits, table_of_misfits, worst_people

    rng = np.random.default_rng(7)
    count = len(fit.trials.subjects)
    drawn = {name: rng.normal(size=(101, count)) for name in ("mean of rt", "mean of choice")}
    data = {name: np.zeros((101, count)) for name in drawn}
    data["mean of choice"][:, 1] = 9.0
    check = DataCheck(data, drawn, 0.95)
    assert worst_people(check)[0] == 1
    odd = replace(fit, check=check)
    text = table_of_misfits(odd)
    row = text[text.index(f'<td class="bad">{fit.trials.subjects[1]}</td>') :]
    assert row.index("1 of 2") < row.index("mean of choice") < row.index("</tr>")
    figure, caption = draw_misfits(odd)
    assert "Share of choice = 1" in caption
    # The data of the first panel are the means of tenths of this person's trials.
    panel = figure.axes[0]
    exists = fit.trials.trial_mask[1]
    values = fit.trials.outcomes["choice"][1][exists].astype(float)
    assert panel.get_title() == str(fit.trials.subjects[1])
    line = panel.lines[0].get_ydata()
    pieces = np.array_split(values, len(line))
    if len(values) % len(line) == 0:
        np.testing.assert_allclose(line, [piece.mean() for piece in pieces])
    assert abs(np.mean(line) - values.mean()) < 0.05


def test_correlations_across_people_are_those_of_each_draw(fit):
    from ppl_buffer.workflow.report.correlations import across_people, correlations

    rng = np.random.default_rng(2)
    one, other = rng.normal(size=(2, 31, 7))
    expected = [np.corrcoef(a, b)[0, 1] for a, b in zip(one, other, strict=True)]
    np.testing.assert_allclose(across_people(one, other), expected)
    assert np.isnan(across_people(one, np.ones_like(one))).all()
    assert correlations(fit, ["boundary"]) == ""


def test_parameters_that_go_together_stand_out():
    from types import SimpleNamespace

    from ppl_buffer.workflow.report.correlations import correlations

    rng = np.random.default_rng(3)
    base = np.linspace(-1.0, 1.0, 7)
    draws = {"a": base, "b": -base, "c": np.zeros(7)}
    sites = {name: x + 0.05 * rng.normal(size=(2, 31, 7)) for name, x in draws.items()}
    people = SimpleNamespace(trials=SimpleNamespace(subjects=np.arange(7)), draws=sites.__getitem__)
    head, strongest, *others = correlations(people, list(sites)).split("<tr>")[1:]
    assert 'class="bad"' in strongest and ">a<" in strongest and ">b<" in strongest and "-0.9" in strongest
    assert len(others) == 2 and 'class="bad' not in head + "".join(others)


def test_scores_stand_in_the_report_with_those_whose_pareto_k_is_high(fit):
    import xarray

    from ppl_buffer.scores import psis_loo
    from ppl_buffer.workflow.left_out_subjects import shared_factors
    from ppl_buffer.workflow.report import answers
    from ppl_buffer.workflow.report.prediction import prediction
    from tests.formulas.cases import Deciders

    assert "what was left out" not in answers(fit)[1].body
    rng = np.random.default_rng(4)
    values = rng.normal(size=(2, 200, 3))
    values[..., 2] *= 30.0
    table = xarray.DataArray(values, dims=("chain", "draw", "subject"), coords={"subject": ["a", "b", "odd one"]})
    body = answers(replace(fit, scores={"logo": psis_loo("logo", table)}))[1].body
    assert "1 of 3" in body and "The population hangs on single people: odd one." in body and "scores.reloo" in body
    # Where people share items, fits without them are no way: scores of trials are.
    deciders = Deciders()
    crossed = deciders.design(["drift ~ (1 | subject) + (1 | group)"])
    assert shared_factors(crossed) == ["group"] and shared_factors(deciders.design(["drift ~ (1 | subject)"])) == []
    body = prediction(
        replace(fit, scores={"logo": psis_loo("logo", table), "loo": psis_loo("loo", table)}, design=crossed)
    )
    assert "what people share (group)" in body and "score of each trial" in body and "reloo" not in body


def test_letters_that_a_font_lacks_come_from_another():
    import matplotlib
    from matplotlib.figure import Figure

    from ppl_buffer.workflow.report.fonts import families, fonts_of_all_scripts

    assert families(["sans-serif"], ["PingFang SC", "DejaVu Sans"]) == ["sans-serif", "PingFang SC"]
    before = list(matplotlib.rcParams["font.family"])
    with fonts_of_all_scripts():
        text = Figure().text(0, 0, "x")
        assert text.get_fontfamily()[: len(before)] == before
    assert matplotlib.rcParams["font.family"] == before


def test_the_report_has_a_picture_of_each_condition(fit):
    from types import SimpleNamespace

    from ppl_buffer.diagnostics import DataCheck
    from ppl_buffer.diagnostics.conditions import condition_curves
    from ppl_buffer.workflow.conditions import conditions_of
    from ppl_buffer.workflow.report import answers
    from ppl_buffer.workflow.report.conditions import draw_conditions

    exists = fit.trials.trial_mask
    day = np.where(np.arange(len(exists)) % 2, "second", "first")[:, None]
    words = np.broadcast_to(day, exists.shape)
    trials = replace(fit.trials, covariates={"day/session": words})
    design = SimpleNamespace(levels={"day/session": "data set", "subject": "subject", "pair": "trial"})
    conditions = conditions_of(fit.net.schema, design, trials)
    assert list(conditions) == ["day/session"]
    seen = {**trials.inputs, **{name: np.where(exists, x, np.nan) for name, x in trials.outcomes.items()}}
    curves = condition_curves(fit.net.schema, seen, fit.replicated, conditions, 0.95)
    check = DataCheck(fit.check.observed, fit.check.replicated, 0.95, curves)
    figures = draw_conditions(replace(fit, trials=trials, design=design, check=check))
    assert set(figures) == {"by_day_session", "by_day_session_learning"}
    share, *by_choice = figures["by_day_session"][0].axes
    assert len(by_choice) == 2 and [x.get_text() for x in share.get_xticklabels()] == ["first", "second"]
    means = [x[there].mean() for x, there in zip(trials.outcomes["choice"][::2], exists[::2], strict=True)]
    circles = [line.get_ydata()[0] for line in share.lines if line.get_marker() == "o"]
    assert circles[0] == pytest.approx(np.mean(means))
    body = answers(replace(fit, check=check), figures)[1].body
    assert "<h3>By condition</h3>" in body and "quantiles of rt by day/session" in body


def test_words_of_the_table_stand_in_texts_and_pictures(fit):
    from types import SimpleNamespace

    from ppl_buffer.diagnostics import DataCheck
    from ppl_buffer.diagnostics.conditions import condition_curves
    from ppl_buffer.diagnostics.curves import outcome_curves
    from ppl_buffer.diagnostics.statistics import outcome_statistics
    from ppl_buffer.workflow.conditions import conditions_of
    from ppl_buffer.workflow.report import answers
    from ppl_buffer.workflow.report.figures import draw_figures

    exists = fit.trials.trial_mask
    day = np.broadcast_to(np.where(np.arange(len(exists)) % 2, "second", "first")[:, None], exists.shape)
    words = {"choice": {0: "the <b>", 1: "cost $5 $6"}, "pair": {0: "AB", 1: "CD", 2: "EF"}}
    trials = replace(fit.trials, covariates={"day": day}, codes=words)
    design = SimpleNamespace(
        levels={"day": "data set", "subject": "subject", "pair": "trial"}, sites={}, parameters={}, fixed={}
    )
    schema, conditions = fit.net.schema, conditions_of(fit.net.schema, design, trials)
    seen = {**trials.inputs, **{name: np.where(exists, x, np.nan) for name, x in trials.outcomes.items()}}
    curves = outcome_curves(schema, seen, fit.replicated, 0.95, trials.words)
    curves |= condition_curves(schema, seen, fit.replicated, conditions, 0.95, trials.words)
    again = outcome_statistics(schema, fit.replicated, words=trials.words)
    shown = {name: x + 9.0 for name, x in again.items()}
    told = replace(fit, trials=trials, design=design, check=DataCheck(shown, again, 0.95, curves))
    figures = draw_figures(told)
    texts = {}
    for name, (figure, caption) in figures.items():
        texts[name] = " | ".join([x.get_text() for x in figure.findobj(lambda x: hasattr(x, "get_text"))] + [caption])
    assert "choice = 1" not in " ".join(texts.values()) and "choice = 0" not in " ".join(texts.values())
    for name in ("learning_curves", "outcomes", "quantile_probability", "conditional_accuracy", "post_error_slowing"):
        assert r"choice = cost \$5 \$6" in texts[name], name
    for name in ("misfits", "by_day", "by_day_learning"):
        assert "choice = cost $5 $6" in texts[name], name
    assert "pair = EF" in texts["learning_curves"] and "pair = EF" in texts["by_day_learning"]
    assert "slower after choice = the <b> than after choice = cost $5 $6?" in texts["post_error_slowing"]
    body = answers(replace(told, design=None))[1].body
    assert "share of choice = cost $5 $6" in body and "slowing after choice = the &lt;b&gt;" in body
    assert "<b>" not in body


@pytest.mark.slow
def test_the_table_of_trials_holds_what_is_known_so_far(fit):
    from ppl_buffer.workflow.readouts import trial_table

    table = trial_table(fit, sequential=True, progress=False)
    counts = dict(zip(fit.trials.subjects, fit.trials.trial_counts, strict=True))
    assert table.groupby("subject").size().to_dict() == counts
    assert {"surprise", "surprise_choice", "mean_rt", "sd_boundary", "effective_sample_size"} <= set(table.columns)
    low, high = fit.box.bounds["boundary"]
    assert table["mean_boundary"].between(low, high).all() and np.isfinite(table["surprise"]).all()
