"""A trained network as a likelihood estimator for sbi: its samplers, variational posteriors and diagnostics run on it.

One data set, all its trials, is one "x" of sbi, a flat vector; several of them in an `x_o` are independent data sets of
the same parameters (sbi's "iid" dimension), never trials. Needs torch and sbi::

    net = ppl_buffer.load("noisy_q", backend="torch")
    estimator = LikelihoodEstimator(net, trials=120, simulator=ppl_buffer.simulators.NoisyQ())
    prior = estimator.prior()
    potential, transform = likelihood_estimator_based_potential(estimator, prior, estimator.pack(data))
    posterior = MCMCPosterior(potential, proposal=prior, theta_transform=transform, method="nuts_pyro")
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ppl_buffer.checks import check_flag, check_integer, check_numbers, check_seed
from ppl_buffer.extras import needs

with needs("ppl_buffer.sbi", "sbi"):
    import torch
    from torch import Tensor
    from torch.distributions import Distribution

    from ppl_buffer.network.torch.weights import TorchNetwork
    from ppl_buffer.pyro.priors import prior_distribution
from ppl_buffer.network.arguments import as_mask, check_names, require_likelihood
from ppl_buffer.network.layout import broadcasts_to
from ppl_buffer.network.observed import ObservedTrials
from ppl_buffer.predictive import density, sampling
from ppl_buffer.predictive.query import Query
from ppl_buffer.schema import split_value, stack_value
from ppl_buffer.simulator import Simulator, WithEnvironment
from ppl_buffer.training.abilities import check_simulator
from ppl_buffer.training.draws import draw_data

_validates = Distribution._validate_args
try:
    with needs("ppl_buffer.sbi", "sbi"):
        from sbi.neural_nets.estimators import ConditionalDensityEstimator
        from sbi.utils import BoxUniform, MultipleIndependent
finally:
    # A package below sbi turns the checks of all of torch's and Pyro's distributions off when it is imported.
    Distribution.set_default_validate_args(_validates)


class LikelihoodEstimator(ConditionalDensityEstimator):  # type: ignore[misc]
    """The density p(outcomes | inputs, feedback, parameters) of whole data sets, as sbi's estimators give densities.

    An x holds the inputs, outcomes and feedback of each trial in turn, trial after trial, in the schema's order: what
    `pack` makes. Inputs and feedback are given, not modelled, and add nothing to the density. A theta holds the
    parameters in the schema's order, in natural units.

    What does not depend on the parameters is computed once for each x, as by ``net.observe``.

    Args:
        net: a network of torch. It stays frozen; `loss` trains it where its weights are told to take gradients.
        trials: number of trials K of every data set.
        params: the parameters that a theta holds; by default all. The others are integrated over.
        ragged: whether data sets may have fewer trials than K. An x then holds one more number for each trial, 1 where
            it exists and else 0: sbi's posteriors take no NaN. A trial that does not exist adds nothing to the density,
            and no other trial sees it.
        simulator: where the inputs of `sample` and the data sets of `simulate` come from, and the feedback on drawn
            outcomes, if it has an `environment`.

    Raises:
        ValueError: if the network is not of torch, or an argument does not fit its schema.
    """

    def __init__(
        self,
        net: TorchNetwork,
        trials: int,
        *,
        params: Sequence[str] | None = None,
        simulator: Simulator | None = None,
        ragged: bool = False,
    ) -> None:
        if not isinstance(net, TorchNetwork):
            raise ValueError(f"net: expected a network loaded with backend='torch', got {type(net).__name__}")
        require_likelihood(net.record)
        trials = check_integer("trials", trials)
        schema = net.schema
        if params is not None and not isinstance(params, (list, tuple)):
            raise ValueError(f"params: expected a list of some of {list(schema.params)}, got {params!r}")
        names = [*schema.params] if params is None else [str(name) for name in params]
        if not names or len(set(names)) < len(names) or not set(names) <= set(schema.params):
            raise ValueError(f"params: expected some of {list(schema.params)}, each once, got {names}")
        if simulator is not None:
            check_simulator(simulator)
            if simulator.schema != schema:
                raise ValueError(f"simulator: expected the network's schema {schema}, got {simulator.schema}")
        variables = {**schema.inputs, **schema.outcomes, **schema.feedback}
        ragged = check_flag("ragged", ragged)
        super().__init__(net, torch.Size([trials * (len(variables) + ragged)]), torch.Size([len(names)]))
        self.trials = trials
        self.params = tuple(names)
        self.simulator = simulator
        self.ragged = ragged
        self._columns = tuple(variables)
        self._fills = [variable.fill for variable in variables.values()]
        self._last: tuple[Tensor, ObservedTrials] | None = None

    # What sbi asks for --------------------------------------------------------------------------------------------

    def log_prob(self, input: Tensor, condition: Tensor, **_: Any) -> Tensor:
        """Log density of each data set, all its trials together.

        Args:
            input: data sets, (sample, batch, x) or (batch, x).
            condition: parameters, (batch, theta) or (sample, batch, theta).

        Returns:
            (sample, batch); minus infinity where parameters are illegal.

        Raises:
            ValueError: if the last dimensions are not those of one data set and of the parameters, batch dimensions
                do not fit, or values are no legal outcomes.
        """
        self._check_shapes(input, condition)
        x, theta = (value if value.ndim == 3 else value[None] for value in (input, condition))
        full = torch.broadcast_shapes(x.shape[:2], theta.shape[:2])
        # sbi expands one data set to many parameters, which would have it computed for each of them.
        x, theta = (value[:, :1] if value.stride(1) == 0 else value for value in (x, theta))
        observed = self._observe(x.detach())
        legal = torch.ones((), dtype=torch.bool, device=theta.device)
        params = {}
        for index, name in enumerate(self.params):
            variable, value = self.net.schema.params[name], theta[..., index]
            inside = variable.contains(torch, value)
            legal = legal & inside
            # A gradient through an illegal value would be no number, whatever is masked later.
            params[name] = torch.where(inside, value, variable.fill)
        query = Query.build(self.net, observed, params=params, outside="ignore", check=False)
        return torch.where(legal, density.log_prob(query, observed.value), -torch.inf).expand(full)

    def loss(self, input: Tensor, condition: Tensor, **_: Any) -> Tensor:
        """Negative log density, (batch,), of data sets (batch, x) at parameters (batch, theta)."""
        return -self.log_prob(input[None], condition)[0]

    def sample(self, sample_shape: Any, condition: Tensor, **_: Any) -> Tensor:
        """Draw data sets from the network, (*sample_shape, batch, x), at parameters (batch, theta).

        Random numbers, those of the simulator's inputs too, come from torch's global generator.

        Raises:
            ValueError: if there is no simulator and the schema has inputs, or the simulator has no environment and the
                schema has feedback.
        """
        return self._draw(sample_shape, condition)[0]

    def sample_and_log_prob(self, sample_shape: Any, condition: Tensor, **_: Any) -> tuple[Tensor, Tensor]:
        """`sample`, and the log densities (*sample_shape, batch) that the data sets were drawn from."""
        return self._draw(sample_shape, condition)

    # What users ask for -------------------------------------------------------------------------------------------

    def pack(self, data: Mapping[str, Any], trial_mask: object = None) -> Tensor:
        """Data sets as sbi's x.

        Args:
            data: dict of all inputs, outcomes and feedback, each (batch, K), or (K,) for one data set.
            trial_mask: (batch, K) or (K,) bool; False = no such trial, whatever stands there. Of a ragged estimator.

        Returns:
            (batch, x).

        Raises:
            ValueError: if names are missing or unknown, there are not K trials, or the mask does not fit the data.
        """
        check_names("data", data, self._columns)
        numbers = {name: check_numbers(f"data[{name!r}]", data[name]) for name in self._columns}
        columns = [torch.as_tensor(x, dtype=torch.float32) for x in numbers.values()]
        columns = [column[None] if column.ndim == 1 else column for column in columns]
        for name, column in zip(self._columns, columns, strict=True):
            if column.ndim != 2 or column.shape != columns[0].shape or column.shape[1] != self.trials:
                raise ValueError(
                    f"data[{name!r}]: expected shape (batch, {self.trials}), alike in all, got {tuple(column.shape)}"
                )
        table = torch.stack(columns, -1)
        exists = torch.ones(table.shape[:2], dtype=torch.bool)
        if trial_mask is not None:
            if not self.ragged:
                raise ValueError("trial_mask: expected none, since the estimator was made without ragged=True")
            exists = as_mask(self.net, "trial_mask", trial_mask, self.trials).cpu()
            if not broadcasts_to(exists.shape, table.shape[:2]):
                raise ValueError(
                    f"trial_mask: expected shape {tuple(table.shape[:2])}, as the data, got {tuple(exists.shape)}"
                )
            table = table.where(exists[..., None], torch.tensor(self._fills, dtype=table.dtype))
        return self._flatten(table, exists).to(self.net.device)

    def unpack(self, x: Tensor) -> dict[str, Tensor]:
        """Inverse of `pack`: dict name -> (..., K), of x (..., x); NaN where there is no trial."""
        self._check_last("x", x, self.input_shape)
        table, exists = self._unflatten(x)
        if exists is not None:
            table = table.where(exists[..., None], torch.nan)
        return {name: table[..., index] for index, name in enumerate(self._columns)}

    def prior(self) -> Any:
        """The training prior of the parameters as sbi takes priors; uniform over the trained range where none is known.

        Raises:
            ValueError: if the network was not trained, or a parameter's prior is relative to another's value.
        """
        record = self.net.record
        if record is None:
            raise ValueError("net: expected a trained network, which knows its prior, got an untrained one")
        priors = {name: record.prior(name) for name in self.params}
        relative = [name for name, prior in priors.items() if prior.relative_to is not None]
        if relative:
            raise ValueError(
                f"params: expected priors of their own, but that of {relative[0]!r} is relative to another"
            )
        if all(prior.family == "Uniform" for prior in priors.values()):
            low, high = (torch.tensor([p.arguments[bound] for p in priors.values()]) for bound in ("low", "high"))
            return BoxUniform(low, high)
        return MultipleIndependent([prior_distribution(prior).expand([1]) for prior in priors.values()])

    def simulate(self, theta: Tensor, *, seed: int = 0, trial_mask: object = None) -> Tensor:
        """Data sets (batch, x) of the simulator at parameters (batch, theta), for `run_sbc`, `run_tarp` and `LC2ST`.

        Args:
            theta: parameters.
            seed: of the simulator's random numbers.
            trial_mask: (batch, K) or (K,) bool, which trials exist: as many as in the data that are to be fitted.

        Raises:
            ValueError: if there is no simulator, theta does not hold all parameters, or the mask is none of the trials.
        """
        if self.simulator is None:
            raise ValueError("simulator: expected one when the estimator was made, got None")
        if set(self.params) != set(self.net.schema.params):
            raise ValueError(f"params: expected all of {list(self.net.schema.params)} to simulate, got {self.params}")
        self._check_last("theta", theta, self.condition_shape)
        seed = check_seed(seed)
        values = theta.detach().cpu().double().numpy().reshape(-1, len(self.params))
        params = {name: values[:, self.params.index(name)] for name in self.net.schema.params}
        rng = np.random.default_rng(seed)
        data = draw_data(self.simulator, rng, params, len(values), self.trials, probabilities=False)[0]
        return self.pack(data, trial_mask)

    # Inside -------------------------------------------------------------------------------------------------------

    def _check_last(self, argument: str, value: Tensor, shape: torch.Size) -> None:
        # sbi's own alignment stretches a last dimension of 1.
        if not isinstance(value, Tensor):
            raise ValueError(f"{argument}: expected a tensor of torch, got {type(value).__name__}")
        if value.ndim < 1 or value.shape[-1:] != shape:
            contents = f"the parameters {list(self.params)}"
            if shape == self.input_shape and argument != "theta":
                contents = f"{self.trials} trials of {list(self._columns)} as `pack` makes them"
            raise ValueError(
                f"{argument}: expected {shape[0]} numbers on the last axis, {contents}, got shape {tuple(value.shape)}"
            )

    def _check_shapes(self, input: Tensor, condition: Tensor) -> None:
        self._check_last("input", input, self.input_shape)
        self._check_last("theta", condition, self.condition_shape)
        for argument, value in (("input", input), ("condition", condition)):
            if value.ndim not in (2, 3):
                raise ValueError(
                    f"{argument}: expected shape (batch, {value.shape[-1]}) or (sample, batch, {value.shape[-1]}), got "
                    f"{tuple(value.shape)}"
                )
        sizes = {input.shape[-2], condition.shape[-2]}
        if len(sizes - {1}) > 1:
            raise ValueError(
                f"input, condition: expected equal batch sizes, or one of 1, got {input.shape[-2]} and "
                f"{condition.shape[-2]}"
            )
        if input.ndim == condition.ndim == 3 and len({input.shape[0], condition.shape[0]} - {1}) > 1:
            raise ValueError(
                f"input, condition: expected equal sample sizes, or one of 1, got {input.shape[0]} and "
                f"{condition.shape[0]}"
            )

    def _observe(self, x: Tensor) -> ObservedTrials:
        """The data sets (sample, batch, x), prepared; the last ones are kept, since a sampler asks for them again."""
        # What was computed with weights that are being trained belongs to one step alone.
        training = any(weight.requires_grad for weight in self.net.weights.values())
        if not training and self._last is not None:
            last, observed = self._last
            if last.shape == x.shape and torch.equal(last, x):
                return observed
        table, exists = self._unflatten(x)
        schema, data = self.net.schema, {name: table[..., index] for index, name in enumerate(self._columns)}
        observed = self.net.observe(
            {name: data[name] for name in schema.inputs},
            stack_value(self.net.ops.xp, schema, {name: data[name] for name in schema.outcomes}),
            feedback={name: data[name] for name in schema.feedback},
            trial_mask=exists,
        )
        self._last = None if training else (x.clone(), observed)
        return observed

    def _flatten(self, table: Tensor, exists: Tensor) -> Tensor:
        """Trials (..., K, columns) as x (..., x)."""
        if self.ragged:
            table = torch.cat([table, exists.to(table).expand(table.shape[:-1])[..., None]], -1)
        return table.flatten(-2)

    def _unflatten(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """The trials (..., K, columns) of x (..., x), and which of them exist; None of an estimator that has all."""
        table = x.reshape(*x.shape[:-1], self.trials, -1)
        if not self.ragged:
            return table, None
        flag = table[..., -1]
        if not ((flag == 0) | (flag == 1)).all():
            raise ValueError("input: expected 1 or 0 as the last number of a trial, whether it exists: see `pack`")
        return table[..., :-1], flag == 1

    def _draw(self, sample_shape: Any, condition: Tensor) -> tuple[Tensor, Tensor]:
        schema = self.net.schema
        self._check_last("theta", condition, self.condition_shape)
        if condition.ndim != 2:
            raise ValueError(f"condition: expected shape (batch, {len(self.params)}), got {tuple(condition.shape)}")
        shape = torch.Size(sample_shape)
        inputs = self._draw_inputs((*shape, len(condition)))
        environment = self.simulator.environment if isinstance(self.simulator, WithEnvironment) else None
        query = Query.build(
            self.net, inputs, trials=self.trials, outside="ignore", environment=environment,
            params={name: condition[:, index] for index, name in enumerate(self.params)},
        )  # fmt: skip
        with torch.no_grad():
            noise_shape = sampling.noise_shape(query, () if inputs else shape)
            noise = torch.rand(noise_shape, device=self.net.device, dtype=self.net.dtype)
            # The normal quantile of 0 is infinite.
            value, feedback, log_probs = sampling.rollout(query, noise.clamp(min=torch.finfo(noise.dtype).tiny))
        data = {**inputs, **split_value(schema, value), **feedback}
        table = torch.stack([data[name].float() for name in self._columns], -1)
        return self._flatten(table, torch.ones_like(table[..., 0])), log_probs.sum(-1)

    def _draw_inputs(self, batch: tuple[int, ...]) -> dict[str, Tensor]:
        """Inputs (*batch, K) from the simulator; {} where the schema has none."""
        if not self.net.schema.inputs:
            return {}
        if self.simulator is None:
            raise ValueError("simulator: expected one when the estimator was made, which draws the inputs; got None")
        rng = np.random.default_rng(int(torch.randint(2**31, ())))
        columns = self.simulator.inputs(rng, math.prod(batch), self.trials)
        tensors = {name: torch.as_tensor(np.asarray(x), dtype=torch.float32) for name, x in columns.items()}
        return {name: x.to(self.net.device).reshape(*batch, self.trials) for name, x in tensors.items()}
