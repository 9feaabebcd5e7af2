"""Where the numbers come from: effects, chapters, records, and the page on re-running a study."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from kitslib.commands import followed
from kitslib.config import ARMS, KIDNEY_ARMS, MECHANISMS
from kitslib.evaluation import PRIMARY, Evidence, arm_scores, ledger, mechanism_places
from kitslib.reporting import rerun_html, with_effects
from kitslib.reporting.pages.forest import effect_words, forest_rows


def scores(names, gain: float = 0.01) -> dict:
    """Scores of three seeds on eight cases, each arm a little above the one before it."""
    found = {}
    for index, name in enumerate(names):
        seeds = {}
        for seed in range(3):
            level = 0.4 + index * gain + seed * 0.001
            rows = [{"case": f"case_{i:05}", PRIMARY: level + 0.01 * i} for i in range(8)]
            seeds[seed] = rows
        found[name] = arm_scores(seeds, PRIMARY)
    return found


@pytest.fixture(scope="module")
def claims() -> list[dict]:
    arms, parts = scores(ARMS), scores(KIDNEY_ARMS)
    tumor = {PRIMARY: arms, "dice": arms, "cyst_fp_all_ml": arms}
    volumes = {f"case_{i:05}": 10.0 for i in range(8)}
    grids = {name: [0.1, 0.2, 0.3] for name in ("hdc", "plain_dilation")}
    evidence = Evidence(
        synthetic=True, cyst_ml=[0.0, 1.0] * 8, empty_slices=[0.6] * 8, tumor=tumor,
        kidney_dice=parts, tumor_ml=volumes, gridding=grids,
    )  # fmt: skip
    return ledger(evidence)


def records_of() -> dict[str, dict]:
    found = {"01_data": {}, "02_kidney": {"arm": ""}, "04_ablations": {}, "05_evaluation": {}}
    found |= {f"03_tumor-{name}-s{seed}": {"arm": name} for name in ARMS for seed in range(3)}
    found |= {f"02_kidney-{name}-s0": {"arm": name} for name in KIDNEY_ARMS}
    return found


BEHIND = {  # the arms of each row that compares arms, by hand
    "4a": {"standard", "no_residual"}, "4b": {"standard", "no_deep_supervision"},
    "5": {"standard", "mirror_none"}, "6a": {"baseline", "unet"}, "6b": {"baseline", "deeplab"},
    "7": {"baseline", "vnet_3d"}, "8": {"multi_scale", "baseline"}, "9": {"se", "multi_scale"},
    "10": {"attention", "se"}, "11a": {"hdc", "attention"}, "11c": {"plain_dilation", "hdc"},
    "12a": {"focal_dice", "hdc"}, "12b": {"focal_dice_per_sample", "hdc_per_sample"},
    "13a": {"full", "focal_dice"}, "13b": {"full", "focal_dice"}, "14a": {"full"},
    "14b": {"hdc_per_sample"},
}  # fmt: skip


def test_every_row_of_the_ledger_leads_to_its_chapter_and_its_arms_records(claims):
    records = records_of()
    found = followed.sources({"claims": claims}, records)
    for claim in claims:
        place = f"{claim['number']}{claim['part']}"
        source = found[place]
        arms = {records[name].get("arm") for name in source.records} - {None}
        if place in BEHIND:
            assert arms == BEHIND[place], place
            assert source.href.startswith("04_ablations.html#")
        elif place in ("1", "3"):
            assert source.records == ("01_data",) and source.title == "01 Data"
    assert len(found["11b"].records) == 6 and "hdc" in {
        n.split("-")[1] for n in found["11b"].records
    }
    assert found["2a"].records == (), "what was not measured has no record"


def test_each_mechanism_has_its_row(claims):
    assert mechanism_places() == {
        "multi_scale": "8", "se": "9", "attention": "10", "hdc": "11a", "focal_dice": "12a",
        "oversample": "13a",
    }  # fmt: skip
    assert set(followed.MECHANISM) == set(MECHANISMS)
    rows = followed.effects(claims, [])
    by_place = {f"{claim['number']}{claim['part']}": claim for claim in claims}
    assert [row["name"] for row in rows] == list(MECHANISMS)
    assert [row["value"] for row in rows] == [by_place[row["place"]]["value"] for row in rows]
    assert rows[0]["measure"] == "multi_scale minus baseline"


def compared(arm: str, reference: str) -> dict:
    numbers = {"difference": 0.05, "lo": -0.02, "hi": 0.12, "smallest": 0.1, "n": 16, "seeds": 1}
    return {"arm": arm, "reference": reference, **numbers}


def test_comparisons_that_add_several_mechanisms_stand_after_the_single_ones(claims):
    pairs = [("full", "baseline"), ("attention", "baseline"), ("hdc", "attention")]
    more = [compared(*pair) for pair in [*pairs, ("no_se", "full"), ("unet", "baseline")]]
    more.append(compared("an_arm_of_other_code", "baseline"))
    labels = [row["label"] for row in followed.effects(claims, more)][len(MECHANISMS) :]
    assert labels == [
        "All 6 together", "Multi-scale input and Squeeze-and-excitation and Attention gates",
    ]  # fmt: skip


def effect(value, ci, **other) -> dict:
    row = {"label": "SE", "name": "se", "measure": "se minus baseline", "value": value, "ci": ci}
    row |= {"band": 0.05, "n": 16, "seeds": 3, "smallest_effect": 0.04, "place": "9"}
    return row | {"verdict": "undecided", "reason": "not measured: tumour Dice of se"} | other


def test_the_forest_places_effect_interval_and_band_on_one_axis():
    plot = forest_rows(
        [effect(0.05, [0.0, 0.1]), effect(-0.1, [-0.2, -0.05], verdict="contradicted")]
    )
    left, right = plot["band"]
    assert left + right == pytest.approx(100) and left < 50 < right
    assert plot["limit"] == "0.22"  # 1.12 times the widest end
    first, second = plot["rows"]
    assert first["at"][0] == 50 and first["at"][1] == pytest.approx(
        50 + 50 * 0.05 / 0.224, abs=0.01
    )
    assert not first["sure"] and second["sure"] and second["text"] == "−0.100"
    assert first["counts"] == "16 cases, 3 seeds, an effect of 0.040 could have been shown"


def test_an_effect_that_was_not_measured_stands_apart_and_one_without_interval_is_a_dot():
    plot = forest_rows(
        [effect(None, [None, None]), effect(0.1, [None, None], smallest_effect=None)]
    )
    assert [row["label"] for row in plot["missing"]] == ["SE"]
    (row,) = plot["rows"]
    assert row["at"][0] == row["at"][1] == row["at"][2] and row["interval"] == "no interval"
    assert forest_rows([])["rows"] == []


PLACE = '<p class="effect" data-mechanism="se">later, <b>see</b></p><p>kept</p>'


def test_a_mechanisms_page_says_what_was_measured_and_can_be_filled_again():
    filled = with_effects(PLACE, [effect(0.05, [0.01, 0.1])])
    assert "+0.050 in tumour Dice, 95 % interval 0.010 to 0.100, 16 cases" in filled
    assert "undecided" in filled and "index.html#mechanism-se" in filled and "<p>kept</p>" in filled
    again = with_effects(filled, [effect(-0.05, [-0.1, 0.1])])
    assert "−0.050" in again and "+0.050" not in again
    assert with_effects(PLACE, []) == PLACE
    assert "nothing, as this study has no tumour Dice of se" in effect_words(
        effect(None, [None] * 2)
    )


def test_the_notebook_has_a_place_for_each_mechanisms_effect():
    notebook = Path(__file__).resolve().parent.parent / "notebooks" / "03_tumor.ipynb"
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    text = "".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    rows = [effect(0.05, [0.01, 0.1], name=name) for name in MECHANISMS]
    assert with_effects(text, rows).count("Measured here:") == len(MECHANISMS)


def study(folder: Path, **config) -> tuple[dict, dict]:
    """The summary and records of a tiny study."""
    settings = {"profile": "demo", "seeds": [0], "cohort": {"seed": 19}, "data": None} | config
    head = {"ended": 60.0, "code": "ab12", "commit": "1a2b3c4", "config": settings}
    records = {
        "05_evaluation": {**head, "rows": [{"case": "case_00001"}]},
        "03_tumor-full-s0": {**head, "run": "tumor-full-s0-00", "seed": 0, "rows": []},
    }  # fmt: skip
    run = folder.parent / "work" / "runs" / "tumor-full-s0-00"
    run.mkdir(parents=True)
    (run / "settings.json").write_text(json.dumps({"data": "d00d"}), encoding="utf-8")
    found = {"commit": "1a2b3c4", "synthetic": not settings["data"], "seeds": [0], "rules": "00aa"}
    return found, records


def test_the_page_on_re_running_has_command_commit_lock_keys_and_records(tmp_path):
    folder = tmp_path / "demo"
    page = BeautifulSoup(followed.rerun_page(folder, *study(folder)), "html.parser")
    commands = [block.text for block in page.select("pre")]
    assert "git checkout 1a2b3c4\n./run_all.sh --profile demo" in commands[1]
    assert "commit 1a2b3c4" in commands[0] and commands[0].count("{") == commands[0].count("}")
    facts = page.select_one("table.plain").get_text(" ")
    for words in ("constraints.txt, SHA-256", "synthetic cohort, key", "ab12", "00aa"):
        assert words in facts, words
    row = page.find(id="03_tumor-full-s0")
    assert "tumor-full-s0-00" in row.text and "d00d" in row.text and not row.select("a")
    assert page.find(id="05_evaluation").details.summary.text == "1"


def test_no_folder_of_this_machine_stands_in_the_command(tmp_path):
    folder = tmp_path / "demo"
    found, records = study(folder, data="/secret/kits", changes=["tumor.epochs=2"])
    html = followed.rerun_page(folder, found, records)
    assert "./run_all.sh --profile demo --set tumor.epochs=2 --data DIR" in html
    assert "secret" not in html and "SYNTHETIC DATA" not in html


def test_what_is_quoted_cannot_become_markup():
    citation = {"title": "<b>", "authors": "a", "year": "1", "version": "2", "license": "MIT",
                "commit": "", "url": ""}  # fmt: skip
    html = rerun_html(
        command="<i>", facts={"Lock": "<u>"}, citation=citation, records=[], synthetic=False
    )
    assert not BeautifulSoup(html, "html.parser").find_all(["b", "i", "u"])
    assert "&lt;i&gt;" in html
