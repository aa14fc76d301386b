"""The protocols of simulators: what a user writes. NumPy alone.

`Simulator` is required. Every other protocol here is an ability that a simulator may have; it has it if it has the
protocol's member, and nothing is to be registered or inherited. Names are checked: a member that nearly has a
protocol's name is warned of when training starts.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ppl_buffer.prior import Prior
from ppl_buffer.schema import Schema
from ppl_buffer.stored import StoredSets

Arrays = dict[str, np.ndarray]
# Of NumPy, torch or JAX, traced or not; or a number.
AnyArray = Any
AnyArrays = dict[str, AnyArray]


@runtime_checkable
class Simulator(Protocol):
    """A model that draws data sets: NumPy in, NumPy out, vectorised over data sets.

    Whatever is `Categorical` or `Integer` comes to `simulate`, and to the optional methods, as an integer type.

    `simulate` may take two keywords more, ``trials=`` and ``size=``, the shape of what it returns, and is given those
    that it names. Without inputs no array tells the number of trials, so that it must take ``trials``; without inputs
    and parameters ``size`` too. If the schema states a lapse rate, the simulator draws its outcomes with those lapses
    in them. What else it may offer:

    - `WithPriors`, ``priors``: the named distributions of its parameters;
    - `WithProposal`, ``proposal``: draws of parameters for the batches that condition on all of them;
    - `WithAtoms`, ``atoms``: point masses of parameters;
    - `WithProbabilities`, ``simulate_with_probabilities``: the probabilities that a choice was drawn from;
    - `WithResampling`, ``resample_outcomes``: further outcomes of the same trials;
    - `WithPredictions`, ``predict_outcomes``: outcomes given some of an exchangeable data set;
    - `WithLogLikelihood`, ``log_likelihood``: the log density of the outcomes, where it can be computed;
    - `WithSeenLogLikelihood`, ``seen_log_likelihood``: the same, given what was seen of the past;
    - `WithSymmetries`, ``augment``: data sets that are exactly as likely;
    - `WithEnvironment`, ``environment``: the feedback on outcomes that somebody else draws;
    - `WithTrialParams`, ``trial_params``: whether it takes parameters that change from trial to trial;
    - `WithInProcess`, ``in_process``: whether it must run in the training process;
    - `WithName`, ``name``: what records call it;
    - `WithStoredSets`, ``stored_sets``: data sets that exist already, in place of new ones.
    """

    schema: Schema

    def prior(self, rng: np.random.Generator, size: int) -> Arrays:
        """Draw parameters: dict name -> (size,)."""
        ...

    def inputs(self, rng: np.random.Generator, size: int, trials: int) -> Arrays:
        """Draw inputs: dict name -> (size, trials)."""
        ...

    def simulate(self, rng: np.random.Generator, params: Arrays, inputs: Arrays) -> Arrays:
        """Draw outcomes and feedback given parameters (size,) and inputs (size, trials): each (size, trials).

        Data sets that hold a value that is no number, or no legal one, are dropped and counted.
        """
        ...


@runtime_checkable
class WithPriors(Protocol):
    """States what its `prior` draws from.

    ``priors`` maps parameters to `Prior`s, if the parameters are independent, or each depends on one earlier parameter
    as a ``relative_to`` says. They are stored in the checkpoint, so that ``net.prior()`` can rebuild them. Without
    them the trained box is the range of many draws.
    """

    priors: Mapping[str, Prior]


@runtime_checkable
class WithProposal(Protocol):
    """Draws parameters from a second distribution, for the sets that are conditioned on all of them.

    It has the range of the prior and visits some of it more often: its ends, or wherever the likelihood has much
    structure. What data are likely given all parameters does not depend on where these come from; half of the batches
    of simulated data are then conditioned on all parameters, drawn from the proposal.
    """

    def proposal(self, rng: np.random.Generator, size: int) -> Arrays:
        """Draw parameters as `Simulator.prior` does: dict name -> (size,)."""
        ...


@runtime_checkable
class WithAtoms(Protocol):
    """Has point masses: values without prior mass at which the likelihood must hold all the same, a noise of 0.

    ``atoms`` maps parameters to such values. Where every condition mask of a data set holds the parameter, it takes
    the value with probability 1/2; never where it is hidden, which would change the prior that is integrated over.
    """

    atoms: Mapping[str, float]


@runtime_checkable
class WithProbabilities(Protocol):
    """Knows the probabilities from which it drew the first outcome, a category or an integer, and maybe later ones.

    They take the place of the drawn value in the loss: the expected gradient is the same, its variance less
    (Brehmer, Louppe, Pavez & Cranmer 2020, PNAS 117, 5242-5249). Not used where the schema states a lapse rate.
    """

    def simulate_with_probabilities(
        self, rng: np.random.Generator, params: Arrays, inputs: Arrays
    ) -> tuple[Arrays, Arrays]:
        """`Simulator.simulate`, and the probabilities given everything that the simulator knew, latent states too.

        Returns:
            the data, and {first outcome: (size, trials, n)}, n categories, or high - low + 1 values of an integer; of
            a later outcome that is one too, if they are known, its probabilities given the trial's outcomes before it
            as they were drawn.
        """
        ...


@runtime_checkable
class WithResampling(Protocol):
    """Draws the outcomes of every trial again, where trials depend on each other.

    `train(outcome_samples=...)` asks for it; where trials are independent given the parameters it calls
    `Simulator.simulate` again instead.
    """

    def resample_outcomes(self, rng: np.random.Generator, params: Arrays, data: Arrays, count: int) -> Arrays:
        """Draw each trial's outcomes `count` times more, given the parameters and the trials before it.

        Args:
            rng: the only source of randomness.
            params: dict name -> (size,).
            data: inputs, outcomes and feedback, each (size, trials).
            count: how often.

        Returns:
            dict outcome -> (size, trials, count).
        """
        ...


@runtime_checkable
class WithPredictions(Protocol):
    """Draws outcomes given others of an exchangeable data set whose trials depend on each other all the same.

    A Gaussian process can, or any model whose hidden function or state has a known distribution after some trials.
    `train(outcome_samples=...)` asks for it, so that the loss of a target is a mean over all that it might have been.
    """

    def predict_outcomes(
        self, rng: np.random.Generator, params: Arrays, inputs: Arrays, seen: Arrays, visible: np.ndarray, count: int
    ) -> Arrays:
        """Draw the outcomes of targets `count` times, given the parameters and the trials that each target sees.

        The draws of a target may depend on each other (quantiles of evenly spread levels have less noise), those of
        different targets too: each is a draw from the right distribution, and that is all.

        Args:
            rng: the only source of randomness.
            params: dict name -> (size,).
            inputs: of the targets, dict name -> (size, targets).
            seen: inputs and outcomes, each (size, trials).
            visible: (size, targets) integers: a target sees the first so many of these trials.
            count: how often.

        Returns:
            dict outcome -> (size, targets, count).
        """
        ...


@runtime_checkable
class WithLogLikelihood(Protocol):
    """Has a likelihood that can be computed.

    The direct likelihood learns the number itself, which has no noise, in place of draws; with
    `train(use_log_likelihood=True)` the buffered transformer does too, where it is conditioned on all parameters. It
    must be the likelihood: not the density given latent states that were drawn.
    """

    def log_likelihood(self, params: Arrays, data: Arrays) -> np.ndarray:
        """Log density (size, trials), in nats, of each trial's outcomes together given all parameters and the past.

        With the lapses that the schema states; -inf where the density is 0.

        Args:
            params: dict name -> (size,).
            data: inputs, outcomes and feedback, each (size, trials).
        """
        ...


@runtime_checkable
class WithSeenLogLikelihood(Protocol):
    """Knows, beside `WithLogLikelihood`, how likely outcomes are where some of the past was lost.

    For ordered models and networks that read what is missing (`Config.likelihood_missing`): the direct likelihood then
    learns what follows a lost trial from this number, in place of draws. An estimate will do, as of a particle filter.
    """

    def seen_log_likelihood(self, rng: np.random.Generator, params: Arrays, data: Arrays, lost: Arrays) -> np.ndarray:
        """`WithLogLikelihood.log_likelihood` given all parameters and what was seen of the past, (size, trials).

        Args:
            rng: of an estimate, the only source of randomness.
            params: dict name -> (size,).
            data: inputs, outcomes and feedback, each (size, trials), as they were drawn, lost or not.
            lost: of outcomes and feedback, which nobody saw: each (size, trials) bool.
        """
        ...


@runtime_checkable
class WithSymmetries(Protocol):
    """Has symmetries: data sets that are moved or mirrored and as likely as before, whatever the parameters.

    Every data set of `train(distillation=...)` is then several, and so is every stored one of a `DatasetSimulator`
    whose subclass has such a method, in the training and not where it is held out.
    """

    def augment(self, rng: np.random.Generator, data: Arrays) -> Arrays:
        """Data sets in which every trial is as likely as in `data` given any parameters: moved, mirrored, by chance.

        Args:
            rng: the only source of randomness.
            data: inputs, outcomes and feedback, each (size, trials).
        """
        ...


@runtime_checkable
class WithEnvironment(Protocol):
    """Gives feedback on outcomes that it did not draw itself, as `JointPredictive(environment=...)` asks for it.

    Needed wherever new data are drawn from a model with feedback: the next choice depends on the reward of this one. It
    is asked for many data sets at once, in the arrays of NumPy, torch or JAX, traced or not: arithmetic and comparisons
    serve all of them, an ``if`` on a value or an index into a NumPy array does not. Its answer may depend on nothing
    but its arguments. What a task must know of the trials before it, is a `StatefulEnvironment`'s state.
    """

    def environment(self, trial: AnyArray, inputs: AnyArrays, outcomes: AnyArrays, uniform: AnyArray) -> AnyArrays:
        """Feedback of one trial.

        Args:
            trial: index of the trial, 0 for the first that is drawn.
            inputs: the trial's inputs, each (...).
            outcomes: the trial's outcomes, each (...).
            uniform: numbers uniform in (0, 1), (..., n): one for each feedback variable.

        Returns:
            dict feedback -> (...), legal values of all of the schema's feedback and of nothing else.
        """
        ...


@runtime_checkable
class WithTrialParams(Protocol):
    """Says whether parameters may change from trial to trial, in a model whose trials have an order.

    ``trial_params`` is True if its methods take parameters (size, trials) as well as (size,): what happens on trial k,
    and what is learnt from it, is that of the parameters there. `Config.likelihood_trial_params` makes use of it.
    """

    trial_params: bool


@runtime_checkable
class StatefulEnvironment(Protocol):
    """An environment that remembers: rewards that drift, an arm that stays better until it is not.

    An object that is called in place of a function; a simulator's ``environment`` may be one. A state is a number for
    each data set under each name. It is what the call on the trial before returned, and on the first trial that is
    drawn the `initial_state`; a start that is left to chance is drawn there, where `trial` is 0. For ordered models.
    """

    initial_state: Mapping[str, float]

    def __call__(
        self, trial: AnyArray, inputs: AnyArrays, outcomes: AnyArrays, uniform: AnyArray, state: AnyArrays
    ) -> tuple[AnyArrays, AnyArrays]:
        """Feedback of one trial, and the state after it.

        Args:
            trial: as `WithEnvironment.environment` has it.
            inputs: likewise.
            outcomes: likewise.
            uniform: likewise.
            state: that before the trial, dict name -> (...).

        Returns:
            dict feedback -> (...), and dict name -> (...) with the names of `initial_state`.
        """
        ...


@runtime_checkable
class WithInProcess(Protocol):
    """Says by ``in_process`` = True that it survives no fork, as one in JAX: no background worker simulates then."""

    in_process: bool


@runtime_checkable
class WithName(Protocol):
    """Says what records and checkpoints call it; the others are called by their class."""

    name: str


@runtime_checkable
class WithStoredSets(Protocol):
    """Has data sets in store: whoever needs parameters and data together takes them from there, and nobody simulates.

    ``stored_sets`` are they. Training draws from those that are not held out, the held-out loss and the checks of a
    network from those that are. `Simulator.prior`, `Simulator.inputs` and `Simulator.simulate` do not know of each
    other which data set they are at, so they are asked for no data set.
    """

    stored_sets: StoredSets


REQUIRED = ("schema", "prior", "inputs", "simulate")
# Member -> its protocol.
OPTIONAL: dict[str, type] = {
    "priors": WithPriors,
    "proposal": WithProposal,
    "atoms": WithAtoms,
    "simulate_with_probabilities": WithProbabilities,
    "resample_outcomes": WithResampling,
    "predict_outcomes": WithPredictions,
    "log_likelihood": WithLogLikelihood,
    "seen_log_likelihood": WithSeenLogLikelihood,
    "augment": WithSymmetries,
    "environment": WithEnvironment,
    "trial_params": WithTrialParams,
    "in_process": WithInProcess,
    "name": WithName,
    "stored_sets": WithStoredSets,
}


def name_of(simulator: Simulator) -> str:
    """What a record calls the simulator."""
    return str(simulator.name) if isinstance(simulator, WithName) else type(simulator).__name__


def public_names(simulator: object) -> list[str]:
    """Names of the members that do not begin with an underscore."""
    return [name for name in dir(simulator) if not name.startswith("_")]


def simulate_keywords(method: Callable[..., Any], schema: Schema, size: int, trials: int) -> dict[str, int]:
    """What a method that simulates gets by keyword: what it asks for, and what no array would tell it.

    Args:
        method: `Simulator.simulate`, or `WithProbabilities.simulate_with_probabilities`.
        schema: the simulator's.
        size: how many data sets.
        trials: of each.
    """
    numbers = {"trials": trials, "size": size}
    needed = {"trials": not schema.inputs, "size": not (schema.inputs or schema.params)}
    try:
        asked = set(inspect.signature(method).parameters)
    except (TypeError, ValueError):
        asked = set()  # some compiled functions do not tell
    return {name: number for name, number in numbers.items() if needed[name] or name in asked}
