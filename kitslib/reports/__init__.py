"""The index page of the study, and what a notebook says of itself to its page.

`kitslib.reports.page`, executed notebook to one offline HTML file, is imported by whoever converts: every notebook
imports this package, and the converter would cost each of them seconds.
"""

from kitslib.reports.index import Page, write_index
from kitslib.reports.offline import RemoteRequestError, remote_requests
from kitslib.reports.outputs import ANSWER_MIME, PROVENANCE_MIME, answer_output, provenance_output
from kitslib.reports.readme import findings_markdown, with_findings
from kitslib.reports.words import interval, number

__all__ = [
    "ANSWER_MIME",
    "PROVENANCE_MIME",
    "Page",
    "RemoteRequestError",
    "answer_output",
    "findings_markdown",
    "interval",
    "number",
    "provenance_output",
    "remote_requests",
    "with_findings",
    "write_index",
]
