"""The committed example report is that of the committed summary, whole in itself, and small."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pandas as pd
import pytest
from browser import Browser

ROOT = Path(__file__).resolve().parent.parent
REPORTS = ROOT / "reports"
EXAMPLE = REPORTS / "example"
PAGES = sorted(EXAMPLE.glob("*.html"))
spec = importlib.util.spec_from_file_location("make_example", REPORTS / "make_example.py")
make_example = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make_example)


@pytest.fixture(scope="module")
def summary() -> dict:
    return json.loads((REPORTS / "summary.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def scores() -> pd.DataFrame:
    return pd.read_csv(REPORTS / "scores.csv.gz", keep_default_na=False, na_values=[""])


def texts(names: list[str]) -> dict[str, str]:
    return {name: (EXAMPLE / name).read_text(encoding="utf-8") for name in names}


def test_the_index_and_the_five_chapters_are_there_in_8_mb() -> None:
    chapters = {page.name[:2] for page in PAGES}
    assert {"01", "02", "03", "04", "05", "in", "re"} <= chapters
    assert sum(page.stat().st_size for page in PAGES) <= 8e6


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_each_link_leads_to_a_page_that_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = set(re.findall(r'<a (?:[^>]* )?href="([^":#]+)["#]', text))
    assert [name for name in links if not (EXAMPLE / name).is_file()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_each_anchor_is_on_its_page(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name, anchor in set(re.findall(r'<a (?:[^>]* )?href="([^":#]*)#([^"]+)"', text)):
        target = (EXAMPLE / name).read_text(encoding="utf-8") if name else text
        assert f'id="{anchor}"' in target, f"{name}#{anchor}"


def test_the_pages_are_of_the_summary_s_commit_and_study(summary: dict) -> None:
    assert summary["profile"] == "study"
    found = texts(["index.html", "rerun.html", "05_evaluation.html"])
    assert all(summary["commit"] in text for text in found.values())
    assert "./run_all.sh --profile study" in found["rerun.html"]


def test_the_index_has_the_summary_s_verdicts(summary: dict) -> None:
    text = texts(["index.html"])["index.html"]
    for claim in summary["claims"]:
        row = text[text.index(f'id="claim-{claim["number"]}{claim["part"]}"') :]
        assert claim["verdict"] in row[: row.index("</tr>")]


def test_the_scores_give_the_summary_s_means(summary: dict, scores: pd.DataFrame) -> None:
    tumor = scores[scores["record"].str.startswith("03_tumor")]
    assert set(tumor["arm"]) == set(summary["tumor"])
    for arm, rows in tumor.groupby("arm"):
        said = summary["tumor"][arm]
        assert sorted(set(rows["seed"])) == said["seeds"]
        for field in ("dice", "dice_all_components"):
            mean = rows.pivot(index="case", columns="seed", values=field).mean(axis=1).mean()
            assert mean == pytest.approx(said[field], abs=1e-4), (arm, field)


def test_no_page_names_a_folder_of_a_machine() -> None:
    for page in PAGES:
        assert not re.search(r"[\"' >]/(home|tmp|root|opt|work)/", page.read_text("utf-8")), page


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_pages_can_be_read_at_both_widths(browser: Browser, page: Path, width: int) -> None:
    assert browser.faults(page, width, "light") == []


def test_links_to_pages_that_are_left_out_become_words(tmp_path: Path) -> None:
    study = tmp_path / "study"
    study.mkdir()
    found = {"tumor": {"baseline": {}, "full": {}}, "seeds": [3, 4]}
    (study / "summary.json").write_text(json.dumps(found))
    stems = ["01_data", "02_kidney", "03_tumor-full-s3", "04_ablations", "05_evaluation"]
    for stem in [*stems, "rerun", "claim", "index"]:
        (study / f"{stem}.html").write_text(
            '<a href="03_tumor-baseline-s3.html#top">one</a> <a class="x" href="01_data.html">two'
            '</a> <a href="#here">three</a> <a href="ro-crate.zip">four</a>'
        )
    kept = make_example.pages(study)["index.html"]
    assert kept == 'one <a class="x" href="01_data.html">two</a> <a href="#here">three</a> four'


def test_more_than_8_mb_is_refused(tmp_path: Path) -> None:
    test_links_to_pages_that_are_left_out_become_words(tmp_path)
    (tmp_path / "study" / "claim.html").write_text("x" * 8_100_000)
    with pytest.raises(ValueError, match=r"8\.1 MB, at most 8 are kept"):
        make_example.pages(tmp_path / "study")
