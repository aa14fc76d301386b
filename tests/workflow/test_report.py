"""The report of a fit whose draws need no sampling, and the box that parameters stay in."""

from dataclasses import replace

import numpy as np
import pytest

pandas = pytest.importorskip("pandas")

import ppl_buffer as pb  # noqa: E402
from ppl_buffer.network.estimated_error import EstimatedError  # noqa: E402
from tests.datasets.tables import LEARNER, SUBJECTS, read, table_of_trials  # noqa: E402
from tests.networks import FLAT, Case, Record, network  # noqa: E402


def untrained(simulator, box):
    """A tiny network of random weights that says of itself that it was trained on a simulator's data."""
    pytest.importorskip("jax")
    name = type(simulator).__name__
    errors = {"buffer": EstimatedError(1e-5, 5e-6, 2e-5, "snapshots", "buffer")}
    record = Record(box=box, priors=simulator.priors, trials=150, context=0, simulator=name, errors=errors)
    return network(Case(name, simulator.schema, config=FLAT), "jax", record)


def finished(boundary: float = 2.0):
    """A fit of people who respond, of draws that need no sampling: normal about the middle of the box."""
    for module in ("numpyro", "arviz", "matplotlib"):
        pytest.importorskip(module)
    import xarray

    from ppl_buffer.arviz import container
    from ppl_buffer.diagnostics import DataCheck
    from ppl_buffer.workflow.fitting import Fit
    from ppl_buffer.workflow.hierarchical import Box

    rng = np.random.default_rng(1)
    net = untrained(LEARNER, {name: prior.range() for name, prior in LEARNER.priors.items()})
    trials = read(table_of_trials(), net=net, simulator=None)
    box = Box.of(net, trials)
    place = {"alpha_positive": 0.3, "alpha_negative": 0.2, "scaling": 4.0, "boundary": boundary}
    place["non_decision_time"] = 0.3
    draws = {name: x + 0.02 * rng.standard_normal((2, 50, SUBJECTS)) for name, x in place.items()}
    draws["alpha_positive"] += 0.1 * np.arange(SUBJECTS)
    draws["boundary"] = np.minimum(draws["boundary"], 5.0)  # the edge of the trained range
    sites = {name: (("chain", "draw", "subject"), x) for name, x in draws.items()}
    sites |= {f"{name}_group": (("chain", "draw"), x.mean(-1)) for name, x in draws.items()}
    sites |= {f"{name}_spread": (("chain", "draw"), 0.3 + x.std(-1)) for name, x in draws.items()}
    replicated = {name: np.repeat(trials.outcomes[name][None].astype(float), 7, 0) for name in ("choice", "rt")}
    replicated = {name: np.where(trials.trial_mask, x, np.nan) for name, x in replicated.items()}
    rows = {"r_hat": [1.001, 1.003], "ess_bulk": [900, 1200], "ess_tail": [700, 800]}
    settings = {"hierarchical": True, "lapse": 0.02}
    flat = {"mean of rt": rng.standard_normal((70, SUBJECTS))}
    return Fit(
        net=net, trials=trials, box=box, posterior=container({"posterior": xarray.Dataset(sites)}),
        replicated=replicated,
        check=DataCheck(flat, {name: x[::-1] for name, x in flat.items()}, 0.95), outside={}, findings=[],
        summary=pandas.DataFrame(rows), diverging=0.0, deepest=0.1, settings=settings, seconds=2.0,
    )  # fmt: skip


def test_a_report_of_response_times_has_the_fields_plots_and_verdicts(tmp_path):
    from ppl_buffer.workflow.report import write_report

    fit = finished()
    assert fit.converged
    text = write_report(fit, tmp_path, title="a <b> & c").read_text()
    assert {path.stem for path in tmp_path.glob("*.png")} == {
        "traces", "people", "pairs", "misfits",
        "learning_curves", "outcomes", "quantile_probability", "conditional_accuracy",
        "post_error_slowing", "repetition", "autocorrelation",
    }  # fmt: skip
    assert "a &lt;b&gt; &amp; c" in text and "2.0% lapses" in text
    assert "Nothing speaks against it" in text and "measurably" in text and "at the edge of the" not in text
    assert "Most clearly in alpha_positive" in text
    # What was fitted: the words of the table, the network, its error for this many trials, the priors.
    assert "1 &quot;1&quot;" not in text and "one of your own" in text and "LogNormal(log 0.5, 0.7)" in text
    longest = fit.trials.trial_counts.max()
    assert f'<td>in {longest} trials</td><td class="words">wrong by {longest * 1e-5:.2g} nats' in text


def test_doubts_of_the_checks_are_listed_and_those_of_the_data_are_not_said_twice(tmp_path):
    from ppl_buffer.findings import Finding
    from ppl_buffer.workflow import write_report

    findings = [Finding("outside_box", "far <out>", "alpha_positive", 0.2), Finding("data", "odd data", "mean of rt")]
    text = write_report(replace(finished(), findings=findings), tmp_path, title="doubts").read_text()
    assert "<li>far &lt;out&gt;</li>" in text and "odd data" not in text and "Nothing speaks" not in text


def test_verdicts_do_not_say_more_than_the_chains_do(tmp_path):
    from ppl_buffer.workflow.report import answers

    good = finished()
    rows = {"r_hat": [1.03, 1.003], "ess_bulk": [900, 1200], "ess_tail": [700, 800]}
    almost = replace(good, summary=pandas.DataFrame(rows))
    stuck = replace(good, summary=pandas.DataFrame(rows | {"ess_tail": [1, 800]}))
    frozen = replace(good, summary=pandas.DataFrame(rows | {"r_hat": [1.0, np.nan]}))
    alone = replace(good, summary=pandas.DataFrame(rows | {"r_hat": [np.nan, np.nan]}))
    lost = replace(alone, summary=pandas.DataFrame(rows | {"r_hat": [np.nan, np.nan], "ess_bulk": [1.0, 5.0]}))
    expected = {
        "good": (good, ["yes", "yes", "measurably", "yes"]),
        "almost": (almost, ["look closer", "yes", "look closer", "look closer"]),
        # An effective sample size of 1 is no posterior; and a quantity that never moves has no R-hat.
        "stuck": (stuck, ["no", "look closer", "unknown", "no"]),
        "frozen": (frozen, ["no", "look closer", "unknown", "no"]),
        "alone": (alone, ["look closer", "yes", "look closer", "look closer"]),
        "lost": (lost, ["no", "look closer", "unknown", "no"]),
    }
    for name, (fit, verdicts) in expected.items():
        assert [section.verdict for section in answers(fit)] == verdicts, name
    assert not stuck.readable and frozen.r_hat == np.inf and np.isnan(alone.r_hat)
    said = answers(lost)[0].lines[0]
    assert "hardly moved" in said and "effective sample size 1," in said and "--chains 2" in said and "<" not in said
    # A curve far outside of its band is no fit, and the terminal hears of it.
    from ppl_buffer.diagnostics.curves import Curve

    rng = np.random.default_rng(3)
    curve = Curve(["pair = 2, presentation 1", "pair = 2, presentation 2"], np.array([0.31, 0.6]),
                  rng.normal(0.55, 0.04, (100, 2)), 0.95)  # fmt: skip
    section = answers(replace(good, check=replace(good.check, curves={"first trials of choice": curve})))[1]
    assert section.verdict == "look closer" and "first trials of choice" in section.lines[0]
    assert "first trials of choice, pair = 2, presentation 1" in section.body
    good.check.plot().savefig(tmp_path / "check.png")


def test_draws_that_pile_up_at_the_edge_of_the_range_are_told(tmp_path):
    from ppl_buffer.workflow.report import write_report

    fit = finished(boundary=6.0)
    # A learning rate of 0 is no edge: the model knows nothing beyond it.
    assert fit.edge("boundary") > 0.9 and fit.edge("alpha_positive") == 0
    text = write_report(fit, tmp_path, title="edge").read_text()
    assert "<b>boundary</b> lie at the edge of the trained range" in text and "Nothing speaks" not in text


@pytest.mark.parametrize(
    ("nats", "verdict", "said"),
    [
        (None, "look closer", "Nobody has measured how far this network's likelihood is from the simulator's"),
        (1e-5, "yes", "off by about 1e-05 (5e-06 to 2e-05) nats a trial, estimated from what the last stretch of its"),
        (0.1, "look closer", "train the network longer"),
        (2.0, "no", "too much to use it"),
    ],
)
def test_a_network_is_trusted_no_more_than_its_error_allows(nats, verdict, said):
    from ppl_buffer.workflow.report import answers

    fit = finished()
    errors = {} if nats is None else {"buffer": EstimatedError(nats, nats / 2, 2 * nats, "snapshots", "buffer")}
    fit.net.record = replace(fit.net.record, errors=errors)
    section = answers(fit)[-1]
    assert section.verdict == verdict and any(said in line for line in section.lines), section.lines
    if nats is not None:
        trials = fit.trials.trial_counts.max()
        assert any(
            f"a data set of {trials} trials is off by {trials * nats:.2g} nats" in line for line in section.lines
        )


def test_parameters_stay_inside_the_box_and_below_the_fastest_response():
    fit = finished()
    fastest = np.where(fit.trials.trial_mask, fit.trials.outcomes["rt"], np.inf).min(1)
    for extreme in (-40.0, 0.0, 40.0):
        params = fit.box({name: np.full(SUBJECTS, extreme, np.float32) for name in fit.box.bounds})
        for name, (low, high) in fit.net.box.items():
            assert (np.asarray(params[name]) >= low).all() and (np.asarray(params[name]) <= high).all()
        assert (np.asarray(params["non_decision_time"]) < fastest).all()
    middle = fit.box({name: np.zeros(SUBJECTS, np.float32) for name in fit.box.bounds})
    np.testing.assert_allclose(middle["boundary"], (0.6 + 5.0) / 2, rtol=1e-5)
    # A number means the same non-decision time whoever's fastest response is far above it.
    early = fit.box({name: np.full(SUBJECTS, -3.0, np.float32) for name in fit.box.bounds})
    low, high = fit.net.box["non_decision_time"]
    expected = low + (high - low) * (1e-4 + (1 - 2e-4) / (1 + np.exp(3.0)))
    np.testing.assert_allclose(early["non_decision_time"], expected, rtol=1e-4)


def test_a_parameter_relative_to_another_keeps_its_distance():
    pytest.importorskip("numpyro")
    from ppl_buffer.workflow.hierarchical import Box

    observer = pb.simulators.MultisensoryCausalInference()
    net = untrained(observer, {name: (-9.0, 9.0) for name in observer.priors})
    box = Box.of(net)
    relative = {name: prior for name, prior in observer.priors.items() if prior.relative_to}
    assert relative
    rng = np.random.default_rng(2)
    params = box({name: 3 * rng.standard_normal(101).astype(np.float32) for name in net.schema.params})
    for name, prior in relative.items():
        low, high = prior.range()
        distance = np.asarray(params[name] - params[prior.relative_to])
        assert (distance >= low).all() and (distance <= high).all() and distance.std() > 0.2 * (high - low)
