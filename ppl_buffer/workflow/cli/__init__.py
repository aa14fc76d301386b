"""The command line: ``ppl-buffer zoo``, ``fit``, ``demo``, ``evidence``, ``compare``, ``check``, ``train``.

A thin layer over the library: each command reads its arguments, calls one or two functions, and writes what they
return.
"""

import sys

from ppl_buffer.extras import MissingLibraryError, needs


def main() -> None:
    """Entry point of ``ppl-buffer``.

    A library that is missing is said in one line, as any other mistake.
    """
    try:
        with needs("the command line", "cli"):
            from ppl_buffer.workflow.cli.app import app
        app()
    except MissingLibraryError as error:
        sys.exit(f"Error: {error}")
