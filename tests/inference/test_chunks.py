"""Chunks of one shape cover every index; groups of work start with the piece that compiles; streams stand alone."""

import threading
import time
from functools import partial

import numpy as np
import pytest

from ppl_buffer.inference.chunks import chunks, map_chunks, new_in_chunks, run_groups
from ppl_buffer.inference.streams import uniform_streams
from ppl_buffer.inference.subjects import flatten_trials, last_trials, rows_of_similar_length


@pytest.mark.parametrize(("count", "size"), [(12, 4), (11, 4), (3, 8), (1, 1), (7, 7)])
def test_chunks_have_one_size_and_cover_every_index(count, size):
    parts = list(chunks(count, size))
    assert {part.shape for part in parts} == {(size,)}
    assert set(np.concatenate(parts)) == set(range(count))
    assert len(parts) == len(new_in_chunks(count, size)) and sum(new_in_chunks(count, size)) == count
    # Where there are enough, no chunk has an index twice.
    assert size > count or all(len(set(part)) == size for part in parts)


def test_results_of_chunks_stand_at_their_indices():
    values, added, calls = np.random.default_rng(0).normal(size=(11, 3)), [], []

    def double(indices):
        calls.append(len(indices))
        return 2 * values[indices]

    np.testing.assert_array_equal(map_chunks(double, 11, 4, added.append), 2 * values)
    assert calls == [4, 4, 4] and added == [4, 4, 3]
    with pytest.raises(ValueError, match="count: expected an integer of at least 1, got 0"):
        map_chunks(double, 0, 4)


@pytest.mark.parametrize("workers", [1, 3])
def test_the_first_piece_of_each_group_is_done_before_all_others(workers):
    done, added, lock = [], [], threading.Lock()

    def group(name):
        def piece(number):
            with lock:
                done.append((name, number))
            return number + 1

        for number in range(4):
            yield lambda number=number: piece(number)

    run_groups([group("a"), group("b")], workers, added.append)
    assert sorted(done[:2]) == [("a", 0), ("b", 0)]
    assert sorted(done) == [(name, number) for name in "ab" for number in range(4)]
    assert sum(added) == 20


def test_after_an_interrupt_nothing_is_begun():
    begun, lock = [], threading.Lock()

    def piece(number):
        with lock:
            begun.append(number)
        time.sleep(0.01)
        return 1

    def interrupt(_):
        raise KeyboardInterrupt

    pieces = [partial(piece, number) for number in range(200)]
    with pytest.raises(KeyboardInterrupt):
        run_groups([pieces], 2, interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_groups([pieces[:1], pieces], 2, lambda done: interrupt(done) if len(begun) > 3 else None)
    assert len(begun) < 50


def test_a_stream_depends_on_its_seed_alone():
    together = uniform_streams([[1, 5], [1, 6]], (3, 2))
    assert together.shape == (2, 3, 2) and together.dtype == np.float32
    np.testing.assert_array_equal(uniform_streams([[1, 6]], (3, 2))[0], together[1])
    np.testing.assert_array_equal(together[0], np.random.default_rng([1, 5]).random((3, 2), dtype=np.float32))
    assert (together > 0).all() and (together < 1).all()


def test_rows_are_data_sets_grouped_by_their_last_trial():
    np.testing.assert_array_equal(flatten_trials(np.arange(3.0), (2, 2), 3), np.tile(np.arange(3.0), (4, 1)))
    mask = np.array([[True, False, True], [True, False, False], [False, False, False]])
    assert last_trials(mask).tolist() == [3, 1, 1]
    rows = rows_of_similar_length(np.arange(400) < np.array([[400], [10], [10], [400]]))
    assert sorted(sorted(group.tolist()) for group in rows) == [[0, 3], [1, 2]]
