"""Two studies beside each other, on summaries whose comparison can be worked out on paper."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from kitslib.commands import main
from kitslib.commands.compare import Pair, compare, load, prediction
from kitslib.data import CaseError
from kitslib.reporting import results_markdown

WORDS = ("reproduced", "contradicted", "practically equal", "undecided", "not testable here")
SHARES = {"between arms": 0.1, "seed": 0.04, "case": 0.64, "rest": 0.22}


def row(place: str, verdict: str, value: float | None = 0.1, half: float = 0.03, **other) -> dict:
    ci = [None, None]
    if value is not None:
        ci = [value - half, value + half]
    return {
        "number": int(place.rstrip("ab")), "part": place.lstrip("0123456789"), "verdict": verdict,
        "claim": f"claim {place}", "value": value, "ci": ci, "n": 200, "seeds": 6, "unit": "",
        "warning": "",
    } | other  # fmt: skip


def arm(dice: float | None, half: float, seeds: int, n: int) -> dict:
    found = {"dice_all_components": dice, "seeds": list(range(seeds)), "n": n}
    found["dice_all_components_ci"] = [None, None]
    if dice is not None:
        found["dice_all_components_ci"] = [dice - half, dice + half]
    return found


def study(*rows: dict, **other) -> dict:
    """A summary whose combined claims are its first row of each number."""
    verdicts: dict[int, dict] = {}
    for one in rows:
        words = {name: one[name] for name in ("number", "claim", "verdict")}
        verdicts.setdefault(one["number"], words)
    return {
        "profile": "study", "synthetic": True, "commit": "1a2b3c4", "claims": list(rows),
        "verdicts": list(verdicts.values()), "tumor": {}, "rules": "00aa", "seeds": [0, 1],
        "cohort_seed": 19,
    } | other  # fmt: skip


def table(text: str, title: str) -> list[list[str]]:
    """The rows of the table under a heading."""
    part = text.split(f"## {title}\n")[1].split("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("| ")]
    return [line.strip("| ").split(" | ") for line in lines[2:]]


@pytest.mark.parametrize("one", WORDS)
@pytest.mark.parametrize("other", WORDS)
def test_only_reproduced_contradicts_and_only_what_denies_it(one: str, other: str) -> None:
    denied = {"contradicted", "practically equal"}
    expected = (one == "reproduced" and other in denied) or (
        other == "reproduced" and one in denied
    )
    pair = Pair("1", row("1", one), row("1", other))
    assert pair.contradicting == expected
    assert pair.equal == (one == other)


def test_a_claim_that_one_study_lacks_is_neither_equal_nor_contradicting() -> None:
    text, contradicting = compare(study(row("1", "reproduced")), study(row("2", "contradicted")))
    assert table(text, "Claims") == [
        ["1", "claim 1", "reproduced", "–", "no", "no"],
        ["2", "claim 2", "–", "contradicted", "no", "no"],
    ]
    assert not contradicting and "0 of 2 claims have the same verdict" in text


def test_rows_stand_with_their_numbers_and_warnings() -> None:
    a = study(
        row("13a", "undecided", -0.06, unit="ml", warning="one seed"), row("13b", "undecided")
    )
    b = study(row("13a", "undecided", 0.02), row("13b", "not testable here", None, n=0, seeds=0))
    text, _ = compare(a, b)
    assert table(text, "Rows of the ledger") == [
        ["13a", "claim 13a<br>*A: one seed*", "undecided", "undecided", "yes", "no",
         "−0.060 ml (−0.090 to −0.030; n 200, seeds 6)", "0.020 (−0.010 to 0.050; n 200, seeds 6)",
         "no"],
        ["13b", "claim 13b", "undecided", "not testable here", "no", "no",
         "0.100 (0.070 to 0.130; n 200, seeds 6)", "–", "–"],
    ]  # fmt: skip


@pytest.mark.parametrize(("value", "inside"), [(0.149, True), (0.151, False), (0.051, True)])
def test_the_prediction_interval_adds_both_half_widths_in_squares(
    value: float, inside: bool
) -> None:
    pair = Pair("1", row("1", "undecided", 0.1, 0.03), row("1", "undecided", value, 0.04))  # 0.05
    assert pair.inside is inside


def test_a_pair_of_rows_can_contradict_under_equal_claims() -> None:
    a = study(row("13a", "contradicted"), row("13b", "reproduced"))
    b = study(row("13a", "contradicted"), row("13b", "practically equal"))
    text, contradicting = compare(a, b)
    assert contradicting
    assert "1 of 1 claims have the same verdict, 1 of these a decided one" in text
    assert "0 of 1 pairs of claims and 1 of 2 pairs of rows." in text


def test_the_last_paragraph_counts_and_says_what_is_disjoint() -> None:
    rows = [row("1", "reproduced"), row("2", "undecided"), row("3", "practically equal", 0.0)]
    others = [row("1", "contradicted", -0.1), row("2", "undecided"), row("3", "contradicted")]
    a, b = study(*rows), study(*others, seeds=[2, 3], cohort_seed=20, rules="11bb")
    last = compare(a, b)[0].split("## Altogether\n\n")[1]
    assert last == (
        "1 of 3 claims have the same verdict, 0 of these a decided one. Contradicting are 1 of 3 "
        "pairs of claims and 1 of 3 pairs of rows. 1 of 3 pairs of values lie in each other's 95 % "
        "prediction interval. Rules: NOT the same (A 00aa; B 11bb). Seeds: disjoint (A 0, 1; B 2, "
        "3). Cohorts: disjoint (A 19; B 20).\n"
    )


def test_shared_and_unknown_seeds_and_cohorts_are_said() -> None:
    a, b = study(row("1", "undecided")), study(row("1", "undecided"), seeds=[1, 2])
    text = compare(a, b)[0]
    assert "Seeds: NOT disjoint (A 0, 1; B 1, 2). Cohorts: NOT disjoint (A 19; B 19)." in text
    assert "Rules: the same in both" in text
    del b["seeds"], b["cohort_seed"]
    text = compare(a, b)[0]
    assert "Seeds: not recorded in both studies. Cohorts: not recorded in both studies." in text


def test_a_demos_mean_is_held_against_the_studys_interval_for_its_seeds_and_cases() -> None:
    # of a mean, in shares: 4 seeds × 16 cases 0.01 + 0.04 + 0.0034375, 1 × 4 0.04 + 0.16 + 0.055
    large, small = arm(0.5, 0.03, 4, 16), arm(0.58, 0.3, 1, 4)
    half = 0.03 * (1 + 0.255 / 0.0534375) ** 0.5
    assert prediction(large, small, SHARES) == pytest.approx(half, rel=1e-12)
    assert half == pytest.approx(0.0721, abs=1e-4)
    for dice, inside in ((0.57, "yes"), (0.58, "no")):
        demo = study(tumor={"full": arm(dice, 0.3, 1, 4), "se": arm(0.1, 0.3, 1, 4)})
        whole = study(tumor={"full": large}, variance=SHARES)
        text = compare(demo, whole)[0]
        assert table(text, "Tumour arms") == [
            ["`full`", f"{dice:.3f} ({dice - 0.3:.3f} to {dice + 0.3:.3f}; n 4, seeds 1)",
             "0.500 (0.470 to 0.530; n 16, seeds 4)", "0.428 to 0.572", inside]
        ]  # fmt: skip
        count = {"yes": 1, "no": 0}[inside]
        assert f"{count} of 1 means of A lie in the 95 % prediction interval of B" in text
        assert "no shares" not in text
        assert f"{count} of 1 means of B lie in the 95 % prediction" in compare(whole, demo)[0]


def test_without_shares_of_variance_the_smaller_studys_interval_stands_for_them() -> None:
    large, small = arm(0.5, 0.03, 4, 16), arm(0.58, 0.04, 1, 4)
    assert prediction(large, small, {}) == pytest.approx(0.05)
    assert prediction(large, small, SHARES | {"seed": None}) == pytest.approx(0.05)
    text = compare(study(tumor={"full": large}), study(tumor={"full": small}))[0]
    assert "A has no shares of variance: B's own intervals stand for them." in text


def test_an_arm_without_a_score_has_a_dash() -> None:
    large = study(tumor={"full": arm(0.5, 0.03, 4, 16)}, variance=SHARES)
    text = compare(large, study(tumor={"full": arm(None, 0, 1, 4)}))[0]
    assert table(text, "Tumour arms")[0][2:] == ["– (–; n 4, seeds 1)", "–", "–"]
    assert "No arm is in both studies." in compare(large, study())[0]


def test_the_command_takes_folders_and_files_writes_and_fails_where_verdicts_contradict(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    one, other, out = tmp_path / "study", tmp_path / "other.json", tmp_path / "compared.md"
    one.mkdir()
    (one / "summary.json").write_text(json.dumps(study(row("1", "reproduced"))))
    for verdict, status in (("undecided", 0), ("practically equal", 1), ("reproduced", 0)):
        other.write_text(json.dumps(study(row("1", verdict))))
        assert main(["report", "--compare", str(one), str(other), "--out", str(out)]) == status
        printed = capsys.readouterr().out
        assert printed == out.read_text() and f"| reproduced | {verdict} |" in printed


def test_a_summary_of_other_code_is_refused_by_name(tmp_path: Path) -> None:
    old = study(row("1", "reproduced"))
    del old["verdicts"]
    (tmp_path / "summary.json").write_text(json.dumps(old))
    with pytest.raises(CaseError, match=r"summary\.json: expected .* missing: verdicts"):
        load(tmp_path)


def test_a_second_study_stands_beside_the_first(finished: Path, tmp_path: Path) -> None:
    folder = finished / "smoke"
    found = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    other = tmp_path / "other.json"
    changed = next(row for row in found["claims"] if row["verdict"] == "undecided")
    place, changed["verdict"] = f"{changed['number']}{changed['part']}", "reproduced"
    other.write_text(json.dumps(found | {"seeds": [7, 8]}), encoding="utf-8")
    assert main(["report", "--index", str(folder), "--second", str(other)]) == 0
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert summary["second"].startswith("A second study (B) beside this one (A): 14 of 14 claims")
    assert "Seeds: disjoint (A 0, 1; B 7, 8)" in summary["second"]
    page = BeautifulSoup((folder / "index.html").read_text(encoding="utf-8"), "html.parser")
    assert summary["second"] in page.text
    assert "14 of 14 claims have the same verdict" in page.select_one("section.first").text
    row = page.select_one(f"#claim-{place}")
    assert "in a second study: reproduced" in row.find_parent("tr").text
    assert page.text.count("in a second study:") == 1
    text = results_markdown(summary)
    assert summary["second"] in text and text.count("in a second study: reproduced") == 1
