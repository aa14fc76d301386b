"""The cards beside the shipped networks are those that their recipes, records and measurements give today."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import harness  # noqa: E402
import make_card  # noqa: E402

SHIPPED = make_card.PRETRAINED


@pytest.mark.parametrize("name", sorted(path.stem for path in SHIPPED.glob("*.safetensors")))
def test_a_card_is_what_make_card_writes(name, tmp_path, monkeypatch):
    shutil.copy(SHIPPED / f"{name}.toml", tmp_path)
    shutil.copy(make_card.ZOO, tmp_path)
    monkeypatch.setattr(make_card, "PRETRAINED", tmp_path)
    monkeypatch.setattr(make_card, "ZOO", tmp_path / "zoo.md")
    page = make_card.ZOO.read_text()
    make_card.main([name])
    assert make_card.ZOO.read_text() == page
    for ending in ("md", "json"):
        assert (tmp_path / f"{name}.{ending}").read_text() == (SHIPPED / f"{name}.{ending}").read_text()


def test_a_card_tells_all_stages_of_a_record_and_says_where_the_recipe_made_the_weights():
    import ppl_buffer as pb
    from ppl_buffer.network.record import StageRecord, TrainingRecord

    stages = tuple(StageRecord("2026-01-02T03:04:05", {}, None, seed, 70, 60, 2e-3, 0.5, 1900, 0, 0) for seed in (3, 4))
    record = TrainingRecord(box={}, priors={}, trials=17, context=9, simulator="Made", stages=stages)
    stage = {"steps": 70, "learning_rate": 2e-3, "seed": 3, "trials": [3, 17], "mean_with_start": True}
    direct = {"steps": 90, "seed": 5, "trials": [3, 11], "outcome_samples": 4}
    recipe = {"data_sets": "simulated data sets", "stages": [stage], "likelihood": [direct]}
    recipe["simulator"] = {"name": "MultisensoryCausalInference"}
    text = make_card.training("made", record, recipe)
    first = "| buffered transformer | 60 of 70 | 0.002 | 3 | 1,900 |  | 2026-01-02 |"
    assert f"{first}\n| buffered transformer | 60 of 70 | 0.002 | 4 |" in text
    assert "earlier recipe" not in text and "`ppl-buffer zoo --train made` trained it, and trains it anew:" in text
    learnt = "outcomes, then averaged with the weights before"
    assert f"| buffered transformer | 70 | 0.002 | 3 | 3 to 17 |  | {learnt} |" in text
    assert "| direct likelihood | 90 |  | 5 | 3 to 11 |  | 4 outcomes of each target |" in text
    # All outcomes of this one are drawn from probabilities that it tells, so that draws are not what is learnt from.
    text = make_card.training("made", record, {**recipe, "simulator": {"name": "Discounting"}})
    assert "| direct likelihood | 90 |  | 5 | 3 to 11 |  | the simulator's probabilities of outcomes |" in text
    assert {entry.name for entry in pb.zoo()} == {path.stem for path in SHIPPED.glob("*.toml")}


def test_a_card_says_what_a_direct_likelihood_alone_cannot_do():
    assert "It refuses what hides" in make_card.lacks(SimpleNamespace(parts=("likelihood",)))
    assert make_card.lacks(SimpleNamespace(parts=("likelihood", "buffer"))) == ""


def test_a_card_states_the_error_of_its_record():
    from ppl_buffer.network.estimated_error import EstimatedError
    from ppl_buffer.network.record import TrainingRecord

    record = TrainingRecord(box={}, priors={}, trials=17, context=0, simulator="Made")
    assert make_card.stated_error(record) == ""
    measured = replace(record, errors={"likelihood": EstimatedError(0.004, 0.003, 0.005, "snapshots")})
    stated = "he direct likelihood is off by about 0.004 (0.003 to 0.005) nats a trial (by snapshots), says its record."
    assert make_card.stated_error(measured).split() == f"T{stated}".split()
    # Of a network that has parameters they are given.
    with_params = replace(measured, box={"drift": (-1.0, 1.0)})
    assert make_card.stated_error(with_params).split() == f"Where all parameters are given, t{stated}".split()


def test_a_card_says_which_part_is_of_which_recipe():
    from ppl_buffer.network.record import StageRecord, TrainingRecord

    facts = {"versions": {}, "start": None, "seed": 1, "steps": 9, "step": 9, "learning_rate": 1e-3}
    facts |= {"date": "2026-01-02", "held_out_loss": 0.1, "data_sets": 7, "dropped_data_sets": 0, "skipped_updates": 0}
    stages = (StageRecord(**facts), StageRecord(**facts, part="likelihood", seconds=90.0))
    record = TrainingRecord(box={}, priors={}, trials=17, context=0, simulator="NoisyQ", stages=stages)
    stage = {"steps": 70, "learning_rate": 2e-3, "seed": 3, "trials": [3, 17]}
    recipe = {
        "data_sets": "sets", "stages": [stage], "likelihood": [stage], "simulator": {"name": "NoisyQTasks", "pairs": 3},
        "earlier": {"parts": ["buffer"]},
    }  # fmt: skip
    text = " ".join(make_card.training("made", record, recipe).split())
    assert "The buffered transformer has weights of an earlier recipe, until it is trained anew." in text
    assert "is of this recipe: `ppl-buffer zoo --train made --parts likelihood` trained it." in text
    assert "trains such a network, not these weights:" in text
    assert "| direct likelihood | 9 of 9 | 0.001 | 1 | 7 | 1.5 | 2026-01-02 |" in text
    anew = {**recipe, "earlier": {}, "machine": "By a GPU."}
    text = " ".join(make_card.training("made", record, anew).split())
    assert "2026-01-02 | By a GPU. `ppl-buffer zoo --train made` trains it anew:" in text


def test_figures_of_both_parts_stand_side_by_side(capsys):
    both = make_card.Figure("KL", {"direct": 0.0004, "buffer": 0.0009}, 0.0006)
    alone = make_card.Figure("evidence", {"buffer": 0.5})
    table = make_card.table_of("made", [both, alone])
    assert "| figure | direct likelihood | buffered transformer | bar | met |" in table
    assert "| KL | 0.0004 | 0.0009 | 0.0006 | yes / **no** |\n| evidence |  | 0.5 |  |  |" in table
    expected = {"KL": 0.0004, "KL, buffered": 0.0009, "evidence": 0.5}
    assert make_card.all_by_name([both, alone]) == expected
    assert "direct likelihood" not in make_card.table_of("made", [alone])


@pytest.mark.parametrize(
    ("steps", "date", "today"),
    [
        ({"direct": 5, "buffer": 7}, "2026-01-03T00:00:00+00:00", True),
        ({"direct": 5, "buffer": 8}, "2026-01-03T00:00:00+00:00", False),  # other weights
        ({"direct": 5, "buffer": 7}, "2026-01-01T00:00:00+00:00", False),  # as many steps, of an earlier training
    ],
)
def test_a_measurement_is_of_the_weights_that_were_there_before_it(steps, date, today):
    stages = [
        SimpleNamespace(part=part, step=step, date="2026-01-02T00:00:00+00:00")
        for part, step in (("buffer", 3), ("buffer", 7), ("likelihood", 5))
    ]
    measurement = {"date": date, "results": {"training_steps": steps}}
    assert harness.is_of_today(SimpleNamespace(stages=stages), measurement, "buffer") == today
    assert not harness.is_of_today(SimpleNamespace(stages=stages[:2]), measurement, "direct")


def test_figures_are_put_into_words():
    figures = [
        make_card.Figure("KL per trial, 70 trials", {"direct": 2.19e-05, "buffer": 0.5}, 0.0001),
        make_card.Figure("RMSE of the total, 70 trials", {"direct": 0.17, "buffer": 0.4}),
        make_card.Figure("RMSE of the total, 70 trials, another case", {"direct": 0.236, "buffer": 0.1}),
        make_card.Figure("RMSE of the total, 130 trials", {"direct": 1.03, "buffer": 2.0}),
        make_card.Figure("posterior against exact, 20 data sets, by NUTS: mean shift in sd", {"buffer": 0.08}, 0.1),
        make_card.Figure("gradient, 3 data sets of 50 trials: milliseconds", {"direct": 1.25, "buffer": 31.0}),
    ]
    words = make_card.words_of(figures, "direct")
    assert words.error == "in 70 trials the log likelihood is off by about 0.24 nats, in 130 by 1"
    assert words.time == "a gradient for 3 people of 50 trials takes 1.2 ms"
    assert make_card.words_of(figures, "buffer").error.endswith("posterior means by 0.08 posterior standard deviations")
    text = make_card.section(words, figures, "direct")
    assert text.endswith("takes 1.2 ms. Of 3 bars that were stated before measuring 2 are met.")
    assert make_card.table_of("made", figures).count("| 0.0000219 |") == 1


def test_the_table_of_the_zoo_keeps_the_rows_of_others():
    from card_words import BEGIN, END

    row = make_card.zoo_row("b", "A model (`of.Somebody`)\nwith noise: choices.", make_card.Words("near", ""), "well")
    page = f"above\n{BEGIN}\n\n{END}\nbelow"
    once = make_card.with_rows(page, [row])
    assert "| [`b`](cards/b.md) | A model with noise | near | well | not measured |" in once
    both = make_card.with_rows(once, [make_card.zoo_row("a", "Other.", make_card.Words("far", "fast"), "ill")])
    lines = both.splitlines()
    assert lines.index("| [`a`](cards/a.md) | Other | far | ill | fast |") + 1 == next(
        place for place, line in enumerate(lines) if line.startswith("| [`b`]")
    )
    assert both.startswith("above\n") and both.endswith("\nbelow") and make_card.with_rows(both, [row]) == both


def made_calibration(**failed):
    """A result file of `calibration.py`: who fails is said by name."""
    nothing = {"nats": None, "coverage_50": None, "coverage_90": None, "effect": None}
    likelihood = [
        {**nothing, "comparison": "error", "what": "above 0.002 nats a trial", "nats": 0.00031},
        {**nothing, "comparison": "PIT", "what": "rt", "coverage_50": 0.513, "coverage_90": 0.897},
        {**nothing, "comparison": "coverage", "what": "drift 0 to 1", "coverage_50": 0.4, "coverage_90": 0.87},
        {**nothing, "comparison": "coverage", "what": "drift 1 to 2", "coverage_50": 0.6, "coverage_90": 0.93},
        {**nothing, "comparison": "rollouts", "what": "mean of rt", "effect": 0.02},
        {**nothing, "comparison": "rollouts", "what": "preference for larger drift", "effect": -0.137},
    ]
    ranks = {"mean_rank": 0.472, "rank_spread": 1.058, "contraction": 0.883, "effective_draws": 56.6}
    posterior = [{**ranks, "quantity": "drift"}, {**ranks, "quantity": "log_likelihood", "contraction": None}]
    posterior.append({**dict.fromkeys(ranks), "quantity": "likelihood, error: above 0.002 nats a trial"})
    for row in (*likelihood, *posterior):
        row["passed"] = row.get("what", row.get("quantity")) not in failed.get("names", ())
    results = {"sets": 300, "trials": 70, "draws": 99, "thin": 3, "level": 0.95, "divergences": 0.0123}
    return {"date": "2026-02-02T01:00:00", "results": {**results, "likelihood": likelihood, "posterior": posterior}}


def test_a_card_says_what_calibration_found():
    from card_calibration import calibration

    right = calibration("made", made_calibration(), "2026-02-01T00:00:00")
    text = " ".join(right.section.split())
    assert "`benchmarks/calibration.py --model made --sets 300 --thin 3` (2026-02-02): 300 data sets of 70" in text
    assert "all 6 comparisons of the likelihood lie inside their bands.**" in text
    assert "diverges from the exact likelihood by 0.00031 nats a trial" in text
    assert "range 87 % to 93 % of the outcomes lie in the network's central 90 % interval (2 comparisons)" in text
    assert "is 0.14 standard deviations (how much the likelihood prefers a larger `drift`)" in text
    assert "| `rt` | 51.3 % | 89.7 % | yes |" in text and "| `drift` | 0.47 | 1.06 | 88 % | 57 | yes |" in text
    assert "| `log_likelihood` | 0.47 | 1.06 | | 57 | yes |" in text and "nats a trial |" not in text
    # 1 / sqrt(12 * 300): the standard error of a mean of uniform numbers.
    assert "by chance off by about 0.02)" in text and "1.2 % of the transitions diverged" in text
    assert right.words == "inside all bands" and set(right.figures.values()) == {0.0}
    failed = made_calibration(names=("drift", "preference for larger drift", "mean of rt"))
    wrong = calibration("made", failed, "2026-02-03T00:00:00")
    assert wrong.words == (
        "outside their bands: likelihood: mean of rt, likelihood: how much the likelihood prefers a larger `drift`, "
        "ranks of `drift` (of earlier weights)"
    )
    assert "the ranks of 1 of 2 quantities of the posterior lie outside: `drift`." in wrong.sentence
    assert "(2026-02-02, of earlier weights)" in " ".join(wrong.section.split())
    assert wrong.figures["calibration, of earlier weights: comparisons of the likelihood outside their band, of 6"] == 2
    assert list(wrong.figures.values()) == [2, 1]
    assert calibration("made", {}, "").words == "not measured"
