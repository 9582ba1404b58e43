"""In: metrics.json. Out: report.html, one file without network or scripts, in light and dark, on phone and paper.

page      write_report: the order of the page and its style
summary   the headline and the tables that answer "did it pay?"
sections  everything behind it; scans: pictures; papers: quoted tables
charts    inline SVG; markup: HTML that escapes by construction; view: the order and names of what metrics.json holds
merging   merge: several evaluations in one report
"""

from segloc_eval.report.merging import merge
from segloc_eval.report.page import write_report

__all__ = ["merge", "write_report"]
