"""A command keeps the memory that it has freed."""

import json
import platform
import subprocess
import sys

import pytest

pytest.importorskip("typer")

# Pages that the system clears for a block of 100 MB, the second time that it is asked for.
PROGRAM = """
import json, resource
import numpy as np
from ppl_buffer.workflow.cli.memory import keep_memory

def pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.empty(10**8, np.uint8).fill(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

pages()
given_back = pages()
kept = keep_memory()
pages()
print(json.dumps([kept, given_back, pages()]))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_what_is_freed_is_used_again_and_not_cleared_anew():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    kept, given_back, again = json.loads(done.stdout)
    assert kept
    # Huge pages make few of them; where there are none, 100 MB are 24,000.
    assert given_back > 20 and again < 0.05 * given_back


def test_another_c_library_is_left_alone(monkeypatch):
    from ppl_buffer.workflow.cli.memory import keep_memory

    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not keep_memory()
