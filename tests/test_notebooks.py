"""The notebooks are thin and clean, and the engine executes them into the reports."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from urllib.parse import unquote

import papermill
import pytest
from browser import Browser
from bs4 import BeautifulSoup
from conftest import once

from kitslib.config import ARMS, PROFILES, configure

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
STAGES = ["01_data", "02_kidney", "03_tumor", "04_ablations", "05_evaluation"]
BY_HAND = ["06_explore"]
MOST_CELL_LINES, MOST_CODE_LINES = 20, 150
# of a run, not of the paper, whose p starts at 0.33
COUNTED = r"\b\d+ (?:minutes|seconds|cases|seeds|% of cases|% of patients)\b"
RESULT = re.compile(rf"\b0\.(?!33\b)\d+|{COUNTED}")


def cells(path: Path, kind: str) -> list[dict]:
    return [
        c for c in json.loads(path.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == kind
    ]


def source(cell: dict) -> str:
    return "".join(cell["source"])


def test_the_notebooks_are_there() -> None:
    assert [path.stem for path in NOTEBOOKS] == STAGES + BY_HAND


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_is_committed_clean(path: Path) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["metadata"]["kernelspec"]["name"] == "python3"
    assert "papermill" not in content["metadata"]
    for cell in cells(path, "code"):
        assert cell["outputs"] == [] and cell["execution_count"] is None
    tagged = [c for c in cells(path, "code") if "parameters" in c["metadata"].get("tags", [])]
    assert len(tagged) == 1


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_is_thin(path: Path) -> None:
    lines = [len(source(c).splitlines()) for c in cells(path, "code")]
    assert max(lines) <= MOST_CELL_LINES, (
        "a cell this long computes something that belongs into kitslib"
    )
    assert sum(lines) <= MOST_CODE_LINES


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_asks_before_it_computes_and_types_no_result(path: Path) -> None:
    prose = [source(c) for c in cells(path, "markdown")]
    assert prose[0].startswith("# ") and "?" in prose[0]
    assert not [number for text in prose for number in RESULT.findall(text)]


def test_what_counts_as_a_typed_result() -> None:
    for typed in ("a Dice of 0.61", "gains 0.117", "in 14 minutes", "41 % of cases", "95 cases"):
        assert RESULT.search(typed), typed
    for said in ("starting at 0.33", "dilations 2, 3 and 5", "every 15 epochs", "80 %", "2 mm"):
        assert not RESULT.search(said), said


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_the_parameters_are_typed_explained_and_the_same_everywhere(path: Path) -> None:
    found = papermill.inspect_notebook(str(path))
    assert {"profile", "data", "out", "options"} <= set(found)
    for name, parameter in found.items():
        assert parameter["inferred_type_name"] not in ("None", ""), name
        assert parameter["help"], name


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_defines_no_class_and_trains_nothing_itself(path: Path) -> None:
    for cell in cells(path, "code"):
        tree = ast.parse(source(cell))
        assert not [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
        assert "backward(" not in source(cell) and "torch.optim" not in source(cell)


def run_all(out: Path, *words: str, **more: object) -> subprocess.CompletedProcess:
    environment = {**os.environ, "VIRTUAL_ENV": sys.prefix, **more.pop("odd", {})}
    return subprocess.run(
        ["bash", "run_all.sh", "--profile", "smoke", "--out", str(out), *words],
        cwd=ROOT, env=environment, capture_output=True, text=True, **more,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--profile", "big"], "'big' is not one of smoke, demo, study, release, day, paper"),
        (["--jobs", "0"], "'0' is not a number"),
        (["--data", "/no/such/folder"], "is not a folder"),
        (["--data"], "--data needs a value"),
        (["everything"], "unknown argument 'everything'"),
    ],
)
def test_wrong_arguments_are_one_line_and_status_2(words: list[str], said: str) -> None:
    call = subprocess.run(["bash", "run_all.sh", *words], cwd=ROOT, capture_output=True, text=True)
    assert call.returncode == 2 and said in call.stderr and len(call.stderr.splitlines()) == 1


def test_help_names_every_option() -> None:
    call = subprocess.run(
        ["bash", "run_all.sh", "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert call.returncode == 0
    words = ("--profile", "--data", "--out", "--jobs", "--gpus", "--processes", "--set", "--on")
    for word in (*words, "--anyway", "lab", "test"):
        assert word in call.stdout


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smoke study; a copy is kept for other modules of this test run."""
    out = tmp_path_factory.mktemp("study") / "it's run #2 {profile}: a + b"
    with once(tmp_path_factory, "smoke") as kept:
        killed_and_called_again(out, odd_surroundings(tmp_path_factory.mktemp("odd")))
        if not kept.is_dir():
            shutil.copytree(out, kept, symlinks=True)
    return out / "smoke"


def odd_surroundings(folder: Path) -> dict[str, str]:
    """What clusters, containers and other programs leave in an environment."""
    kernel, temporary = folder / "jupyter" / "kernels" / "python3", folder / "a b"
    kernel.mkdir(parents=True)
    temporary.mkdir()
    argv = ["/no/such/python3", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    words = {"argv": argv, "display_name": "a cluster's", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(words))
    return {
        "JUPYTER_PATH": str(folder / "jupyter"), "HOME": "/proc/nohome", "TMPDIR": str(temporary),
        "XDG_CACHE_HOME": "", "LC_ALL": "C", "MPLBACKEND": "TkAgg", "TERM": "dumb", "COLUMNS": "20",
        "RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "1", "CDPATH": "/",
    }  # fmt: skip


def killed_and_called_again(out: Path, odd: dict[str, str]) -> None:
    """Run the smoke study in odd surroundings, killed once in the middle of a training."""
    environment = {**os.environ, "VIRTUAL_ENV": sys.prefix, **odd}
    command = ["bash", "run_all.sh", "--profile", "smoke", "--out", str(out)]
    child = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.time() + 400
    while not list(out.glob("work/runs/*/last.pt")):
        assert child.poll() is None and time.time() < deadline, "no checkpoint of a training came"
        time.sleep(0.05)
    tree = descendants(child.pid)
    for pid in [child.pid, *tree]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    child.wait()
    unfinished = (out / "smoke" / "index.html").read_text(encoding="utf-8")
    assert "The study is running. Done: 1 of 12 stages" in unfinished
    assert not (out / "smoke" / "summary.json").exists()
    call = run_all(out, odd=odd)
    assert call.returncode == 0, call.stderr[-3000:]
    assert f"reports: {out}/smoke/index.html" in call.stdout


def descendants(pid: int) -> list[int]:
    """All processes below one, from /proc."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(entry.parent.name)] = int(fields[1])
    found, todo = [], [pid]
    while todo:
        children = [child for child, parent in parents.items() if parent == todo[-1]]
        todo.pop()
        found += children
        todo += children
    return found


def test_the_study_ends_after_a_kill_with_a_page_per_stage(study: Path) -> None:
    names = [f"03_tumor-{name}" for name in PROFILES["smoke"].arms]
    names += [f"02_kidney-{name}" for name in PROFILES["smoke"].kidney_arms]
    alone, first, second = {"01_data", "02_kidney", "04_ablations", "05_evaluation"}, set(), set()
    for name in names:
        first.add(f"{name}-s0")
        second.add(f"{name}-s1")  # has a record and no page
    made = {"index", "rerun", "model_card", "data_card", "claim"}
    assert {page.stem for page in study.glob("*.html")} == made | alone | first
    records = (study / "work" / "records").glob("*.json")
    assert {path.stem for path in records} == alone | first | second


def test_a_seed_without_a_page_is_recorded_as_one_with_a_page(study: Path) -> None:
    for name in ("03_tumor-full", "02_kidney-standard"):
        files = [study / "work" / "records" / f"{name}-s{seed}.json" for seed in (0, 1)]
        first, second = (json.loads(file.read_text()) for file in files)
        own = {"real", "readings"}  # of notebook 02's page
        assert set(first) - own == set(second) and first["run"] != second["run"]
        cases = [[row["case"] for row in found["rows"]] for found in (first, second)]
        assert cases[0] == cases[1] and first["rows"] != second["rows"]
    assert not list(study.parent.glob("work/cache/*/.part-*"))


def test_the_summary_has_every_key_computed(study: Path) -> None:
    summary = json.loads((study / "summary.json").read_text())
    assert summary["profile"] == "smoke" and summary["synthetic"] is True and summary["wall_s"] > 0
    assert 0 <= summary["kidney"]["dice"] < 1 and summary["kidney"]["n"] == 2
    assert set(summary["tumor"]) == set(PROFILES["smoke"].arms)
    for row in summary["tumor"].values():
        assert {"dice", "dice_ci", "n", "seeds", "cyst_fp_ml", "parameters", "train_s"} <= set(row)
        assert row["parameters"] > 100 and row["train_s"] > 0
    assert {"tk_dice", "tumor_dice", "composite", "n"} <= set(summary["cascade"])
    assert [row["number"] for row in summary["verdicts"]] == list(range(1, 15))
    assert {row["number"] for row in summary["claims"]} == set(range(1, 15))
    for claim in summary["claims"]:
        assert {"claim", "verdict", "value", "ci", "n", "seeds", "p_adjusted"} <= set(claim)
    (rules,) = summary["rules_history"]
    assert rules["key"] == summary["rules"]


def test_pages_are_offline_and_say_that_the_data_is_synthetic(study: Path) -> None:
    for page in study.glob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert "SYNTHETIC DATA" in text.upper(), page.name
        assert "UNTRAINED NETWORKS" in text, page.name
        assert not re.search(r"(src|<link[^>]* href)=[\"']?(https?:)?//", text), page.name
        assert page.stat().st_size < 5_000_000, page.name


def test_every_link_between_the_pages_leads_to_something(study: Path) -> None:
    pages, missing = {}, []
    for page in study.glob("*.html"):
        soup = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
        targets = {tag["id"] for tag in soup.select("[id]")}
        pages[page.name] = targets, [link["href"] for link in soup.select("a[href]")]
    for name, (_, links) in pages.items():
        for link in links:
            file, _, anchor = link.partition("#")
            if "://" in file or file == "ro-crate.zip":
                continue
            targets = pages.get(file or name, (None, []))[0]
            if targets is None or (anchor and unquote(anchor) not in targets):
                missing.append(f"{name}: {link}")
    assert not missing


def test_the_crate_has_every_record_and_no_path_of_the_machine(study: Path) -> None:
    with zipfile.ZipFile(study / "ro-crate.zip") as crate:
        texts = {name: crate.read(name).decode("utf-8") for name in crate.namelist()}
    for record in (study / "work" / "records").glob("*.json"):
        assert texts[f"work/records/{record.name}"] == record.read_text(encoding="utf-8")
    told = json.loads(texts["ro-crate-metadata.json"])["@graph"]
    runs = [one["name"] for one in told if one["@type"] == "ControlAction"]
    assert f"work/records/{runs[0]}.json" in texts and len(runs) == 12
    assert not [name for name, text in texts.items() if str(study.parent.parent) in text]


def test_every_number_of_the_index_leads_to_its_chapter_and_record(study: Path) -> None:
    index = BeautifulSoup((study / "index.html").read_text(encoding="utf-8"), "html.parser")
    boxes, rows = index.select(".headline .number"), index.select("table.ledger tbody tr")
    assert len(boxes) == 4 and len(rows) == 22
    for place in (*boxes, *rows):
        records = [link for link in place.select("a") if link["href"].startswith("rerun.html#")]
        assert place.select("a[href*='.html#']"), place.text
        assert records or "not measured here" in place.text, place.text
    text = (study / "03_tumor-full-s0.html").read_text(encoding="utf-8")
    assert text.count("Measured here:") == 6 and "work/records/03_tumor-full-s0.json" in text


def test_every_page_can_be_read_at_both_widths(study: Path, browser: Browser) -> None:
    found = {}
    for page in sorted(study.glob("*.html")):
        for width, scheme in ((1280, "light"), (400, "dark")):
            if faults := browser.faults(page, width, scheme):
                found[page.name, width] = faults
    assert not found


def test_axe_finds_nothing_serious_on_any_page(study: Path, browser: Browser, axe: str) -> None:
    found = {}
    for page in sorted(study.glob("*.html")):
        browser.faults(page, 1280)
        if serious := browser.axe(axe):
            found[page.name] = serious
    assert not found


def test_the_first_screen_holds_numbers_picture_and_verdicts(study: Path, browser: Browser) -> None:
    browser.open(study / "index.html", 1280)
    for part in (".headline", ".three", ".strip"):
        bottom = browser.script(f"document.querySelector('{part}').getBoundingClientRect().bottom")
        assert bottom <= 800, part
    sizes = "[...document.querySelectorAll('.three img')].map((i) => [i.width, i.height])"
    squares = browser.script(sizes)
    assert len(squares) == 3 and squares.count(squares[0]) == 3
    assert squares[0][0] == squares[0][1]


def test_a_second_call_does_nothing_in_a_few_seconds(study: Path) -> None:
    before = {
        p: p.stat().st_mtime_ns
        for p in study.parent.rglob("*")
        if p.is_file() and ".snakemake" not in p.parts
    }
    spent = []
    for _ in range(2):  # of the quicker one: another job of the machine may slow a call
        began, at_work = time.time(), os.times()
        assert run_all(study.parent).returncode == 0
        assert time.time() - began < 15
        now = os.times()
        seconds = now.children_user + now.children_system
        spent.append(seconds - at_work.children_user - at_work.children_system)
    assert min(spent) < 5, "processor time"
    after = {p: p.stat().st_mtime_ns for p in before}
    assert after == before


def test_two_calls_at_once_wait_for_each_other(study: Path) -> None:
    (study / "work" / "records" / "04_ablations.json").unlink()
    command = ["bash", "run_all.sh", "--profile", "smoke", "--out", str(study.parent)]
    environment = {**os.environ, "VIRTUAL_ENV": sys.prefix}
    calls = [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    said = [call.communicate(timeout=300) for call in calls]
    assert [call.returncode for call in calls] == [0, 0], said
    assert sum("04_ablations: done" in out for out, _ in said) == 1, "the work is done once"


def test_a_failed_arm_does_not_stop_the_others_and_keeps_its_notebook(study: Path) -> None:
    """The record of one arm is lost and its runs cannot be written: it fails by itself."""
    stages = study / "work" / "records"
    broken, other = stages / "03_tumor-full-s0.json", stages / "03_tumor-baseline-s0.json"
    kept = {path: path.read_bytes() for path in (broken, other)}
    executed = study / "work" / "notebooks" / "03_tumor-full-s0.ipynb"
    run = next((study.parent / "work" / "runs").glob("tumor-full-s0-*"))
    for path in kept:
        path.unlink()
    executed.unlink()
    weights = (run / "weights.safetensors").read_bytes()
    (run / "weights.safetensors").write_bytes(b"damaged")
    try:
        call = run_all(study.parent)
        assert call.returncode == 1 and "some stages failed" in call.stderr
        assert other.is_file() and not broken.is_file()
        assert executed.is_file(), "the executed notebook of a failed stage is kept"
        assert "03_tumor-full-s0: FAILED after " in call.stderr and str(executed) in call.stderr
        index = (study / "index.html").read_text(encoding="utf-8")
        assert "Not finished" in index and "Failed: 03_tumor-full-s0." in index
    finally:
        (run / "weights.safetensors").write_bytes(weights)
    assert run_all(study.parent).returncode == 0
    assert broken.is_file()
    assert "Not finished" not in (study / "index.html").read_text(encoding="utf-8")


def execute(notebook: str, folder: Path, **parameters: object) -> None:
    papermill.execute_notebook(
        str(ROOT / "notebooks" / f"{notebook}.ipynb"), str(folder / f"{notebook}.ipynb"),
        kernel_name="python3", parameters={"profile": "smoke", **parameters},
        progress_bar=False, execution_timeout=300,
    )  # fmt: skip


def test_a_run_by_hand_leaves_the_study_alone_and_is_refused_where_it_does_not_belong(
    study: Path, tmp_path: Path
) -> None:
    records, out = study / "work" / "records", str(study.parent)
    before = {path: path.read_bytes() for path in records.iterdir()}
    execute("03_tumor", tmp_path, out=out, arm="baseline", options={"tumor.epochs": 2})
    assert {path: path.read_bytes() for path in records.iterdir()} == before
    own = study.parent / "smoke+tumor.epochs=2" / "work" / "records" / "03_tumor-baseline-s0.json"
    foreign, kept = own.read_bytes(), records / own.name
    try:
        kept.write_bytes(foreign)
        with pytest.raises(papermill.PapermillExecutionError) as told:
            execute("04_ablations", tmp_path, out=out)
    finally:
        kept.write_bytes(before[kept])
    for word in (own.name, "tumor.epochs (2 there, 3 here)", "./run_all.sh --profile smoke"):
        assert word in str(told.value)


def test_a_study_with_a_setting_has_its_own_folder_and_shares_what_is_equal(study: Path) -> None:
    runs = {path.name for path in (study.parent / "work" / "runs").glob("kidney-*")}
    call = run_all(study.parent, "--set", "tumor.steps=2", "--set", 'arms=["baseline"]')
    assert call.returncode == 0, call.stderr[-3000:]
    other = study.parent / "smoke+arms=baseline+tumor.steps=2"
    assert f"reports: {other}/index.html" in call.stdout and (other / "index.html").is_file()
    assert {path.name for path in (study.parent / "work" / "runs").glob("kidney-*")} == runs
    wrong = run_all(study.parent, "--set", "tumor.stepz=2")
    assert wrong.returncode == 2 and "did you mean 'steps'" in wrong.stderr


def test_a_wrong_arm_lists_the_right_ones(tmp_path: Path) -> None:
    with pytest.raises(papermill.PapermillExecutionError) as caught:
        execute("03_tumor", tmp_path, out=str(tmp_path), arm="ful")
    for name in ARMS:
        assert name in str(caught.value)


def test_an_unknown_parameter_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(
        papermill.PapermillExecutionError, match="'arms' is not one of this notebook's"
    ):
        execute("04_ablations", tmp_path, out=str(tmp_path), arms=["full"])


def test_predict_uses_the_studys_models_and_keeps_the_geometry(
    study: Path, tmp_path: Path, shared: Path
) -> None:
    import nibabel as nib
    import numpy as np

    scan = shared / "realct" / "data" / "ts_example_ct_sm" / "imaging.nii.gz"
    words = [
        str(scan),
        str(tmp_path / "missing.nii.gz"),
        "-o",
        str(tmp_path),
        "--models",
        str(study / "models"),
    ]
    call = subprocess.run(
        [sys.executable, "-m", "kitslib", "predict", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert call.returncode == 1 and "missing.nii.gz" in call.stderr, (
        "a broken input is named, the others are done"
    )
    given, made = nib.load(scan), nib.load(tmp_path / "prediction_ts_example_ct_sm.nii.gz")
    assert made.shape == given.shape and np.array_equal(made.affine, given.affine)
    assert set(np.unique(np.asarray(made.dataobj))) <= {0, 1, 2}
    again = subprocess.run(
        [sys.executable, "-m", "kitslib", "predict", *words[:1], *words[2:]],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert again.returncode == 1 and "--force" in again.stderr


def test_the_data_notebook_reads_real_ct(shared: Path, tmp_path: Path) -> None:
    execute("01_data", tmp_path, data=str(shared / "realct" / "data"), out=str(tmp_path))
    config = configure(profile="smoke", out=str(tmp_path))
    found = json.loads((config.work / "records" / "01_data.json").read_text())
    assert set(found["cases"]) == {"crlm1004", "ircad01", "ts_example_ct_sm"}
    volumes_ml = {row["case"]: row["kidney_and_masses_ml"] for row in found["rows"]}
    assert round(volumes_ml["ircad01"]) == 258
