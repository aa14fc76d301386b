"""The command line: ``ppl-buffer zoo``, ``fit``, ``demo``, ``evidence``, ``compare``, ``check``, ``train``.

A thin layer over the library: each command reads its arguments, calls one or two functions, and writes what they
return.
"""


def main() -> None:
    """Entry point of ``ppl-buffer``.

    Raises:
        ImportError: if typer is not installed.
    """
    try:
        from ppl_buffer.workflow.cli.app import app
    except ModuleNotFoundError as error:
        if error.name != "typer":
            raise
        raise ImportError("the command line needs typer: pip install 'ppl-buffer[cli]'") from error
    app()
