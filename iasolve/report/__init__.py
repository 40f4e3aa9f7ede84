"""Pages to look at: a report of results as one HTML file, and a result in a notebook.

Everything is plain data: arrays and mappings in, text out. Nothing is loaded from a network, ever.
"""

from iasolve.report.entry import Entry
from iasolve.report.notebook import result_html
from iasolve.report.page import write_report

__all__ = ["Entry", "result_html", "write_report"]
