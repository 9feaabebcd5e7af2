"""Case reports as a table for a terminal and as JSON."""

from __future__ import annotations

import json
import textwrap
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict

from kitslib.data.cases.check import CaseReport
from kitslib.data.cases.rules import Finding

WIDTH = 110
_COLUMNS = (  # title, width, right-aligned
    ("case", 14, False),
    ("slices×y×x", 12, True),
    ("spacing mm", 14, True),
    ("axes", 4, False),
    ("labels", 7, False),
    ("kidney", 7, True),
    ("tumour", 7, True),
    ("cyst", 7, True),
    ("on slices", 9, True),
    ("HU", 11, True),
    ("verdict", 8, False),
)
_SHOWN_PER_CODE = 3


def format_reports(reports: Sequence[CaseReport]) -> str:
    """One line per case, the findings grouped by kind, and a summary; at most 110 columns wide."""
    lines = [_line([title for title, _, _ in _COLUMNS])]
    lines.append("-" * len(lines[0]))
    lines += [_line(_cells(report)) for report in reports]
    lines += [
        "",
        "kidney, tumour, cyst in ml (cyst only where labelled); slices counted from the cranial end",
    ]
    for level in ("unusable", "warning", "note"):
        lines += _finding_lines(reports, level)
    return "\n".join([*lines, "", *textwrap.wrap(summary(reports), WIDTH)]) + "\n"


def summary(reports: Sequence[CaseReport]) -> str:
    """One sentence: how many cases of which labels, how many trainable, with warnings, unusable."""
    unusable = sum(report.unusable for report in reports)
    warned = sum(report.level == "warning" for report in reports)
    trainable = sum(report.trainable for report in reports)
    sources = ", ".join(sorted({report.source for report in reports}))
    versions = sorted({version for report in reports for version in report.label_versions})
    labels = ", ".join(versions) or "none"
    return (
        f"{len(reports)} cases ({sources}; labels: {labels}): {trainable} can be trained on, "
        f"{warned} with warnings, {unusable} unusable."
    )


def reports_to_json(reports: Sequence[CaseReport]) -> str:
    """The reports as a JSON list: every field, with level, unusable and trainable computed."""
    rows = [
        {
            **asdict(report),
            "level": report.level,
            "unusable": report.unusable,
            "trainable": report.trainable,
        }
        for report in reports
    ]
    return json.dumps(rows, indent=1) + "\n"


def _cells(report: CaseReport) -> list[str]:
    volumes = report.volumes_ml or {}
    first_last = report.kidney_slices
    return [
        report.case_id,
        "×".join(map(str, report.shape)) if report.shape else "-",
        _spacing(report.spacing) if report.spacing else "-",
        "".join(report.axis_codes) if report.axis_codes else "-",
        " ".join(map(str, report.label_values)) or "-",
        *(
            f"{volumes[name]:.1f}" if name in volumes else "-"
            for name in ("kidney", "tumor", "cyst")
        ),
        f"{first_last[0]}-{first_last[1]}" if first_last else "-",
        f"{report.hu_range[0]:.0f}..{report.hu_range[1]:.0f}" if report.hu_range else "-",
        report.level,
    ]


def _spacing(spacing: tuple[float, float, float]) -> str:
    z, y, x = spacing
    return f"{z:.4g}×{y:.3f}²" if y == x else f"{z:.3g}×{y:.2f}×{x:.2f}"


def _line(cells: Sequence[str]) -> str:
    parts = []
    for text, (_, width, right) in zip(cells, _COLUMNS, strict=True):
        short = text if len(text) <= width else text[: width - 1] + "…"
        parts.append(short.rjust(width) if right else short.ljust(width))
    return " ".join(parts).rstrip()


def _finding_lines(reports: Sequence[CaseReport], level: str) -> list[str]:
    groups: dict[str, list[tuple[str, Finding]]] = defaultdict(list)
    for report in reports:
        for finding in report.findings:
            if finding.level == level:
                groups[finding.code].append((report.case_id, finding))
    lines = []
    for code, members in groups.items():
        cases = list(dict.fromkeys(case for case, _ in members))
        lines += ["", f"{level}: {code} ({len(cases)} case{'s' if len(cases) > 1 else ''})"]
        shown = members if len(members) <= _SHOWN_PER_CODE or code == "register" else members[:1]
        for _, finding in shown:
            lines += textwrap.wrap(
                finding.message, WIDTH, initial_indent="  ", subsequent_indent="    "
            )
        if len(members) > len(shown):
            others = [case for case in cases if case != members[0][0]]
            text = f"the same in {', '.join(others)}" if others else "the same in its other files"
            lines += textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent="    ")
    return lines
