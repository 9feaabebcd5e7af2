"""Case reports as a table for a terminal and as JSON."""

import json
import textwrap
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from kitslib.data.cases.check import CaseReport
from kitslib.data.cases.rules import Finding

WIDTH, _SHOWN_PER_CODE = 110, 3
_COLUMNS = {  # width, negative where left-aligned
    "case": -14, "slices×y×x": 12, "spacing mm": 14, "axes": -4, "labels": -7, "kidney": 7,
    "tumour": 7, "cyst": 7, "on slices": 9, "HU": 11, "verdict": -8,
}  # fmt: skip


def format_reports(reports: Sequence[CaseReport]) -> str:
    """One line per case, findings grouped by kind, and a summary; at most 110 columns wide."""
    header = _line({title: title for title in _COLUMNS})
    lines = [header, "-" * len(header), *(_line(_cells(report)) for report in reports)]
    units = "kidney, tumour, cyst in ml (cyst only where labelled); slices counted from the cranial"
    lines += ["", f"{units} end"]
    for level in ("unusable", "warning", "note"):
        lines += _finding_lines(reports, level)
    return "\n".join([*lines, "", *textwrap.wrap(summary(reports), WIDTH)]) + "\n"


def summary(reports: Sequence[CaseReport]) -> str:
    """One sentence: how many cases of which labels, how many trainable, with warnings, unusable."""
    sources = ", ".join(sorted({report.source for report in reports}))
    labels = ", ".join(sorted(set().union(*(report.label_versions for report in reports))))
    levels = [report.level for report in reports]
    text = f"{len(reports)} cases ({sources}; labels: {labels or 'none'}): "
    text += f"{sum(report.trainable for report in reports)} can be trained on, "
    return f"{text}{levels.count('warning')} with warnings, {levels.count('unusable')} unusable."


def finding_rows(reports: Sequence[CaseReport]) -> list[dict[str, str]]:
    """Every finding as a row: case, level, code and message."""
    return [{"case": one.case_id} | asdict(item) for one in reports for item in one.findings]


def reports_to_json(reports: Sequence[CaseReport]) -> str:
    """The reports as a JSON list: every field, with level, unusable and trainable computed."""
    rows = []
    for report in reports:
        computed = {name: getattr(report, name) for name in ("level", "unusable", "trainable")}
        rows.append(asdict(report) | computed)
    return json.dumps(rows, indent=1) + "\n"


def _cells(report: CaseReport) -> dict[str, str]:
    """The text of each column that is known."""
    cells = {"case": report.case_id, "verdict": report.level}
    if report.shape and report.spacing and report.axis_codes:
        z, y, x = report.spacing
        cells["slices×y×x"] = "×".join(map(str, report.shape))
        cells["spacing mm"] = f"{z:.4g}×{y:.3f}²" if y == x else f"{z:.3g}×{y:.2f}×{x:.2f}"
        cells["axes"] = "".join(report.axis_codes)
    if report.label_values:
        cells["labels"] = " ".join(map(str, report.label_values))
    for name, volume in (report.volumes_ml or {}).items():
        cells[name.replace("tumor", "tumour")] = f"{volume:.1f}"
    if report.kidney_slices:
        cells["on slices"] = "{}-{}".format(*report.kidney_slices)
    if report.hu_range:
        cells["HU"] = "{:.0f}..{:.0f}".format(*report.hu_range)
    return cells


def _line(cells: dict[str, str]) -> str:
    parts = []
    for title, width in _COLUMNS.items():
        text = cells.get(title, "-")
        if len(text) > abs(width):
            text = text[: abs(width) - 1] + "…"
        parts.append(text.rjust(width) if width > 0 else text.ljust(-width))
    return " ".join(parts).rstrip()


def _finding_lines(reports: Sequence[CaseReport], level: str) -> Iterator[str]:
    groups: dict[str, list[tuple[str, Finding]]] = defaultdict(list)
    for report in reports:
        for finding in report.findings:
            if finding.level == level:
                groups[finding.code].append((report.case_id, finding))
    for code, members in groups.items():
        cases = list(dict.fromkeys(case for case, _ in members))
        yield ""
        yield f"{level}: {code} ({len(cases)} case{'s' if len(cases) > 1 else ''})"
        texts = [finding.message for _, finding in members]
        if len(members) > _SHOWN_PER_CODE and code != "register":
            texts[1:] = [f"the same in {', '.join(cases[1:]) or 'its other files'}"]
        for text in texts:
            yield from textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent="    ")
