"""Reports: the answer on top, nothing loaded from outside, tested in a real browser."""

from __future__ import annotations

import base64
import copy
import io
import json
import re
from functools import cache
from itertools import pairwise
from pathlib import Path

import matplotlib
import nbformat
import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from IPython.core.formatters import DisplayFormatter
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from kitslib import reporting
from kitslib.commands.report import index
from kitslib.commands.report import pages as list_pages
from kitslib.reporting import (
    ANSWER_MIME,
    PROVENANCE_MIME,
    Page,
    RemoteRequestError,
    Source,
    answer_output,
    figures,
    index_html,
    provenance_output,
    remote_requests,
    rerun_html,
)
from kitslib.reporting.pages.page import ReportError, to_html

RECORD = {
    "parameters": {"arm": "full", "seed": 0, "rate": 1e-4},
    "date": "2026-11-23T19:02:11+00:00",
    "commit": "1a2b3c4",
    "data": "24 synthetic cases",
    "synthetic": True,
    "versions": {"torch": "2.13.0"},
}
NUMBERS = [
    {"label": "Tumour Dice", "value": np.float64(0.61234), "ci": (0.51, 0.7), "n": 12},
    {"label": "Cyst volume", "value": float("nan"), "reason": "no test case has a cyst"},
]


def displayed(thing: object) -> nbformat.NotebookNode:
    """What a kernel would store for a displayed object."""
    data, _ = DisplayFormatter().format(thing)
    return new_output("display_data", data=data)


def html_output(html: str) -> nbformat.NotebookNode:
    return new_output("display_data", data={"text/html": html, "text/plain": "<HTML>"})


def code(
    source: str, *outputs: nbformat.NotebookNode, tags: tuple[str, ...] = (), ran: bool = True
):
    cell = new_code_cell(source, outputs=list(outputs), execution_count=1 if ran else None)
    cell.metadata.tags = list(tags)
    return cell


def stream(text: str) -> nbformat.NotebookNode:
    return new_output("stream", name="stdout", text=text)


@cache
def a_figure() -> str:
    fig, ax = plt.subplots(figsize=(8.8, 2))
    ax.plot([0, 1])
    html = figures.figure_html(fig, caption="Dice by epoch.", alt="A rising line", format="png")
    plt.close(fig)
    return html


@cache
def a_viewer(title: str) -> str:
    imaging = np.random.default_rng(0).integers(-100, 200, (12, 24, 24)).astype(np.int16)
    labels = np.zeros(imaging.shape, np.uint8)
    labels[4:8, 6:18, 6:18], labels[6, 8:12, 8:12] = 1, 2
    return reporting.slice_viewer(imaging, labels, spacing=(3, 2, 2), title=title)._repr_html_()


WIDE_TABLE = "<table border=1>" + "<tr>" + "<td>0.1234567890</td>" * 40 + "</tr></table>"


def notebook(*extra: nbformat.NotebookNode, record: dict | None = RECORD) -> nbformat.NotebookNode:
    cells = [
        new_markdown_cell(
            "# What is each *mechanism* worth?\n\nThe loss is $L = L_4 + p$ and costs `$5` or `$6`."
        ),
        code('arm: str = "full"  # one ablation', tags=("parameters",)),
        code("# Loss by epoch\nfit()", stream("epoch 0\n"), stream("epoch 1 " + "x" * 300 + "\n")),
        new_markdown_cell(
            "## Training\n\n$$\\frac{a}{b}" + " + c_1" * 40 + "$$\n\n#### Too deep\n\n# Another top"
        ),
        code("show()", html_output(a_figure()), html_output(WIDE_TABLE)),
        new_markdown_cell("## Training"),
        code("look()", html_output(a_viewer("one")), html_output(a_viewer("two"))),
        *extra,
        code("answer()", displayed(answer_output("Does it help?", "Yes: **0.612**.", NUMBERS))),
    ]
    if record is not None:
        cells.insert(2, code("provenance()", displayed(provenance_output(record))))
    return new_notebook(cells=cells, metadata={"language_info": {"name": "python"}})


def short(*extra: nbformat.NotebookNode, record: dict | None = RECORD) -> nbformat.NotebookNode:
    """The same without pictures, for what has nothing to do with them."""
    nb = notebook(*extra, record=record)
    nb.cells = [cell for cell in nb.cells if cell.source not in ("show()", "look()")]
    return nb


def convert(folder: Path, nb: nbformat.NotebookNode, name: str = "page") -> Path:
    source = folder / f"{name}.ipynb"
    nbformat.write(nb, source)
    page = folder / f"{name}.html"
    page.write_text(to_html(source), encoding="utf-8")
    return page


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("reports")


@pytest.fixture(scope="module")
def page(folder) -> Path:
    return convert(folder, notebook())


@pytest.fixture(scope="module")
def soup(page) -> BeautifulSoup:
    return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")


FAILING = code(
    "go()",
    new_output(
        "error",
        ename="ValueError",
        evalue="got <b>5</b>\nmore",
        traceback=["\x1b[31mline\x1b[0m <b>5</b>"],
    ),
)


@pytest.fixture(scope="module")
def failed_page(folder) -> Path:
    return convert(folder, notebook(FAILING, code("later()", ran=False)), "failed")


# what a notebook leaves for its page


def test_records_are_plain_json_and_readable_without_a_page():
    bundle = answer_output("Q?", "A <i>x</i>.", NUMBERS)._repr_mimebundle_()
    assert json.loads(json.dumps(bundle[ANSWER_MIME], allow_nan=False))["numbers"][0]["ci"] == [
        0.51,
        0.7,
    ]
    assert bundle[ANSWER_MIME]["numbers"][1]["value"] is None
    assert "Tumour Dice: 0.612 (0.510 to 0.700, n = 12)" in bundle["text/plain"]
    assert "Cyst volume: – (no test case has a cyst)" in bundle["text/plain"]
    assert "&lt;i&gt;" in bundle["text/html"]
    record = provenance_output(
        {"data": Path("a/b"), "tiles": (1, np.int64(2))}
    )._repr_mimebundle_()[PROVENANCE_MIME]
    assert record == {"data": "a/b", "tiles": [1, 2]}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: provenance_output({"synthetic": "yes"}),
            "synthetic must be True or False, got 'yes'",
        ),
        (
            lambda: provenance_output({"parameters": ["a"]}),
            "parameters must be a mapping, got list",
        ),
        (lambda: answer_output("Q", "A", [{"value": 1}]), "a number needs a label"),
        (lambda: answer_output("Q", "A", [{"label": "x", "mean": 1}]), "mean"),
    ],
)
def test_wrong_records_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# the page


def test_the_answer_comes_first(soup):
    first = soup.select_one("main").find(True, recursive=False)
    assert "answer" in first["class"]
    assert first.select_one(".question").text == "Does it help?"
    assert first.select_one(".text strong").text == "0.612"
    boxes = [re.sub(r"\s+", " ", box.text).strip() for box in first.select(".number")]
    assert boxes == [
        "Tumour Dice 0.61295 % interval 0.510 to 0.700 · n = 12",
        "Cyst volume – no test case has a cyst",
    ]


def test_the_band_says_where_the_page_comes_from(soup):
    assert soup.title.text == soup.h1.text == "What is each mechanism worth?"
    facts = {fact.dt.text: fact.dd.text for fact in soup.select(".facts div")}
    assert facts == {
        "Date": "2026-11-23 19:02 UTC",
        "Commit": "1a2b3c4",
        "Data": "24 synthetic cases",
    }
    assert sorted(chip.text for chip in soup.select(".chips li")) == [
        "arm full",
        "rate 0.0001",
        "seed 0",
    ]
    assert "SYNTHETIC DATA" in soup.select_one(".banner.synthetic").text
    assert "torch 2.13.0" in soup.select_one(".provenance").text
    assert soup.select_one(".home a")["href"] == "index.html"


def test_without_a_record_the_band_shows_what_papermill_knows(folder):
    nb = short(record=None)
    given = {"arm": "se", "data": "", "seed": None}
    nb.metadata["papermill"] = {
        "parameters": given,
        "duration": 75.2,
        "end_time": "2026-11-23T20:00:00+00:00",
    }
    page = BeautifulSoup(
        convert(folder, nb, "papermill").read_text(encoding="utf-8"), "html.parser"
    )
    facts = {fact.dt.text: fact.dd.text for fact in page.select(".facts div")}
    assert facts == {"Date": "2026-11-23 20:00 UTC", "Duration": "1 min 15 s"}
    assert [chip.text for chip in page.select(".chips li")] == ["arm se"]
    assert page.select_one(".banner") is None


def test_real_data_has_no_synthetic_banner(folder):
    text = convert(folder, short(record={**RECORD, "synthetic": False}), "real").read_text(
        encoding="utf-8"
    )
    assert "SYNTHETIC DATA" not in text


def test_a_later_record_completes_the_first(folder):
    late = code("end()", displayed(provenance_output({"duration_s": 200, "device": "cpu"})))
    page = BeautifulSoup(
        convert(folder, short(late), "late").read_text(encoding="utf-8"), "html.parser"
    )
    facts = {fact.dt.text: fact.dd.text for fact in page.select(".facts div")}
    assert facts["Duration"] == "3 min 20 s" and facts["Commit"] == "1a2b3c4"


def test_code_is_folded_and_parameters_are_not(soup):
    shown = soup.select(".code.open")
    assert [block.select_one(".code-title").text for block in shown] == [
        "Parameters and their defaults"
    ]
    assert 'arm: str = "full"' in shown[0].pre.text
    folded = {block.summary.text: block.pre.text.strip() for block in soup.select("details.code")}
    assert folded["Code: Loss by epoch · 2 lines"] == "# Loss by epoch\nfit()"
    assert not any(block.has_attr("open") for block in soup.select("details.code"))
    assert not re.search(r"(In|Out)\s*\[", soup.select_one("main").text)


def test_streams_are_joined(soup):
    outputs = [block.text for block in soup.select(".jp-OutputArea-output pre")]
    assert [text for text in outputs if "epoch" in text] == ["epoch 0\nepoch 1 " + "x" * 300 + "\n"]


def test_headings_are_in_order_and_all_in_the_contents(soup):
    levels = [int(heading.name[1]) for heading in soup.find_all(re.compile("^h[1-6]$"))]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    targets = [link["href"][1:] for link in soup.select(".toc a")]
    assert targets == [
        "the-answer",
        "Training",
        "Too-deep",
        "Another-top",
        "Training-2",
        "provenance",
    ]
    ids = [tag["id"] for tag in soup.select("[id]")]
    assert len(ids) == len(set(ids)) and set(targets) <= set(ids)


def test_tables_name_their_index_in_one_row_and_words_read_from_the_left(folder):
    frame = pd.DataFrame(
        {
            "Dice": [0.5, -0.25],
            "says": ["short", "a sentence of more than two dozen letters"],
            "ci": ["–", "0.1 to 0.2"],
            "below 30 ml": ["0.18 [0.01, 0.48] n = 8", "–"],
        },
        index=pd.Index(["one", "two"], name="arm"),
    )
    page = convert(folder, short(code("table", html_output(frame.to_html()))), "tables")
    table = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser").select_one(
        "table.dataframe"
    )
    (head,) = table.select("thead tr")
    assert [th.get_text(strip=True) for th in head.find_all("th")] == [
        "arm",
        "Dice",
        "says",
        "ci",
        "below 30 ml",
    ]
    classes = [cell.get("class", []) for cell in table.select("tbody tr")[0].find_all(["th", "td"])]
    assert classes == [["words"], [], ["words", "long"], ["words", "whole"], ["words", "whole"]]


def test_rows_without_a_name_have_no_first_column(folder):
    frame = pd.DataFrame({"Dice": [0.5], "n": [2]}, index=[""])
    page = convert(folder, short(code("table", html_output(frame.to_html()))), "nameless")
    table = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser").select_one(".dataframe")
    cells = [[cell.text for cell in row.find_all(["th", "td"])] for row in table.find_all("tr")]
    assert cells == [["Dice", "n"], ["0.5", "2"]]


def test_rows_named_as_an_arm_lead_to_its_page(folder):
    frame = pd.DataFrame({"Dice": [0.5, 0.6]}, index=pd.Index(["full", "other"], name="arm"))
    source = folder / "linked.ipynb"
    nbformat.write(short(code("table", html_output(frame.to_html()))), source)
    record = {"record": "04_ablations", "code": "ab12", "rows": [{"case": "case_00001"}]}
    page = BeautifulSoup(to_html(source, record, {"full": "full.html"}), "html.parser")
    links = [(link["href"], link.text) for link in page.select(".dataframe a")]
    assert links == [("full.html", "full")]
    kept = page.select_one(".provenance").text
    assert "work/records/04_ablations.json" in kept and "1: case_00001" in kept and "ab12" in kept


def test_a_table_with_cells_over_several_rows_keeps_them(folder):
    index = pd.MultiIndex.from_tuples([("a", "x"), ("a", "y")], names=[None, None])
    frame = pd.DataFrame({"cases": [1, 2], "numbers": ["00001", "00002-00005"]}, index=index)
    page = convert(folder, short(code("table", html_output(frame.to_html()))), "spans")
    rows = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser").select(
        "table.dataframe tbody tr"
    )
    assert [row.find_all(["th", "td"])[-1]["class"] for row in rows] == [["words"], ["words"]]


def test_formulas_become_mathml_and_code_keeps_its_dollars(soup):
    assert len(soup.select("math")) == 2 and len(soup.select("mfrac")) == 1
    prose = soup.select_one(".text-cell")
    assert [span.text for span in prose.select("code")] == ["$5", "$6"]
    assert "$" not in prose.get_text().replace("$5", "").replace("$6", "")


def test_a_formula_that_cannot_be_read_is_shown_as_written(folder):
    nb = short(new_markdown_cell(r"Broken: $\left( x$ end."), new_markdown_cell("Plain \\$7."))
    text = convert(folder, nb, "broken").read_text(encoding="utf-8")
    assert r"Broken: <code>\left( x</code> end." in text and "Plain $7." in text


def test_every_picture_has_words(soup):
    for figure in soup.select("figure"):
        assert figure.figcaption.text.strip()
        assert figure.img["alt"].strip()


def test_a_failed_notebook_says_so_and_points_to_the_cell(failed_page):
    page = BeautifulSoup(failed_page.read_text(encoding="utf-8"), "html.parser")
    band = page.select_one(".banner.failed")
    assert band.code.text == "ValueError: got <b>5</b>"
    cell = page.find(id=band.a["href"][1:])
    assert (
        "failed" in cell["class"] and cell.select_one(".traceback").text.strip() == "line <b>5</b>"
    )
    assert [block.summary.text for block in page.select("details.code[open]")] == ["Code · 1 line"]
    assert any("not run" in summary.text for summary in page.select("summary"))


def test_papermills_own_error_cells_are_dropped(folder):
    note = new_markdown_cell('<span id="papermill-error-cell">An Exception was encountered</span>')
    note.metadata.tags = ["papermill-error-cell-tag"]
    text = convert(folder, short(note, FAILING), "noted").read_text(encoding="utf-8")
    assert "An Exception was encountered" not in text and "THIS RUN FAILED" in text


def test_a_notebook_that_never_ended_says_so(folder):
    text = convert(folder, short(code("later()", ran=False)), "cut").read_text(encoding="utf-8")
    assert "NOT FINISHED" in text and "1 code cell of this notebook" in text


def test_widgets_leave_no_state_behind(folder):
    state = "application/vnd.jupyter.widget-state+json"
    view = "application/vnd.jupyter.widget-view+json"
    widget = new_output(
        "display_data", data={view: {"model_id": "abc"}, "text/plain": "IntSlider()"}
    )
    nb = short(code("slide()", widget))
    nb.metadata["widgets"] = {
        state: {"state": {"abc": {"model_name": "IntSliderModel"}}, "version_major": 2}
    }
    text = convert(folder, nb, "widgets").read_text(encoding="utf-8")
    assert "IntSlider" not in text and "shown in JupyterLab only" in text


def test_the_same_notebook_gives_the_same_page(folder, page):
    assert to_html(folder / "page.ipynb") == page.read_text(encoding="utf-8")


def test_pages_stay_small(page):
    assert page.stat().st_size < 1_000_000


@pytest.mark.parametrize("content", [None, "not json", '{"cells": 5}'])
def test_what_is_no_notebook_is_refused_by_name(tmp_path, content):
    source = tmp_path / "odd.ipynb"
    if content is not None:
        source.write_text(content)
    with pytest.raises(ReportError, match=r"odd\.ipynb"):
        to_html(source)


# nothing from outside

REMOTE = [
    '<script src="https://cdn.example/x.js"></script>',
    '<link rel="stylesheet" href="//cdn.example/x.css">',
    '<img src="picture.png" alt="a">',
    '<img srcset="data:image/png;base64,AA 1x, https://x.example/a.png 2x" alt="a">',
    "<style>@font-face{src:url(https://x.example/f.woff2)}</style>",
    "<style>@import 'theme.css';</style>",
    '<div style="background:url(http://x.example/a.png)"></div>',
    "<script>fetch('/data.json')</script>",
    "<script>const s = document.createElement('script'); s.src = 'https://x.example/y.js'</script>",
    '<script type="module">import {a} from "./a.js"; import("b.js")</script>',
    '<iframe src="https://x.example"></iframe>',
    '<svg><image href="https://x.example/a.png"/></svg>',
    '<img src="data:image/png;base64,AA" onerror="fetch(1)" alt="a">',
    '<meta http-equiv="refresh" content="0;url=https://x.example">',
    '<a href="#x" ping="https://x.example">x</a>',
]
LOCAL = [
    '<a href="https://arxiv.org/abs/1709.01507">a paper</a>',
    '<img src="data:image/png;base64,AA" alt="a">',
    '<svg xmlns="http://www.w3.org/2000/svg"><use href="#a"/></svg>',
    "<style>a{background:url(data:image/png;base64,AA)}</style>",
    '<script>const ns = "http://www.w3.org/2000/svg";</script>',
    '<script type="application/json">{"url": "https://x.example"}</script>',
    "<p>fetch(x) and https://x.example are words here</p>",
    '<meta http-equiv="refresh" content="10">',
]


@pytest.mark.parametrize("html", REMOTE)
def test_requests_are_found(html):
    assert remote_requests(html)


@pytest.mark.parametrize("html", LOCAL)
def test_links_and_data_are_no_requests(html):
    assert remote_requests(html) == []


def test_a_page_with_a_remote_script_is_refused_by_name(tmp_path):
    remote = html_output('<script src="https://cdn.example/plot.js"></script>')
    with pytest.raises(RemoteRequestError, match=r"page\.ipynb: .*https://cdn\.example/plot\.js"):
        convert(tmp_path, notebook(code("plot()", remote)))


# the index page


def row(number: int, part: str, claim: str, verdict: str, value, ci, **other) -> dict:
    """A row of the ledger; what is not given is as of a row that has it not."""
    return {
        "number": number, "part": part, "claim": claim, "verdict": verdict,
        "verdict_unadjusted": verdict, "value": value, "ci": ci, "n": 6, "seeds": 0,
        "measure": "a measure", "unit": "", "p": None, "p_adjusted": None, "band": 0.05,
        "within_002": None, "smallest_effect": None, "needed": "", "warning": "", "reason": "",
    } | other  # fmt: skip


SUMMARY = {
    "profile": "demo",
    "synthetic": True,
    "commit": "1a2b3c4",
    "wall_s": 1312.4,
    "device": "Abacus 9000, 2 cores",
    "kidney": {"dice": 0.9123, "dice_ci": [0.88, 0.94], "n": 6, "worst": 0.8512},
    "tumor": {
        "baseline": {
            "dice": 0.42, "dice_ci": [0.30, 0.50], "dice_all_components": 0.4,
            "dice_all_components_ci": [0.28, 0.49], "n": 6, "seeds": [0, 1],
            "cyst_fp_ml": None, "parameters": 1234567, "train_s": 200,
        },
        "full": {
            "dice": 0.61, "dice_ci": [0.55, 0.68], "dice_all_components": 0.58,
            "dice_all_components_ci": [0.52, 0.64], "n": 6, "seeds": [0, 1],
            "cyst_fp_ml": 0.4, "parameters": 1300000, "train_s": 290,
        },
    },
    "cascade": {
        "tk_dice": 0.91, "tumor_dice": 0.55, "composite": 0.73, "composite_ci": [0.6, 0.82], "n": 6,
    },
    "claims": [
        row(9, "", "SE helps <to some extent>", "undecided", 0.02, [-0.01, 0.05],
            verdict_unadjusted="reproduced", measure="tumour Dice, se minus baseline", seeds=2,
            smallest_effect=0.043, needed="9 seeds × 6 cases", p_adjusted=0.21,
            warning="only 6 cases: <rough>"),
        row(6, "a", "VNet beats UNet", "not testable here", None, [None, None], n=0),
        row(13, "b", "Cysts", "contradicted", -0.4, [-0.7, -0.1], unit="ml", band=None, seeds=6,
            smallest_effect=0.5, p_adjusted=0.0002),
        row(14, "a", "The largest component", "practically equal", 0.001, [-0.002, 0.004], seeds=6,
            within_002=True, smallest_effect=0.004, p_adjusted=0.01),
    ],
    "verdicts": [
        {"number": 6, "claim": "VNet beats UNet and DeepLab", "verdict": "not testable here"},
        {"number": 9, "claim": "SE helps <to some extent>", "verdict": "undecided"},
        {"number": 13, "claim": "Cysts", "verdict": "contradicted"},
        {"number": 14, "claim": "The largest component", "verdict": "practically equal"},
        {"number": 3, "claim": "Slices", "verdict": "undecided"},
    ],
    "rules": "00aa11bb",
}  # fmt: skip
PAGES = [
    Page(title="01 Data", href="01_data.html", about="The cohort."),
    Page(title="02 Kidney", href="02_kidney.html", about="The first stage."),
]
FOLDED = Page(
    title="03", href="", about="Arms.", arms=(Page(title="full", href="a.html", about="all six"),)
)


def index_soup(**changes) -> BeautifulSoup:
    summary = {**copy.deepcopy(SUMMARY), **changes}
    return BeautifulSoup(index_html(summary, PAGES, data="24 synthetic cases."), "html.parser")


def rows(table) -> list[list[str]]:
    return [
        [re.sub(r"\s+", " ", cell.text).strip() for cell in row.select("th,td")]
        for row in table.select("tbody tr")
    ]


def words(element) -> str:
    return re.sub(r"\s+", " ", element.get_text(" ")).strip()


def test_the_first_screen_has_four_numbers_with_their_interval():
    page = index_soup(real=[{"case": "a", "dice": 0.7}, {"case": "b", "dice": 0.8}])
    boxes = page.select(".first .headline .number")
    values = [(box.dt.text, box.select_one(".value").text) for box in boxes]
    assert values == [
        ("Kidney, Dice", "0.912"), ("Tumour, Dice", "0.610"),
        ("Both in a row, KiTS19 composite", "0.730"), ("Kidney in real CT, Dice", "0.750"),
    ]  # fmt: skip
    spread = [words(box.select_one(".spread")) for box in boxes]
    assert spread == [
        "95 % interval 0.880 to 0.940, n = 6", "95 % interval 0.550 to 0.680, n = 6",
        "95 % interval 0.600 to 0.820, n = 6", "n = 2",
    ]  # fmt: skip
    about = [words(box.select_one(".about")) for box in boxes]
    assert about == [
        "on unseen scans; the worst 0.851", "arm “full”, inside the true kidneys",
        "kidney and tumour 0.910, tumour 0.550",
        "too few patients for an interval; 0.700 to 0.800",
    ]  # fmt: skip
    assert "Abacus 9000, 2 cores" in page.select_one(".facts").text
    assert "SYNTHETIC DATA" in page.text and "21 min 52 s" in page.text


def test_real_ct_of_enough_patients_has_its_interval():
    page = index_soup(real=[{"case": "a", "dice": 0.7}], real_ci=[0.65, 0.75])
    box = page.select(".headline .number")[3]
    assert words(box.select_one(".spread")) == "95 % interval 0.650 to 0.750, n = 1"
    assert "too few" not in box.text


def test_the_strip_shows_every_claim_and_leads_to_its_row():
    page = index_soup()
    strip = page.select(".first .strip li")
    assert [words(item) for item in strip] == [
        "6 ○ : VNet beats UNet and DeepLab: not testable here",
        "9 ? : SE helps <to some extent>: undecided", "13 ✗ : Cysts: contradicted",
        "14 = : The largest component: practically equal", "3 ? : Slices: undecided",
    ]  # fmt: skip
    assert [item["class"] for item in strip][2:4] == [["contradicted"], ["practically-equal"]]
    for link in page.select(".first .strip li:not(:last-child) a"):
        assert page.find(id=link["href"][1:]).find_parent("tr"), link["href"]
    assert [words(item) for item in page.select(".tally li")] == [
        "1 ✗ contradicted", "1 = practically equal", "2 ? undecided", "1 ○ not testable here",
    ]  # fmt: skip


def test_a_row_of_the_ledger_has_number_unit_measure_and_what_it_rests_on():
    ledger = index_soup().select_one("table.ledger")
    assert [row.select_one(".place").text for row in ledger.select("tbody tr")] == [
        "9", "6a", "13b", "14a",
    ]  # fmt: skip
    open_one, untested, against, _ = ledger.select("tbody tr")
    assert words(open_one.select_one(".measured")) == (
        "0.020 Dice 95 % interval −0.010 to 0.050 tumour Dice, se minus baseline"
    )
    assert words(open_one.select_one(".rests")) == (
        "n = 6, 2 seeds smallest effect it could have shown: 0.043 Dice only 6 cases: <rough>"
    )
    assert "p = 0.210 after Holm's correction" in open_one.details.text
    assert "within ±0.05 Dice" in open_one.details.text
    assert words(against.select_one(".measured")).startswith("−0.400 ml 95 % interval −0.700")
    assert "p = < 0.001" not in against.text and "p < 0.001" in against.text
    assert words(untested.select_one(".measured")).startswith("not measured here")
    cells = ledger.select("tbody td")
    assert all(cell["data-label"] for cell in cells), "a card on a phone needs the column's name"


def test_what_qualifies_a_verdict_stands_with_it():
    ledger = index_soup().select_one("table.ledger")
    open_one, untested, against, equal = ledger.select("tbody tr")
    assert open_one.select_one(".warning").text == "only 6 cases: <rough>"
    assert [one.text for one in open_one.select(".verdict .beside")] == [
        "before correction: reproduced", "would decide: 9 seeds × 6 cases",
    ]  # fmt: skip
    assert against.select_one(".badge.contradicted") and not against.select(".warning")
    assert equal.select_one(".badge.practically-equal")
    assert equal.select_one(".beside").text == "within ±0.02 too"
    assert untested.select_one(".badge.not-testable-here")


def test_the_band_of_a_share_is_in_no_unit():
    overlap = row(2, "b", "HU", "contradicted", 0.4, [0.3, 0.5], measure="mean HU overlap")
    text = words(index_soup(claims=[overlap]).select_one("table.ledger"))
    assert "Practically equal: within ±0.05." in text and "Dice" not in text


def test_an_undecided_row_is_not_called_narrow():
    few = row(14, "a", "The largest component", "undecided", 0.001, [0, 0.002], within_002=True)
    assert "±0.02" not in index_soup(claims=[few]).select_one("table.ledger").text


def test_the_index_says_which_intervals_and_verdicts_these_are():
    text = index_soup().text
    assert "treat seeds and cases as random (crossed random effects" in text
    assert "“practically equal” where the interval lies within ±0.05 Dice" in text
    assert "bootstrap" not in text


def test_on_a_synthetic_cohort_nothing_carries_over_to_patients():
    text = index_soup().text
    assert "nothing here carries over to patients, neither levels nor differences" in text
    assert "may carry over" not in text
    assert "carries over" not in index_soup(synthetic=False).text


def test_arms_of_one_seed_are_counted():
    assert "trained with one seed" not in index_soup().text
    once = {name: {**arm, "seeds": [3]} for name, arm in SUMMARY["tumor"].items()}
    assert "2 tumour arms were trained with one seed" in index_soup(tumor=once).text
    once["full"] = SUMMARY["tumor"]["full"]
    assert "1 tumour arm was trained with one seed" in index_soup(tumor=once).text


def test_the_index_says_what_a_seed_trains_on():
    assert "Each seed draws 75 % of the training cases" in index_soup(training_draw=0.75).text
    assert "Each seed draws" not in index_soup().text
    assert "Each seed draws" not in index_soup(training_draw=1.0).text


STORED = {"key": "00aa11bb", "date": "2026-11-27T08:00:00+00:00", "commit": "1a2b3c4"}
CHANGED = {"key": "22cc33dd", "date": "2026-11-28T09:30:00+00:00", "commit": "5d6e7f8"}


@pytest.mark.parametrize(
    ("rules", "history", "said", "unsaid"),
    [
        ("00aa11bb", None, ["key 00aa11bb; that they were stored before", "not recorded"], []),
        ("00aa11bb", [STORED],
         ["stored before the first test score, on 2026-11-27 08:00 UTC at commit 1a2b3c4, with the "
          "key 00aa11bb, and not changed since."], ["changed after", "not recorded"]),
        ("22cc33dd", [STORED, CHANGED],
         ["with the key 00aa11bb. They were changed after it, on 2026-11-28 09:30 UTC at commit "
          "5d6e7f8, with the key 22cc33dd.", "by the last of these"], ["not changed since"]),
        ("99ee", [STORED], ["rules with another key, 99ee, that was not stored"],
         ["not changed since"]),
        ("00aa11bb", [STORED, CHANGED], ["with another key, 00aa11bb, that"], ["by the last of"]),
    ],
)  # fmt: skip
def test_the_index_says_when_the_rules_were_stored_and_changed(rules, history, said, unsaid):
    text = index_soup(rules=rules, rules_history=history).text
    assert all(words in text for words in said)
    assert not any(words in text for words in unsaid)


def test_the_index_follows_the_numbers():
    clear = index_soup().text
    assert "“full” has the highest mean Dice of all components found, 0.580" in clear
    assert "and “baseline” the lowest, 0.400" in clear
    assert "The interval of “full” is clear of every other arm's." in clear
    flipped = {
        "baseline": SUMMARY["tumor"]["full"],
        "full": {**SUMMARY["tumor"]["baseline"], "dice_all_components_ci": [0.3, 0.58]},
    }
    other = index_soup(tumor=flipped, synthetic=False).text
    assert "“baseline” has the highest mean Dice of all components found, 0.580" in other
    assert "The interval of “baseline” overlaps with that of 1 of 1 other arms." in other
    assert "SYNTHETIC" not in other and "computer-generated" not in other
    real = index_soup(real=[{"case": "ircad01", "dice": 0.7}])
    assert [words(row) for row in real.select("table.small tbody tr")] == ["ircad01 0.700"]
    assert "trained on synthetic CT alone" in real.text
    assert "No real CT with labels was given" in index_soup(real=[]).text


def test_the_index_lists_what_is_not_as_in_the_paper():
    found = [
        {"setting": "kidney.epochs", "paper": 500, "here": 20},
        {"setting": "tumor_grid.spacing_xy", "paper": None, "here": 0.8},
    ]
    page = index_soup(deviations=found)
    folded = page.select_one("table.deviations").find_parent("details")
    assert "2 settings are not those of the profile “paper”" in folded.summary.text
    assert rows(page.select_one("table.deviations")) == [
        ["kidney.epochs", "500", "20"],
        ["tumor_grid.spacing_xy", "none", "0.8"],
    ]
    same = index_soup(deviations=[])
    assert "Every setting is that of the profile “paper”" in same.text
    assert not same.select("table.deviations")


@pytest.mark.parametrize(
    ("ci", "shown"),
    [
        ((0.00038, 0.302), "0.0004 to 0.302"),
        ((-0.2, -0.00012), "−0.200 to −0.0001"),
        ((0.0, 1e-9), "0.000 to 0.000"),
    ],
)
def test_an_interval_shows_on_which_side_of_zero_it_ends(ci, shown):
    claim = row(9, "", "SE helps", "reproduced", 0.1, list(ci))
    cell = index_soup(claims=[claim]).select_one("table.ledger .spread")
    assert words(cell) == f"95 % interval {shown}"


def test_missing_numbers_are_dashes_with_their_reason():
    empty = {"dice": None, "dice_ci": None, "n": None}
    page = index_soup(
        kidney=empty,
        tumor={},
        cascade={"tk_dice": None, "tumor_dice": None, "composite": None, "n": 0},
        claims=[],
        verdicts=[],
        wall_s=None,
    )
    boxes = [box.text.split() for box in page.select(".headline .value")]
    assert boxes[0] == ["–", "no", "test", "case", "was", "scored"]
    assert boxes[2] == ["–", "the", "cascade", "was", "not", "scored"]
    assert boxes[3] == ["–", "not", "scored", "yet"]
    assert page.select("table") == [] and page.select(".strip, .forest") == []


@pytest.mark.parametrize(
    ("summary", "pages", "message"),
    [
        ({"profile": "demo"}, [], "missing: synthetic, commit"),
        ({**SUMMARY, "claims": [{"claim": "x", "verdict": "true"}]}, [], "got 'true' for 'x'"),
        ({**SUMMARY, "verdicts": [{"claim": "y", "verdict": "not reproduced"}]}, [], "for 'y'"),
        ({key: SUMMARY[key] for key in SUMMARY if key != "rules"}, [], "missing: rules"),
        (
            SUMMARY,
            [Page(title="t", href="https://x.example", about="")],
            "must be relative to the index page",
        ),
    ],
)
def test_a_wrong_summary_is_refused(summary, pages, message):
    with pytest.raises(ValueError, match=message):
        index_html(summary, pages)


def test_the_picture_is_three_equal_squares_with_its_sentence(tmp_path):
    picture, said = tmp_path / "picture.jpg", {"case": "one", "says": "One: <Dice> 0.62."}
    Image.new("RGB", (90, 30), "red").save(picture)
    made = index_html({**SUMMARY, "picture": said}, PAGES, picture=picture)
    panels = BeautifulSoup(made, "html.parser").select(".panels figure")
    assert [words(panel.figcaption) for panel in panels] == [
        "The scan", "The truth", "What was found",
    ]  # fmt: skip
    for panel in panels:
        kind, content = panel.img["src"].split(",")
        square = Image.open(io.BytesIO(base64.b64decode(content)))
        assert kind == "data:image/jpeg;base64" and square.size == (30, 30) and panel.img["alt"]
    assert "One: &lt;Dice&gt; 0.62." in made
    old = BeautifulSoup(index_html(SUMMARY, PAGES, picture=picture), "html.parser")
    assert not old.select(".panels"), "a picture of older code has other panels"


# a study's folder


def write_record(folder: Path, name: str, **values) -> None:
    config = {"profile": "demo", "seeds": [3, 4], "cohort": {"seed": 19}, "data": None}
    times = {"began": 0.0, "ended": 60.0, "processor_s": 100.0, "config": config, "record": name}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(times | values), encoding="utf-8")


RECORDS = (
    "05_evaluation", "03_tumor-full-s4", "03_tumor-full-s3", "03_tumor-baseline-s3", "02_kidney",
    "02_kidney-no_residual-s3", "02_kidney-no_residual-s4", "02_kidney-standard-s3",
)  # fmt: skip


def test_chapters_have_the_pages_of_their_arms_first_seed_folded_in(tmp_path):
    for name in RECORDS:
        write_record(tmp_path, name)
    found = list_pages(tmp_path, ["baseline", "full"])
    assert [(page.title, page.href) for page in found] == [
        ("02 Kidneys", "02_kidney.html"), ("03 Tumours", ""), ("05 Verdict", "05_evaluation.html"),
    ]  # fmt: skip
    assert [[arm.title for arm in page.arms] for page in found] == [
        ["02 Kidneys: no_residual, seed 3", "02 Kidneys: standard, seed 3"],
        ["03 Tumours: baseline, seed 3", "03 Tumours: full, seed 3"], [],
    ]  # fmt: skip
    assert found[0].arms[0].href == "02_kidney-no_residual-s3.html"
    html = BeautifulSoup(index_html(SUMMARY, found), "html.parser")
    assert len(html.select(".pages > li")) == 3
    folded = html.select(".pages details a")
    assert [link["href"] for link in folded][-1] == "03_tumor-full-s3.html"


@pytest.mark.parametrize("synthetic", [True, False])
def test_a_studys_summary_says_its_seeds_and_its_cohort(tmp_path, synthetic):
    summary = {**SUMMARY, "synthetic": synthetic, "cases": 24}
    for name in RECORDS:
        write_record(tmp_path / "work" / "records", name)
    write_record(tmp_path / "work" / "records", "05_evaluation", summary=summary)
    html = index(tmp_path).read_text(encoding="utf-8")
    found = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert found["seeds"] == [3, 4] and found["rules"] == "00aa11bb"
    assert found.get("cohort_seed") == {True: 19, False: None}[synthetic]
    assert "03_tumor-full-s3.html" in html and "03_tumor-full-s4" not in html


# in the browser


@pytest.fixture(scope="module")
def pages(folder, page, failed_page) -> dict[str, Path]:
    index, rerun = folder / "index.html", folder / "rerun.html"
    effects = [
        {"label": "SE", "name": "se", "measure": "se minus baseline", "value": 0.02, "n": 6,
         "ci": [-0.01, 0.05], "band": 0.05, "seeds": 2, "smallest_effect": 0.04, "place": "9",
         "verdict": "undecided", "reason": ""},
    ]  # fmt: skip
    effects.append({**effects[0], "label": "HDC", "name": "hdc", "value": None})
    real = [{"case": "ircad01", "dice": 0.7}]
    summary, chapters = {**SUMMARY, "effects": effects, "real": real}, [*PAGES, FOLDED]
    source = Source(title="04", href="04.html#x", records=["03_tumor-full-s0"])
    made = index_html(summary, chapters, sources={"9": source}, rerun="rerun.html")
    index.write_text(made, encoding="utf-8")
    citation = {"title": "A title", "authors": "Someone", "year": "2026", "version": "1"}
    citation |= {"license": "MIT", "commit": "1a2b3c4", "url": ""}
    kept = {"name": "03_tumor-full-s0", "href": "", "run": "tumor-full-s0-c50639c0", "seed": 0}
    kept |= {"cases": [f"case_{i:05}" for i in range(200)], "data": "e35f", "commit": "1a2b3c4"}
    facts = {"Lock": "constraints.txt, SHA-256 e35f9a2833039e17"}
    made = rerun_html(
        command="./run_all.sh --profile demo", facts=facts, citation=citation, synthetic=True,
        records=[kept | {"ended": "2026-11-26"}],
    )  # fmt: skip
    rerun.write_text(made, encoding="utf-8")
    return {"page": page, "failed": failed_page, "index": index, "rerun": rerun}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("name", ["page", "failed", "index", "rerun"])
def test_pages_fit_the_window_and_ask_for_nothing(browser, pages, name, width, scheme):
    assert browser.faults(pages[name], width, scheme) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["page", "failed", "index", "rerun"])
def test_axe_has_no_serious_finding(browser, axe, pages, name, scheme):
    browser.faults(pages[name], 400, scheme)
    assert browser.axe(axe) == []


BAD = """<h1>One</h1><h3 style="color:#ddd">Two</h3><img src="data:," width="9"><button></button>
<div class="scroll" style="overflow-x:auto;width:99px"><table><tr><td>{0}</td></tr></table></div>
<p style="width:900px">wide</p><p style="font-size:8px">small</p>
<img alt="" src="{1}" style="width:20px;min-width:20px;max-width:9px;transform:scale(.5)">
<script>console.log("noise")</script>"""


def test_what_is_wrong_with_a_page_is_found(browser, axe, tmp_path):
    page, wide = tmp_path / "bad.html", "x" * 200
    page.write_text(BAD.format(wide, "data:image/gif;base64,R0lGODlhAQABAAAAACw="), "utf-8")
    found = " ".join(browser.faults(page, 400))
    for words in ("logs", "wider than the window", "no picture", "no words for", "cut off",
                  "text of 8 px", "a level is left out", "small text"):  # fmt: skip
        assert words in found, words
    serious = " ".join(browser.axe(axe))
    assert "color-contrast" in serious and "button-name" in serious


CONTRAST = """(() => {
  const light = (text) => {
    const linear = (v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
    const [r, g, b] = text.match(/[\\d.]+/g).map((v) => linear(v / 255));
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const color = getComputedStyle(node).backgroundColor;
      if (!/, 0(\\.\\d+)?\\)$/.test(color)) return color;
    }
    return "rgb(255, 255, 255)";
  };
  const bad = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    const apart = node.closest("script, style, .pictures, .sr-only, select");
    if (!walker.currentNode.textContent.trim() || apart) continue;
    const [a, b] = [light(getComputedStyle(node).color), light(ground(node))].sort((x, y) => y - x);
    if ((a + .05) / (b + .05) < 4.5) bad.push(node.outerHTML.slice(0, 80));
  }
  return bad;
})()"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["page", "failed", "index"])
def test_text_can_be_read_in_light_and_dark(browser, pages, name, scheme):
    browser.open(pages[name], 1280, scheme=scheme)
    browser.script("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert browser.script(CONTRAST) == []


def test_contents_fold_on_a_narrow_window_and_stay_in_sight_on_a_wide_one(browser, pages):
    browser.open(pages["page"], 400)
    assert browser.script("document.querySelector('.toc details').open") is False
    browser.open(pages["page"], 1280)
    assert browser.script("document.querySelector('.toc details').open") is True
    assert (
        browser.script("Math.round(document.querySelector('main').getBoundingClientRect().width)")
        == 900
    )
    browser.script("scrollTo({ top: 1500, behavior: 'instant' })")
    assert browser.script("document.querySelector('.toc').getBoundingClientRect().top") == 0


def test_the_slider_is_moved_by_the_keyboard_and_moves_one_viewer_only(browser, pages):
    browser.open(pages["page"], 1280)
    state = """[...document.querySelectorAll('.kits-viewer')].map((v) =>
        [v.querySelector('input').value, v.querySelector('output').textContent,
         v.querySelector('img').src.length])"""
    before = browser.script(state)
    browser.script("document.querySelector('.kits-viewer input').focus()")
    browser.press("Home")
    browser.press("ArrowRight")
    after = browser.script(state)
    assert after[0][:2] == ["1", "slice 2 of 12, 3 mm"] != before[0][:2]
    assert after[0][2] != before[0][2] and after[1] == before[1]
    browser.press("End")
    assert browser.script(state)[0][1] == "slice 12 of 12, 33 mm"
    assert (
        browser.script("document.querySelector('.kits-viewer input').ariaValueText")
        == "slice 12 of 12, 33 mm"
    )


def test_overlay_and_window_can_be_switched(browser, pages):
    browser.open(pages["page"], 1280)
    visible = "getComputedStyle(document.querySelector('.kits-viewer img.layer')).display"
    assert browser.script(visible) == "block"
    browser.script("document.querySelector('.kits-viewer input[type=checkbox]').click()")
    assert browser.script(visible) == "none"
    source = "document.querySelector('.kits-viewer img.frame').src"
    before = browser.script(source)
    browser.script(
        "(() => { const s = document.querySelector('.kits-viewer select'); s.value = 'bone';"
        " s.dispatchEvent(new Event('input', { bubbles: true })); })()"
    )
    assert browser.script(source) != before


@pytest.mark.parametrize(("width", "media"), [(720, "print"), (800, ""), (1280, ""), (400, "")])
def test_the_forest_plots_axis_has_room_at_every_width(browser, pages, width, media):
    browser.open(pages["index"], width, media=media)
    shown = browser.script("document.querySelector('.plot').getBoundingClientRect().width")
    assert shown > 180


def test_printed_pages_are_black_on_white_without_controls(browser, pages):
    browser.open(pages["page"], 800, scheme="dark", media="print")
    shown = "getComputedStyle(document.querySelector('{}')).{}"
    assert browser.script(shown.format("body", "backgroundColor")) == "rgb(255, 255, 255)"
    assert browser.script(shown.format(".toc", "display")) == "none"
    assert browser.script(shown.format(".kits-viewer .controls", "display")) == "none"
    assert browser.script(shown.format("details.code", "display")) == "none"
    assert browser.script(shown.format(".banner.synthetic", "display")) == "block"
    assert (
        browser.script(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        <= 0
    )
    pdf = base64.b64decode(browser.call("Page.printToPDF")["data"])
    assert pdf.startswith(b"%PDF") and len(pdf) > 20_000
