"""Public entry points with arguments that they take, to be called with others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from tests.fuzz.calls import (
    PEOPLE,
    REFITS,
    TRIALS,
    by_trial,
    checked_data,
    compared,
    density_of,
    design_arguments,
    designed,
    directly,
    estimated,
    evidence,
    fit_of,
    folded,
    function,
    learning,
    left_out,
    likelihood_checked,
    log_likelihoods,
    mask,
    missing_aside,
    net,
    np_tensor,
    pairs,
    params,
    published,
    record,
    refitted,
    responding,
    scored,
    simulated,
    stored_arrays,
    theta,
    with_data,
)
from tests.fuzz.refusal import EntryPoint
from tests.networks import FUNCTION, LEARNING, RESPONDING, data, network


def entry_points() -> dict[str, EntryPoint]:
    """The public functions that are tried."""
    import ppl_buffer as pb
    from ppl_buffer import diagnostics
    from ppl_buffer.datasets import read_trials
    from ppl_buffer.prior import Prior
    from tests.datasets.tables import NOISY_Q, table_of_trials
    from tests.training.modules import ExactMean, draw_points

    return {
        "observe": EntryPoint(
            lambda **a: [x.numpy() for x in (network(LEARNING, "torch").observe(**a).value,)],
            lambda: {**learning(), "trial_mask": mask(), "likelihood": "auto"},
        ),
        "encode": EntryPoint(
            lambda context: net().encode(context).mask.numpy(),
            lambda: {"context": data(FUNCTION, batch=PEOPLE, points=4).context},
        ),
        "JointPredictive": EntryPoint(
            density_of,
            lambda: with_data(
                value=np_tensor(function()["value"]),
                params=params(),
                trial_mask=mask(),
                lapse=0.1,
                outside="warn",
                orders=2,
                block=None,
                environment=None,
                trials=None,
                context=None,
                likelihood="auto",
            ),
            may_be_infinite=True,
        ),
        "JointPredictive by the direct likelihood": EntryPoint(
            directly,
            lambda: {**responding(), "trial_mask": mask(), "lapse": 0.1, "likelihood": "direct"},
            may_be_infinite=True,
        ),
        "preferring": EntryPoint(
            lambda likelihood: len(net(RESPONDING).preferring(likelihood).parts), lambda: {"likelihood": "buffer"}
        ),
        "log_evidence": EntryPoint(
            evidence,
            lambda: with_data(
                trial_mask=mask(),
                draws=20,
                orders=2,
                seed=0,
                method="importance",
                params=None,
                block=None,
                prior={"mu": Prior.uniform(-1.0, 1.0)},
                feedback=None,
                lapse=None,
            ),
        ),
        "compress": EntryPoint(
            lambda **a: len(pb.compress(net(), **a)),
            lambda: with_data(
                params=params(),
                context=None,
                feedback=None,
                trial_mask=mask(),
                resolution={"y": 0.25},
                likelihood="auto",
            ),
        ),
        "decompress": EntryPoint(
            lambda **a: np.nan_to_num(pb.decompress(net(), **a)),
            lambda: {
                "inputs": function()["inputs"],
                "data": pb.compress(net(), **with_data(params=params(), resolution={"y": 0.25})),
                "params": params(),
                "context": None,
                "feedback": None,
                "trial_mask": None,
            },
        ),
        "consistency": EntryPoint(
            lambda **a: diagnostics.consistency(net(), **a).divergences,
            lambda: with_data(
                trials=None, params=params(), context=None, feedback=None, trial_mask=mask(), orders=2, seed=0
            ),
        ),
        "compare": EntryPoint(
            compared,
            lambda: with_data(
                nets={"a": net(), "b": net()},
                draws=20,
                orders=2,
                seed=0,
                method="both",
                prior_probabilities={"a": 1.0, "b": 2.0},
                trial_mask=None,
                lapse=None,
            ),
            names=("net: ",),
        ),
        "random_effects": EntryPoint(
            lambda **a: pb.random_effects(**a).table["protected_exceedance"].to_numpy(),
            lambda: {
                "evidence": {"a": np.array([-3.0, -5.0]), "b": np.array([-4.0, -2.0])},
                "families": {"one": ["a"], "two": ["b"]},
                "method": "sampling",
                "draws": 101,
                "seed": 0,
            },
        ),
        "trial_regressors": EntryPoint(
            lambda **a: by_trial("trial_regressors", **a),
            lambda: {"data": None, "params": params(3), "lapse": 0.1, "subjects": ["b", "a"]},
        ),
        "sequential_posterior": EntryPoint(
            lambda **a: by_trial("sequential_posterior", **a),
            lambda: {
                "data": None,
                "prior": {"mu": Prior.uniform(-1.0, 1.0)},
                "lapse": 0.1,
                "draws": 11,
                "subjects": ["b", "a"],
                "seed": 0,
            },
        ),
        "posterior_predictive": EntryPoint(
            lambda **a: simulated(FUNCTION, **a),
            lambda: {
                "inputs": function()["inputs"],
                "params": params(3),
                "draws": 3,
                "trials": None,
                "seed": 0,
                "trial_mask": mask(),
                "context": None,
                "environment": None,
                "lapse": 0.1,
                "memory": 0.1,
                "devices": None,
            },
        ),
        "posterior_predictive with feedback": EntryPoint(
            lambda **a: simulated(LEARNING, **a),
            lambda: {"inputs": learning()["inputs"], "draws": 2, "environment": LEARNING.environment},
        ),
        "check_data": EntryPoint(
            checked_data,
            lambda: {
                "data": None,
                "posterior": params(9),
                "draws": 4,
                "level": 0.95,
                "seed": 0,
                "statistics": None,
                "environment": None,
                "lapse": None,
            },
        ),
        "outside": EntryPoint(
            lambda posterior, warn: diagnostics.outside(net(), posterior, warn=warn),
            lambda: {"posterior": params(9), "warn": 0.01},
        ),
        "uniformity": EntryPoint(
            lambda **a: diagnostics.uniformity(**a).p,
            lambda: {"values": (np.arange(20) + 0.5) / 20, "steps": 20, "level": 0.9, "seed": 0},
        ),
        "leave_one_out": EntryPoint(left_out, lambda: with_data(trial_mask=mask(), feedback=None, context=None)),
        "loo": EntryPoint(lambda **a: scored("loo", **a), lambda: {"data": fit_of(log_likelihoods()), "var_name": "y"}),
        "logo": EntryPoint(
            lambda **a: scored("logo", **a),
            lambda: {"data": fit_of(log_likelihoods()), "var_name": "y", "subject": "subject"},
        ),
        "lfo": EntryPoint(lambda **a: scored("lfo", **a), lambda: {"data": fit_of(log_likelihoods()), "first": 1}),
        "kfold": EntryPoint(folded, lambda: {**REFITS, "folds": 2, "subjects": ["b", "a"]}),
        "reloo": EntryPoint(refitted, lambda: {**REFITS, "threshold": 0.7, "score": None}),
        "sbi": EntryPoint(
            estimated,
            lambda: {
                "net": net(),
                "trials": TRIALS,
                "params": ["mu", "sigma"],
                "simulator": None,
                "x": {"x": function()["inputs"]["x"], "y": function()["value"]},
                "theta": theta(),
            },
            names=("input", "condition"),
            may_be_infinite=True,
        ),
        "into_box": EntryPoint(
            lambda **a: missing_aside(net().into_box(**a).numpy()),
            lambda: {"name": "mu", "x": np.zeros(PEOPLE), "params": params(), "below": None},
        ),
        "from_box": EntryPoint(
            lambda **a: missing_aside(net().from_box(**a).numpy()),
            lambda: {"name": "mu", "value": np.zeros(PEOPLE), "params": params(), "below": 1.5},
        ),
        "Lapse": EntryPoint(
            lambda **a: density_of(
                function()["inputs"], np_tensor(function()["value"]), params=params(), lapse=pb.Lapse(**a)
            ),
            lambda: {"rate": 0.1, "ranges": {"y": (-9.0, 9.0)}},
            names=("lapse",),
        ),
        "check_likelihood": EntryPoint(
            likelihood_checked,
            lambda: {
                "sets": 10,
                "trials": 3,
                "context": 0,
                "rollouts": True,
                "tolerance": 0.002,
                "level": 0.9,
                "seed": 0,
                "statistics": None,
                "environment": None,
            },
        ),
        "formulas.design": EntryPoint(designed, design_arguments),
        "read_trials": EntryPoint(
            lambda **a: [read_trials(**a).outcomes["choice"]],
            lambda: {
                "table": table_of_trials(),
                "net": NOISY_Q,
                "subject": "subject",
                "order": "file",
                "columns": {"choice": "response", "reward": "feedback", "pair": "cond"},
                "recode": {"choice": {"0": 0, "1": 1}},
                "scale": {"reward": 1.0},
                "signed": None,
                "session": None,
                "where": None,
                "outside": "error",
                "simulator": None,
            },
            names=("column", "CSV file"),
        ),
        "Schema": EntryPoint(
            lambda **a: pb.Schema(**a),
            lambda: {
                "params": {"mu": pb.Real()},
                "inputs": {"x": pb.Categorical(3)},
                "outcomes": {"y": pb.Positive(above="ndt"), "z": pb.Interval(0, 1)} | {"y": pb.Real()},
                "feedback": {"r": pb.Real()},
                "ordered": True,
                "independent": False,
                "lapse_rate": 0.0,
            },
        ),
        "Interval": EntryPoint(
            pb.Interval,
            lambda: {"low": 0, "high": 1.0, "closed": False},
            names=("Interval",),
        ),
        "Integer": EntryPoint(pb.Integer, lambda: {"low": -2, "high": 8}, names=("Integer",)),
        "Categorical": EntryPoint(pb.Categorical, lambda: {"n": 3}),
        "Config": EntryPoint(
            pb.Config,
            lambda: {
                "width": 12,
                "depth": 2,
                "heads": 3,
                "mlp": 17,
                "components": 5,
                "param_depth": 1,
                "likelihood_width": 7,
                "head": "logistic",
            },
        ),
        "Prior": EntryPoint(
            lambda **a: Prior(**a).quantile(np.array([0.2, 0.5])),
            lambda: {"family": "Normal", "arguments": {"loc": 0.0, "scale": 1.0}, "relative_to": None},
            names=("scale of", "loc of"),
        ),
        "DatasetSimulator": EntryPoint(
            lambda **a: pb.DatasetSimulator(**a).stored_sets.lengths,
            lambda: {
                **stored_arrays(),
                "schema": None,
                "ordered": True,
                "group": np.arange(101) // 2,
                "held_out": 0.2,
                "seed": 0,
                "unit": "people",
                "name": "people",
            },
        ),
        "StoredSimulations": EntryPoint(
            lambda **a: pb.StoredSimulations(**a).stored_sets.lengths,
            lambda: {
                **stored_arrays(),
                "params": {"mu": np.arange(101.0)},
                "schema": None,
                "ordered": True,
                "held_out": 0.2,
                "seed": 0,
                "prior": {"mu": Prior.uniform(0.0, 101.0)},
                "name": "simulations",
            },
        ),
        "add_buffer_to_module": EntryPoint(
            lambda **a: [x.detach().numpy() for x in pb.add_buffer_to_module(**a).added.state_dict().values()],
            lambda: {
                "module": ExactMean(),
                "draw": draw_points,
                "way": "low_rank",
                "rank": 2,
                "steps": 1,
                "context": (0, 3),
                "targets": 4,
                "batch_size": 2,
                "learning_rate": 1e-3,
                "seed": 0,
            },
        ),
        "BufferedModule": EntryPoint(
            lambda example, context, **a: (
                pb.BufferedModule(ExactMean(), example).rollout(context, a["inputs"], a["draws"])[1].numpy()
            ),
            lambda: {"example": pairs(3), "context": pairs(5), "inputs": pairs(2)[0], "draws": 2},
        ),
        "load": EntryPoint(
            lambda **a: pb.load(**a), lambda: {"name_or_path": "noisy_q", "backend": "torch"}, names=("path",)
        ),
        "publish": EntryPoint(
            published, lambda: {"net": net(), "name": "jo/net", "card": None, "license": "mit", "private": True}
        ),
    }


def entry_points_of_jax() -> dict[str, EntryPoint]:
    """The same of the other backend, where it has code of its own."""
    from ppl_buffer.numpyro import JointPredictive

    of_torch, function_net = entry_points(), network(FUNCTION, "jax", record())

    def density(inputs: Any, value: Any, **more: Any) -> np.ndarray:
        return np.asarray(JointPredictive(function_net, inputs, **more).log_prob(value))

    calls: dict[str, tuple[Callable[..., Any], str]] = {
        "observe in JAX": (lambda **a: np.asarray(network(LEARNING, "jax").observe(**a).value), "observe"),
        "encode in JAX": (lambda context: np.asarray(function_net.encode(context).mask), "encode"),
        "JointPredictive of NumPyro": (density, "JointPredictive"),
        "into_box in JAX": (lambda **a: missing_aside(np.asarray(function_net.into_box(**a))), "into_box"),
    }
    points = {name: replace(of_torch[like], call=call) for name, (call, like) in calls.items()}
    point = points["JointPredictive of NumPyro"]
    points["JointPredictive of NumPyro"] = replace(
        point, arguments=lambda: {**point.arguments(), "value": function()["value"]}
    )
    return points
