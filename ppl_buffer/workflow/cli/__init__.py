"""The command line: ``ppl-buffer zoo``, ``fit``, ``demo``, ``evidence``, ``compare``, ``check``, ``train``.

A thin layer over the library: each command reads its arguments, calls one or two functions, and writes what they
return.
"""

import io
import os
import sys

from ppl_buffer.extras import MissingLibraryError, needs


def main() -> None:
    """Entry point of ``ppl-buffer``.

    A library that is missing is said in one line, as any other mistake.
    """
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a person's name shows the rest.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        with needs("the command line", "cli"):
            from ppl_buffer.workflow.cli.app import app
            from ppl_buffer.workflow.cli.errors import INTERRUPTED
        app()
    except MissingLibraryError as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        # While modules were imported.
        sys.exit("Interrupted: nothing was written.")
    except SystemExit as end:
        if end.code == INTERRUPTED:
            # At once: threads of JAX that still compute crash an interpreter that takes itself apart.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(INTERRUPTED)
        raise
