"""Batches: functions of the seed and the step, of the stated shapes, ranges and shares."""

import math
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch")

from scipy import stats

import ppl_buffer as pb
from ppl_buffer.training import batches
from ppl_buffer.training.batch_options import BatchOptions
from ppl_buffer.training.batches import HELD_OUT, make_batch
from ppl_buffer.training.loading import make_loader, start_workers
from ppl_buffer.training.options import OptimizationOptions, RunOptions
from ppl_buffer.training.plan import TrainingPlan
from tests.training.cases import TINY, ChoiceTime, Known, Shift, flat, same_arrays, same_batches


@pytest.mark.parametrize("simulator", [Shift(), ChoiceTime()])
def test_batch_depends_on_seed_and_step_alone(simulator):
    settings = BatchOptions(batch_size=5, trials=(2, 11), context=(0, 3))
    forward = [make_batch(simulator, settings, 3, step).data for step in range(4)]
    np.random.default_rng(0).random(7)
    backward = [make_batch(simulator, settings, 3, step).data for step in reversed(range(4))][::-1]
    for one, two in zip(forward, backward, strict=True):
        same_batches(one, two)
    for other in (make_batch(simulator, settings, 4, 0), make_batch(simulator, settings, 3, 0, HELD_OUT)):
        assert not any(
            np.array_equal(one, two)
            for one, two in zip(forward[0]["params"].values(), other.data["params"].values(), strict=True)
        )


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # on a machine with one core
@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("processes", [1, 2])
def test_workers_and_processes_make_the_same_batches(workers, processes, tmp_path):
    settings = BatchOptions(batch_size=5, trials=(2, 11))
    run = RunOptions(tmp_path, workers=workers)
    plan = TrainingPlan(ChoiceTime(), TINY, 1, settings, OptimizationOptions(steps=5), run)
    shares = [list(start_workers(make_loader(plan, 2, rank, processes))) for rank in range(processes)]
    for index, step in enumerate(range(2, 5)):
        expected = make_batch(ChoiceTime(), settings, 1, step)
        parts = [dict(flat(share[index][0])) for share in shares]
        joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        same_arrays(joined, dict(flat(expected.data)))
        assert all(share[index][1] == expected.counts for share in shares)
        sizes = [len(part["params/a"]) for part in parts]
        weights = [share[index][2] for share in shares]
        np.testing.assert_allclose(np.array(weights), np.array(sizes) / np.mean(sizes))


def test_shapes_ranges_and_constant_work():
    settings = BatchOptions(batch_size=20, trials=(5, 50), context=(0, 3), condition_masks=3)
    lengths = []
    for step in range(60):
        batch = make_batch(ChoiceTime(), settings, 0, step).data
        size, one, trials = batch["buffer"]["outcomes"]["rt"].shape
        assert one == 1 and 5 <= trials <= 50
        assert batch["conditioned"].shape == (size, 3, 2) and batch["params"]["a"].shape == (size,)
        assert "context" not in batch and "visible" not in batch
        assert abs(size * trials - 20 * math.sqrt(250)) <= trials / 2 + 1
        lengths.append(trials)
    # Log-uniform: half of the lengths lie below the geometric mean, 15.8.
    assert 0.3 < np.mean(np.array(lengths) < 15.8) < 0.7


def test_context_buffer_and_targets_are_disjoint_and_prefixes_uniform():
    class Numbered(Shift):
        """Each trial's outcome says which trial it is."""

        def simulate(self, rng, params, inputs, trials):
            return {"y": np.broadcast_to(np.arange(trials), (len(params["mu"]), trials))}

    settings = BatchOptions(batch_size=7, trials=(5, 5), context=(0, 4), condition_masks=2)
    contexts, visibles = [], {True: [], False: []}
    for step in range(160):
        batch = make_batch(Numbered(), settings, 0, step).data
        context = (
            batch["context"]["outcomes"]["y"] if "context" in batch else np.zeros((len(batch["conditioned"]), 1, 0))
        )
        parts = [context, batch["buffer"]["outcomes"]["y"], batch["targets"]["outcomes"]["y"]]
        together = np.sort(np.concatenate(parts, -1)[:, 0])
        np.testing.assert_array_equal(together, np.broadcast_to(np.arange(together.shape[1]), together.shape))
        contexts.append(context.shape[-1])
        assert (batch["visible"][batch["conditioned"].all(-1)] == 0).all()
        visibles[contexts[-1] > 0].append(batch["visible"][~batch["conditioned"].all(-1)].ravel())
    assert set(contexts) == {0, 1, 2, 3, 4}
    # Half of the targets see the context alone; without one, each prefix that a density in one pass has.
    for has_context, expected in ((True, [0.5, *[0.1] * 5]), (False, [*[0.2] * 5, 0])):
        visible = np.concatenate(visibles[has_context])
        shares = np.bincount(visible, minlength=6) / visible.size
        np.testing.assert_allclose(shares, expected, atol=0.03)


def test_contexts_are_log_uniform():
    for least, greatest, share in ((0, 100, 0.25), (0, 50, 0.7), (4, 400, 0.7)):
        settings = BatchOptions(batch_size=9, trials=(3, 3), context=(least, greatest), context_free_fraction=share)
        sizes, work = [], []
        for step in range(400):
            batch = make_batch(Shift(), settings, 1, step).data
            sizes.append(batch["context"]["outcomes"]["y"].shape[-1] if "context" in batch else 0)
            work.append(len(batch["conditioned"]) * (3 + sizes[-1]))
        sizes = np.array(sizes)
        # The share without a context, if that is in the range; the others up to and above the geometric mean alike.
        none = (sizes == 0).mean()
        assert abs(none - share) < 0.08 if least == 0 else none == 0
        some, low = sizes[sizes > 0], max(least, 1)
        assert some.min() == low and greatest >= some.max() > 0.9 * greatest
        assert abs((some < math.sqrt(low * greatest)).mean() - 0.5) < 0.1
        # A batch holds about as many trials as nine data sets of the geometric means.
        assert max(work) <= 1.5 * 9 * (3 + math.sqrt(low * greatest))


def test_condition_masks():
    conditioned = batches.condition_masks(np.random.default_rng(0), 20_011, 3, 2)
    assert conditioned[:, 0].all()
    for index in (1, 2):
        nothing, both = ~conditioned[:, index].any(-1), conditioned[:, index].all(-1)
        assert abs(nothing.mean() - (0.35 + 0.65 / 4)) < 0.02
        assert abs(both.mean() - 0.65 / 4) < 0.02
    conditioned = batches.condition_masks(np.random.default_rng(0), 20_011, 2, 3, [False, True, False])
    only_atom = (conditioned[:, 1] == [False, True, False]).all(-1)
    assert conditioned[:, 0].all()
    assert abs(only_atom.mean() - (0.25 + 0.4 / 8)) < 0.02


def test_atoms_only_where_they_are_conditioned_on():
    settings = BatchOptions(batch_size=400, trials=(2, 2))
    batch = make_batch(ChoiceTime(), settings, 0, 0).data
    at_atom, always = batch["params"]["a"] == 0, batch["conditioned"][:, :, 0].all(1)
    assert not at_atom[~always].any()
    assert 0.35 < at_atom[always].mean() < 0.65


def test_half_of_the_training_batches_condition_on_all_parameters_where_there_is_a_proposal():
    class Two(Shift):
        schema = pb.Schema(params={"mu": pb.Real(), "nu": pb.Real()}, outcomes={"y": pb.Real()})

        def prior(self, rng, size):
            return {"mu": rng.normal(0, 2, size), "nu": rng.normal(0, 1, size)}

        def proposal(self, rng, size):
            return {"mu": rng.uniform(5, 7, size), "nu": rng.uniform(-3, -2, size)}

    settings = BatchOptions(batch_size=11, trials=(2, 5), context=(0, 3), condition_masks=3)
    proposed = []
    for step in range(200):
        batch = make_batch(Two(), settings, 3, step).data
        conditioned, mu = batch["conditioned"], batch["params"]["mu"]
        apart = batch["params"]["nu"] < -1.9
        proposed.append(conditioned.shape[1] == 1)
        if proposed[-1]:
            assert conditioned.all() and ((5 <= mu) & (mu <= 7)).all() and apart.all()
            # An outcome is given its own parameters.
            assert abs(batch["targets"]["outcomes"]["y"].mean() - 6) < 2
        else:
            assert (
                conditioned.shape[1] == 3
                and not conditioned.all()
                and not (((5 <= mu) & (mu <= 7)).all() and apart.all())
            )
    assert abs(np.mean(proposed) - 0.5) < 0.12
    # What is held out is of the prior alone.
    assert all(make_batch(Two(), settings, 3, step, HELD_OUT).data["conditioned"].shape[1] == 3 for step in range(20))
    broken = type("Broken", (Two,), {"proposal": lambda self, rng, size: {"mu": np.zeros(size)}})
    with pytest.raises(ValueError, match=r"simulator.proposal: expected \['mu', 'nu'\], got \['mu'\]"):
        for step in range(9):
            make_batch(broken(), settings, 3, step)


def test_batches_hold_the_log_likelihood_that_the_simulator_knows():
    class Often(Known):
        def proposal(self, rng, size):
            return {"mu": rng.uniform(5, 7, size)}

    without = BatchOptions(batch_size=11, trials=(2, 5), context=(0, 3), outcome_samples=4)
    settings = replace(without, use_log_likelihood=True)
    kinds = set()
    for step in range(20):
        batch = make_batch(Often(), settings, 3, step).data
        y, mu = batch["targets"]["outcomes"]["y"], batch["params"]["mu"][:, None, None]
        np.testing.assert_allclose(batch["conditioned_log_likelihood"], stats.norm.logpdf(y, mu), rtol=2e-6)
        # Where nothing is hidden no outcome is drawn again: the density has no noise.
        kinds.add((batch["conditioned"].shape[1], "resampled" in batch))
        for data in (make_batch(Often(), settings, 3, step, HELD_OUT).data, make_batch(Often(), without, 3, step).data):
            assert "conditioned_log_likelihood" not in data and "resampled" in data
    assert kinds == {(1, False), (2, True)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda x: x[:, 1:],
            r"simulator.log_likelihood: expected numbers below infinity, of shape \(\d, \d\), got shape",
        ),
        (lambda x: np.where(x < -2, np.nan, x), r"simulator.log_likelihood: expected .* with \d+ others"),
    ],
)
def test_a_log_likelihood_that_does_not_fit_is_refused(change, message):
    broken = type(
        "Broken", (Known,), {"log_likelihood": lambda self, *given: change(Known.log_likelihood(self, *given))}
    )
    with pytest.raises(ValueError, match=message):
        for step in range(9):
            make_batch(
                broken(), BatchOptions(batch_size=7, trials=(3, 5), context=(0, 3), use_log_likelihood=True), 3, step
            )


def test_replaced_data_sets_keep_their_condition_masks():
    class Fussy(ChoiceTime):
        """Nearly half of the data sets fail, which says nothing of where the others belong."""

        def simulate_with_probabilities(self, rng, params, inputs):
            data, probabilities = super().simulate_with_probabilities(rng, params, inputs)
            data["rt"][rng.random(len(data["rt"])) < 0.45] = -1.0
            return data, probabilities

    batch = make_batch(Fussy(), BatchOptions(batch_size=400, trials=(2, 2)), 0, 0)
    assert len(batch.data["params"]["a"]) == 400
    assert (batch.data["targets"]["outcomes"]["rt"] > 0).all()
    at_atom, always = batch.data["params"]["a"] == 0, batch.data["conditioned"][:, :, 0].all(1)
    assert at_atom.any() and not at_atom[~always].any()
    assert batch.counts.simulated == 400 + batch.counts.dropped and set(batch.counts.variables) == {"rt"}
