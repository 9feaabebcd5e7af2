"""The benchmarks beside nnU-Net, MONAI and published scorers, in their smallest forms."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import _beside, _nnunet, monai, nnunet, predict, score
from benchmarks._measure import Report, Timing, installed, wrap
from benchmarks._study import StudyError
from kitslib.commands.peers import peer_rows
from kitslib.config import PROFILES, read_json
from kitslib.data import canonical_affine, read_imaging, write_imaging, write_labels
from kitslib.phantom import render_case

needs_nnunet = pytest.mark.skipif(not installed("nnunetv2"), reason="nnunetv2 is not installed")
needs_monai = pytest.mark.skipif(not installed("monai"), reason="monai is not installed")


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No peer is installed."""
    for job in (monai, nnunet, predict, score):
        monkeypatch.setattr(job, "installed", lambda module: False)


def made_task(work: Path) -> _beside.Task:
    return _beside.Task(
        config=PROFILES["smoke"], train=[], test=[], ours=[], taken={}, commit="none", hours=[1.0],
        threads=1, work=work,
    )  # fmt: skip


def rows(*composites: float) -> list[dict]:
    blank = dict.fromkeys(_beside.SCORES, 0.5) | {"tumor_truth_ml": 20.0}
    found = []
    for number, value in enumerate(composites):
        found.append(blank | {"case": f"case_{number:05}", "composite": value})
    return found


# Budgets and plans


@pytest.mark.parametrize(
    ("seconds", "step", "epochs", "iterations"),
    [
        (1500.0, 40.0, 7, 5),  # 34 iterations: few of the epochs wished for
        (1500.0, 2.0, 54, 13),  # 681 iterations in about 50 epochs
        (1.0, 40.0, 1, 1),  # less than one iteration
        (1e8, 0.1, 1000, 250),  # never more than nnU-Net's own
    ],
)
def test_a_schedule_fills_the_budget(
    seconds: float, step: float, epochs: int, iterations: int
) -> None:
    found = _nnunet.schedule(seconds, step, step / 2)
    assert (found["epochs"], found["iterations"]) == (epochs, iterations)
    assert found["validation"] == max(1, iterations // 5)
    taken = epochs * (iterations * step + found["validation"] * step / 2)
    assert taken == pytest.approx(seconds, rel=0.07) or epochs in (1, 1000)


def test_plans_are_named_by_preset_or_memory() -> None:
    assert nnunet.Plans.of("default").memory is None
    assert nnunet.Plans.of("1.5GB").memory == 1.5
    assert nnunet.Plans.of("ResEncL").planner == "nnUNetPlannerResEncL"
    with pytest.raises(argparse.ArgumentTypeError, match="such as 1GB, got 'big'"):
        nnunet.Plans.of("big")


# Stages


def test_a_stage_runs_once_and_interrupted_attempts_are_added(tmp_path: Path) -> None:
    task = made_task(tmp_path)
    first = "import sys, time; x = bytearray(b'1') * 200_000_000; time.sleep(1); sys.exit(3)"
    with pytest.raises(StudyError, match="exit status 3"):
        task.measured("train", [sys.executable, "-c", first])
    part = read_json(tmp_path / "stages" / "train.part")
    assert part["s"] > 1 and part["GB"] > 0.2
    again = [
        sys.executable,
        "-c",
        "import os; print(os.environ['KEPT'], os.environ['OMP_NUM_THREADS'])",
    ]
    found = task.measured("train", again, {"KEPT": "7"})
    assert found["s"] > part["s"] and found["GB"] == part["GB"]
    assert not (tmp_path / "stages" / "train.part").exists()
    assert (tmp_path / "logs" / "train.log").read_text(encoding="utf-8").split() == ["7", "1"]
    assert task.measured("train", ["false"]) == found


def test_the_seconds_of_parts_are_added() -> None:
    class Work:
        def do(self, much: int) -> int:
            return 2 * much

    seconds = {"other": 1.0}
    wrap(Work, "do", "doing", seconds)
    assert [Work().do(number) for number in (1, 2)] == [2, 4]
    assert seconds["other"] == 1.0 and 0 < seconds["doing"] < 1


# Tables


def test_peers_are_compared_case_by_case() -> None:
    ours, peer = rows(0.9, 0.8, 0.7), rows(0.8, 0.7, 0.6)[::-1]
    means, gaps, sizes = _beside.score_tables(ours, {"peer": (0.4, peer)})
    assert [row["composite Dice"][:5] for row in means.rows] == ["0.800", "0.700"]
    (gap,) = [row for row in gaps.rows if row["hours"] and row["score"] == "composite"]
    assert gap["ours minus it"] == pytest.approx(0.1) and gap["pairs"] == 3
    assert gap["from"] == pytest.approx(0.1) and gap["mean"] == pytest.approx(0.7)
    assert [row["cases"] for row in sizes.rows] == [0, 3, 0] * 2
    assert _beside.ahead(ours, "peer", peer).endswith("3 cases: ours is ahead")
    assert _beside.ahead(peer, "ours", ours).endswith("the peer is ahead")
    assert _beside.ahead(rows(0.9, 0.1), "peer", rows(0.1, 0.9)).endswith("neither is ahead")
    assert "not scored" in _beside.ahead([], "peer", peer)


def test_the_index_gets_the_peers_with_our_row_where_it_is_of_another_run(tmp_path: Path) -> None:
    tables = _beside.score_tables(rows(0.9, 0.8, 0.7), {"peer": (0.4, rows(0.8, 0.7, 0.6))})
    for name in ("nnunet", "monai"):
        facts = {"study": "demo, commit abc", "data": "synthetic"}
        Report(
            name=name, question="?", command="c", conditions=facts, tables=tables, bounds=[]
        ).publish(tmp_path)
    summary = {"synthetic": True, "cascade": {"composite": 0.8}}
    (row,) = peer_rows(summary, tmp_path)
    assert (row["system"], row["n"]) == ("peer", 3) and row["dice"] == pytest.approx(0.7)
    assert row["says"].startswith(
        "KiTS19 composite on the test cases of demo, commit abc, after 24"
    )
    assert "ours minus it +0.100, 95 % +0.100 to +0.100" in row["says"]
    assert row["ci"][0] < 0.7 < row["ci"][1]
    ours, again = peer_rows(summary | {"cascade": {"composite": 0.81}}, tmp_path)
    assert ours["system"] == _beside.OURS and ours["dice"] == pytest.approx(0.8) and again == row
    assert ours["says"] == "KiTS19 composite on the test cases of demo, commit abc"
    assert peer_rows(summary | {"synthetic": False}, tmp_path) == []
    assert peer_rows(summary, tmp_path / "none") == []
    undefined = _beside.score_tables(rows(math.nan), {})  # no case that has a composite
    Report(
        name="nnunet", question="?", command="c", conditions=facts, tables=undefined, bounds=[]
    ).publish(tmp_path)
    assert peer_rows(summary, tmp_path)[0]["dice"] is None


# The jobs


def test_a_job_without_its_peer_says_what_to_install(
    alone: None, capsys: pytest.CaptureFixture[str]
) -> None:
    for job in (monai, nnunet):
        assert job.main(["--profile", "smoke", "--hours", "1"]) == 1
        assert "pip install -r benchmarks/requirements.txt" in capsys.readouterr().err


def test_a_budget_is_needed_where_no_study_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(nnunet, "installed", lambda module: True)
    with pytest.raises(SystemExit):
        nnunet.main(["--profile", "smoke", "--study", str(tmp_path)])
    assert "--hours: needed, no finished study lies in" in capsys.readouterr().err


def small(work: Path, folder: Path) -> list[str]:
    words = ["--profile", "smoke", "--set", "cohort.matrix=48", "--hours", "0.001"]
    words += ["--study", str(folder / "study")]
    return [*words, "--threads", "1", "--work", str(work), "--out", str(folder)]


def scored_cases(tables: dict[str, list]) -> int:
    """How many cases have a composite Dice; HD95 has none where nothing was found."""
    (row,) = [row for row in tables["Each score beside ours"] if row["score"] == "composite"]
    return row["n"]


@needs_nnunet
def test_nnunet_trains_predicts_and_is_scored(tmp_path: Path) -> None:
    words = [*small(tmp_path / "work", tmp_path), "--plans", "0.1GB", "--no-mirroring"]
    assert nnunet.main(words) == 0
    found = read_json(tmp_path / "nnunet.json")
    tables = {table["title"]: table["rows"] for table in found["tables"]}
    assert scored_cases(tables) == 2
    assert tables["Training"][0]["epochs"] >= 1 and tables["Training"][0]["trained, min"] > 0
    assert all(row["processor min"] > 0 for row in tables["What it took"])
    stages = sorted(path.name for path in (tmp_path / "work").glob("*/stages/*.json"))
    assert nnunet.main(words) == 0  # nothing runs twice
    assert stages == sorted(path.name for path in (tmp_path / "work").glob("*/stages/*.json"))
    assert read_json(tmp_path / "nnunet.json")["tables"] == found["tables"]
    networks = predict.networks(tmp_path / "work")
    assert list(networks) == ["0.1GB"] and (networks["0.1GB"] / "plans.json").is_file()
    volume, _ = read_imaging(next((tmp_path / "study").rglob("imaging.nii.gz")))
    scan = tmp_path / "scan.nii.gz"
    write_imaging(scan, volume[:16, :24, :24].copy(), canonical_affine((5.0, 8.8, 8.8)))
    options = ["--scans", str(scan), "--slices", "0", "--repeats", "1", "--threads", "1"]
    assert predict.main([*options, "--work", str(tmp_path / "work"), "--out", str(tmp_path)]) == 0
    scans, parts, *_ = read_json(tmp_path / "predict.json")["tables"]
    assert [row["contender"] for row in scans["rows"]] == [
        "ours", "ours, zlib", "nnU-Net 0.1GB, without mirroring", "nnU-Net 0.1GB, with mirroring",
    ]  # fmt: skip
    assert {"network", "kidneys"} < {row["part"] for row in parts["rows"]}


@needs_monai
def test_monai_trains_predicts_and_is_scored(tmp_path: Path) -> None:
    assert monai.main(small(tmp_path / "work", tmp_path)) == 0
    tables = {t["title"]: t["rows"] for t in read_json(tmp_path / "monai.json")["tables"]}
    assert scored_cases(tables) == 2
    assert [row["stage"] for row in tables["What it took"]] == ["train", "predict"]


def test_ours_predicts_and_says_where_the_time_goes(alone: None, tmp_path: Path) -> None:
    words = ["--scans", "--slices", "24", "--matrix", "64", "--repeats", "1", "--threads", "1"]
    assert predict.main([*words, "--work", str(tmp_path), "--out", str(tmp_path)]) == 0
    found = read_json(tmp_path / "predict.json")
    scan, before = found["tables"][0]["rows"]
    mine = [row for row in found["tables"][1]["rows"] if row["contender"] == "ours"]
    parts = {row["part"]: row["s"] for row in mine}
    assert {"scan read", "kidneys", "tumour", "labels written", "networks read"} < set(parts)
    assert sum(parts.values()) == pytest.approx(float(scan["s"].split()[0]), rel=0.01)
    assert scan["memory, GB"] > 0.1 and "rendered, 24 slices, 2" in scan["scan"]
    assert before["contender"] == "ours, zlib" and before["ours is quicker, times"] > 0
    labels = [tmp_path / "predict" / "0" / f"{by}.nii.gz" for by in ("isal", "zlib")]
    assert labels[0].read_bytes() == labels[1].read_bytes()
    reading = found["tables"][2]["rows"]
    assert [row["what"] for row in reading][:2] == ["read", "check"]
    assert found["bounds"][-1].startswith("nnU-Net's predictor: not installed")


def test_predictions_are_judged_by_time_memory_and_the_peer() -> None:
    ours = {"scan": "a", "contender": "ours", "timing": Timing.of([9.0]), "GB": 1.6}
    ours |= {"shape": (129, 512, 512), "dice": 0.8}
    peer = ours | {"contender": "nnU-Net", "timing": Timing.of([50.0]), "dice": 0.7}
    found = predict.bounds([ours, peer])
    assert found[0] == "a: 9.00 s, at most 10 asked: met" and found[1].endswith("missed")
    assert found[2].startswith("a, quicker than nnU-Net (Dice 0.800, there 0.700): 5.56 times")
    assert "at most 30 asked" in predict.bounds([ours | {"shape": (600, 512, 512)}])[0]
    assert predict.bounds([ours | {"shape": (1000, 512, 512)}]) == []


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cases as one release labels them and as the next does, a voxel apart."""
    folder = tmp_path_factory.mktemp("shared")
    for number in range(2):
        _, labels, spacing = render_case(number, seed=5, matrix=64, spacing_z=(6.0,))
        labels[labels == 3] = 1
        moved = np.roll(labels, 1, axis=2)
        for place, values in (("kits19/data", labels), ("kits23/dataset", moved)):
            file = folder / place / f"case_{number:05}" / "segmentation.nii.gz"
            write_labels(file, values, canonical_affine(spacing))
    return folder


def test_ours_scores_pairs_of_label_maps(alone: None, releases: Path, tmp_path: Path) -> None:
    assert score.main(["--shared", str(releases), "--cases", "5", "--out", str(tmp_path)]) == 0
    table, values = read_json(tmp_path / "score.json")["tables"]
    assert [row["scorer"] for row in table["rows"]] == ["ours", "ours", *score.PEERS]
    assert len(values["rows"]) == 4
    assert 0 < values["rows"][0]["surface Dice: ours"] < 1
    with pytest.raises(SystemExit):
        score.main(["--shared", str(releases), "--cases", "0"])


@pytest.mark.skipif(not installed("surface_distance"), reason="surface_distance is not installed")
def test_ours_follows_deepmind(releases: Path, tmp_path: Path) -> None:
    assert score.main(["--shared", str(releases), "--out", str(tmp_path)]) == 0
    found = read_json(tmp_path / "score.json")["bounds"]
    assert [line.rsplit(": ", 1)[1] for line in found[:2]] == ["met", "met"]


def test_a_box_holds_both_masks_and_a_voxel_more() -> None:
    first, second = np.zeros((2, 9, 9, 9), bool)
    first[4, 4, 4] = second[4, 4, 6] = True
    pred, truth = score.boxed(first, second)
    assert pred.shape == truth.shape == (3, 3, 5)
    assert pred[1, 1, 1] and truth[1, 1, 3] and pred.sum() == truth.sum() == 1


def test_deviations_are_the_peers_values_minus_ours() -> None:
    def row(scorer: str, surface: float, seconds: float) -> dict:
        return {
            "case": "a",
            "mask": "tumor",
            "scorer": scorer,
            score.SURFACE: surface,
            "s": seconds,
        }

    some = [row("ours", 0.8, 1.0), row("MONAI", 0.7, 3.0)]
    both = some + [entry | {"mask": "kidney_and_masses"} for entry in some]
    peer = score.deviations(both)[1]
    assert peer["surface Dice, mean difference"] == pytest.approx(-0.1)
    assert peer["surface Dice, largest"] == pytest.approx(0.1)
    assert peer["ours is quicker, times"] == 3.0
    assert "HD95, mm, mean" not in peer
