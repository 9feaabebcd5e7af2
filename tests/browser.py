"""Headless Chromium for tests of pages."""

from __future__ import annotations

import base64
import json
import os
import select
import shlex
import shutil
import subprocess
import time
from pathlib import Path

# what is wrong with a page as it is shown, in words
FAULTS = r"""(() => {
  const found = [], root = document.documentElement, name = (n) => n.outerHTML.slice(0, 90);
  if (root.scrollWidth > root.clientWidth) found.push(`wider than the window: ${root.scrollWidth}`);
  for (const image of document.images) {
    if (!image.complete || !image.naturalWidth) found.push(`no picture: ${name(image)}`);
    if (!image.hasAttribute("alt")) found.push(`no words for ${name(image)}`);
    const least = parseFloat(image.style.minWidth) || 0;
    if (image.getBoundingClientRect().width < least - 1) found.push(`small text: ${name(image)}`);
  }
  for (const box of document.querySelectorAll("body *")) {
    const style = getComputedStyle(box), hides = /auto|scroll/.test(style.overflowX);
    const wide = box.scrollWidth > box.clientWidth + 1 && box.clientWidth;
    if (hides && wide && !box.classList.contains("wider")) found.push(`cut off: ${name(box)}`);
    if (style.overflowX === "hidden" && wide && box.matches("table, main, section"))
      found.push(`hidden: ${name(box)}`);
  }
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    const apart = node.closest("script, style, math, .sr-only");
    if (!walker.currentNode.textContent.trim() || apart) continue;
    const size = parseFloat(getComputedStyle(node).fontSize);
    if (size < 11) found.push(`text of ${size} px: ${name(node)}`);
  }
  let last = 0;
  for (const heading of document.querySelectorAll("h1, h2, h3, h4, h5, h6")) {
    const level = +heading.tagName[1];
    if (level > last + 1) found.push(`a level is left out: ${name(heading)}`);
    last = level;
  }
  if (document.querySelectorAll("h1").length !== 1) found.push("not one h1");
  return found;
})()"""


class Browser:
    """Headless Chromium over its debugging pipe, one tab."""

    def __init__(self, profile: Path, patience: float = 30) -> None:
        self.patience = patience  # seconds for an answer
        to_read, self._write = os.pipe()
        self._read, to_write = os.pipe()
        command = [
            shutil.which("chromium"), "--headless", "--no-sandbox", "--disable-gpu",
            "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--disable-dev-shm-usage", f"--user-data-dir={profile}", "--remote-debugging-pipe",
            "about:blank",
        ]  # fmt: skip
        shell = f"exec {shlex.join(command)} 3<&{to_read} 4>&{to_write}"
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(
            ["bash", "-c", shell], pass_fds=(to_read, to_write), **quiet
        )
        os.close(to_read)
        os.close(to_write)
        self._rest, self._count, self._session = b"", 0, None
        self.events: list[dict] = []
        targets = self.call("Target.getTargets")["targetInfos"]
        tab = next(target["targetId"] for target in targets if target["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=tab, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setScrollbarsHidden", hidden=True)

    def _message(self) -> dict:
        end = time.monotonic() + self.patience
        while b"\0" not in self._rest:
            if not select.select([self._read], [], [], max(0.0, end - time.monotonic()))[0]:
                raise TimeoutError(f"Chromium did not answer within {self.patience} s")
            data = os.read(self._read, 1 << 20)
            if not data:
                raise EOFError("Chromium has ended")
            self._rest += data
        message, self._rest = self._rest.split(b"\0", 1)
        return json.loads(message)

    def _send(self, method: str, params: dict) -> int:
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        return self._count

    def call(self, method: str, **params) -> dict:
        wanted = self._send(method, params)
        while True:
            answer = self._message()
            if answer.get("id") == wanted:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)
            if answer.get("method") == "Page.javascriptDialogOpening":  # as "Leave the page?"
                self._send("Page.handleJavaScriptDialog", {"accept": True})

    def open(self, page: Path | str, width: int, *, scheme: str = "light", media: str = "") -> None:
        self.events = []
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=False,
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media=media, features=features)
        self.call("Page.navigate", url=page if isinstance(page, str) else page.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._message())

    def script(self, expression: str):
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, expression: str, seconds: float, what: str):
        """Wait until a script's value is true, and return it; `what` is what did not come."""
        end = time.monotonic() + seconds
        while not (value := self.script(expression)):
            assert time.monotonic() < end, f"{what} did not come within {seconds} s"
            time.sleep(0.1)
        return value

    def press(self, key: str) -> None:
        number = {"ArrowRight": 39, "ArrowLeft": 37, "Home": 36, "End": 35}[key]
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=number
            )

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(10)
        os.close(self._read)
        os.close(self._write)

    def picture(self, file: Path, *, whole: bool = False) -> None:
        """Write what the window shows, or the whole page, as a PNG."""
        options = {"captureBeyondViewport": whole}
        if whole:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
            options["clip"] = clip
        data = self.call("Page.captureScreenshot", **options)["data"]
        file.write_bytes(base64.b64decode(data))

    def faults(self, page: Path, width: int, scheme: str = "light") -> list[str]:
        """Open a page; say what it asks for, logs, cuts off, writes too small or leaves unnamed."""
        self.open(page, width, scheme=scheme)
        found = []
        for event in self.events:
            method = event.get("method")
            if method == "Network.requestWillBeSent":
                url = event["params"]["request"]["url"]
                if not url.startswith("data:") and url != page.as_uri():
                    found.append(f"asks for {url}")
            elif method in (
                "Log.entryAdded",
                "Runtime.exceptionThrown",
                "Runtime.consoleAPICalled",
            ):
                found.append(f"logs {json.dumps(event['params'])[:200]}")
        self.script("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        self.script("new Promise((r) => requestAnimationFrame(() => requestAnimationFrame(r)))")
        return found + self.script(FAULTS)

    def axe(self, script: str) -> list[str]:
        """Name the serious and critical findings of axe-core, whose source is `script`."""
        self.script(f"{script}; null")
        rules = "{resultTypes: ['violations'], rules: {region: {enabled: false}}}"
        answer = self.script(f"axe.run(document, {rules}).then((r) => r.violations)")
        serious = [one for one in answer if one["impact"] in ("serious", "critical")]
        return [f"{one['id']}: {one['nodes'][0]['html'][:160]}" for one in serious]
