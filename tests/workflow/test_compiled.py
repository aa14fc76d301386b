"""Where compiled programs are kept, and when nobody is told to keep them."""

import os
import sys

import pytest

pytest.importorskip("typer")

from ppl_buffer.workflow.cli.compiled import compiled_folder, keep_compiled

NAMES = (
    "JAX_COMPILATION_CACHE_DIR",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS",
    "JAX_COMPILATION_CACHE_MAX_SIZE",
)


@pytest.fixture
def empty(monkeypatch):
    """A process that has not imported JAX, and says nothing of its cache."""
    monkeypatch.delitem(sys.modules, "jax", raising=False)
    for name in NAMES:
        # Set and deleted, so that whatever a test leaves there goes.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def test_compiled_programs_are_kept_unless_somebody_says_otherwise(empty):
    keep_compiled(False)
    assert not set(NAMES) & set(os.environ)
    keep_compiled(True)
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == str(compiled_folder())
    assert set(NAMES) <= set(os.environ)


def test_what_the_environment_says_stays(empty, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "mine")
    keep_compiled(True)
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == "mine" and NAMES[1] not in os.environ
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.setenv(NAMES[1], "3")
    keep_compiled(True)
    assert os.environ[NAMES[1]] == "3"


def test_a_process_that_has_jax_is_left_alone(empty, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", object())
    keep_compiled(True)
    assert not set(NAMES) & set(os.environ)
