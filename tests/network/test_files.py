"""Files are whole or not there, whatever becomes of the process that writes them."""

import os
import subprocess
import sys

import pytest

import ppl_buffer as pb
from ppl_buffer import files
from ppl_buffer.files import write_atomic
from tests.network.test_checkpoint import made


def test_through_a_link_the_file_is_written_that_it_names(tmp_path):
    (tmp_path / "latest.safetensors").symlink_to(tmp_path / "first.safetensors")
    pb.save(made(), tmp_path / "latest.safetensors")
    assert (tmp_path / "latest.safetensors").is_symlink() and (tmp_path / "first.safetensors").is_file()


def test_what_a_killed_save_began_is_removed_by_the_next_one(tmp_path):
    script = (
        "import os, sys, pathlib, ppl_buffer.files as files;"
        "files.os.fsync = lambda _: os._exit(9); files.write_atomic(pathlib.Path(sys.argv[1]), b'half')"
    )
    path = tmp_path / "a.safetensors"
    assert subprocess.run([sys.executable, "-c", script, str(path)]).returncode == 9
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".a.safetensors.") and left.name.endswith(".tmp")
    # That of a process at work is not: it may be in the middle of the same thing.
    at_work = left.with_name(left.name.replace(left.name.split(".")[-3], str(os.getpid())))
    at_work.write_bytes(b"half")
    write_atomic(tmp_path / "b.safetensors", b"another file's")
    assert left.exists()
    write_atomic(path, b"whole")
    assert sorted(x.name for x in tmp_path.iterdir()) == sorted(["a.safetensors", "b.safetensors", at_work.name])


@pytest.mark.parametrize("function", ["replace", "fsync"])
def test_a_crash_leaves_the_old_file(function, tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    pb.save(made(), path)
    before = path.read_bytes()

    def crash(*arguments):
        raise OSError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr(files.os, function, crash)
        with pytest.raises(OSError, match="no space left"):
            pb.save(made(seed=1), path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    pb.save(made(seed=1), path)
    assert path.read_bytes() != before and list(tmp_path.iterdir()) == [path]


def test_the_new_file_is_whole_before_it_takes_the_name(tmp_path, monkeypatch):
    seen = []
    replace = files.os.replace

    def look(source, target):
        seen.append((source.read_bytes(), source.parent == target.parent, target.exists()))
        replace(source, target)

    monkeypatch.setattr(files.os, "replace", look)
    write_atomic(tmp_path / "x", b"content")
    assert seen == [(b"content", True, False)] and (tmp_path / "x").read_bytes() == b"content"
