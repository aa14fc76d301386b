"""NUTS in pieces: NumPyro's own chains, which end between two draws and go on from there."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numpyro")

import jax.numpy as jnp  # noqa: E402
import numpyro  # noqa: E402
import numpyro.distributions as dist  # noqa: E402
from jax import random  # noqa: E402
from numpyro.infer import MCMC, NUTS  # noqa: E402

from ppl_buffer.workflow import sampling  # noqa: E402
from ppl_buffer.workflow.sampling import Kept, Programs, fingerprint, run_chains  # noqa: E402

pytestmark = pytest.mark.usefixtures("quick_compilation")

DATA = {"y": jnp.asarray(np.random.default_rng(0).normal(1, 2, 30), jnp.float32)}
CHAINS, WARMUP = 2, 20


def model(data: dict[str, Any]) -> None:
    mean = numpyro.sample("mean", dist.Normal(0, 1))
    spread = numpyro.sample("spread", dist.LogNormal(0, 1))
    numpyro.deterministic("sum", mean + spread)
    numpyro.sample("y", dist.Normal(mean, spread), obs=data["y"])


def run(draws: int, kept: Kept | None = None) -> sampling.Draws:
    keys = random.split(random.PRNGKey(3), CHAINS)
    first = {"mean": jnp.array([0.0, 1.0]), "spread": jnp.array([0.5, -0.5])}
    programs = Programs(model, WARMUP, (keys, first), DATA, options={"max_tree_depth": 3})
    return run_chains(programs, (keys, first), DATA, draws=draws, kept=kept, progress=False)


class Interrupted:
    """A progress bar at whose so many-th draw Ctrl-C is pressed."""

    def __init__(self, at: int) -> None:
        self.at, self.done = at, 0

    def __call__(self, initial: int = 0, **_: Any) -> "Interrupted":
        self.done = initial
        return self

    def __enter__(self) -> "Interrupted":
        return self

    def __exit__(self, *_: object) -> None: ...

    def update(self, count: int) -> None:
        self.done += count
        if self.done >= self.at:
            raise KeyboardInterrupt


def test_the_chains_are_numpyros_own_and_go_on_to_the_last_bit_after_interrupts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(12)
    mcmc = MCMC(NUTS(model, max_tree_depth=3), num_warmup=WARMUP, num_samples=12, num_chains=CHAINS,
                progress_bar=False, chain_method="sequential")  # fmt: skip
    first = {"mean": jnp.array([0.0, 1.0]), "spread": jnp.array([0.5, -0.5])}
    mcmc.run(random.PRNGKey(3), DATA, init_params=first, extra_fields=("num_steps",))
    assert whole.reused == 0 and set(whole.sites) == {"mean", "spread", "sum"}
    for name, value in mcmc.get_samples(group_by_chain=True).items():
        # Programs that are compiled otherwise round otherwise.
        np.testing.assert_allclose(whole.sites[name], value, atol=0.02)
    np.testing.assert_array_equal(whole.fields["num_steps"], mcmc.get_extra_fields(group_by_chain=True)["num_steps"])

    kept = Kept(tmp_path / "draws.safetensors", fingerprint({"seed": 3}, {}))
    # In warm-up, among the draws, and at the end of what was asked for: each call goes on.
    for at in (7, WARMUP + 3):
        with monkeypatch.context() as patch:
            patch.setattr(sampling, "tqdm", Interrupted(at))
            with pytest.raises(KeyboardInterrupt):
                run(12, kept)
        assert kept.path.exists()
    fewer = run(6, kept)
    assert fewer.reused >= 3 and fewer.sites["mean"].shape == (CHAINS, 6)
    again = run(12, kept)
    assert again.reused >= 6
    for group in ("sites", "fields"):
        for name, value in getattr(whole, group).items():
            np.testing.assert_array_equal(getattr(again, group)[name], value)
            np.testing.assert_array_equal(getattr(fewer, group)[name], value[:, :6])
    # Draws of something else are said and replaced.
    with pytest.warns(UserWarning, match="other data, another network or other options: it is replaced"):
        other = run(3, Kept(kept.path, fingerprint({"seed": 4}, {})))
    assert other.reused == 0
    np.testing.assert_array_equal(other.sites["mean"], whole.sites["mean"][:, :3])


@pytest.mark.parametrize("content", [b"", b"no draws"])
def test_what_is_no_file_of_draws_is_not_gone_on_from(tmp_path: Path, content: bytes) -> None:
    kept, begin = Kept(tmp_path / "draws.safetensors", "a"), sampling._Progress(0, {"z": np.zeros(2)})
    kept.path.write_bytes(content)
    with pytest.warns(UserWarning, match="cannot be gone on from, and is replaced"):
        assert sampling._read(kept, begin) is begin


def test_a_fingerprint_tells_settings_and_arrays_apart() -> None:
    arrays = {"rt": np.array([0.5, 0.6], np.float32)}
    same = fingerprint({"seed": 1, "lapse": None}, arrays)
    assert same == fingerprint({"lapse": None, "seed": 1}, {"rt": arrays["rt"].copy()})
    others = [
        fingerprint({"seed": 2, "lapse": None}, arrays),
        fingerprint({"seed": 1, "lapse": None}, {"rt": arrays["rt"] + 1e-6}),
        fingerprint({"seed": 1, "lapse": None}, {"rt": arrays["rt"][:, None]}),
        fingerprint({"seed": 1, "lapse": None}, {"choice": arrays["rt"]}),
    ]
    assert len({same, *others}) == 5
