"""What a simulator must offer. NumPy alone."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from ppl_buffer.schema import Schema

Arrays = dict[str, np.ndarray]


class Simulator(Protocol):
    """A model that draws data sets: NumPy in, NumPy out, vectorised over data sets.

    A simulator whose schema has no inputs also takes ``trials=`` as a keyword of `simulate`; one that has neither
    inputs nor parameters takes ``size=`` beside it. If the schema states a lapse rate, the simulator draws its
    outcomes with those lapses in them.

    Optional members:
        priors: dict parameter -> `Prior`, what `prior` draws from if the parameters are independent, or each depends
            on one earlier parameter as a `relative_to` says. Stored in the checkpoint, so that ``net.prior()`` can
            rebuild it. Without it the trained box is the range of many draws.
        simulate_with_probabilities: as `simulate`, but returns ``(data, {first outcome: (size, trials, n)})``: the
            probabilities from which the simulator drew the first outcome, a category, given everything that it knew
            at that moment (latent states too). They take the place of the drawn category in the loss: the expected
            gradient is the same, its variance less (Brehmer, Louppe, Pavez & Cranmer 2020, PNAS 117, 5242-5249).
            Not used where the schema states a lapse rate.
        resample_outcomes: ``redraw(rng, params, data, count)`` draws the outcomes of every trial `count` times more, each given
            the parameters (size,) and the trials before it in ``data`` (inputs, outcomes and feedback, each (size,
            trials)): dict outcome -> (size, trials, count). `train(redraws=...)` asks for it where trials depend on
            each other; where they are independent given the parameters it calls `simulate` again.
        augment: ``augment(rng, data)`` returns data sets in which every trial has the same likelihood as in ``data``
            (inputs, outcomes and feedback, each (size, trials)), given any parameters: moved, mirrored, or as they are,
            by chance. For a model with such a symmetry every lesson of `train(lessons=...)` is several.
        proposal: ``proposal(rng, size)`` draws parameters as `prior` does, from a distribution of the same range
            that visits some of it more often: its ends, or wherever the likelihood has much structure. What data are
            likely given all parameters does not depend on where these come from; so half of the batches of simulated
            data then tell all parameters, drawn from it.
        log_density: ``log_density(params, data)`` is the log density (size, trials), in nats, of the outcomes of each
            trial together, given all parameters (size,) and the trials before it in ``data`` (inputs, outcomes and
            feedback, each (size, trials)); with the lapses that the schema states; -inf where it is 0. For a model
            whose likelihood can be computed: with `train(use_log_likelihood=True)` the network learns the number itself,
            which has no noise, where all parameters are told. It must be the likelihood: not the density given latent
            states that the simulator drew.
        atoms: dict parameter -> value without prior mass at which the likelihood must hold all the same
            (a noise of exactly 0). Where every told-set of a data set tells the parameter, it takes that value with
            probability 1/2; never where it is hidden, which would change the prior that is integrated over.
        in_process: True to simulate in the training process instead of a background worker: for a simulator that
            survives no fork, such as one written in JAX.
        name: stored in the checkpoint; by default the name of the class.
    """

    schema: Schema

    def prior(self, rng: np.random.Generator, size: int) -> Arrays:
        """Draw parameters: dict name -> (size,)."""
        ...

    def inputs(self, rng: np.random.Generator, size: int, trials: int) -> Arrays:
        """Draw inputs: dict name -> (size, trials)."""
        ...

    def simulate(self, rng: np.random.Generator, params: Arrays, inputs: Arrays) -> Arrays:
        """Draw outcomes and feedback given parameters (size,) and inputs (size, trials): each (size, trials)."""
        ...


def name_of(simulator: Simulator) -> str:
    """What a record calls the simulator."""
    return str(getattr(simulator, "name", type(simulator).__name__))
