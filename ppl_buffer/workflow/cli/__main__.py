"""``python -m ppl_buffer.workflow.cli``."""

from ppl_buffer.workflow.cli import main

main()
