"""The report of a comparison: one HTML file that opens offline."""

from lossatlas.lab.report.builder import REPORT_FILE, write_report

__all__ = ["REPORT_FILE", "write_report"]
