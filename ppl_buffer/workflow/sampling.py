"""NUTS in pieces: chains that Ctrl-C ends between two draws, kept in a file from which the same call goes on.

A chain makes the same steps however it is cut into pieces, so that a run that was interrupted and gone on from ends
with the very draws of one that was not.
"""

from __future__ import annotations

import hashlib
import json
import time
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer import NUTS
from numpyro.infer.util import ParamInfo, constrain_fn, potential_energy
from safetensors.numpy import save as to_safetensors
from tqdm.auto import tqdm

from ppl_buffer.arviz import EXTRA_FIELDS
from ppl_buffer.files import read_arrays, write_atomic
from ppl_buffer.numpyro.trace import sampler_statistics
from ppl_buffer.workflow.compilation import compile_lowered

Arrays = dict[str, np.ndarray]
# Arrays of JAX in whatever holds them: data, and states of NumPyro's samplers.
Tree = Any
# Of what is each chain's own, a number, and the data.
Function = Callable[[Tree, Tree, Tree], Tree]

_KEY, _FORMAT = "ppl_buffer_draws", 1
# A count of transitions as the programs know it.
_ONE = np.int32(1)
# At most so many transitions in a piece, and about so many seconds: for so long Ctrl-C waits.
_PIECE, _SECONDS = 32, 1.0
# Seconds of sampling after which the draws are written down once more.
_SAVE_EVERY = 60.0


@dataclass(frozen=True)
class Draws:
    """Posterior draws of a model. Made by `run_chains`.

    Attributes:
        sites: latent and deterministic sites, dict name -> (chains, draws, *shape).
        fields: what the sampler recorded, dict name of `ppl_buffer.arviz.EXTRA_FIELDS` -> (chains, draws).
        reused: how many draws of each chain an earlier call had made.
    """

    sites: Arrays
    fields: Arrays
    reused: int = 0

    @property
    def statistics(self) -> Arrays:
        """`fields` under ArviZ's names."""
        return sampler_statistics(self)

    def get_extra_fields(self, group_by_chain: bool = True) -> Arrays:
        """`fields`, as NumPyro's `MCMC` gives them."""
        assert group_by_chain
        return self.fields


@dataclass(frozen=True)
class Kept:
    """A file that the draws are kept in while they are made.

    Attributes:
        path: of the file.
        fingerprint: of all that the draws depend on but their number; the draws of another one are replaced.
    """

    path: Path
    fingerprint: str


def fingerprint(about: Mapping[str, object], arrays: Mapping[str, np.ndarray]) -> str:
    """A digest of settings, which JSON can write, and of arrays."""
    sha = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name in sorted(arrays):
        sha.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        sha.update(np.ascontiguousarray(arrays[name]).tobytes())
    return sha.hexdigest()


@dataclass(frozen=True)
class _Progress:
    """How far all chains are: the sampler's state after so many transitions, and what was kept of them, in pieces."""

    done: int
    state: Tree
    pieces: tuple[dict[str, Arrays], ...] = ()

    def joined(self) -> dict[str, Arrays]:
        """All draws so far: group -> name -> (chains, draws, ...)."""
        groups = self.pieces[0] if self.pieces else {}
        return {
            group: {name: np.concatenate([piece[group][name] for piece in self.pieces], 1) for name in arrays}
            for group, arrays in groups.items()
        }


class Programs:
    """Compiled functions of all chains, whose compilation goes on in the background from the first moment.

    All numbers are arguments: nothing is computed while compiling, and the programs serve other data of these shapes.

    Args:
        model: NumPyro's, a function of the data.
        warmup: transitions that adapt the steps.
        start: keys, first values and further arguments of `at_first` behind the data, (chains, ...). Chains run at the
            same time where JAX has a device for each, else one after another.
        data: of the model.
        mass: NUTS's `inverse_mass_matrix`, or None.
        options: further arguments of NUTS. Of all these arrays the shapes are enough (`jax.ShapeDtypeStruct`).
        at_first: a model that has the density and the slope of `model` at the first values, and is compiled sooner.
    """

    def __init__(
        self,
        model: Callable[..., None],
        warmup: int,
        start: tuple[Tree, ...],
        data: Tree,
        mass: Tree = None,
        options: Mapping[str, Tree] | None = None,
        at_first: Callable[..., None] | None = None,
    ) -> None:
        self._model, self._at_first = model, model if at_first is None else at_first
        dense = (options or {}).get("dense_mass", False)
        # As NumPyro takes them for a model.
        every = [tuple(sorted(start[1]))] if dense else []
        self._options = {**(options or {}), "dense_mass": every if isinstance(dense, bool) else dense}
        self.warmup = warmup
        spread = _side_by_side if 1 < len(start[0]) <= jax.local_device_count() else _one_after_another
        begin = spread(self._begin).lower(start, _ONE, (data, mass))
        state = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), begin.out_info)
        # Longest first. Compilation leaves Python free: whoever asks for this does something else meanwhile.
        pool = ThreadPoolExecutor(2)
        self._advancing = pool.submit(compile_lowered, spread(self._advance).lower(state, _ONE, (data, mass)))
        self._beginning = pool.submit(compile_lowered, begin)
        pool.shutdown(wait=False)

    def begin(self, start: tuple[Tree, ...], data: Tree, mass: Tree = None) -> Tree:
        """The chains' first state, on the host."""
        return jax.device_get(self._beginning.result()(start, _ONE, (data, mass)))

    def advance(self, state: Tree, count: int, data: Tree, mass: Tree = None) -> tuple[Tree, Tree]:
        """The state after `count` transitions, and what is kept of them, on the host."""
        return jax.device_get(self._advancing.result()(state, np.int32(count), (data, mass)))

    def _kernel(self, model: Callable[..., None], arguments: tuple[Tree, ...], mass: Tree) -> NUTS:
        energy = partial(potential_energy, model, arguments, {})
        return NUTS(potential_fn=energy, inverse_mass_matrix=mass, **self._options)

    def _begin(self, start: Tree, count: Tree, given: Tree) -> Tree:
        (key, first, *more), (data, mass) = start, given
        return self._kernel(self._at_first, (data, *more), mass).init(key, self.warmup, first)

    def _advance(self, state: Tree, count: Tree, given: Tree) -> Tree:
        """The state after `count` transitions, and what is kept of them: (_PIECE, ...), of which so many count."""
        data, _ = given
        kernel = self._kernel(self._model, (data,), None)
        # Of this nothing is computed: a kernel has to be told how long warm-up is.
        kernel.init(state.rng_key, self.warmup, ParamInfo(state.z, state.potential_energy, state.z_grad))

        def taken(state: Tree) -> dict[str, Tree]:
            fields = {name: attrgetter(name)(state) for name in EXTRA_FIELDS}
            return {
                "sites": constrain_fn(self._model, (data,), {}, state.z, return_deterministic=True),
                "fields": fields,
            }

        def one(place: Tree, carry: tuple[Tree, Tree]) -> tuple[Tree, Tree]:
            state, store = carry
            state = kernel.sample(state, (), {})
            return state, jax.tree.map(lambda kept, x: kept.at[place].set(x), store, taken(state))

        shapes = jax.eval_shape(taken, state)
        store = jax.tree.map(lambda x: jnp.zeros((_PIECE, *x.shape), x.dtype), shapes)
        return jax.lax.fori_loop(0, count, one, (state, store))


def _side_by_side(function: Function) -> jax.stages.Wrapped:
    """The function of each chain's own argument, and two that all share; a device for each chain."""
    return jax.pmap(function, in_axes=(0, None, None))


def _one_after_another(function: Function) -> jax.stages.Wrapped:
    """The same on one device."""
    return jax.jit(lambda own, count, data: jax.lax.map(lambda each: function(each, count, data), own))


def run_chains(
    programs: Programs,
    start: tuple[Tree, ...],
    data: Tree,
    mass: Tree = None,
    *,
    draws: int,
    kept: Kept | None = None,
    progress: bool = True,
) -> Draws:
    """Run NUTS, and keep what it draws.

    Args:
        programs: of these arguments, or of others of these shapes.
        start: random keys, one a chain; where the chains begin, dict site -> (chains, ...), on the unconstrained scale;
            and what else `Programs` says.
        data: the model's argument, arrays in a tree.
        mass: NUTS's `inverse_mass_matrix`.
        draws: kept draws of each chain.
        kept: where the draws are kept: what is there already is gone on from, and an interrupt leaves all so far.
        progress: show a progress bar.

    Returns:
        the draws.
    """
    warmup = programs.warmup
    # On the host, as all later states are: the program is of one placement.
    begin = _Progress(0, programs.begin(start, data, mass))
    current = begin if kept is None else _read(kept, begin)
    reused, total = max(0, current.done - warmup), warmup + draws
    size, saved = 1, time.monotonic()
    with tqdm(total=total, initial=min(current.done, total), disable=not progress, desc="draws of each chain") as bar:
        try:
            while current.done < total:
                # A piece ends where warm-up does, of which no draw is kept.
                end = warmup if current.done < warmup else total
                count, began = min(size, end - current.done), time.monotonic()
                state, store = programs.advance(current.state, count, data, mass)
                # One assignment: an interrupt comes before it or after it.
                current = _after(current, state, store, count, current.done >= warmup)
                bar.update(count)
                seconds = time.monotonic() - began
                size = max(1, min(_PIECE, 2 * size, int(count * _SECONDS / max(seconds, 1e-9))))
                if kept is not None and time.monotonic() - saved > _SAVE_EVERY:
                    _write(kept, current)
                    saved = time.monotonic()
        finally:
            if kept is not None and current.done > begin.done:
                _write(kept, current)
    joined = current.joined()
    few = {group: {name: x[:, :draws] for name, x in arrays.items()} for group, arrays in joined.items()}
    return Draws(few["sites"], few["fields"], min(reused, draws))


def _after(current: _Progress, state: Tree, store: Mapping[str, Arrays], count: int, keep: bool) -> _Progress:
    piece = {group: {name: x[:, :count] for name, x in arrays.items()} for group, arrays in store.items()}
    return _Progress(current.done + count, state, (*current.pieces, piece) if keep else ())


def _write(kept: Kept, progress: _Progress) -> None:
    """Write draws, and the state to go on from."""
    leaves = jax.tree.leaves(progress.state)
    arrays = {f"state/{index}": np.asarray(leaf) for index, leaf in enumerate(leaves)}
    for group, values in progress.joined().items():
        arrays |= {f"{group}/{name}": np.ascontiguousarray(x) for name, x in values.items()}
    about = {"format": _FORMAT, "fingerprint": kept.fingerprint, "done": progress.done}
    write_atomic(kept.path, to_safetensors(arrays, metadata={_KEY: json.dumps(about)}))


def _read(kept: Kept, begin: _Progress) -> _Progress:
    """How far an earlier call came; the beginning where there was none, or one of something else."""
    if not kept.path.exists():
        return begin
    try:
        about, arrays = read_arrays(kept.path, _KEY, _FORMAT)
        leaves, structure = jax.tree.flatten(begin.state)
        state = [arrays[f"state/{index}"] for index in range(len(leaves))]
        same = about["fingerprint"] == kept.fingerprint
    except (ValueError, KeyError) as error:
        warnings.warn(f"{kept.path} cannot be gone on from, and is replaced ({error})", stacklevel=4)
        return begin
    if not same:
        warnings.warn(
            f"{kept.path} holds the draws of other data, another network or other options: it is replaced",
            stacklevel=4,
        )
        return begin
    piece: dict[str, Arrays] = {"sites": {}, "fields": {}}
    for name, values in arrays.items():
        group, _, rest = name.partition("/")
        if group in piece:
            piece[group][rest] = values
    pieces = (piece,) if piece["fields"] else ()
    return _Progress(about["done"], jax.tree.unflatten(structure, state), pieces)
