"""The benchmarks: fair turns, tables that say what they hold, jobs that run without their peers."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import benchmarks.__main__ as command
from benchmarks import (
    _measure,
    _shapes,
    augmentation,
    estimates,
    fullsize,
    oversampling,
    realct,
    training,
    windows,
)
from benchmarks._measure import (
    Report,
    Table,
    Timing,
    conditions,
    interleave,
    judged,
    missing,
    spread,
)
from kitslib.config import ROOT, configure
from kitslib.networks import ResUNet3D, count_parameters
from kitslib.transforms import SliceAugment, draw

JOBS = (
    "augmentation", "choices", "coverage", "damaged", "detection", "estimates", "fullsize",
    "growth", "kills", "layers", "lesions", "monai", "nnunet", "oversampling", "predict",
    "preprocessing", "realct", "score", "stages", "training", "windows",
)  # fmt: skip


@pytest.fixture(autouse=True)
def keep_threads() -> object:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


# The measurement


def test_turns_are_interleaved_and_the_first_is_not_counted() -> None:
    order: list[str] = []
    clock = itertools.count(1)

    def job(name: str) -> float:
        order.append(name)
        return float(next(clock))

    found = interleave({name: lambda name=name: job(name) for name in "abc"}, 2)
    assert "".join(order) == "abc" + "bca" + "cab"
    assert found["a"] == Timing.of([6.0, 8.0])
    assert {timing.repeats for timing in found.values()} == {2}


def test_a_command_can_be_called_as_it_stands() -> None:
    words = ["--try", "", "--try", "tumor.gamma=0 tumor.lam=2", str(ROOT / "reports" / "x")]
    asked = "python -m benchmarks detection --try '' --try 'tumor.gamma=0 tumor.lam=2' reports/x"
    assert _measure.command("detection", words) == asked


def test_median_and_quartiles_on_paper() -> None:
    assert Timing.of([5.0, 1.0, 2.0, 4.0, 3.0]) == Timing(3.0, 2.0, 4.0, 5)
    assert Timing.of([7.0]) == Timing(7.0, 7.0, 7.0, 1)
    assert spread(Timing(0.5, 0.25, 1.0, 3)) == "500 [250, 1000]"


def test_a_bound_is_judged_by_its_number() -> None:
    assert judged("speed", 5.0, 5) == "speed: 5.00 times, at least 5 asked: met"
    assert judged("speed", 4.99, 5).endswith("missed")
    assert "not measured" in judged("speed", None, 5)
    assert judged("memory", 1.15, 1.15, at="most") == (
        "memory: 1.15 times, at most 1.15 asked: met"
    )
    assert judged("memory", 1.16, 1.15, at="most").endswith("missed")


def test_a_report_is_written_as_markdown_and_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"contender": "ours", "ms": 1.23456}, missing("peer", "contender")]
    table = Table(title="One", note="A note.", rows=rows)
    facts = conditions(1, 3, "no_such_package")
    Report(
        name="x", question="How?", command="c", conditions=facts, tables=[table], bounds=["b"]
    ).publish(tmp_path)
    page = (tmp_path / "x.md").read_text(encoding="utf-8")
    assert page.strip() == capsys.readouterr().out.strip()
    assert "| ours      | 1.235 |" in page
    assert "not installed: pip install -r benchmarks/requirements.txt" in page
    assert f"torch {torch.__version__}" in page and "no_such_package not installed" in page
    assert (
        json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))["tables"][0]["rows"] == rows
    )


# The command


def test_every_job_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([]) == 0
    listed = capsys.readouterr().out
    assert tuple(command.jobs()) == JOBS
    assert all(f"  {name}" in listed for name in JOBS)
    assert command.main(["nothing"]) == 2


@pytest.mark.parametrize("name", JOBS)
def test_every_job_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main([name, "--help"])
    assert stopped.value.code == 0
    assert f"python -m benchmarks {name}" in capsys.readouterr().out


# The jobs in small, without peers


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for job in (_shapes, augmentation, training, windows):
        monkeypatch.setattr(job, "installed", lambda module: False)


def contents(folder: Path, name: str) -> dict[str, object]:
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


def test_augmentation_runs(alone: None, tmp_path: Path) -> None:
    assert (
        augmentation.main(
            ["--size", "32", "--repeats", "1", "--threads", "1", "--out", str(tmp_path)]
        )
        == 0
    )
    for table in contents(tmp_path, "augmentation")["tables"]:
        mine = [row for row in table["rows"] if "remark" not in row]
        assert mine[0]["contender"] == "ours" and mine[0]["samples/s"] > 0
        assert {row["contender"] for row in table["rows"] if "remark" in row} == set(
            augmentation.PEERS
        )


class Here(Executor):
    """Does at once and in this process what is given to it."""

    def submit(self, do: Callable, /, *given: object) -> Future:
        done: Future = Future()
        done.set_result(do(*given))
        return done


def test_windows_agree_where_the_network_sees_no_further_than_the_halo(
    alone: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = windows.networks()
    monkeypatch.setattr(windows, "networks", lambda: {"dilated stack": found["dilated stack"]})
    monkeypatch.setattr(windows, "process", Here)
    assert (
        windows.main(["--depth", "100", "--plane", "8", "--repeats", "1", "--out", str(tmp_path)])
        == 0
    )
    rows = contents(tmp_path, "windows")["tables"][0]["rows"]
    seen = {row["contender"]: row["slices seen"] for row in rows if "remark" not in row}
    assert list(seen.values()) == [192, 256, 176, 132]
    assert [row["freed memory"] for row in rows if "remark" not in row] == [windows.PLAIN] * 4 + [
        windows.KEPT
    ] * 4
    hu = windows.volume(100, 8)
    halves, larger = (
        windows.ours(found["dilated stack"], hu, windows.Setting("padded", size))()
        for size in (64, 128)
    )
    assert halves.std() > 0.1
    np.testing.assert_allclose(larger, halves, atol=windows.CLOSE)


def test_a_volume_of_less_than_a_window_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        windows.main(["--depth", "63"])
    assert "--depth: expected at least 64" in capsys.readouterr().err


def test_training_runs(alone: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"ours, bfloat16": lambda: ResUNet3D(widths=(2, 2, 2, 2, 2))}
    monkeypatch.setattr(training, "OURS", small)
    monkeypatch.setattr(_measure, "process", Here)
    options = ["--crop", "8", "8", "8", "--repeats", "1", "--no-full-step", "--shapes"]
    assert training.main([*options, "--out", str(tmp_path)]) == 0
    table = contents(tmp_path, "training")["tables"][0]
    assert (
        table["rows"][0]["parameters, million"] == count_parameters(small["ours, bfloat16"]()) / 1e6
    )
    assert table["rows"][0]["samples/s"] > 0
    assert len(contents(tmp_path, "training")["bounds"]) == 4


def test_a_step_is_timed_without_those_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = iter([100, 100, 1, 1])  # of the steps; batches are drawn ahead of them
    past = 0

    def loss(out: Any, target: torch.Tensor, epoch: int) -> torch.Tensor:
        nonlocal past
        past += next(lengths)
        return training.supervised(out, target, epoch)

    monkeypatch.setattr(training, "now", lambda clock: past)
    network, shape = ResUNet3D(widths=(2, 2, 2, 2, 2)), (1, 1, 16, 16, 16)
    assert training.our_seconds(network, shape, warm=2, steps=2, clock="", loss=loss) == 1


def test_a_step_of_the_papers_size_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "PAPER_SLAB", (16, 16, 16))
    monkeypatch.setattr(training, "product_rate", lambda size, clock: 1e9)
    found = training.full_step(1, "wall")
    assert found["seconds"] > 0
    assert found["share"] == found["rate"] / 1e9


def test_the_shapes_run(alone: None, monkeypatch: pytest.MonkeyPatch) -> None:
    demo = _shapes.PROFILES["demo"]
    kidney = replace(demo.kidney, widths=(2, 2, 2, 2, 2), slab=16, patch=16)
    tumor = replace(demo.tumor, widths=(2, 2, 2, 2), batch=2, patch=(16, 16))
    small = {"demo": replace(demo, kidney=kidney, tumor=tumor)}
    monkeypatch.setattr(_shapes, "PROFILES", small)
    monkeypatch.setattr(_measure, "process", Here)
    for table in _shapes.tables("demo", 1, "wall", 1):
        mine, *peers = table.rows
        assert mine["samples/s"] > 0 and len(peers) == len(_shapes.PEERS)
        assert all(peer["remark"].startswith("not installed") for peer in peers)
    assert _shapes.shape_of("demo", "kidney") == (1, 1, 16, 16, 16)
    assert _shapes.shape_of("demo", "tumour") == (2, 5, 16, 16)


def test_an_estimate_becomes_a_table_with_alike_stages_once(tmp_path: Path) -> None:
    sizes = {"memory": 2e9, "gpu": 1e9, "disk": 0, "what": "tables"}
    costs = [{"stage": "03_tumor", "seconds": hours * 3600, **sizes} for hours in (1, 3, 2)]
    whole = {"stage": "the whole", "seconds": 21600, **sizes, "costs": costs, "problems": []}
    found = {"estimate": whole, "machine": {"what": "a card; 1 kB are on disk already"}}
    (tmp_path / "preflight_day.json").write_text(json.dumps(found), encoding="utf-8")
    words = [str(tmp_path / "preflight_day.json"), "--out", str(tmp_path)]
    assert estimates.main(words) == 0
    written = contents(tmp_path, "estimates")
    table, *others = written["tables"]
    assert written["conditions"] == {"day": "a card"} and not others
    assert table["title"] == "day" and table["note"] == "It fits."
    assert [row["h"] for row in table["rows"]] == [3, 6]


def test_the_paper_size_step_is_left_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "available_gb", lambda: 3.0)
    row = training.full_step_row(1, "wall")
    assert row["remark"] == "not tried: 3.0 GB of memory free, 17 needed"
    assert str(row["remark"]) in training.full_step_bound(row)


def test_the_paper_size_step_is_judged_by_its_memory() -> None:
    assert training.full_step_bound({"peak memory, GB": 15.9}).endswith("met")
    assert training.full_step_bound({"peak memory, GB": 16.1}).endswith("missed")


def test_peers_resample_the_same_share_of_the_samples() -> None:
    drawn = draw(SliceAugment(), seeds=[(place,) for place in range(4000)])
    moved = (drawn.degrees != 0) | (drawn.shift != 0).any(axis=1) | (drawn.share != 1)
    assert moved.mean() == pytest.approx(augmentation.moved_share(SliceAugment()), abs=0.02)


def test_all_of_kits19_is_reckoned_from_four_cases() -> None:
    config = configure(profile="day")
    case = {
        "slices": 100, "rows": 512, "cols": 512, "spacing_z_mm": 2.0, "spacing_y_mm": 0.8,
        "spacing_x_mm": 0.8, "kidney_first_slice": 20, "kidney_last_slice": 69,
        "row_min": 200, "row_max": 299, "col_min": 100, "col_max": 399,
    }  # fmt: skip
    names = [*fullsize.CASES, *(f"case_0010{number}" for number in range(4))]
    table = pd.DataFrame([case | {"case": name} for name in names])
    # 50 slices of 2 mm, 100 rows and 300 columns of 0.8 mm, and 15 mm on either side
    box = (100 + 30) * (80 + 30) * (240 + 30) / 0.8**2
    assert fullsize.grid_voxels(table, config.tumor_grid).iloc[0] == pytest.approx(box)
    assert fullsize.grid_voxels(table, config.kidney_grid).iloc[0] == 100 * 256 * 256
    scan = 100 * 512 * 512
    one = {"s": 3.6, "base GB": 1.0, "GB": 1.0 + scan * 10e-9, "cache GB": 0.5}
    rows = []
    for name in fullsize.CASES:
        rows += [one | {"case": name, "grid": grid} for grid in ("KidneyGrid", "TumorGrid")]
    found = fullsize.extrapolated(config, rows, table)
    assert found["cache, GB"] == pytest.approx(2 * 8 * 0.5)
    assert found["preparation, h of one core"] == pytest.approx(2 * 8 * 3.6 / 3600)
    assert found["memory, 8 at a time, GB"] == pytest.approx(8 * scan * 10e-9 + 8)
    table.loc[table["case"] == "case_00061", "slices"] = 20  # a fifth of the scan, the same box
    found = fullsize.extrapolated(config, rows, table)
    share = (scan + 100 * 256 * 256) / (20 * 512 * 512 + box)
    memory = found["memory, 8 at a time, GB"]
    assert memory == pytest.approx((7 * share + 1) * scan * 10e-9 + 8)
    assert fullsize.judged("memory", 64.0, 64).endswith("met")
    assert fullsize.judged("memory", 64.1, 64).endswith("missed")


def test_memory_of_child_processes_is_watched() -> None:
    watch = fullsize.Watch()
    watch.start()
    words = "import time; kept = bytearray(b'x') * 300_000_000; time.sleep(1)"
    subprocess.run([sys.executable, "-c", words], check=True)
    watch.over.set()
    watch.join()
    assert watch.peak > 0.3


def test_a_report_names_no_path_of_this_machine() -> None:
    typed = ["--out", str(ROOT / "reports" / "x"), "--work", "/far/away/work", "--study", "reports"]
    assert _measure.command("stages", typed) == (
        "python -m benchmarks stages --out reports/x --work work --study reports"
    )


def test_oversampling_is_judged_by_the_volume_in_cysts_and_by_dice() -> None:
    def runs(cyst_fp: float, dice: float) -> list[list[dict]]:
        cases = [
            {
                "case": str(i),
                "cyst_fp_all_ml": cyst_fp * (1 + i % 3),
                "fp_ml": 9.0,
                "dice_all_components": dice,
            }
            for i in range(8)
        ]
        return [cases, cases]

    found = {
        "focal_dice": runs(2.0, 0.5),
        "full": runs(1.0, 0.6),
        "oversample_cysts": runs(1.8, 0.4),
    }
    met, missed = (
        oversampling.verdict("full", found),
        oversampling.verdict("oversample_cysts", found),
    )
    assert met.endswith("met") and "50% less" in met
    assert missed.endswith("missed") and "10% less" in missed
    means, changes = oversampling.tables(found)
    assert [row["arm"] for row in means.rows] == list(found)
    (row,) = [
        r
        for r in changes.rows
        if r["arm"] == "full" and r["measure"].startswith("false positives in cysts")
    ]
    assert row["of the mean, %"] == -50.0


def test_realct_shows_a_patient_in_other_fields_of_view() -> None:
    scan = np.arange(4 * 60 * 50, dtype=np.int16).reshape(4, 60, 50)
    seen = realct.views(scan, (5.0, 3.0, 3.0))
    shapes = [view.shape for view, _ in seen.values()]
    assert shapes == [(4, 160, 150), (24, 60, 50), (4, 50, 40)]
    (wide, _), (tall, _), (cut, inner) = seen.values()
    assert np.array_equal(wide[:, 50:110, 50:100], scan) and (wide[:, :50] == -1000).all()
    assert np.array_equal(tall[10:14], scan) and np.array_equal(cut, scan[inner])


def test_realct_says_which_bounds_hold() -> None:
    rows = [
        {"seconds": 12.0, "peak GB": 1.0, "true tumour ml": 0.0, "tumour ml": 3.0},
        {"seconds": 5.0, "peak GB": 1.2, "true tumour ml": 9.0, "tumour ml": 9.0},
        {"seconds": 5.0, "peak GB": 1.2, "tumour ml": 9.0},  # without labels
    ]
    changes = [{"view": "10 slices of air", "kidney, %": -2.0}, {"view": "cut", "kidney, %": 50.0}]
    lines = realct.bounds(rows, changes)
    assert [line.rsplit(" ", 1)[1] for line in lines[:3]] == ["missed", "met", "met"]
    assert lines[3].startswith("tumour called in 1 of 1 ")
