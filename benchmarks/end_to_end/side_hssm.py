"""The side of HSSM: the plain drift-diffusion model of one person, or of several in a hierarchy.

Runs in an environment of its own, in which HSSM is installed; see `hssm_end_to_end.py`. There is no lapse, which HSSM
has by default, since the other side has none. With the likelihood network, numbers have single precision, as HSSM's
tutorials advise.

    HSSM_PYTHON benchmarks/end_to_end/side_hssm.py DATA.npz DRAWS.npz --likelihood analytical|PATH_OF_NETWORK
        --sampler numpyro|pymc --chains 2 --warmup 1000 --draws-each 1000
"""

from __future__ import annotations

import time

BEGAN = time.perf_counter()
import math  # noqa: E402
from typing import Any  # noqa: E402

import hssm  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from problem import FIRST_MEAN, MEAN_SCALE, RANGES, SPREAD_MEDIAN, SPREAD_SCALE, options, report  # noqa: E402

IMPORTED = time.perf_counter()
# Their names, and how many of our units one of theirs is.
THEIRS = {"drift": ("v", 1.0), "boundary": ("a", 2.0), "starting_point": ("z", 1.0), "non_decision_time": ("t", 1.0)}


def ranges(fastest: float) -> dict[str, tuple[float, float]]:
    """Of HSSM's parameters; a non-decision time is at most the fastest response."""
    own = {THEIRS[name][0]: (low / THEIRS[name][1], high / THEIRS[name][1]) for name, (low, high) in RANGES.items()}
    return own | {"t": (own["t"][0], min(own["t"][1], fastest))}


def one_person(data: pd.DataFrame) -> tuple[dict[str, Any], dict[str, str]]:
    """Arguments of `hssm.HSSM` and our names of what is drawn."""
    priors = {
        name: {"name": "Uniform", "lower": low, "upper": high} for name, (low, high) in ranges(data.rt.min()).items()
    }
    include = [{"name": name, "prior": prior} for name, prior in priors.items()]
    return {"include": include}, {name: theirs for name, (theirs, _) in THEIRS.items()}


def several_people(data: pd.DataFrame) -> tuple[dict[str, Any], dict[str, str]]:
    """The same of a hierarchy, non-centred, which is HSSM's default."""
    spread = {"name": "LogNormal", "mu": math.log(SPREAD_MEDIAN), "sigma": SPREAD_SCALE}
    prior = {
        "Intercept": {"name": "Normal", "mu": 0.0, "sigma": MEAN_SCALE},
        "1|subject": {"name": "Normal", "mu": 0.0, "sigma": spread},
    }
    names = {}
    for name, (theirs, _) in THEIRS.items():
        names |= {f"{name}_mean": f"{theirs}_Intercept", f"{name}_spread": f"{theirs}_1|subject_sigma"}
    include = [
        {"name": name, "formula": f"{name} ~ 1 + (1|subject)", "prior": prior, "bounds": bounds}
        for name, bounds in ranges(math.inf).items()
    ]
    return {"include": include, "link_settings": "log_logit"}, names


def main() -> None:
    """Fit, and report."""
    arguments = options()
    with np.load(arguments.data) as stored:
        choice, rt = stored["choice"], stored["rt"]
    subjects, trials = rt.shape
    subject = np.repeat(np.arange(subjects), trials)
    data = pd.DataFrame({"rt": rt.ravel(), "response": 2 * choice.ravel() - 1, "subject": subject})
    keywords, names = one_person(data) if subjects == 1 else several_people(data)
    if arguments.likelihood == "analytical":
        likelihood: dict[str, Any] = {"loglik_kind": "analytical"}
    else:
        hssm.set_floatX("float32")
        likelihood = {"loglik_kind": "approx_differentiable", "loglik": arguments.likelihood}
    model = hssm.HSSM(data=data, model="ddm", p_outlier=None, lapse=None, **likelihood, **keywords)
    first = {"initvals": {f"{theirs}_Intercept": FIRST_MEAN[name] for name, (theirs, _) in THEIRS.items()}}
    trace = model.sample(
        sampler=arguments.sampler, chains=arguments.chains, cores=1, tune=arguments.warmup, draws=arguments.draws_each,
        idata_kwargs={"log_likelihood": False}, random_seed=1, progressbar=False, **(first if subjects > 1 else {}),
    )  # fmt: skip
    units = {name: unit for name, (_, unit) in THEIRS.items()}
    draws = {name: units.get(name, 1.0) * trace.posterior[theirs].values for name, theirs in names.items()}
    fields = {"gradients": trace.sample_stats["n_steps"].values, "diverging": trace.sample_stats["diverging"].values}
    seconds = {"import_seconds": IMPORTED - BEGAN, "fit_seconds": time.perf_counter() - IMPORTED}
    report(arguments.draws, draws, seconds, fields, ["hssm", "pymc", "pytensor", "bambi", "jax", "numpyro", "numpy"])


if __name__ == "__main__":
    main()
