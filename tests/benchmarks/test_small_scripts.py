"""Benchmarks of single features run, at tiny sizes."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.stats import multivariate_normal

for _library in ("torch", "pandas"):
    pytest.importorskip(_library)
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "script",
    [
        "fourier",
        "orders_and_blocks",
        "code_lengths",
        "gp_consistency",
        "trial_params",
        "kept_memory",
        "digits",
        "buffer_for_a_module",
        "omissions",
    ],
)
def test_scripts_run(script, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("PPL_BUFFER_DATA", raising=False)
    importlib.import_module(script.removeprefix("gp_")).main(["--quick", "--out", str(tmp_path)])
    shown = capsys.readouterr().out
    words = {
        "trial_params": "a network of LAN size", "digits": "masked convolutions", "omissions": "omissions deleted"
    }  # fmt: skip
    if script in words:
        # A quick run writes nothing.
        assert words[script] in shown
        return
    results = json.loads((tmp_path / f"{script}.json").read_text())["results"]
    for row in results.get("bars", []):
        assert row["what"] in shown
    if script == "code_lengths":
        assert all(row["came back"] for row in (*results["learner"], *results["rows"]) if "came back" in row)
    if script == "gp_consistency":
        assert set(results["figures"]) == {"simulated", "drawn"}
        assert all(figure["divergence"] >= 0 for figure in results["figures"].values())


@pytest.mark.slow
def test_the_benchmark_of_recordings_runs(tmp_path, capsys):
    rng = np.random.default_rng(0)
    folder = tmp_path / "eeg_uci_zhang1995"
    folder.mkdir()
    np.savez(
        folder / "eeg_frontal7.npz",
        X=rng.normal(size=(48, 7, 256)).cumsum(2).astype(np.float16),
        subject_index=np.arange(48) % 16,
        channels=np.array(["FZ", "F1", "F2", "F3", "F4", "F5", "F6"]),
    )
    importlib.import_module("eeg").main(["--quick", "--data", str(tmp_path), "--splits", "0"])
    shown = capsys.readouterr().out
    assert "interpolation" in shown and "A missing channel" in shown and "FZ" in shown


def test_a_stationary_gaussian_is_that_of_its_covariances():
    """Against scipy, on parts of short recordings; and a process of order one is recovered."""
    gaussian = importlib.import_module("eeg_gaussian").StationaryGaussian
    rng = np.random.default_rng(1)
    x = rng.normal(size=(3, 2, 5)).cumsum(2)
    fitted = gaussian.fit(x)
    full = fitted.covariance.reshape(10, 10)
    # Lag 2, the first channel before the second one: a mean over 5, though there are 3 pairs.
    assert fitted.covariance[1, 0, 3, 1] == pytest.approx((x[:, 0, :3] * x[:, 1, 2:]).sum(1).mean() / 5)
    given, targets = np.array([4, 0]), np.array([3, 1])
    flat = x.swapaxes(1, 2).reshape(3, 10)

    def log_density(places):
        return multivariate_normal(cov=full[np.ix_(places, places)]).logpdf(flat[:, places])

    def of(samples, channels=(0, 1)):
        return [2 * sample + channel for sample in samples for channel in channels]

    got = fitted.log_density(x.swapaxes(1, 2), given, targets)
    known = log_density(of(given))
    assert got["Gaussian"] == pytest.approx(log_density(of(given) + of(targets)) - known)
    apart = [log_density(of(given) + of(targets, [channel])) - known for channel in (0, 1)]
    assert got["Gaussian, channels apart"] == pytest.approx(sum(apart))
    alone = [log_density([*of(given), place]) - known for place in of(targets)]
    assert got["Gaussian, apart"] == pytest.approx(sum(alone))
    for samples, stretch in (([3, 4], (3,)), ([2], (2, 3))):
        lost = of(samples, [1])
        rest = [place for place in range(10) if place not in lost]
        together = (log_density(rest + lost) - log_density(rest)).mean() / len(lost)
        assert fitted.missing(x, 1, *stretch)["joint"] == pytest.approx(together)

    sets, samples, memory = 200, 300, 0.8
    noise = rng.normal(size=(sets, 1, samples + 50))
    walk = lfilter([np.sqrt(1 - memory**2)], [1, -memory], noise, axis=2)[:, :, 50:]
    lags = gaussian.fit(walk).covariance[100, 0, 100:103, 0]
    # The mean is over all samples, though there are fewer pairs; four standard errors of a variance (Bartlett 1946).
    expected = memory ** np.arange(3) * (1 - np.arange(3) / samples)
    error = np.sqrt(2 / (sets * samples) * (1 + memory**2) / (1 - memory**2))
    assert lags == pytest.approx(expected, abs=4 * error)
