"""Properties that hold at whatever is passed: refused by name or right, no other error, no NaN, no hang."""

import string

import numpy as np
import pytest

pytest.importorskip("hypothesis")
pytest.importorskip("torch")
pytest.importorskip("pyro")
pytest.importorskip("pandas")
pytest.importorskip("arviz")
pytest.importorskip("ppl_buffer.sbi", exc_type=ImportError)

import pandas  # noqa: E402
from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from hypothesis.extra import numpy as arrays  # noqa: E402

from ppl_buffer import plots, scores  # noqa: E402
from ppl_buffer.datasets import read_trials, write_trials  # noqa: E402
from ppl_buffer.datasets.trials import TrialData  # noqa: E402
from tests.datasets.tables import NOISY_Q, table_of_trials  # noqa: E402
from tests.fuzz.calls import density_of, np_tensor  # noqa: E402
from tests.fuzz.entry_points import entry_points  # noqa: E402
from tests.fuzz.refusal import fault_of, time_limit  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
# The same examples in every run, and none kept in the working folder.
THOROUGH = settings(
    max_examples=300, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
POINTS = entry_points()

numbers = st.one_of(st.integers(-3, 12), st.floats(width=32), st.booleans())
shapes = st.lists(st.sampled_from([0, 1, 2, 3, 5]), max_size=3).map(tuple)
kinds = st.sampled_from(["f4", "f8", "i4", "i8", "u1", "bool", "c8", "U3", "S2", "O", "M8[s]"])
any_array = (
    st.tuples(kinds, shapes).flatmap(lambda x: arrays.arrays(*x)).filter(lambda x: x.dtype != object or x.size < 9)
)
leaves = st.one_of(st.none(), numbers, st.text(max_size=4), st.binary(max_size=3), any_array)
anything = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner),
        st.dictionaries(st.sampled_from(["mu", "sigma", "x", "y", "subject", ""]), inner, max_size=3),
    ),
    max_leaves=6,
)


@pytest.mark.parametrize("name", POINTS)
def test_anything_is_refused_by_name_or_answered(name):
    point = POINTS[name]

    @THOROUGH
    @given(st.data())
    def check(data):
        arguments = point.arguments()
        for argument in data.draw(st.lists(st.sampled_from(sorted(arguments)), min_size=1, max_size=2, unique=True)):
            value = data.draw(anything, label=argument)
            if isinstance(arguments[argument], dict) and arguments[argument] and data.draw(st.booleans()):
                key = data.draw(st.sampled_from(sorted(arguments[argument])))
                value = {**arguments[argument], key: value}
            arguments[argument] = value
        assert fault_of(point, arguments) is None

    check()


@THOROUGH
@given(
    people=st.integers(1, 4),
    trials=st.integers(1, 6),
    draws=st.integers(1, 3),
    shared=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_density_of_many_is_that_of_each(people, trials, draws, shared, seed):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(2, people, trials)).astype("f4")
    mask = rng.random((people, trials)) < 0.8
    shape = (draws, 1 if shared else people)
    params = {"mu": rng.uniform(-1, 1, shape).astype("f4"), "sigma": rng.uniform(0.6, 2, shape).astype("f4")}
    whole = density_of({"x": x}, np_tensor(y), params=params, trial_mask=mask)
    assert whole.shape == (draws, people)
    for person in range(people):
        theta = {name: z[-1, min(person, z.shape[1] - 1)] for name, z in params.items()}
        kept = mask[person]
        expected = 0.0
        if kept.any():
            expected = density_of({"x": x[person, kept]}, np_tensor(y[person, kept]), params=theta)
        np.testing.assert_allclose(whole[-1, person], expected, rtol=1e-3, atol=1e-4)


values = st.floats(-1e6, 1e6, width=32)


@THOROUGH
@given(st.data())
def test_quantiles_are_numpys(data):
    given_values = data.draw(arrays.arrays("f8", st.tuples(st.integers(1, 3), st.integers(0, 7)), elements=values))
    gaps = data.draw(arrays.arrays(bool, given_values.shape))
    levels = data.draw(st.lists(st.floats(0, 1), min_size=1, max_size=4))
    found = plots.quantiles(np.where(gaps, np.nan, given_values), levels)
    for row, gap, result in zip(given_values, gaps, found, strict=True):
        expected = np.quantile(row[~gap], levels) if (~gap).any() else np.full(len(levels), np.nan)
        np.testing.assert_allclose(result, expected, rtol=1e-9, atol=1e-6)


@THOROUGH
@given(st.data())
def test_statistics_do_not_depend_on_padding_or_on_the_order_of_people(data):
    people, trials = data.draw(st.integers(1, 4)), data.draw(st.integers(3, 8))
    rt = data.draw(arrays.arrays("f8", (people, trials), elements=st.floats(0.125, 8, width=32)))
    choice = data.draw(arrays.arrays("f8", (people, trials), elements=st.integers(0, 1)))
    gap = np.full((people, 2), np.nan)
    order = np.array(data.draw(st.permutations(range(people))))
    for function in (
        lambda r, c: plots.repetition(c, 2),
        lambda r, c: plots.post_error_slowing(r, c, 2),
        lambda r, c: plots.autocorrelation(r, 2),
        lambda r, c: plots.defective_density(r, np.array([0.0, 1.0, 9.0]), c, 2),
        lambda r, c: plots.conditional_accuracy(r, c, 2)[1],
        lambda r, c: plots.quantile_probability(r, c, least=1)[1],
    ):
        plain = function(rt, choice)
        padded = function(np.concatenate([rt, gap], 1), np.concatenate([choice, gap], 1))
        np.testing.assert_allclose(padded, plain, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(function(rt[order], choice[order]), plain, rtol=1e-9, atol=1e-12)


labels = st.text(string.ascii_letters + string.digits + " =+-_.", min_size=1, max_size=5)


@THOROUGH
@given(st.lists(st.tuples(labels, values, values), min_size=2, max_size=8, unique_by=lambda x: x[0]), st.randoms())
def test_a_difference_does_not_depend_on_order(rows, random):
    import xarray

    def score(rows, column):
        coords = {"subject": ("observation", np.array([row[0] for row in rows], dtype=object))}
        terms = np.array([row[column] for row in rows], dtype=float)
        return scores.Score("loo", xarray.DataArray(terms, dims="observation", coords=coords))

    shuffled = random.sample(rows, len(rows))
    difference = np.array([row[1] - row[2] for row in rows])
    expected = difference.sum(), np.sqrt(len(rows) * difference.var())
    assert score(rows, 1).difference(score(shuffled, 2)) == pytest.approx(expected, rel=1e-6, abs=1e-4)
    with pytest.raises(ValueError, match="other: expected a score of the same trials"):
        score(rows, 1).difference(score(shuffled[1:], 2))


@THOROUGH
@given(
    people=st.lists(labels.filter(lambda x: x == x.strip()), min_size=2, max_size=4, unique_by=lambda x: x.strip("'")),
    counts=st.lists(st.integers(2, 6), min_size=4, max_size=4),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_table_that_was_written_is_read_as_it_was(people, counts, seed, tmp_path_factory):
    rng = np.random.default_rng(seed)
    trials = TrialData.from_rows(
        np.repeat(np.array(people, dtype=object), counts[: len(people)]),
        inputs={"pair": rng.integers(0, 3, sum(counts[: len(people)]))},
        outcomes={"choice": rng.integers(0, 2, sum(counts[: len(people)]))},
        feedback={"reward": rng.integers(0, 2, sum(counts[: len(people)])).astype(float)},
        fill={"pair": 0, "choice": 0, "reward": 0.0},
    )
    path = tmp_path_factory.mktemp("table") / "trials.csv"
    write_trials(trials, path)
    try:
        again = read_trials(path, NOISY_Q)
    except ValueError as error:
        # A few labels are what many programs write for no value.
        assert "which many programs write for no value" in str(error)
        return
    assert list(again.subjects) == list(trials.subjects)
    np.testing.assert_array_equal(again.trial_mask, trials.trial_mask)
    for group in ("inputs", "outcomes", "feedback"):
        for name, column in getattr(trials, group).items():
            np.testing.assert_array_equal(np.where(trials.trial_mask, getattr(again, group)[name], 0), column)


@THOROUGH
@given(st.data())
def test_a_spoilt_table_is_refused_or_read_as_legal_numbers(data):
    table = table_of_trials().astype(object)
    for _ in range(data.draw(st.integers(1, 3))):
        row, column = data.draw(st.integers(0, len(table) - 1)), data.draw(st.integers(0, table.shape[1] - 1))
        table.iat[row, column] = data.draw(leaves)
    if data.draw(st.booleans()):
        table = table.drop(columns=data.draw(st.sampled_from(list(table.columns))))
    columns = {"choice": "response", "reward": "feedback", "pair": "cond"}
    with time_limit():
        try:
            trials = read_trials(pandas.DataFrame(table), NOISY_Q, columns=columns)
        except ValueError as error:
            assert any(word in str(error) for word in ("table", "column", "row", "subject", "expected")), error
            return
    exists = trials.trial_mask
    assert set(np.unique(trials.outcomes["choice"][exists])) <= {0, 1}
    assert set(np.unique(trials.inputs["pair"][exists])) <= {0, 1, 2}
    assert np.isfinite(trials.feedback["reward"][exists]).all()
