"""Columns of a data frame, of whatever type and rows, and labelled arrays are arrays of numbers to a network."""

import numpy as np
import pytest

pandas = pytest.importorskip("pandas")

from tests.networks import LEARNING, network  # noqa: E402

CODES = np.array([0, 2, 1, 1, 0])
FRAME = pandas.DataFrame({"pair": [9, *CODES, 9], "other": 1}).iloc[1:-1]
COLUMNS = {
    "filtered": FRAME["pair"],
    "reversed twice": FRAME["pair"][::-1][::-1],
    "categorical": FRAME["pair"].astype("category"),
    "levels that are not used": pandas.Series([0, 1, 2, 3, *CODES]).astype("category")[4:],
    "nullable": FRAME["pair"].astype("Int64"),
    "nullable real": FRAME["pair"].astype("Float32"),
    "objects": FRAME["pair"].astype(object),
    "index": pandas.Index(CODES),
    "list": CODES.tolist(),
    "other order of bytes": CODES.astype(">f8"),
    "backwards in memory": CODES[::-1].copy()[::-1],
    "more digits": CODES.astype(np.longdouble),
    "list of arrays": list(np.array(CODES)[:, None]),
}


@pytest.fixture(params=["torch", "jax"])
def net(request):
    pytest.importorskip(request.param)
    return network(LEARNING, request.param)


@pytest.mark.parametrize("kind", COLUMNS)
def test_columns(net, kind):
    right = net.ops.number(net, CODES.reshape(np.shape(COLUMNS[kind])))
    for convert in (net.ops.number, net.ops.floating):
        got = convert(net, COLUMNS[kind])
        np.testing.assert_array_equal(np.asarray(got), np.asarray(right))
    named = net.ops.number_each(net, {"pair": COLUMNS[kind]}) | net.ops.floating_each(net, {"x": COLUMNS[kind]})
    for got in named.values():
        np.testing.assert_array_equal(np.asarray(got), np.asarray(right))


@pytest.mark.parametrize("kind", [bool, "boolean", "category", object])
def test_truth(net, kind):
    column = pandas.Series(CODES > 0).astype(kind)[1:]
    np.testing.assert_array_equal(np.asarray(net.ops.number(net, column)), CODES[1:] > 0)


def test_masked_values_are_not_taken_for_others(net):
    hidden = np.ma.masked_array(CODES, CODES == 2)
    with pytest.raises(TypeError, match="some values are masked"):
        net.ops.number(net, hidden)
    np.testing.assert_array_equal(np.asarray(net.ops.number(net, np.ma.masked_array(CODES))), CODES)


def test_labelled_arrays(net):
    xarray = pytest.importorskip("xarray")
    labelled = xarray.DataArray(np.stack([CODES, CODES]), dims=("subject", "trial"))
    np.testing.assert_array_equal(np.asarray(net.ops.number(net, labelled)), labelled.values)
    np.testing.assert_array_equal(np.asarray(net.ops.number(net, FRAME[["pair", "other"]])), FRAME.values)


def test_words_are_no_numbers(net):
    missing, times = pandas.Series([1, pandas.NA], dtype=object), pandas.Series(pandas.Timestamp("2026-01-01"))
    category = pandas.Series(["a", "b"]).astype("category")
    for words in (FRAME["pair"].astype(str), category, np.array(["a"]), missing, times):
        with pytest.raises((TypeError, ValueError)):
            net.ops.number(net, words)
    with pytest.raises(ValueError, match=r"inputs\['pair'\]: expected an array of numbers, got Series.*such as 'a'"):
        net.observe(
            {"pair": pandas.Series(list("abc")), "delay": np.ones(3)}, np.ones((3, 2)), feedback={"reward": np.ones(3)}
        )
