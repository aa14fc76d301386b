"""What a backend offers, and which one a network belongs to. Looked up here, never imported from here.

Shapes: B data sets, R replicas of each (draws, orders, parameter values), r = R or 1 where replicas share, K trials.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from types import ModuleType
from typing import Any, Protocol, TypeAlias

import numpy as np

from ppl_buffer.simulator import StatefulEnvironment

# An array of torch or JAX, or what either can make one of: neither library is imported here.
Array: TypeAlias = Any
Named: TypeAlias = dict[str, Array]
# Inputs, outcomes and feedback, each dict name -> (B, r, K).
Trials: TypeAlias = Mapping[str, Mapping[str, Array]]
# (trial, inputs, outcomes, uniform) -> feedback, each dict name -> (B, R, 1), but for uniform (B, R, 1, n).
Environment: TypeAlias = Callable[[Array, Named, Named, Array], Mapping[str, Array]] | StatefulEnvironment
# What only the backend and the heads look into: network, cache, prepared targets, encoded parameters, lapses.
Own: TypeAlias = Any


class ArrayOps(Protocol):
    """What is done to arrays, under the same names in both backends. `xp` has what both libraries name alike."""

    @property
    def xp(self) -> ModuleType:
        """``torch`` or ``jax.numpy``."""

    def number(self, net: Own, value: Array) -> Array:
        """The same array, of any shape, in the network's number type."""

    def floating(self, net: Own, value: Array) -> Array:
        """An array-like in floating point, the shape kept: doubles stay doubles, integers take the network's type."""

    def array(self, net: Own, value: Array) -> Array:
        """The same array, of booleans or whole numbers, as the backend's, where the network's weights are."""

    def filled(self, value: Array, exists: Array, fill: float) -> Array:
        """A value (*b, K), with `fill` in the trials that do not exist; `exists` (*c, K) broadcasts against it."""

    def number_each(self, net: Own, named: Mapping[str, Array]) -> Named:
        """`number` of each of some named arrays."""

    def floating_each(self, net: Own, named: Mapping[str, Array]) -> Named:
        """`floating` of each of some named arrays; TypeError where one is complex."""

    def to_concrete(self, value: Array) -> np.ndarray | None:
        """The numbers as NumPy for a check that cannot be traced; None while they are being traced."""

    def to_concrete_each(self, named: Mapping[str, Array]) -> dict[str, np.ndarray | None]:
        """`to_concrete` of each of some named arrays."""

    def same(self, value: Array, known: Array, snapshot: Array) -> bool:
        """Whether `value` is known to hold the numbers of `snapshot`, a copy of what `known` held."""

    def cast(self, value: Array, like: Array) -> Array:
        """Give a result the floating type of an argument, so that sums are kept in the user's precision."""

    def take_along(self, value: Array, indices: Array, axis: int) -> Array:
        """Reorder along an axis; `indices` broadcast against `value`."""

    def pick_rows(self, table: np.ndarray, index: Array) -> Array:
        """Rows (..., n) of a table (rows, n) of integers, chosen by an array (...) of whole numbers."""

    def take_rows(self, value: Array, index: Array) -> Array:
        """Of each trial (B, r, K) the row (n,) of (B, R, T, n) that its index, a whole number, says: (B, R, K, n)."""

    def copy(self, value: Array) -> Array:
        """A copy that shares no memory."""

    def no_constant_folding(self, tree: Own) -> Own:
        """The same arrays, which a compiler takes for unknown numbers."""

    def part(self, tree: Own, start: int, count: int) -> Own:
        """`count` trials from `start` on of every array (B, R, K, ...) of dicts or dataclasses."""

    def map_chunks(self, function: Callable[[Array], Array], rows: np.ndarray | Array, size: int) -> Array:
        """A function (n, ...) -> (n, ...) of all rows, of no more than `size` at a time, compiled once."""

    def pad_trials(self, value: Array, trials: int) -> Array:
        """Fill (B, R, T) with zeros up to (B, R, trials)."""

    def log_mean_exp(self, value: Array, axis: int) -> Array:
        """Logarithm of the mean of exponentials along an axis."""

    def zeros(self, net: Own, shape: Sequence[int]) -> Array:
        """Zeros in the network's number type, where its weights are."""

    def ones(self, net: Own, shape: Sequence[int]) -> Array:
        """Ones in the network's number type, where its weights are."""

    def arange(self, net: Own, count: int) -> Array:
        """Whole numbers (count,) from 0, where the network's weights are."""

    def linear(self, net: Own, name: str, x: Array) -> Array:
        """Affine map (..., inputs) -> (..., outputs) by the network's weights of a name."""

    def linear_for_trials(self, net: Own, name: str, x: Array, trials: int, owner: Array | None = None) -> Array:
        """`linear` of (B, R, F) for trials, (B, R, trials, W), or those of `owner` (N, K), (N, R, K, W)."""

    def perceptron(self, net: Own, name: str, x: Array) -> Array:
        """One hidden layer with the SiLU nonlinearity, (..., inputs) -> (..., outputs)."""

    def silu(self, x: Array) -> Array:
        """The SiLU nonlinearity: x * sigmoid(x), elementwise."""

    def repeat_for_owners(self, x: Array, owner: Array) -> Array:
        """What a data set has once, (B, R, F), for trials of rows (N, K) that are of data set `owner`: (N, R, K, F)."""

    def recurrent(
        self, net: Own, name: str, x: Array, state: Array, valid: Array, begins: Array | None = None
    ) -> Array:
        """States (B, R, K, W) of a gated recurrent unit after each of the steps x (B, r, K, F) that are `valid`."""

    def recurrent_slots(
        self, net: Own, name: str, x: Array, slots: Array, slot: Array, valid: Array, begins: Array | None = None
    ) -> tuple[Array, Array]:
        """Each step's slot (B, R, K, W) before it, and all slots (B, R, C, W) behind; step k is of `slot` (B, r, K)."""

    def norm(self, net: Own, name: str, x: Array) -> Array:
        """Layer normalisation over the last axis of (..., W)."""

    def softplus(self, x: Array) -> Array:
        """Softplus: log(1 + exp(x)), elementwise."""

    def sigmoid(self, x: Array) -> Array:
        """Logistic function: 1 / (1 + exp(-x)), elementwise."""

    def softmax(self, x: Array) -> Array:
        """Probabilities (..., n) of logits (..., n)."""

    def log_softmax(self, x: Array) -> Array:
        """Log probabilities (..., n) of logits (..., n)."""

    def logsumexp(self, x: Array) -> Array:
        """Logarithm of the sum of exponentials over the last axis."""

    def ndtr(self, x: Array) -> Array:
        """Distribution function of the standard normal, elementwise."""

    def log_ndtr(self, x: Array) -> Array:
        """Logarithm of the distribution function of the standard normal, exact far out."""

    def ndtri(self, x: Array) -> Array:
        """Quantile of the standard normal, elementwise."""

    def stop_gradient(self, x: Array) -> Array:
        """The same numbers, which no derivative goes through."""

    def chunk(self, x: Array, count: int) -> Sequence[Array]:
        """`count` equal pieces (..., n / count) of (..., n)."""

    def take_last(self, x: Array, index: Array) -> Array:
        """Elements (...) of (..., n), picked by whole numbers (...)."""


class Backend(Protocol):
    """The network and joint prediction over one array library: a package whose functions are these methods.

    A cache holds what was encoded and realised (`start_cache`), targets are prepared as far as they do not depend on
    the parameters (`prepare_joint`, `prepare_marginal`), parameters are encoded (`encode_params`), and densities read
    both. So does the direct likelihood (`prepare_sequence`, `prepare_alone`, `encode_conditions`).
    """

    @property
    def ops(self) -> ArrayOps:
        """What is done to arrays."""

    def Cache(self) -> Own:
        """A cache that holds nothing."""

    def start_cache(
        self,
        net: Own,
        context: Trials | None,
        context_valid: Array | None,
        history: Trials | None = None,
        history_valid: Array | None = None,
    ) -> Own:
        """A cache of a context (B, r, N), of which `context_valid` exist (None = all), and a history in the buffer."""

    def encode_params(self, net: Own, params: Mapping[str, Array], conditioned: Array | None = None) -> Own:
        """What targets read of parameters (B, R), of which `conditioned` (B, R, P) are given, None = all."""

    def prepare_sequence(self, net: Own, trials: Trials, valid: Array) -> Own:
        """What the direct likelihood reads of trials (B, r, K) that the parameters do not change."""

    def prepare_alone(self, net: Own, inputs: Named, valid: Array, index: Array | None = None) -> Own:
        """The same of trials (B, r, K) that see none of each other, or of targets, of which `index` says each one's."""

    def encode_conditions(
        self,
        net: Own,
        params: Mapping[str, Array],
        history: Trials | None = None,
        history_valid: Array | None = None,
    ) -> Own:
        """What the direct likelihood reads of all parameters (B, R), and of trials (B, r, N) before these."""

    def prepare_joint(self, net: Own, cache: Own, trials: Trials, valid: Array) -> Own:
        """Everything about a joint density of trials (B, r, K) that the parameters do not change."""

    def prepare_marginal(self, net: Own, cache: Own, inputs: Mapping[str, Array], valid: Array) -> Own:
        """Targets (B, r, K) that see what the cache holds and none of each other."""

    def conditionals(
        self, net: Own, prepared: Own, params: Own, outcomes: Mapping[str, Array], valid: Array, lapse: Own | None
    ) -> Array:
        """Log density (B, R, K) of each trial's outcomes (B, r, K) given what it sees; 0 where there is no trial."""

    def event_log_probs(
        self, net: Own, prepared: Own, params: Own, outcomes: Named, events: Own, valid: Array, lapse: Own | None
    ) -> Array:
        """`conditionals` of trials of which outcomes are missing, as `events` (`TrialEvents`) say."""

    def event_cdf(
        self, net: Own, prepared: Own, params: Own, outcomes: Named, events: Own, uniform: Array, lapse: Own | None
    ) -> Array:
        """`cdf` of such trials; NaN for outcomes that are missing."""

    def representations(self, net: Own, prepared: Own, params: Own) -> Array:
        """What the heads read of each trial: (B, R, K, W)."""

    def one_step(
        self, net: Own, prepared: Own, params: Own, outcomes: Named, valid: Array, lapse: Own | None, noise: Array
    ) -> Array:
        """`conditionals`, and beside each a draw of the trial's outcomes: (B, R, K, 1 + n_outcomes)."""

    def cdf(
        self, net: Own, prepared: Own, params: Own, outcomes: Mapping[str, Array], uniform: Array, lapse: Own | None
    ) -> Array:
        """Distribution function (B, R, K, n_outcomes) of each trial's outcomes given what the trial sees."""

    def moments(self, net: Own, prepared: Own, params: Own, lapse: Own | None) -> tuple[Array, Array]:
        """Mean and variance (B, R, K, n_outcomes) of each trial's outcomes given what the trial sees."""

    def rollout(
        self,
        net: Own,
        cache: Own,
        inputs: Mapping[str, Array],
        valid: Array,
        params: Own,
        noise: Array,
        lapse: Own | None,
        environment: Environment | None,
        independent: bool,
    ) -> tuple[Named, Named, Array]:
        """Outcomes, feedback and log densities (B, R, K) of trials drawn one after another."""

    def rollout_sequence(
        self,
        net: Own,
        conditions: Own,
        inputs: Mapping[str, Array],
        valid: Array,
        noise: Array,
        lapse: Own | None,
        environment: Environment | None,
        limits: Mapping[str, Array],
    ) -> tuple[Named, Named, Array]:
        """`rollout` by the direct likelihood; later trials pass over one with an outcome above its limit (B, r, K)."""

    def start_steps(self, net: Own, cache: Own, shape: Sequence[int]) -> Own:
        """A cache with places for trials that are realised one after another, `shape` = (B, R, K)."""

    def step_buffer(
        self,
        net: Own,
        cache: Own,
        pairs: Trials,
        exists: Array,
        inputs: Mapping[str, Array],
        params: Own,
        position: int,
    ) -> tuple[Array, Own]:
        """A trial (B, R, 1), where it `exists`, enters the buffer: representation (B, R, 1, W) of the next."""

    def step_state(self, net: Own, conditions: Own, pairs: Trials, exists: Array) -> Own:
        """A trial (B, R, 1), where it `exists`, moves the recurrent state of the direct likelihood."""

    def speculative_rollout(
        self,
        net: Own,
        cache: Own,
        inputs: Mapping[str, Array],
        valid: Array,
        params: Own,
        noise: Array,
        lapse: Own | None,
        environment: Environment | None,
        source: Own,
        lookahead: int | None,
    ) -> tuple[Named, Named, Array, Array, Array]:
        """`rollout`, many trials in one pass; also which drafts (B, R, K) stayed, and the sweep that settled each."""

    def block_conditionals(
        self,
        net: Own,
        context: Trials | None,
        context_valid: Array | None,
        trials: Trials,
        valid: Array,
        params: Own,
        lapse: Own | None,
        block: int,
    ) -> Array:
        """`conditionals`, with every full block of trials merged into the context and encoded anew."""

    def block_rollout(
        self,
        net: Own,
        context: Trials | None,
        context_valid: Array | None,
        inputs: Mapping[str, Array],
        valid: Array,
        params: Own,
        noise: Array,
        lapse: Own | None,
        environment: Environment | None,
        block: int,
    ) -> tuple[Named, Named, Array]:
        """`rollout`, with every full block of drawn trials merged into the context and encoded anew."""

    def leave_one_out(
        self,
        net: Own,
        context: Trials | None,
        context_valid: Array | None,
        trials: Trials,
        valid: Array,
        params: Own,
        lapse: Own | None,
    ) -> Array:
        """Log density (B, R, K) of each trial given the context and all other trials, as a set."""

    def one_program(self, function: Callable[[Own, Own], Own], static: Hashable, arrays: Own) -> Own:
        """`function` of hashable settings and of a tree of arrays, of the backend or of NumPy, in one program.

        It is of a module, since its identity tells programs apart, and sees no number where the backend compiles.
        """

    def bucket(self, trials: int) -> int:
        """The number of trials to pad sequences of so many trials to, so that few programs serve all lengths."""

    def workers(self) -> int:
        """Chunks to compute at the same time."""

    def on_processor(self, net: Own) -> bool:
        """Whether the network runs on a processor, not an accelerator."""

    def rollout_memory(self) -> float:
        """Gigabytes of buffers that are best filled at a time."""

    def on_devices(
        self,
        run: Callable[[Own, Mapping[str, Array], Array], Own],
        net: Own,
        devices: Sequence[Own],
        params: Mapping[str, Array],
        noise: Array,
    ) -> Own:
        """Run with the draws, the first axis of parameters and noise, shared out to devices.

        Args:
            run: function of network, parameters and noise; returns a tuple or dict tree of arrays (draws, ...).
            net: the network.
            devices: the backend's devices, or none to leave everything where it is.
            params: dict name -> (draws, ...).
            noise: (draws, ...).

        Returns:
            what `run` returns.
        """


_BACKENDS: dict[str, Backend] = {}


def register_backend(name: str, backend: Backend) -> None:
    """Make a backend known. Its package does so when it is imported, and whoever has a network has imported it."""
    _BACKENDS[name] = backend


def backend_of(net: Own) -> Backend:
    """The backend that a network belongs to.

    Raises:
        ValueError: if `net` is no network.
    """
    backend = _BACKENDS.get(getattr(net, "backend", ""))
    if backend is None:
        raise ValueError(f"net: expected a network from ppl_buffer.load or ppl_buffer.train, got {type(net).__name__}")
    return backend
