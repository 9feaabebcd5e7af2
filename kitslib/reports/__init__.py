"""Executed notebook to one offline HTML file, and the index page of the study."""

from kitslib.reports.index import Page, write_index
from kitslib.reports.offline import RemoteRequestError, remote_requests
from kitslib.reports.outputs import ANSWER_MIME, PROVENANCE_MIME, answer_output, provenance_output
from kitslib.reports.page import ReportError, to_html

__all__ = [
    "ANSWER_MIME",
    "PROVENANCE_MIME",
    "Page",
    "RemoteRequestError",
    "ReportError",
    "answer_output",
    "provenance_output",
    "remote_requests",
    "to_html",
    "write_index",
]
