"""Runs a command of the command line."""

from typer.testing import CliRunner

from ppl_buffer.workflow.cli.app import app

# Columns of `tests.datasets.tables.table_of_trials`, as an option.
COLUMNS = "choice=response,reward=feedback,pair=cond"


def run(*arguments: object):
    return CliRunner().invoke(app, [str(x) for x in arguments], catch_exceptions=False)
