"""A fit as one HTML file that needs nothing else: what a scientist sends to a colleague."""

from ppl_buffer.workflow.report.page import answers, write_report

__all__ = ["answers", "write_report"]
