"""What a study shows while it runs, from its stages' logs alone."""

from __future__ import annotations

import io
import re
import time
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from kitslib.commands.watch import Stage, Watch
from kitslib.config import configure, write_json
from kitslib.reporting import remote_requests

NAMES = ["01_data", "02_kidney", "03_tumor-full-s0", "04_ablations", "05_evaluation"]
COSTS = [10.0, 100.0, 60.0, 5.0, 20.0]  # seconds; the two trainings side by side: 135 in all
EPOCH = "epoch   {}/10  loss 0.5000  dice 0.1000  {:.1f} s, 1 min 20 s left\n"


class Study:
    """A study's folder with its estimate, whose stages write logs and records as they are told."""

    def __init__(self, out: Path) -> None:
        self.config = configure(profile="smoke", out=str(out))
        costs = [{"seconds": seconds} for seconds in COSTS]
        estimate = {"estimate": {"seconds": 135.0, "costs": costs}}
        write_json(self.config.work / "preflight.json", estimate)
        (self.config.work / "logs").mkdir()

    def log(self, name: str, *, ago: float = 0.0, text: str = "") -> None:
        words = f"began {time.time() - ago:.0f}\n{text}"
        (self.config.work / "logs" / f"{name}.log").write_text(words, encoding="utf-8")

    def finish(self, name: str, seconds: int, **record: object) -> None:
        write_json(self.config.work / "records" / f"{name}.json", {"commit": "1a2b3c4", **record})
        self.log(name, ago=seconds, text=f"done in {seconds} s\n")
        (self.config.reports / f"{name}.html").write_text("", encoding="utf-8")

    def page(self) -> BeautifulSoup:
        text = (self.config.reports / "index.html").read_text(encoding="utf-8")
        assert remote_requests(text) == []
        return BeautifulSoup(text, "html.parser")

    def states(self) -> list[str]:
        return [badge.text for badge in self.page().select("table .badge")]


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(tmp_path)


def seconds_left(watch: Watch, name: str) -> float:
    return next(stage.left for stage in watch.stages if stage.name == name)


def test_the_page_is_there_before_any_stage_and_does_not_look_finished(study: Study) -> None:
    (study.config.reports / "summary.json").write_text("{}", encoding="utf-8")
    watch = Watch(study.config, NAMES, NAMES, study.config.work / "preflight.json")
    page = study.page()
    assert page.select_one("section h2").text == "Not finished"
    assert "0 of 5 stages, about 2 min left" in page.select_one(".answer .text").text
    assert study.states() == ["waiting"] * 5 and page.select("table a") == []
    assert page.select_one("meta[http-equiv=refresh]")["content"].isdigit()
    assert not (study.config.reports / "summary.json").exists(), "the engine makes it at the end"
    assert "UNTRAINED NETWORKS" in page.text, "of the smoke profile"
    assert watch.whole.left == pytest.approx(135)


def test_the_page_fills_as_stages_end(study: Study, capsys: pytest.CaptureFixture) -> None:
    watch = Watch(study.config, NAMES, NAMES, study.config.work / "preflight.json")
    study.finish("01_data", 10, rows=[{"case": "case_00000"}])
    study.log("02_kidney", ago=5)
    watch.look()
    assert study.states() == ["done", "running", "waiting", "waiting", "waiting"]
    assert [link["href"] for link in study.page().select("table a")] == ["01_data.html"]
    study.finish("02_kidney", 100, rows=[{"dice": 0.9}, {"dice": 0.0}, {"dice": None}])
    watch.look()
    cells = [row.select("td")[-1].text for row in study.page().select("tbody tr")]
    assert cells == ["", "0.450", "", "", ""]
    assert study.page().select_one(".headline .kidney .value").text == "0.450"
    assert capsys.readouterr().out.splitlines() == [
        "01_data: done in 10 s; 1 of 5 stages, about 2 min left",
        "02_kidney: done in 1 min 40 s; 2 of 5 stages, about 80 s left",
    ]


def test_what_the_stages_took_scales_what_the_others_will_take(study: Study) -> None:
    watch = Watch(study.config, NAMES, NAMES, study.config.work / "preflight.json")
    study.finish("01_data", 20)
    watch.look()
    assert seconds_left(watch, "03_tumor-full-s0") == pytest.approx(120)
    study.log("02_kidney", ago=50)
    watch.look()
    assert seconds_left(watch, "02_kidney") == pytest.approx(150, abs=2)


def test_epochs_say_better_how_long_a_training_takes(study: Study) -> None:
    watch = Watch(study.config, NAMES, NAMES, study.config.work / "preflight.json")
    study.log("02_kidney", ago=60, text=EPOCH.format(1, 30.0) + EPOCH.format(2, 30.0))
    watch.look()
    assert seconds_left(watch, "02_kidney") == pytest.approx(8 * 30 + 5, abs=2)
    assert "epoch 2/10, about 4 min left" in study.page().select("tbody tr")[1].text
    assert float(study.page().progress["value"]) == pytest.approx(60 / 305, abs=0.01)


def test_a_stage_that_takes_longer_than_expected_is_not_over(study: Study) -> None:
    watch = Watch(study.config, NAMES, NAMES, study.config.work / "preflight.json")
    study.log("04_ablations", ago=500)
    watch.look()
    assert seconds_left(watch, "04_ablations") == pytest.approx(25, abs=1)


def test_only_what_is_made_now_is_waited_for(study: Study, capsys: pytest.CaptureFixture) -> None:
    for name in NAMES[:3]:
        study.finish(name, 10)
    study.log("04_ablations", ago=900)  # killed, and not begun anew yet
    watch = Watch(study.config, NAMES, NAMES[3:], study.config.work / "preflight.json")
    watch.look()
    assert study.states() == ["done", "done", "done", "waiting", "waiting"]
    assert capsys.readouterr().out == "", "what was there before is no news"
    assert watch.whole.left == pytest.approx(25 * 30 / 170)


def test_a_failure_is_told_with_its_files_and_stays_on_the_page(
    study: Study, capsys: pytest.CaptureFixture
) -> None:
    watch = Watch(study.config, NAMES, NAMES, study.config.work / "preflight.json")
    watch.start()
    study.finish("01_data", 10)
    study.log("02_kidney", ago=7, text="Traceback\nFAILED after 7 s\n")
    watch.stop()
    told = capsys.readouterr().err
    assert "02_kidney: FAILED after 7.0 s; see " in told
    assert "notebooks/02_kidney.ipynb" in told and "logs/02_kidney.log" in told
    page = study.page()
    assert "The study stopped. Failed: 02_kidney." in page.select_one(".answer").text
    assert page.select_one("meta[http-equiv=refresh]") is None
    assert study.states() == ["done", "failed", "waiting", "waiting", "waiting"]


def test_a_second_try_is_running_again(study: Study) -> None:
    watch = Watch(study.config, NAMES, NAMES, study.config.work / "preflight.json")
    study.log("01_data", ago=7, text="FAILED after 7 s\n")
    watch.look()
    assert study.states()[0] == "failed"
    study.log("01_data")
    watch.look()
    assert study.states()[0] == "running"


def test_the_page_of_a_finished_study_is_the_engines(study: Study) -> None:
    watch = Watch(study.config, NAMES, NAMES, study.config.work / "preflight.json")
    watch.start()
    for name in NAMES:
        study.finish(name, 10)
    (study.config.reports / "index.html").write_text("the finished one", encoding="utf-8")
    watch.stop()
    assert (study.config.reports / "index.html").read_text() == "the finished one"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_a_bar_for_each_stage_at_work(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Terminal()
    monkeypatch.setattr("sys.stdout", screen)
    monkeypatch.setenv("COLUMNS", "80")
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now)  # however long the page takes
    watch = Watch(study.config, NAMES, NAMES, study.config.work / "preflight.json")
    study.finish("01_data", 10)
    study.log("02_kidney", ago=50)
    watch.look()
    lines = screen.getvalue().splitlines()
    assert lines[0] == "01_data: done in 10 s"
    assert re.fullmatch(r"02_kidney +\[#{6}\.{6}\]  50%  about 50 s left", lines[1])
    assert re.fullmatch(r"the whole +\[\.+\] +0%  1 of 5 stages, about 2 min left", lines[2])
    assert len(lines) == 3
    screen.truncate(0)
    watch.look()
    assert screen.getvalue().strip("\0").startswith("\033[2F\033[J02_kidney"), "over the old bars"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "about 10 s left"),
        (44, "about 40 s left"),
        (95, "about 2 min left"),
        (754, "about 13 min left"),
        (9000, "about 2.5 h left"),
    ],
)
def test_times_left_are_no_more_exact_than_they_are(seconds: float, words: str) -> None:
    assert Stage("02_kidney", 0.0, "running", left=seconds).words == words


def test_epoch_lines_are_those_of_a_training() -> None:
    from kitslib.training import epoch_line

    history = [{"epoch": e + 1, "loss": 0.5, "lr": 0.1, "seconds": 2.0} for e in range(3)]
    stage = Stage("02_kidney", 10.0)
    stage.read(f"began 0\n{epoch_line(history, 12)}\n", 0.0)
    assert stage.reached == "epoch 3/12, " and stage.to_come == pytest.approx(18)
