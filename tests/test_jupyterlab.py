"""The notebooks in JupyterLab, in a real browser: all cells run, and the live viewers are alive."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import urlopen

import papermill
import pytest
from browser import Browser
from conftest import ROOT

PATIENCE = 120  # seconds for what takes a few where the machine does nothing else
NOTEBOOK = "jupyterapp.shell.currentWidget"
# what is wrong with the outputs of a notebook's cells, whether they are in view or not
WRONG = f"""[...{NOTEBOOK}.content.model.cells].flatMap((cell) =>
  (cell.type === "code" ? cell.outputs.toJSON() : []).filter((one) =>
    one.output_type === "error" || one.name === "stderr").map((one) => one.evalue ?? one.text))"""
NOT_RUN = f"""[...{NOTEBOOK}.content.model.cells].filter((cell) => cell.type === "code" &&
  cell.executionCount === null).length"""
PICTURES = """(async () => {
  const all = [];
  for (const image of document.querySelectorAll("img.widget-image")) {
    const data = await (await fetch(image.src)).arrayBuffer();
    const sum = await crypto.subtle.digest("SHA-256", data);
    all.push([...new Uint8Array(sum)].join(" "));
  }
  return all;
})().catch(() => [])"""  # one that is drawn anew meanwhile cannot be fetched


class Lab:
    """A JupyterLab of its own, open in the browser."""

    def __init__(self, browser: Browser, folder: Path) -> None:
        self.browser, self.root = browser, folder / "notebooks"
        browser.patience = PATIENCE
        browser.call("Emulation.setFocusEmulationEnabled", enabled=True)  # else no tab is current
        config = folder / "config" / "labconfig"
        for place in (self.root, config):
            place.mkdir(parents=True)
        news = {"@jupyterlab/apputils-extension:announcements": True}
        (config / "page_config.json").write_text(json.dumps({"disabledExtensions": news}))
        settings = config.parent / "lab/user-settings/@jupyterlab/notebook-extension"
        settings.mkdir(parents=True)
        every = {"windowingMode": "none"}  # cells out of view are in the page as well
        (settings / "tracker.jupyterlab-settings").write_text(json.dumps(every))
        folders = {"CONFIG_DIR": config.parent, "DATA_DIR": folder / "data"}
        folders["RUNTIME_DIR"] = folder / "runtime"
        environment = dict(os.environ) | {f"JUPYTER_{n}": str(p) for n, p in folders.items()}
        environment |= {"MPLBACKEND": "", "JUPYTER_PREFER_ENV_PATH": "1"}
        token = secrets.token_hex(16)
        self.log = folder / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable, "-m", "jupyterlab", "--no-browser", "--ServerApp.ip=127.0.0.1",
                    "--ServerApp.port=0", f"--IdentityProvider.token={token}",
                    f"--ServerApp.root_dir={self.root}", "--ServerApp.allow_root=True",
                    "--LabApp.expose_app_in_browser=True",
                ],
                cwd=ROOT, env=environment, stdout=log, stderr=log,
            )  # fmt: skip
        self.address = self._address(folders["RUNTIME_DIR"], token)

    def _address(self, runtime: Path, token: str) -> str:
        """Where the server listens, once it answers."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            assert self.process.poll() is None, self.log.read_text()
            for file in runtime.glob("jpserver-*.json"):
                try:
                    url = json.loads(file.read_text())["url"]
                    with urlopen(f"{url}api/status?token={token}", timeout=5):
                        return f"{url}lab/tree/{{}}?token={token}&reset"
                except (OSError, ValueError):
                    continue
            time.sleep(0.1)
        raise TimeoutError(self.log.read_text())

    def run(self, name: str, **parameters: object) -> None:
        """Open a notebook with parameters, run all cells and wait until all have ended."""
        file = self.root / f"{name}.ipynb"
        papermill.execute_notebook(
            str(ROOT / "notebooks" / f"{name}.ipynb"), str(file), prepare_only=True,
            parameters={"profile": "smoke", **parameters}, progress_bar=False,
        )  # fmt: skip
        self.browser.open(self.address.format(file.name), 1280)
        ready = f"window.jupyterapp && {NOTEBOOK}?.context?.path === '{file.name}' && "
        ready += f"{NOTEBOOK}.sessionContext.session?.kernel?.status === 'idle'"
        self.browser.until(ready, PATIENCE, f"a kernel for {name}")
        run = "jupyterapp.commands.execute('notebook:run-all-cells')"
        self.browser.script(f"window.ended = false; {run}.finally(() => {{ ended = true; }}); 0")
        self.browser.until("ended", PATIENCE, f"the end of {name}")

    def pictures(self, right: Callable[[list[str]], bool], what: str) -> list[str]:
        """What each picture of a live viewer is made of, once it is `right`."""
        end = time.monotonic() + PATIENCE
        while not right(found := self.browser.script(PICTURES)):
            words = f"{what} did not come, {len(found)} pictures, {len(set(found))} different"
            assert time.monotonic() < end, words
            time.sleep(0.1)
        return found

    def choose(self, what: str, option: str) -> None:
        """Choose an option, by the beginning of its words, in the list of that name."""
        done = self.browser.script(
            f"""(() => {{
          for (const box of document.querySelectorAll(".widget-dropdown")) {{
            const list = box.querySelector("select");
            if (box.querySelector("label").textContent !== {what!r}) continue;
            const options = [...list.options].map((one) => one.text);
            list.selectedIndex = options.findIndex((one) => one.startsWith({option!r}));
            list.dispatchEvent(new Event("change", {{bubbles: true}}));
            return list.selectedIndex >= 0;
          }}
        }})()"""
        )
        assert done, f"no {option} in a list called {what}"

    def close(self) -> None:
        """End the server, and with it its kernels."""
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()


@pytest.fixture(scope="module")
def lab(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    running = Lab(browser, tmp_path_factory.mktemp("lab"))
    yield running
    running.close()


def test_the_data_notebook_runs_and_its_live_viewer_moves(lab: Lab, finished: Path) -> None:
    lab.run("01_data", out=str(finished), live=True)
    assert lab.browser.script(WRONG) == [] and lab.browser.script(NOT_RUN) == 0
    before = lab.pictures(lambda found: len(set(found)) == 2, "scan and labels")
    lab.browser.script("document.querySelector('.widget-slider .noUi-handle').focus()")
    lab.browser.press("ArrowRight")
    lab.pictures(lambda found: found and not set(found) & set(before), "another slice")
    lab.browser.press("ArrowLeft")
    lab.pictures(lambda found: found == before, "the slice before")


def test_the_tumor_notebook_runs_on_what_was_trained(lab: Lab, finished: Path) -> None:
    lab.run("03_tumor", out=str(finished), arm="baseline")
    assert lab.browser.script(WRONG) == [] and lab.browser.script(NOT_RUN) == 0


def test_a_wrong_arm_is_one_line(lab: Lab, finished: Path) -> None:
    lab.run("03_tumor", out=str(finished), arm="ful")
    (told,) = lab.browser.script(WRONG)
    assert told.startswith("arm: 'ful' is not a choice; did you mean 'full'?")
    shown = lab.browser.script(
        "[...document.querySelectorAll('.jp-OutputArea-output')].map((one) => one.innerText.trim())"
    )
    assert [text for text in shown if "Error" in text] == [f"ConfigError: {told}"]


def test_the_explorer_shows_another_case_and_another_arm(lab: Lab, finished: Path) -> None:
    lab.run("06_explore", out=str(finished), arm="full", beside="shipped")
    assert lab.browser.script(WRONG) == [] and lab.browser.script(NOT_RUN) == 0
    # untrained, the study's arm may find nothing in the slice: its panel is the scan's then
    lab.pictures(lambda found: found[3:] and found[3] not in found[:3], "both arms")
    lab.choose("beside", "none")
    first = lab.pictures(lambda found: len(found) == 3, "scan, truth and one arm")
    lab.choose("arm", "shipped")
    other = lab.pictures(lambda found: found[2:] and found[2] != first[2], "the other arm")
    assert len(set(other)) == 3
    lab.choose("scan", "case_00000")
    seen = {*first, *other}
    lab.pictures(lambda found: len(found) == 3 and not set(found) & seen, "another case")
