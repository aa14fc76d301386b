"""A fit as one HTML file that needs nothing else: what a scientist sends to a colleague."""

from ppl_buffer.workflow.report.page import write_report

__all__ = ["write_report"]
