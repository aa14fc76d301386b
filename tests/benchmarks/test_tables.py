"""The benchmark of real tables: its models against other formulas, and the script on made-up tables."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

for _library in ("torch", "pandas"):
    pytest.importorskip(_library)
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import pandas as pd  # noqa: E402
import tables  # noqa: E402

import ppl_buffer as pb  # noqa: E402
from tests import networks  # noqa: E402


@pytest.mark.parametrize("name", ["linear regression", "Gaussian process"])
def test_models_know_a_line(name):
    """Close to the density of a line that is known; apart, of more rows, by the chain rule the same in any order."""
    rng = np.random.default_rng(0)
    x, new = rng.standard_normal((2, 41, 2))
    noise = 0.3
    y, new_y = (rows @ [0.8, -0.5] + noise * rng.standard_normal(41) for rows in (x, new))
    true = stats.norm.logpdf(new_y, new @ [0.8, -0.5], noise).sum()
    log_prob = tables.MODELS[name](x, y, new, new_y)
    assert true - 6 < log_prob < true + 2
    order = rng.permutation(41)
    np.testing.assert_allclose(tables.MODELS[name](x, y, new[order], new_y[order]), log_prob, rtol=1e-6)


def test_linear_regression_is_a_multivariate_t(monkeypatch):
    rng = np.random.default_rng(1)
    x, new, y, new_y = (rng.standard_normal(shape) for shape in ((7, 2), (5, 2), 7, 5))
    monkeypatch.setattr(np, "linspace", lambda low, high, count: np.log([0.7]))

    def law(x):
        scale = 0.1 * (np.eye(len(x)) + 100 + 0.49 * x @ x.T)
        return stats.multivariate_t(np.zeros(len(x)), scale, df=2)

    expected = law(np.concatenate([x, new])).logpdf(np.concatenate([y, new_y])) - law(x).logpdf(y)
    np.testing.assert_allclose(tables.linear_regression(x, y, new, new_y), expected)


@pytest.mark.parametrize("task", [tables.INTERPOLATION, tables.FORECASTING])
def test_new_rows_of_a_forecast_follow_the_known_ones(task):
    rows = np.arange(101.0)
    cell = tables.draw(rows[:, None], rows, task, 16, 5, 3, seed=0)
    gaps = np.diff(np.concatenate([cell.context["y"], cell.y], 1), axis=1)
    assert cell.y.shape == (3, 5) and np.allclose(gaps, gaps[:, :1]) == (task == tables.FORECASTING)


@pytest.mark.slow
def test_the_script_runs(tmp_path, capsys):
    rng = np.random.default_rng(2)
    for name, source in tables.TABLES.items():
        columns = {column: rng.random(61) for column in (source.outcome, *source.features)}
        if source.in_time and name != "gas_turbine":
            columns["datetime"] = pd.date_range("2017-01-01", periods=61, freq="h")
        (tmp_path / f"tabular_{name}").mkdir()
        pd.DataFrame(columns).to_csv(tmp_path / f"tabular_{name}" / f"{name}.csv", index=False)
    net = networks.network(networks.Case("table", pb.simulators.RegressionTable.schema), "torch")
    pb.save(net, tmp_path / "net.safetensors")
    tables.main(
        ["--quick", "--data", str(tmp_path), "--network", str(tmp_path / "net.safetensors"), "--out", str(tmp_path)]
    )
    results = json.loads((tmp_path / "tables.json").read_text())["results"]
    shown = capsys.readouterr().out
    assert len(results["rows"]) == 12 and all(row["what"] in shown for row in results["bars"])
