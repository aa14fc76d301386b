"""The arguments of both joint predictives, in words."""

from __future__ import annotations

ARGUMENTS = """Args:
        net: a network from `ppl_buffer.load` or `ppl_buffer.train`, of the matching backend.
        inputs: what is known of each trial before the response, dict name -> (*B, K); {} where the schema has no
            inputs; or what ``net.observe(...)`` returned; or a `ppl_buffer.predictive.query.Query` of this network,
            which holds all other arguments.
        trials: number of trials K; needed only where there are no inputs.
        params: the parameters that are conditioned on, dict name -> (*B,) in natural units. Any subset of the schema's:
            with all of them the distribution is the likelihood, with none the marginal likelihood.
        trial_params: parameters that vary by trial, dict name -> (*B, K), beside those in `params`: a regression on
            what changes from trial to trial. With all parameters given and the direct likelihood, for models whose
            trials are independent given the parameters, and for ordered ones whose network was trained on such
            (`Config.likelihood_trial_params`): what happens on a trial, and what is learnt from it, is that of its own
            parameters. Of trials observed with ``conditions``, one value a condition: (*B, C).
        context: points to predict from, dict of inputs, outcomes and feedback, each (*B, N), or what
            ``net.encode(...)`` returned. Exchangeable models only.
        feedback: observed feedback, dict name -> (*B, K); needed to score values of a model that has feedback.
        trial_mask: (*B, K) bool; False = no such trial: it adds nothing to any density and nobody sees it. (The
            language's own ``mask`` acts on batch dimensions: it would multiply the joint density.)
        missing: a `ppl_buffer.Missing`, where values may have outcomes that were lost (NaN) or responses that did not
            come before a deadline (infinity). With all parameters given, and not for exchangeable trials that depend on
            each other; an ordered model's network has to read what was lost (`Config.likelihood_missing`), and feedback
            may then be NaN too. Given to ``net.observe`` it need not be given again.
        orders: number of permutations of the trials to average the joint density over, or the permutations (R, K).
            Exchangeable models only.
        block: merge realised trials into the context after every `block` of them. Exchangeable models only.
        environment: function (trial, inputs, outcomes, uniform) -> feedback, that `sample` calls after each trial:
            index of the trial, dicts name -> (...) of that trial, and numbers uniform in (0, 1), (..., n_feedback).
            It must use array arithmetic; in JAX it is traced, and `trial` is an array. One that remembers is a
            `ppl_buffer.simulator.StatefulEnvironment`; it begins anew with the first trial that is drawn.
        lapse: probability (*B,) that a trial's outcomes are a lapse, uniform over all values of a category or an
            integer, and over the ranges that the schema states; or a `ppl_buffer.Lapse`, which states ranges for the
            data at hand.
        outside: what to do where parameters leave the box that the network was trained on: "warn" and "error" (for
            values that are known when the distribution is made), "-inf" (density zero there), or "ignore".
            Inputs, outcomes and feedback unlike those of the training are warned of, unless it is "ignore".
        likelihood: which part of the network computes where all parameters are given: "direct", the direct likelihood,
            or "buffer", the buffered transformer. "auto" takes the one that its measurements say is nearer to the
            truth, the direct one where there are none. A context tells nothing then, and the direct likelihood does not
            read it.
        validate_args: as in the language; where it is off, nobody looks at parameter values. None is the language's
            setting in Pyro, whose samplers switch it off; in NumPyro, where it is off unless you ask for it, values
            that can be seen (no tracers) are checked even so.
"""
