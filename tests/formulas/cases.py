"""Subjects who decide, with covariates at all levels, and formulas of them."""

from __future__ import annotations

from typing import Any

import numpy as np

import ppl_buffer as pb
from ppl_buffer import formulas
from tests.networks import DISCRIMINATION, Record, array, network

SUBJECTS, TRIALS = 5, 7
PRIORS = {
    "drift": pb.Prior.uniform(-1.0, 1.5),
    "delay": pb.Prior.uniform(0.1, 2.0),
    "bound": pb.Prior.uniform(1.0, 2.0),
}
RECORD = Record(box={name: prior.range() for name, prior in PRIORS.items()}, priors=PRIORS, trials=300, context=0,
                simulator="none")  # fmt: skip
BY_TRIAL = ["drift ~ cond * theta + (1 + cond | subject)", "delay ~ cond + (1 | subject)", "bound ~ age + group"]


class Deciders:
    """Trials of subjects, some of whom did fewer."""

    def __init__(self, seed: int = 3) -> None:
        rng = np.random.default_rng(seed)
        shape = (SUBJECTS, TRIALS)
        self.mask = np.arange(TRIALS) < np.array([7, 5, 7, 6, 4])[:, None]
        self.coherence = rng.normal(size=shape).astype(np.float32)
        self.rt = (0.35 + rng.lognormal(-1.0, 0.5, shape)).astype(np.float32)
        self.value = np.stack([rng.integers(0, 2, shape).astype(np.float32), self.rt], -1)
        self.cond = np.where(rng.permuted(np.arange(TRIALS) % 2 + np.zeros(shape, int), axis=1) == 1, "hard", "easy")
        self.theta = rng.normal(1.0, 2.0, shape)
        self.age = np.array([20.0, 31.0, 44.0, 26.0, 60.0])
        self.group = np.array(["a", "b", "a", "c", "b"])

    @property
    def covariates(self) -> dict[str, np.ndarray]:
        return {"cond": self.cond, "theta": self.theta, "age": self.age, "group": self.group}

    def seen(self, backend: str = "jax") -> Any:
        return self.net(backend).observe(
            {"coherence": array(backend, self.coherence)}, array(backend, self.value), trial_mask=self.mask
        )

    @staticmethod
    def net(backend: str = "jax") -> Any:
        return network(DISCRIMINATION, backend, RECORD)

    def design(self, texts: list[str], backend: str = "jax", **more: Any) -> Any:
        covariates = self.covariates | more.pop("covariates", {})
        return formulas.design(self.net(backend), self.seen(backend), texts, covariates, **more)

    def mean(self, values: np.ndarray) -> float:
        """Over data sets, each of which counts the same."""
        return float(np.mean([x[exists].mean() for x, exists in zip(values, self.mask, strict=True)]))


def sites_of(design: Any, correlation: float = 0.45) -> dict[str, np.ndarray]:
    """Values of all latent sites; all correlations are the same."""
    rng = np.random.default_rng(1)
    values = {name: rng.normal(0.0, 0.5, site.shape) for name, site in design.sites.items()}
    values |= {name: np.exp(x) for name, x in values.items() if name.endswith("_spread")}
    for one in design.parameters.values():
        for grouping in one.groupings:
            for effect in grouping.effects:
                values[effect.offset] = rng.normal(size=(len(grouping.levels), *effect.spread.shape))
            if grouping.correlation is not None:
                matrix = np.full((grouping.size, grouping.size), correlation)
                np.fill_diagonal(matrix, 1.0)
                values[grouping.correlation] = np.linalg.cholesky(matrix)
    # Where single precision tells a non-decision time from the responses that it has to stay below.
    if "delay_mean" in values:
        values["delay_mean"] = values["delay_mean"] - 3.0
    return {name: np.asarray(x, np.float32) for name, x in values.items()}
