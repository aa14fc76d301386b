"""Delay and probability discounting: choices between a smaller amount soon, or for sure, and a larger one.

The subjective value is the hyperboloid of Myerson & Green (1995), Journal of the Experimental Analysis of Behavior 64,
263-276, which is Mazur's (1987) hyperbola where the exponent is 1. Choice probabilities have a formula.
"""

from __future__ import annotations

import numpy as np

from ppl_buffer.prior import Prior
from ppl_buffer.schema import Categorical, Interval, Positive, Real, Schema
from ppl_buffer.simulator import Arrays
from ppl_buffer.simulators.drift_diffusion import check_params

# A network reads log(x + 0.01) - log(20,000 - x) of a delay x: short ones are told apart, and no delay is legal.
_DELAY = Interval(-0.01, 20_000)
_LEAST_DELAY, _GREATEST_DELAY = 0.01, 5000.0
_LEAST_AMOUNT, _LEAST_RATIO = 0.05, 0.02


class Discounting:
    """Which of two delayed, or risky, amounts people prefer.

    An amount A after a delay D is worth A / (1 + k D)^s, and the later one is chosen with log odds

        exp(log_inverse_temperature) (A_later / (1 + k D_later)^s - A_sooner / (1 + k D_sooner)^s) + bias,

    where k = exp(log_rate) and s is the ``exponent``. Probability discounting has the same formula: where an amount is
    received with probability p, give the odds against it, (1 - p) / p, in place of a delay; "later" then means
    riskier. Trials are independent given the parameters.

    Inputs: ``amount_sooner``, ``amount_later``, as shares of the largest amount of the experiment; ``delay_sooner``,
    ``delay_later``, at least 0 in any unit, days for instance, of which ``log_rate`` is the rate. Outcome: ``choice``,
    1 = the later amount.

    Parameters, uniform over the box in `priors`:
        ``log_rate``: natural logarithm of the discount rate k.
        ``exponent``: 1 is the hyperbola (an atom); below 1 long delays are discounted less.
        ``log_inverse_temperature``: natural logarithm of the log odds for a difference as large as the largest amount.
        ``bias``: log odds for the later amount where both are worth the same; 0 is the usual model (an atom).
    """

    priors = {
        "log_rate": Prior.uniform(-9.0, 2.0),
        "exponent": Prior.uniform(0.2, 2.0),
        "log_inverse_temperature": Prior.uniform(0.0, 5.0),
        "bias": Prior.uniform(-2.0, 2.0),
    }
    # Most people fit the hyperbola, without a bias.
    atoms = {"exponent": 1.0, "bias": 0.0}
    schema = Schema(
        params={"log_rate": Real(), "exponent": Positive(), "log_inverse_temperature": Real(), "bias": Real()},
        inputs={
            "amount_sooner": Positive(), "amount_later": Positive(), "delay_sooner": _DELAY, "delay_later": _DELAY,
        },
        outcomes={"choice": Categorical(2)},
        independent=True,
    )  # fmt: skip

    def prior(self, rng: np.random.Generator, size: int) -> Arrays:
        """Draw parameters: dict name -> (size,)."""
        return {name: prior.sample(rng, size) for name, prior in self.priors.items()}

    def inputs(self, rng: np.random.Generator, size: int, trials: int) -> Arrays:
        """Draw pairs of amounts and delays, dict name -> (size, trials), over a range that many experiments lie in.

        The larger amount is from 0.05 to 1, as often in each octave; the smaller one 0.02 to 1 of it, uniform. The
        longer delay is from 0.01 to 5,000, as often in each octave: minutes to years in days, and odds against of 99 %
        to 0.02 %. The shorter one is 0 in two thirds of the trials, else a uniform share of the longer.
        """
        shape = (size, trials)
        amount = np.exp(rng.uniform(np.log(_LEAST_AMOUNT), 0.0, shape))
        delay = np.exp(rng.uniform(np.log(_LEAST_DELAY), np.log(_GREATEST_DELAY), shape))
        return {
            "amount_sooner": amount * rng.uniform(_LEAST_RATIO, 1.0, shape),
            "amount_later": amount,
            "delay_sooner": delay * np.where(rng.random(shape) < 2 / 3, 0.0, rng.random(shape)),
            "delay_later": delay,
        }

    def simulate(self, rng: np.random.Generator, params: Arrays, inputs: Arrays) -> Arrays:
        """Draw choices: {"choice": (size, trials)} in {0, 1}.

        Args:
            rng: the only source of randomness.
            params: dict name -> (size,).
            inputs: dict name -> (size, trials).

        Raises:
            ValueError: if a parameter is missing or not legal, or a delay is below 0.
        """
        return self.simulate_with_probabilities(rng, params, inputs)[0]

    def simulate_with_probabilities(
        self, rng: np.random.Generator, params: Arrays, inputs: Arrays
    ) -> tuple[Arrays, Arrays]:
        """`simulate`, and the choice probabilities.

        Returns:
            the data, and {"choice": (size, trials, 2)}.
        """
        log_odds = self._log_odds(params, inputs)
        later, sooner = (0.5 * (1 + np.tanh(0.5 * x)) for x in (log_odds, -log_odds))
        choice = (rng.random(later.shape) < later).astype(int)
        return {"choice": choice}, {"choice": np.stack([sooner, later], axis=-1)}

    def log_likelihood(self, params: Arrays, data: Arrays) -> np.ndarray:
        """Log probability of each choice, (size, trials).

        Args:
            params: dict name -> (size,).
            data: inputs and ``choice``, each (size, trials).
        """
        log_odds = self._log_odds(params, data)
        return -np.logaddexp(0.0, np.where(np.asarray(data["choice"]) == 1, -log_odds, log_odds))

    def _log_odds(self, params: Arrays, inputs: Arrays) -> np.ndarray:
        """Log odds of the later amount, (size, trials)."""
        log_rate, exponent, log_inverse_temperature, bias = (
            x[:, None] for x in check_params(self.schema, params).values()
        )
        values = []
        for option in ("later", "sooner"):
            amount, delay = (np.asarray(inputs[f"{kind}_{option}"], dtype=float) for kind in ("amount", "delay"))
            if (delay < 0).any():
                raise ValueError(f"inputs['delay_{option}']: expected numbers of at least 0, got {delay.min():g}")
            values.append(amount * (1 + np.exp(log_rate) * delay) ** -exponent)
        return np.exp(log_inverse_temperature) * (values[0] - values[1]) + bias
