"""The cards of a study follow its records, in Hugging Face's form and as pages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from bs4 import BeautifulSoup

from kitslib.commands.cards import write_cards
from kitslib.reporting import text_html


def a_study(folder: Path, *, synthetic: bool = True, arms: tuple = ("full",)) -> tuple[dict, dict]:
    """Summary and records of a study of four test cases."""
    config = {"profile": "demo", "seeds": [0], "cohort": {"seed": 19, "cases": 8},
              "data": None if synthetic else "/secret/kits"}  # fmt: skip
    head = {"ended": 60.0, "config": config, "train_s": 61.0, "parameters": 1234567}
    rows = []
    for index in range(4):
        row = {"case": f"case_{index:05}", "dice_all_components": 0.5 + 0.1 * index}
        rows.append(row | {"tumor_ml": 10.0 + 15 * index, "cyst_ml": None})
    cascade = [{"case": row["case"], "found": 0.0 if i else 0.9, "tumor_truth_ml": 9.0}
               for i, row in enumerate(rows)]  # fmt: skip
    cases = [{"case": "a", "tumor_ml": 3.0}, {"case": "b", "tumor_ml": 9.0}]
    near = [{"quantity": "tumour, ml", "here": 6.0, "reference": None, "difference": "-2%"}]
    records = {
        "01_data": {**head, "rows": cases, "fidelity": near},
        "02_kidney": {**head, "run": "kidney-s0-00", "rows": rows},
        "05_evaluation": {**head, "rows": cascade},
    }
    records |= {f"03_tumor-{arm}-s0": {**head, "arm": arm, "rows": rows} for arm in arms}
    found = {
        "profile": "demo", "synthetic": synthetic, "commit": "1a2b3c4", "device": "an abacus",
        "kidney": {"dice": 0.91, "dice_ci": [0.9, 0.92], "n": 4, "worst": 0.851},
        "cascade": {"tk_dice": 0.9, "tumor_dice": None, "composite": 0.7, "n": 4},
        "tumor": {arm: {} for arm in arms}, "calibration_error": None,
        "real": [{"case": "ircad01", "dice": 0.75}],
    }  # fmt: skip
    (folder / "work").mkdir(parents=True)
    split = {"labels": "kits19", "policy": "keep", "run": {"rule": "nested", "cascade_test": ["a"]}}
    (folder / "work" / "split.json").write_text(json.dumps(split), encoding="utf-8")
    return found, records


def test_the_model_card_has_front_matter_scores_groups_and_limits(tmp_path):
    pages = write_cards(tmp_path, *a_study(tmp_path), "Eight cases.")
    assert [page.href for page in pages] == ["model_card.html", "data_card.html"]
    text = (tmp_path / "models" / "README.md").read_text(encoding="utf-8")
    _, head, body = text.split("---\n", 2)
    known = yaml.safe_load(head)
    assert known["license"] == "mit" and known["metrics"] == ["dice"]
    values = [one["value"] for one in known["model-index"][0]["results"][0]["metrics"]]
    assert values == [0.91, 0.9, 0.7]
    for words in (
        "| kidney, first network alone, Dice | 0.910 | 0.900 to 0.920 | 4 |",
        "| tumour, cascade, Dice | – | – | 4 |", "| below 30 ml | 0.550 |",
        "| 30 ml and more | 0.750 |", "| ircad01 | 0.750 |", "1,234,567 weights",
        "in 3 of 4 test cases no voxel", "calibration was not measured", "a Dice of 0.851",
        "Every test case has a tumour", "not a medical device", "1 min 01 s", "Eight cases.",
    ):  # fmt: skip
        assert words in body, words


def test_the_data_card_has_contents_parts_and_distance_to_kits(tmp_path):
    write_cards(tmp_path, *a_study(tmp_path), "Eight cases.")
    text = (tmp_path / "DATA_CARD.md").read_text(encoding="utf-8")
    for words in (
        "| tumour, ml | 3.0 | 6.0 | 9.0 | 2 |", "| cascade test | 1 |",
        "| tumour, ml | 6.00 | – | -2% |", "Synthetic cohort, key", "`keep`",
    ):  # fmt: skip
        assert words in text, words


def test_a_real_cohort_is_not_called_synthetic_and_no_folder_is_named(tmp_path):
    write_cards(tmp_path, *a_study(tmp_path, synthetic=False), "Eight cases.")
    for name in ("models/README.md", "DATA_CARD.md", "model_card.html", "data_card.html"):
        text = BeautifulSoup((tmp_path / name).read_text(encoding="utf-8"), "html.parser").body
        text = text.get_text() if text else (tmp_path / name).read_text(encoding="utf-8")
        assert "ynthetic" not in text and "secret" not in text, name


@pytest.mark.parametrize("lost", ["02_kidney", "03_tumor-full-s0"])
def test_without_a_networks_record_there_is_no_model_card(tmp_path, lost):
    found, records = a_study(tmp_path)
    del records[lost]
    assert [page.href for page in write_cards(tmp_path, found, records, "")] == ["data_card.html"]
    assert not (tmp_path / "models").exists()


def test_the_card_is_of_the_cascades_arm(tmp_path):
    found, records = a_study(tmp_path, arms=("baseline", "attention"))
    write_cards(tmp_path, found, records, "")
    assert "arm `attention`" in (tmp_path / "models" / "README.md").read_text(encoding="utf-8")


def test_a_card_as_a_page_has_its_title_once_and_no_front_matter():
    text = "---\nlicense: mit\n---\n\n# The <title>\n\n## Part\n\n"
    text += "| a | b |\n| --- | --- |\n| 1 | 2 |\n"
    page = BeautifulSoup(text_html(text, synthetic=True), "html.parser")
    assert [heading.name for heading in page.find_all(["h1", "h2"])] == ["h1", "h2"]
    assert page.h1.text == "The <title>" and "license" not in page.main.text
    assert page.main.table.parent["class"] == ["scroll"]
