"""Executed notebook to one offline HTML file, and the index page of the study."""

from kitslib.reports.index import Page, write_index
from kitslib.reports.offline import RemoteRequestError, remote_requests
from kitslib.reports.outputs import ANSWER_MIME, PROVENANCE_MIME, answer_output, provenance_output
from kitslib.reports.page import ReportError, to_html
from kitslib.reports.readme import findings_markdown, with_findings
from kitslib.reports.words import interval, number

__all__ = [
    "ANSWER_MIME",
    "PROVENANCE_MIME",
    "Page",
    "RemoteRequestError",
    "ReportError",
    "answer_output",
    "findings_markdown",
    "interval",
    "number",
    "provenance_output",
    "remote_requests",
    "to_html",
    "with_findings",
    "write_index",
]
