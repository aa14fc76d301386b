"""The quickstart of the README runs as written."""

import re
from pathlib import Path

import pytest

import ppl_buffer as pb

README = Path(__file__).parents[1] / "README.md"


def test_quickstart_runs():
    pytest.importorskip("numpyro")
    block = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL).group(1)
    assert len([line for line in block.splitlines() if line.strip()]) <= 20
    small = "num_warmup=7, num_samples=11, progress_bar=False"
    fewer, count = re.subn(r"num_warmup=300, num_samples=500", small, block)
    assert count == 1
    names = {}
    exec(compile(fewer, str(README), "exec"), names)
    draws = names["mcmc"].get_samples()
    assert set(draws) == set(pb.load("noisy_q").schema.params)
    for name, (low, high) in names["net"].box.items():
        assert draws[name].shape == (11, 1)
        assert (draws[name] >= low).all() and (draws[name] <= high).all()
