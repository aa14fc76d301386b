"""The side of `ppl_buffer`: the drift-diffusion model of one person, or of several in a hierarchy.

The same priors as in `side_hssm.py`, written in NumPyro with the shipped network `ddm`; its drift variability is 0,
which the model beside it does not have. See `hssm_end_to_end.py`.

    python benchmarks/end_to_end/side_ours.py DATA.npz DRAWS.npz --sampler numpyro|fit --chains 2 --warmup 1000
        --draws-each 1000

``--sampler fit`` is what `ppl_buffer.workflow.fit` draws from: its own model, in which the drift variability is
estimated too and non-decision times end at each person's fastest response.
"""

from __future__ import annotations

import time

BEGAN = time.perf_counter()
import math  # noqa: E402
from typing import Any  # noqa: E402

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import numpyro  # noqa: E402
import numpyro.distributions as dist  # noqa: E402
from numpyro.infer import MCMC, NUTS, init_to_uniform, init_to_value  # noqa: E402
from problem import FIRST_MEAN, MEAN_SCALE, RANGES, SPREAD_MEDIAN, SPREAD_SCALE, options, report  # noqa: E402

import ppl_buffer as pb  # noqa: E402
from ppl_buffer.datasets import TrialData  # noqa: E402
from ppl_buffer.numpyro import JointPredictive  # noqa: E402
from ppl_buffer.workflow import chains, hierarchical  # noqa: E402

IMPORTED = time.perf_counter()


def one_person(fastest: float) -> dict[str, jax.Array]:
    """Parameters of a single data set: name -> (1,)."""
    ranges = RANGES | {
        "non_decision_time": (RANGES["non_decision_time"][0], min(RANGES["non_decision_time"][1], fastest))
    }
    return {name: numpyro.sample(name, dist.Uniform(*ends))[None] for name, ends in ranges.items()}


def several_people(subjects: int) -> dict[str, jax.Array]:
    """Parameters of people of one population, non-centred: name -> (subjects,)."""
    params = {}
    for name, (low, high) in RANGES.items():
        mean = numpyro.sample(f"{name}_mean", dist.Normal(0.0, MEAN_SCALE))
        spread = numpyro.sample(f"{name}_spread", dist.LogNormal(math.log(SPREAD_MEDIAN), SPREAD_SCALE))
        with numpyro.plate("subjects", subjects):
            offset = numpyro.sample(f"{name}_offset", dist.Normal(0.0, 1.0))
        params[name] = low + (high - low) * jax.nn.sigmoid(mean + spread * offset)
    return params


def by_numpyro(net: Any, choice: np.ndarray, rt: np.ndarray, arguments: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Draws of a program as people write it, and what NUTS recorded."""
    subjects = len(rt)
    # A network's value of several outcomes: columns in the schema's order.
    data = net.observe({}, jnp.stack([jnp.asarray(choice, jnp.float32), jnp.asarray(rt, jnp.float32)], -1))

    def model(data: Any) -> None:
        params = one_person(float(rt.min())) if subjects == 1 else several_people(subjects)
        joint = JointPredictive(net, data, params=params | {"drift_variability": jnp.zeros(subjects)})
        with numpyro.plate("subject", subjects):
            numpyro.sample("trials", joint, obs=data.value)

    first = {f"{name}_mean": value for name, value in FIRST_MEAN.items()}
    first |= {f"{name}_spread": SPREAD_MEDIAN for name in RANGES}
    first |= {f"{name}_offset": jnp.zeros(subjects) for name in RANGES}
    start = init_to_uniform if subjects == 1 else init_to_value(values=first)
    sampler = MCMC(
        NUTS(model, init_strategy=start), num_warmup=arguments.warmup, num_samples=arguments.draws_each,
        num_chains=arguments.chains, chain_method="sequential", progress_bar=False,
    )  # fmt: skip
    sampler.run(jax.random.key(1), data, extra_fields=("num_steps", "diverging"))
    kept, fields = sampler.get_samples(group_by_chain=True), sampler.get_extra_fields()
    return kept, {"gradients": fields["num_steps"], "diverging": fields["diverging"]}


def by_fit(net: Any, choice: np.ndarray, rt: np.ndarray, arguments: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The same of the hierarchical model of the package, which begins with a quick fit."""
    exists = np.ones(rt.shape, bool)
    trials = TrialData(
        subjects=[f"person {index + 1}" for index in range(len(rt))], trial_counts=exists.sum(1), inputs={},
        outcomes={"choice": choice, "rt": rt}, feedback={}, trial_mask=exists,
    )  # fmt: skip
    box, data = hierarchical.Box.of(net, trials), trials.observe(net)
    sampler = chains.Sampler(chains=arguments.chains, warmup=arguments.warmup, draws=arguments.draws_each)
    draws = chains.sample(net, data, box, chains.quick(net, data, box), sampler, progress=False)
    return draws.sites, {"gradients": draws.fields["num_steps"], "diverging": draws.fields["diverging"]}


def main() -> None:
    """Fit, and report."""
    arguments = options()
    with np.load(arguments.data) as stored:
        choice, rt = stored["choice"], stored["rt"]
    net = pb.load("ddm", backend="jax")
    way = {"numpyro": by_numpyro, "fit": by_fit}[arguments.sampler]
    kept, fields = way(net, choice, rt, arguments)
    kinds = ("",) if len(rt) == 1 else ("_mean", "_spread")
    draws = {f"{name}{kind}": np.asarray(kept[f"{name}{kind}"]) for name in RANGES for kind in kinds}
    seconds = {"import_seconds": IMPORTED - BEGAN, "fit_seconds": time.perf_counter() - IMPORTED}
    report(arguments.draws, draws, seconds, fields, ["jax", "numpyro", "numpy"])


if __name__ == "__main__":
    main()
