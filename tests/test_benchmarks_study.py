"""The benchmarks of a whole study: kills that reach every process, comparisons that see a bit."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
from bs4 import BeautifulSoup

from benchmarks import _study, growth, kills, lesions
from benchmarks._findings import count, findings, page_lines, pictures, timeless
from benchmarks._study import Call, StudyError, at_work
from kitslib.data import read_labels
from kitslib.training import differing

# a study of three steps of a third of a second, each computed from what the last one left
STUDY = """
import json, os, pathlib, sys, time
out = pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
runs, pages = out / "work" / "runs" / "tumor", out / "smoke"
for folder in (runs, pages / "work" / "records"):
    folder.mkdir(parents=True, exist_ok=True)
state = out / "state.json"
value, step = json.loads(state.read_text()) if state.exists() else (1, 0)
for step in range(step, 3):
    time.sleep(0.3)
    value = value * 7 + step
    (out / "part").write_text(json.dumps((value, step + 1)))
    os.replace(out / "part", state)
(runs / "weights.safetensors").write_bytes(str(value).encode())
(runs / "history.jsonl").write_text(json.dumps({"loss": value, "seconds": time.time()}))
(pages / "summary.json").write_text(json.dumps({"dice": value, "wall_s": time.time()}))
(pages / "index.html").write_text(f"<p>Dice {value}</p><p>{time.time():.1f} s</p>")
"""
SLIPS = """
began = out / "began"
value += began.exists()
began.touch()
for step in"""  # a second start counts once more


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for a benchmark, and a stand-in for the study."""
    script = tmp_path / "study.py"
    script.write_text(STUDY, encoding="utf-8")
    monkeypatch.setattr(_study, "RUN_ALL", [sys.executable, str(script)])
    return tmp_path


# Calls


def test_a_kill_reaches_processes_in_sessions_of_their_own_and_orphans(tmp_path: Path) -> None:
    seconds = "987.6"
    orphan = f"(setsid sleep {seconds} &) ; setsid sleep {seconds} & sleep {seconds}"
    call = Call(["bash", "-c", orphan], tmp_path / "log")
    deadline = time.time() + 20
    found: set[psutil.Process] = set()
    while len(found) < 3:
        assert time.time() < deadline
        for process in call.processes():
            with suppress(psutil.NoSuchProcess):  # a shell that has ended in between
                if process.name() == "sleep":
                    found.add(process)
    call.kill()
    assert call.process.returncode == -9 and call.processes() == []
    for process in found:
        assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_a_call_is_measured_with_all_that_it_starts(tmp_path: Path) -> None:
    inner = "x = bytearray(300_000_000); sum(range(9_000_000))"
    words = f"{shlex.quote(sys.executable)} -c {shlex.quote(inner)}; sleep 0.2"
    used = Call(["bash", "-c", words], tmp_path / "log").usage()
    ours = psutil.Process().memory_info().rss / 1e6  # a child begins with its parent's memory
    assert 300 < used.peak_mb < max(1000, 1.5 * ours)
    assert used.processor_s > 0.05 and used.wall_s > 0.2
    with pytest.raises(StudyError, match=r"exit status 3; see .*log"):
        Call(["bash", "-c", "exit 3"], tmp_path / "log").usage()


def test_what_was_at_work_is_read_from_command_lines() -> None:
    python = ["/x/bin/python", "-m", "kitslib"]
    papermill = [
        "/x/bin/python",
        "/x/bin/papermill",
        "/n/03_tumor.ipynb",
        "/o/03_tumor-se-s0.ipynb",
    ]
    snakemake = ["/x/bin/python", "/x/bin/snakemake", "--snakefile", "S"]
    assert at_work([snakemake, papermill, ["bash"]]) == ["03_tumor-se-s0"]
    assert at_work([snakemake, [*python, "report", "a.ipynb", "/o/01_data.html"]]) == [
        "page 01_data"
    ]
    assert at_work([snakemake, [*python, "report", "--index", "/o/smoke"]]) == ["index"]
    assert at_work([[*python, "preflight", "--profile", "smoke"]]) == ["preflight"]
    assert at_work([snakemake]) == ["Snakemake"] and at_work([["bash"]]) == ["set-up"]


# What is compared

PAGE = """<dl class="facts"><div><dt>Date</dt><dd>2026-11-26 14:00 UTC</dd></div>
<div><dt>Data</dt><dd>6 cases</dd></div></dl>
<div class="number"><dt>training time, s</dt><dd>7</dd></div>
<div class="number"><dt>tumour Dice</dt><dd>0.612</dd></div>
<pre>epoch   1/3  loss 0.5000  1.2 s, 2.4 s left
tumor-se-s0: resumed after epoch 1 of 3
peak memory of this process: 512 MB on a CPU</pre><p>Code · 4 lines · 1 min 02 s</p>
<table><thead><tr><th>arm</th><th>Dice</th><th>training, s</th></tr></thead>
<tr><th>se</th><td>0.5</td><td>31.5</td></tr></table>
<table><tr><td>HD95</td><td>4.5</td></tr><tr><td>seconds</td><td>1.393</td></tr></table>
<img src="data:a" alt="Dice over seconds"><img src="data:b" alt="Dice over cases">"""


def soup(text: str = PAGE) -> BeautifulSoup:
    return BeautifulSoup(text, "html.parser")


def test_a_page_is_compared_without_times_and_a_changed_number_is_seen() -> None:
    assert page_lines(soup()) == [
        "Data", "6 cases", "tumour Dice", "0.612",
        "peak memory of this process:  on a CPU", "Code · 4 lines",
        "arm", "Dice", "se", "0.5", "HD95", "4.5",
    ]  # fmt: skip
    later = (
        PAGE.replace("14:00", "15:09")
        .replace("31.5", "8")
        .replace("1.2 s", "99 s")
        .replace("1.393", "0.9")
    )
    assert page_lines(soup(later.replace("512", "640"))) == page_lines(soup())
    for before, after in (("0.612", "0.613"), ("0.5</td>", "0.6</td>"), ("6 cases", "7 cases")):
        assert page_lines(soup(PAGE.replace(before, after))) != page_lines(soup())
    assert len(pictures(soup())) == 1
    assert pictures(soup(PAGE.replace("data:b", "data:c"))) != pictures(soup())


def test_keys_of_times_are_left_out_wherever_they_stand() -> None:
    value = {"rows": [{"dice": 0.5, "seconds": 3}, {"dice": 0.25}], "wall_s": 9, "n": 2}
    plain = {"rows": {"0": {"dice": 0.5}, "1": {"dice": 0.25}}, "n": 2}
    assert timeless(value) == plain and count(plain) == 3


def test_one_bit_in_any_file_of_a_study_is_seen(work: Path) -> None:
    _study.study(work / "reports", log=work / "log").usage()
    folder = work / "reports" / "smoke"
    runs = work / "reports" / "work" / "runs" / "tumor"
    np.savez_compressed(runs / "maps-0001.npz", maps=np.zeros(4, np.float16))
    (folder / "work" / "records" / "01_data.json").write_text(
        '{"began": 1, "rows": [{"dice": 0.5}]}'
    )
    found = findings(folder)
    assert count(found) == 6 and differing(found, findings(folder)) == []
    (runs / "weights.safetensors").write_bytes(b"346")
    (runs / "history.jsonl").write_text('{"loss": 346.0, "seconds": 1}')
    (folder / "work" / "records" / "01_data.json").write_text(
        '{"began": 2, "rows": [{"dice": 0.4}]}'
    )
    np.savez_compressed(runs / "maps-0001.npz", maps=np.float16([0, 0, 0, 1]))
    names = [text.split(" (")[0] for text in differing(found, findings(folder))]
    assert names == [
        "arrays.tumor/maps-0001.npz.maps", "histories.tumor.0.loss",
        "records.01_data.rows.0.dice", "weights.tumor/weights.safetensors",
    ]  # fmt: skip


# kills


def read(folder: Path, name: str) -> dict:
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


def test_killed_studies_that_end_alike_meet_the_bound_and_a_second_call_adds_to_them(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--work", str(work / "kills"), "--out", str(work)]
    assert kills.main([*words, "--kills", "1"]) == 0
    first = read(work, "kills")
    assert kills.main([*words, "--kills", "5"]) == 0
    found = read(work, "kills")
    rows = found["tables"][0]["rows"]
    assert rows[:1] == first["tables"][0]["rows"] and 1 < len(rows) <= 5
    assert {row["differs"] for row in rows} == {"nothing"}
    moments = [len(row["killed after, s"].split(", then ")) for row in rows]
    assert 5 <= sum(moments) == sum(len(row["at work"].split("; then ")) for row in rows)
    assert found["bounds"][0].startswith(
        f"{len(rows)} of {len(rows)} studies, killed {sum(moments)}"
    )
    assert found["bounds"][0].endswith("5 kills and all studies asked: met")


def test_a_study_that_slips_when_it_is_started_again_misses_the_bound(work: Path) -> None:
    script, folder = Path(_study.RUN_ALL[1]), work / "kills"
    script.write_text(STUDY.replace("\nfor step in", SLIPS), encoding="utf-8")
    wanted = kills.reference(folder)
    drawn = np.random.default_rng((0, 4)).uniform(0, 1)
    found = kills.trial(4, 0, folder, wanted | {"seconds": 0.8 / drawn})
    assert [kill["after_s"] for kill in found["kills"]] == [0.8] and found["calls"] == 1
    kinds = {text.split(".")[0] for text in found["differs"]}
    assert kinds == {"summary", "weights", "histories", "pages"}
    assert kills.verdict([found], 1) == (
        "0 of 1 studies, killed 1 times in all, ended as one never killed; "
        "1 kills and all studies asked: missed"
    )
    assert kills.row(found)["differs"].endswith("; and 1 more")


def test_two_undisturbed_studies_that_differ_are_refused(work: Path) -> None:
    script = Path(_study.RUN_ALL[1])
    script.write_text(STUDY.replace("value * 7 + step", "value + time.time()"), encoding="utf-8")
    with pytest.raises(StudyError, match=r"two undisturbed studies differ: .*summary\.dice"):
        kills.reference(work / "kills")


# growth


def grown(cases: int, memory: float, seconds: float, second: float = 8.0) -> dict:
    used = {"wall_s": seconds / 2, "processor_s": seconds, "peak_mb": memory}
    parts = dict.fromkeys(growth.PARTS, used)
    again = used | {"processor_s": second}
    return {"cases": cases, "disk_mb": {"cohorts": 2.0 * cases}, "second call": again, **parts}


def test_growth_is_judged_by_memory_time_a_case_and_the_second_call() -> None:
    few, some = grown(20, 500, 60), grown(60, 520, 120)
    sound = growth.bounds([few, some, grown(210, 550, 420)])
    assert len(sound) == 7 and all(line.endswith("met") for line in sound)
    assert sound[0] == "01 data, memory at 210 cases beside 20: 1.10 times, at most 1.15 asked: met"
    assert sound[1].startswith("01 data, processor time a case at 210 cases beside 60: 1.00 times")
    grows = growth.bounds([few, some, grown(210, 600, 490, 9.5)])
    assert all(line.endswith("missed") for line in grows)


def test_growth_runs_each_number_once_and_draws_it(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []

    def stage(notebook: str, out: Path, options: dict, log: Path, *more: str) -> Call:
        started.append(f"{notebook} {options['cohort.cases']} {options['cohort.held_out']}")
        out.mkdir(parents=True, exist_ok=True)
        return Call(["true"], log)

    monkeypatch.setattr(growth, "stage", stage)
    words = ["--cases", "20", "5", "--work", str(work / "growth"), "--out", str(work)]
    assert growth.main(words) == growth.main(words) == 0
    assert started == ["05_evaluation 5 1", "01_data 5 1", "05_evaluation 20 4", "01_data 20 4"]
    times, disk = read(work, "growth")["tables"]
    assert [row["cases"] for row in times["rows"]] == [5, 20] * 4
    assert all(row["wall, s"] >= 0.9 for row in times["rows"] if row["what"] == "whole study")
    assert disk["rows"][0]["runs, MB"] == 0.0
    assert "![" in (work / "growth.md").read_text(encoding="utf-8")
    assert (work / "growth.svg").read_text(encoding="utf-8").count("Memory of the largest") == 1


def test_one_number_of_cases_shows_no_growth(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        growth.main(["--cases", "20"])
    assert "--cases: expected two numbers or more, each at least 5" in capsys.readouterr().err


# A second cohort


def test_a_study_is_judged_once_more_on_the_shapes_of_patients(
    finished: Path, shared: Path, tmp_path: Path
) -> None:
    volumes = []
    for case in ("case_00061", "case_00152"):
        source, folder = shared / "kits23/dataset" / case, tmp_path / "labels" / case
        shutil.copytree(source, folder)
        labels, geometry = read_labels(folder / "segmentation.nii.gz")
        volumes.append(geometry.volumes_ml(np.bincount(labels.ravel(), minlength=4))["tumor"])
    (tmp_path / "labels" / "kits23.json").write_text("[]", encoding="utf-8")
    words = ["--study", finished / "smoke", "--labels", tmp_path / "labels"]
    words += ["--work", tmp_path / "work", "--out", tmp_path]
    assert lesions.main([str(word) for word in words]) == 0
    found = json.loads((tmp_path / "lesions.json").read_text(encoding="utf-8"))
    cohorts, ledger, arms = (table["rows"] for table in found["tables"])
    assert [row["cases"] for row in cohorts] == [2, 2]
    assert cohorts[1]["tumour ml, median"] == pytest.approx(np.median(volumes), rel=0.1)
    summary = json.loads((finished / "smoke" / "summary.json").read_text(encoding="utf-8"))
    assert [row["arm"] for row in arms] == list(summary["tumor"])
    (row,) = ledger
    assert row["row"] == "14a" and all("n 2, seeds 2" in row[name] for name in lesions.COHORTS)
