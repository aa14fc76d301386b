"""What an evidence says of its terms, by hand."""

import numpy as np
import pytest

from ppl_buffer.inference.evidence import Evidence


def test_terms_of_known_weight():
    weight = np.array([[1.0, 4.0], [1.0, 4.0], [4.0, 4.0]])
    found = Evidence.of_terms(np.log(weight) - 1000, "importance")
    np.testing.assert_allclose(found.log_evidence, np.log([2, 4]) - 1000)
    # The spread of a mean of three over the mean: sqrt(3 / 3) / 2.
    np.testing.assert_allclose(found.standard_error, [np.sqrt(3 / 3) / 2, 0])
    np.testing.assert_allclose(found.effective_sample_size, [36 / 18, 3])
    np.testing.assert_allclose(found.running() + 1000, np.log([[1, 4], [1, 4], [2, 4]]))


def test_few_effective_draws_are_said_and_enough_are_not():
    rng = np.random.default_rng(0)
    few, enough = rng.normal(0, 3, (200, 2)), rng.normal(0, 0.3, (200, 2))
    (finding,) = Evidence.of_terms(few, "importance").findings
    assert finding.kind == "sampling" and "raise draws" in finding.text
    assert Evidence.of_terms(enough, "importance").findings == []
    # Orders are no draws: their spread is in the standard error.
    assert Evidence.of_terms(few, "autoregressive").findings == []


def test_one_term_leaves_nothing_to_chance():
    found = Evidence.of_terms(np.array([[-3.0, -4.0]]), "autoregressive")
    assert found.log_evidence.tolist() == [-3, -4] and found.standard_error.tolist() == [0, 0]


def test_data_that_no_draw_explains_have_no_evidence():
    found = Evidence.of_terms(np.array([[-np.inf, -1.0], [-np.inf, -1.0]]), "importance")
    assert found.log_evidence.tolist() == pytest.approx([-np.inf, -1.0])
    assert found.standard_error.tolist() == [np.inf, 0] and found.effective_sample_size.tolist() == [0, 2]
    assert "worth only 0" in found.findings[0].text
