"""Models of choices and response times of the package ssm-simulators, as simulators of this package.

ssm-simulators, of the authors of HDDM's and HSSM's likelihood networks (Fengler, Govindarajan, Chen & Frank 2021, eLife
10, e65074), draws sequential sampling models in C: boundaries that collapse, races, leaky competing accumulators. The
models of HSSM are these.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from ppl_buffer.checks import check_choice, check_mapping, check_number
from ppl_buffer.extras import needs
from ppl_buffer.prior import Prior
from ppl_buffer.schema import Categorical, Interval, Positive, Schema
from ppl_buffer.simulator import Arrays
from ppl_buffer.simulators.drift_diffusion import check_params
from ppl_buffer.variables import checked_range

# Of the package; no response is faster, unless it varies from trial to trial itself.
_NON_DECISION_TIME, _ITS_RANGE = "t", "st"
_DELTA_T, _MAX_T = 0.001, 20.0
# Seeds that the package takes.
_SEEDS = 2**31 - 1


class SequentialSampling:
    """A model of ssm-simulators, made by `from_ssms`: independent decisions, a choice and a response time each.

    Args:
        model: its name in the package.
        bounds: name -> (low, high) of every parameter, in the package's order.
        choices: codes of the package, in the order of ours.
        delta_t: time step in seconds.
        max_t: seconds at which the package ends a decision.
    """

    def __init__(
        self,
        model: str,
        bounds: Mapping[str, tuple[float, float]],
        choices: Sequence[int],
        delta_t: float = _DELTA_T,
        max_t: float = _MAX_T,
    ) -> None:
        self.model, self.choices, self.delta_t, self.max_t = model, tuple(choices), delta_t, max_t
        steps = {"delta_t": (delta_t, _DELTA_T), "max_t": (max_t, _MAX_T)}
        others = "".join(f", {name}={value:g}" for name, (value, usual) in steps.items() if value != usual)
        self.name = f"from_ssms({model!r}{others})"
        self.priors = {name: Prior.uniform(*ends) for name, ends in bounds.items()}
        bounded = _NON_DECISION_TIME in bounds and _ITS_RANGE not in bounds
        time = Positive(above=_NON_DECISION_TIME if bounded else None, lapse_range=(0.0, max_t))
        # A non-decision time may be shorter than the trained ones: NUTS needs the whole way down to 0.
        self.schema = Schema(
            params={
                name: Positive() if bounded and name == _NON_DECISION_TIME else Interval(*ends, closed=True)
                for name, ends in bounds.items()
            },
            outcomes={"choice": Categorical(len(self.choices)), "rt": time},
            independent=True,
        )

    def prior(self, rng: np.random.Generator, size: int) -> Arrays:
        """Draw parameters: dict name -> (size,)."""
        return {name: prior.sample(rng, size) for name, prior in self.priors.items()}

    def inputs(self, rng: np.random.Generator, size: int, trials: int) -> Arrays:
        """Nothing is shown: {}."""
        return {}

    def simulate(self, rng: np.random.Generator, params: Arrays, inputs: Arrays, trials: int | None = None) -> Arrays:
        """Draw ``choice``, an index into the package's list of choices, and ``rt`` in seconds, each (size, trials).

        Args:
            rng: what the seed of the package is drawn from.
            params: dict name -> (size,).
            inputs: {}.
            trials: number of trials.

        Raises:
            ValueError: if a parameter is missing or not legal, `trials` is not given, or the package returns a choice
                that is not in its list.
            MissingLibraryError: without ssm-simulators.
        """
        if trials is None:
            raise ValueError("trials: expected a number, since there are no inputs, got None")
        checked = check_params(self.schema, params)
        shape = (trials, len(next(iter(checked.values()))))
        with needs("from_ssms", "ssms"):
            from ssms.basic_simulators.simulator import simulator
        simulated = simulator(
            theta=checked,
            model=self.model,
            n_samples=trials,
            delta_t=self.delta_t,
            max_t=self.max_t,
            random_state=int(rng.integers(_SEEDS)),
        )
        code, rt = (np.asarray(simulated[name]).reshape(shape).T for name in ("choices", "rts"))
        same = code[..., None] == np.array(self.choices)
        if not same.any(-1).all():
            raise ValueError(
                f"model: expected choices among {list(self.choices)} of ssm-simulators' {self.model}, got "
                f"{code[~same.any(-1)][0]:g}"
            )
        return {"choice": same.argmax(-1), "rt": rt.astype(float)}


def from_ssms(
    model: str,
    *,
    bounds: Mapping[str, tuple[float, float]] | None = None,
    delta_t: float = _DELTA_T,
    max_t: float = _MAX_T,
) -> SequentialSampling:
    """A model of the package ssm-simulators as a simulator: ``pb.train(pb.simulators.from_ssms("angle"))``.

    Parameters have the package's names and meanings, and are uniform within its bounds. Outcomes are ``choice``, the
    index of the package's choice in its list (of -1 and 1 the lower boundary is 0, the upper one 1), and ``rt`` in
    seconds, which exceeds the non-decision time ``t`` where the model has one that does not vary across trials.

    The package takes steps of `delta_t`: evidence overshoots the boundary by 0.58 sqrt(delta_t) on average, as if it
    were further away, which a network learns with all the rest. A decision that takes longer than `max_t` ends there.

    Args:
        model: a name in ``ssms.config.model_config``.
        bounds: name -> (low, high) of parameters, in place of the package's. Needed where the package constrains
            parameters by each other, which independent priors cannot: state bounds within which all is legal.
        delta_t: time step in seconds.
        max_t: seconds.

    Raises:
        ValueError: if there is no such model, a bound is of no parameter or no range, the package constrains its
            parameters and no bounds are given, or a time is not above 0.
        MissingLibraryError: without ssm-simulators.

    Example:
        >>> import ppl_buffer as pb
        >>> simulator = pb.simulators.from_ssms("angle")  # doctest: +SKIP
        >>> list(simulator.schema.params)  # doctest: +SKIP
        ['v', 'a', 'z', 't', 'theta']
    """
    with needs("from_ssms", "ssms"):
        from ssms.config import model_config
    check_choice("model", model, tuple(sorted(model_config)))
    described = model_config[model]
    ends = zip(*described["param_bounds"], strict=True)
    ranges: dict[str, tuple[float, float]] = dict(zip(described["params"], ends, strict=True))
    stated = check_mapping("bounds", {} if bounds is None else bounds)
    for name in stated:
        check_choice("bounds", name, tuple(ranges))
    constraints = dict(described.get("parameter_transforms", {})).get("sampling")
    if constraints and not stated:
        raise ValueError(
            f"bounds: expected some for {model}, whose parameters ssm-simulators constrains by each other "
            f"({', '.join(map(str, constraints))}), got None"
        )
    ranges |= stated
    for name, value in (("delta_t", delta_t), ("max_t", max_t)):
        check_number(name, value, "a number above 0", lambda x: math.isfinite(x) and x > 0)
    return SequentialSampling(
        model,
        {name: checked_range(f"bounds[{name!r}]", pair) for name, pair in ranges.items()},
        described.get("choices", range(described["nchoices"])),
        float(delta_t),
        float(max_t),
    )
