"""`fetch` against a server that cuts, stalls, lies and changes its files."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from functools import cache, partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from kitslib.commands import downloads, fetch, main, manifest
from kitslib.commands.downloads import REVISION, FetchError, retry_after
from kitslib.commands.fetch import RELEASES, case_numbers, store_int16
from kitslib.commands.manifest import Manifest
from kitslib.data import find_cases, load_case

SHAPE = (6, 40, 40)
PAGE = b"<!doctype html><title>Sign in</title>" + b" " * 400
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n"
API = f"/api/datasets/neheller/KiTS-Challenge-Imaging/tree/{REVISION}/images"
IMAGES = f"/datasets/neheller/KiTS-Challenge-Imaging/resolve/{REVISION}/images"
LABELS = "/neheller/kits19/HEAD/data"


def packed(array: np.ndarray, **header: object) -> bytes:
    """A gzipped NIfTI file of an array in file axes, I, P, L as in KiTS."""
    affine = np.array([[0, 0, -1.5, 10], [0, -1.5, 0, 20], [-3.0, 0, 0, 30], [0, 0, 0, 1]])
    image = nib.Nifti1Image(array, affine)
    image.header.update(header) if header else None
    return gzip.compress(image.to_bytes(), mtime=0)


def imaging(number: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """CT in HU as KiTS has it: float64 whole numbers."""
    return np.random.default_rng(number).integers(-1024, 600, shape).astype(np.float64)


def labels(number: int) -> np.ndarray:
    """Values 0 to 2 without a form."""
    return np.random.default_rng(number).integers(0, 3, SHAPE, np.uint8)


@cache
def published(number: int) -> tuple[bytes, bytes]:
    """The two files of a case."""
    return packed(imaging(number)), packed(labels(number))


class Host(ThreadingHTTPServer):
    """What it serves by path, the faults to commit there in turn (the last for good), its log."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, list[str]] = defaultdict(list)
        self.log: list[tuple[str, str]] = []  # path, Range
        self.rate, self.released = 0, threading.Event()  # bytes a second, 0: at once
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a client that was killed

    def publish(self, *numbers: int) -> None:
        """Serve cases, the tables, and the hub's listing on pages of two."""
        rows = [{"case_id": f"case_{number:05}"} for number in numbers]
        self.files[f"{LABELS}/kits.json"] = json.dumps(rows).encode()
        self.files["/neheller/kits23/HEAD/dataset/kits23.json"] = json.dumps(rows).encode()
        for number in numbers:
            name = f"case_{number:05}"
            image, label = published(number)
            self.files[f"{IMAGES}/{name}.nii.gz"] = image
            self.files[f"{LABELS}/{name}/segmentation.nii.gz"] = label
        self.list_all()

    def list_all(self) -> None:
        items = [{"type": "file", "path": "README.md", "size": 10, "oid": "00"}]
        for path, content in sorted(self.files.items()):
            if path.startswith(IMAGES):
                digest = hashlib.sha256(content).hexdigest()
                lfs = {"oid": digest, "size": len(content), "pointerSize": 134}
                item = {"type": "file", "path": path.removeprefix(IMAGES.removesuffix("images"))}
                items.append(item | {"size": len(content), "oid": "0", "lfs": lfs})
        pages = [items[start : start + 2] for start in range(0, len(items), 2)]
        for number, page in enumerate(pages):
            path = f"{API}?cursor={number}" if number else API
            self.files[path] = json.dumps(page).encode()
        self.pages = len(pages)

    def image(self, number: int) -> str:
        return f"{IMAGES}/case_{number:05}.nii.gz"

    def asked(self, path: str) -> list[str]:
        """The Range of each request for a path."""
        return [ranged for asked, ranged in self.log if asked == path]


class Handler(BaseHTTPRequestHandler):
    """Answers with a file or a range of it, and commits the fault that is next for its path."""

    protocol_version = "HTTP/1.1"
    server: Host

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        host, ranged = self.server, self.headers.get("Range", "")
        host.log.append((self.path, ranged))
        faults = host.faults[self.path]
        fault = faults[0] if faults else ""
        if len(faults) > 1:
            faults.pop(0)
        content = host.files.get(self.path)
        if content is None:
            return self.answer(404, b"none")
        if fault.isdigit():
            return self.answer(int(fault), PAGE, {"Retry-After": "1"})
        if fault == "page":
            return self.answer(200, PAGE)
        if fault == "pointer":
            return self.answer(200, POINTER)
        if fault == "hang up":
            self.close_connection = True
            return None
        if fault == "other":  # of the same size
            content = content[:10] + bytes(byte ^ 1 for byte in content[10:])
        start, status, more = 0, 200, {}
        if ranged and fault != "no ranges":
            start, status = int(re.fullmatch(r"bytes=(\d+)-", ranged)[1]), 206
            if start >= len(content):
                return self.answer(416, b"")
            shown = start if fault != "wrong range" else start // 2
            more["Content-Range"] = f"bytes {shown}-{len(content) - 1}/{len(content)}"
        self.send(status, content[start:], fault, more)
        return None

    def send(self, status: int, body: bytes, fault: str, more: dict[str, str]) -> None:
        promised, half = len(body), len(body) // 2
        promised += {"longer": 100, "shorter": -100}.get(fault, 0)
        if fault == "encoded":  # as some servers call every .gz
            more["Content-Encoding"] = "gzip"
        if fault == "chunked":
            self.answer_head(status, more | {"Transfer-Encoding": "chunked"})
            for piece in (body[:half], body[half:], b""):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            return
        if fault == "endless":
            self.answer_head(status, more | {"Transfer-Encoding": "chunked"})
            self.wfile.write(b"%x\r\n%s\r\n" % (len(body), body))
            while not self.server.released.is_set():
                self.wfile.write(b"400\r\n%s\r\n" % bytes(1024))
            return
        if fault == "chunked and cut":
            self.answer_head(status, more | {"Transfer-Encoding": "chunked"})
            self.wfile.write(b"%x\r\n%s" % (len(body), body[:half]))
            self.close_connection = True
            return
        if fault == "unsaid and cut":  # neither length nor chunks: the end is the end
            self.answer_head(status, more | {"Connection": "close"})
            self.wfile.write(body[:half])
            self.close_connection = True
            return
        self.answer_head(status, more | {"Content-Length": str(promised)})
        if fault == "cut":
            body = body[:half]
        if fault in ("stall", "drip"):
            self.wfile.write(body[:half])
            while fault == "drip" and not self.server.released.wait(0.1):
                self.wfile.write(b"x")
            self.server.released.wait(20)
        elif self.server.rate:
            for at in range(0, len(body), 1000):
                self.wfile.write(body[at : at + 1000])
                time.sleep(1000 / self.server.rate)
        else:
            self.wfile.write(body[:promised])
        if fault in ("cut", "longer", "stall", "drip"):
            self.close_connection = True

    def answer(self, status: int, body: bytes, more: dict[str, str] | None = None) -> None:
        self.answer_head(status, (more or {}) | {"Content-Length": str(len(body))})
        self.wfile.write(body)

    def answer_head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        if self.path.startswith(API) and status == 200:
            number = int(self.path.partition("=")[2] or 0) + 1
            if number < self.server.pages:  # with the hub's own name, as a copy would have it
                url = f"https://huggingface.co{API}?cursor={number}"
                self.send_header("Link", f'<{url}>; rel="next"')
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """A server with cases 1, 2 and 210 (of which it has no label)."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(downloads, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(downloads, "LONGEST_AFTER", 0.02)
    monkeypatch.setattr(downloads, "LARGEST", 1 << 20)
    monkeypatch.setattr(fetch, "Client", partial(quick_client, downloads.Client))
    with Host() as server:
        server.publish(1, 2, 210)
        del server.files[f"{LABELS}/case_00210/segmentation.nii.gz"]
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.released.set()
        server.shutdown()


def quick_client(client: type, timeout: float, *rest: object) -> downloads.Client:
    """A client with half of the time-out, of which the command takes whole seconds only."""
    return client(timeout / 2, *rest)


def call(host: Host, folder: Path, *words: object, release: str = "kits19") -> int:
    """Exit status of a call with short time-outs."""
    line = ["fetch", release, folder, "--mirror", host.url, "--timeout", 1, "--tries", 3, *words]
    if "--cases" not in words:
        line += ["--cases", "1-2"]
    try:
        return main([str(word) for word in line])
    except SystemExit as end:
        return int(end.code)


def require_whole(host: Host, folder: Path, *numbers: int) -> None:
    """All that is published lies in the folder, byte for byte, and nothing half-made."""
    for number in numbers:
        case = folder / f"case_{number:05}"
        assert (case / "imaging.nii.gz").read_bytes() == host.files[host.image(number)]
        path = f"{LABELS}/{case.name}/segmentation.nii.gz"
        if path in host.files:
            assert (case / "segmentation.nii.gz").read_bytes() == host.files[path]
    assert not list(folder.rglob("*.part"))


def require_nothing_wrong(host: Host, folder: Path) -> None:
    """What has a final name is what was published."""
    for number in (1, 2):
        path = folder / f"case_{number:05}" / "imaging.nii.gz"
        assert not path.exists() or path.read_bytes() == host.files[host.image(number)]
        path = path.with_name("segmentation.nii.gz")
        true = host.files[f"{LABELS}/case_{number:05}/segmentation.nii.gz"]
        assert not path.exists() or path.read_bytes() == true


def test_a_cohort_lies_as_the_study_reads_it_and_is_not_fetched_twice(
    host: Host, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert call(host, tmp_path) == 0
    assert "4 fetched, 0 kept" in capsys.readouterr().out
    require_whole(host, tmp_path, 1, 2)
    cases = find_cases(tmp_path)
    assert [case.case_id for case in cases] == ["case_00001", "case_00002"]
    assert {case.source for case in cases} == {"kits19"} and cases[0].record
    np.testing.assert_array_equal(load_case(cases[0]).imaging, imaging(1))
    listed = json.loads((tmp_path / "manifest.json").read_text())["images"]
    assert len(listed) == 3, "all pages of the listing"
    host.log.clear()
    assert call(host, tmp_path) == 0
    assert "0 fetched, 4 kept" in capsys.readouterr().out
    assert host.log == []
    assert call(host, tmp_path, "--verify") == 0
    assert host.log == []


TRANSIENT = ["cut", "stall", "longer", "shorter", "page", "503", "429", "hang up", "other",
             "chunked and cut", "unsaid and cut", "drip"]  # fmt: skip


@pytest.mark.parametrize("fault", TRANSIENT)
@pytest.mark.parametrize("what", ["image", "label", "table", "listing"])
def test_a_fault_that_passes_ends_with_the_right_files(
    host: Host, tmp_path: Path, fault: str, what: str
) -> None:
    host.faults[path_of(host, what)] = [fault, ""]
    assert call(host, tmp_path) == 0
    require_whole(host, tmp_path, 1, 2)


@pytest.mark.parametrize("fault", [*TRANSIENT, "404", "pointer"])
@pytest.mark.parametrize("what", ["image", "label", "table", "listing"])
def test_a_fault_that_stays_leaves_nothing_wrong_and_the_next_call_completes(
    host: Host, tmp_path: Path, fault: str, what: str, capsys: pytest.CaptureFixture
) -> None:
    host.faults[path_of(host, what)] = [fault]
    assert call(host, tmp_path) == 1
    require_nothing_wrong(host, tmp_path)
    error = capsys.readouterr().err
    if what == "image":
        assert error.count("case_00001/imaging.nii.gz is missing: ") == 1, error
        assert error.count(" is missing: ") == 1, error
        assert (tmp_path / "case_00002" / "imaging.nii.gz").is_file()
    if what == "label":
        assert error.count("case_00001/segmentation.nii.gz is missing: ") == 1, error
        assert "case_00001/imaging.nii.gz is missing: it waits for segmentation.nii.gz" in error
        assert error.count(" is missing: ") == 2, error
    if fault in ("404", "pointer"):
        assert len(host.asked(path_of(host, what))) == 1, "no use to ask again"
    if fault == "pointer" and what in ("image", "label", "table"):
        assert "Git LFS pointer" in error
    host.faults.clear()
    host.released.set()
    assert call(host, tmp_path) == 0
    require_whole(host, tmp_path, 1, 2)


@pytest.mark.parametrize("what", ["image", "label", "table", "listing"])
def test_an_answer_without_end_is_not_stored(host: Host, tmp_path: Path, what: str) -> None:
    host.faults[path_of(host, what)] = ["endless"]
    assert call(host, tmp_path) == int(what != "image"), "whose first bytes have the listed hash"
    require_nothing_wrong(host, tmp_path)
    host.faults.clear()
    assert call(host, tmp_path) == 0
    require_whole(host, tmp_path, 1, 2)


def path_of(host: Host, what: str) -> str:
    return {
        "image": host.image(1), "label": f"{LABELS}/case_00001/segmentation.nii.gz",
        "table": f"{LABELS}/kits.json", "listing": API,
    }[what]  # fmt: skip


@pytest.mark.parametrize("fault", ["cut", "chunked and cut", "unsaid and cut"])
def test_a_cut_file_is_gone_on_with_where_it_ended_also_by_the_next_call(
    host: Host, tmp_path: Path, fault: str
) -> None:
    path, size = host.image(1), len(host.files[host.image(1)])
    folder, part = tmp_path / "b", tmp_path / "b" / "case_00001" / "imaging.nii.gz.part"
    host.faults[path] = [fault, ""]
    assert call(host, tmp_path / "a") == 0
    assert host.asked(path) == ["", f"bytes={size // 2}-"]
    host.faults[path] = [fault, "503"]
    assert call(host, folder) == 1
    assert part.read_bytes() == host.files[path][: size // 2]
    host.faults.clear()
    host.log.clear()
    assert call(host, folder) == 0
    assert host.asked(path) == [f"bytes={size // 2}-"]
    require_whole(host, folder, 1, 2)


def test_a_label_map_is_never_put_together_of_pieces(host: Host, tmp_path: Path) -> None:
    host.faults[path_of(host, "label")] = ["cut", ""]
    assert call(host, tmp_path) == 0
    assert host.asked(path_of(host, "label")) == ["", ""]


@pytest.mark.parametrize(("fault", "requests"), [("no ranges", 2), ("wrong range", 3), ("416", 3)])
def test_a_server_without_sound_ranges_is_asked_for_the_whole_file(
    host: Host, tmp_path: Path, fault: str, requests: int
) -> None:
    host.faults[host.image(1)] = ["cut", fault, ""]
    assert call(host, tmp_path) == 0
    assert len(host.asked(host.image(1))) == requests
    require_whole(host, tmp_path, 1, 2)


def test_an_error_page_in_place_of_the_rest_does_not_cost_what_is_there(
    host: Host, tmp_path: Path
) -> None:
    host.faults[host.image(1)] = ["cut", "page"]
    assert call(host, tmp_path) == 1
    half = host.files[host.image(1)][: len(host.files[host.image(1)]) // 2]
    assert (tmp_path / "case_00001" / "imaging.nii.gz.part").read_bytes() == half


@pytest.mark.parametrize("then", ["other", ""])
def test_a_file_that_changes_between_two_ranges_is_fetched_once_anew(
    host: Host, tmp_path: Path, then: str, capsys: pytest.CaptureFixture
) -> None:
    host.faults[host.image(1)] = ["cut", "other", then]
    assert call(host, tmp_path) == int(bool(then))
    assert host.asked(host.image(1))[2:] == [""], "from its first byte, once"
    require_nothing_wrong(host, tmp_path)
    assert ("SHA-256" in capsys.readouterr().err) == bool(then)
    host.faults.clear()
    assert call(host, tmp_path) == 0
    require_whole(host, tmp_path, 1, 2)


def test_a_listing_that_lies_is_asked_for_anew_by_the_next_call(
    host: Host, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    true = dict(host.files)
    for lie in (("size", 1000), ("oid", "0" * 64)):
        host.files = dict(true)
        for path in [path for path in true if path.startswith(API)]:
            items = json.loads(true[path])
            for item in items:
                if item["path"].endswith("case_00001.nii.gz"):
                    item["lfs"] |= [lie]
            host.files[path] = json.dumps(items).encode()
        folder = tmp_path / lie[0]
        assert call(host, folder) == 1
        assert not (folder / "case_00001" / "imaging.nii.gz").exists()
        assert "its listing says 1000" in capsys.readouterr().err or lie[0] == "oid"
        host.files = dict(true)
        assert call(host, folder) == 0
        require_whole(host, folder, 1, 2)


def test_a_listing_without_a_case_is_asked_for_anew(host: Host, tmp_path: Path) -> None:
    whole = host.files.pop(host.image(2))
    host.list_all()
    assert call(host, tmp_path) == 1
    host.files[host.image(2)] = whole
    host.list_all()
    assert call(host, tmp_path) == 0
    require_whole(host, tmp_path, 1, 2)


def test_the_public_hub_must_list_the_known_hash(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    host.publish(0)
    monkeypatch.setattr(downloads, "HUB", host.url)
    monkeypatch.setattr(downloads, "RAW", host.url)
    line = ["fetch", "kits19", str(tmp_path), "--cases", "0", "--tries", "1"]
    assert main(line) == 1
    assert "another case_00000/imaging.nii.gz than the one published" in capsys.readouterr().err
    assert not (tmp_path / "case_00000").exists()
    digest = hashlib.sha256(host.files[host.image(0)]).hexdigest()
    monkeypatch.setattr(manifest, "KNOWN", {"case_00000/imaging.nii.gz": digest})
    assert main(line) == 0
    monkeypatch.setattr(manifest, "KNOWN", {"case_00000/imaging.nii.gz": "0" * 64})
    assert call(host, tmp_path / "mirrored", "--cases", 0) == 0, "a mirror's users chose it"
    assert "than the one published" in capsys.readouterr().err


def test_a_busy_server_is_left_alone_for_as_long_as_it_asks(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "LONGEST_AFTER", 600)
    host.faults[host.image(1)] = ["429", ""]
    began = time.monotonic()
    assert call(host, tmp_path) == 0
    assert time.monotonic() - began >= 1
    assert retry_after("7") == 7 and retry_after("soon") == retry_after("") == 0
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert retry_after("Wed, 21 Oct 2105 07:28:00 GMT") > 1e9


def test_waits_grow_and_a_gain_begins_them_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    client, waits, places = downloads.Client(tries=4), [], iter([0, 1, 1, downloads.GAIN, *[1] * 9])
    monkeypatch.setattr(downloads, "FIRST_WAIT", 1.0)
    monkeypatch.setattr(client.stop, "wait", waits.append)

    def fail() -> None:
        raise FetchError("no")

    with pytest.raises(FetchError, match="no"):
        client.persist(fail, "http://host", lambda: next(places))
    assert waits == [1, 2, 1, 2, 4]


@pytest.mark.parametrize("fault", ["encoded", "chunked"])
def test_other_ways_to_send_a_file_give_the_same_bytes(
    host: Host, tmp_path: Path, fault: str
) -> None:
    for path in (host.image(1), f"{LABELS}/case_00001/segmentation.nii.gz"):
        host.faults[path] = [fault]
    assert call(host, tmp_path) == 0
    require_whole(host, tmp_path, 1, 2)


def run_apart(host: Host, folder: Path, *words: str) -> subprocess.Popen:
    line = ["fetch", "kits19", str(folder), "--mirror", host.url, "--cases", "1-2", *words]
    # in the background of a shell, as tests may run, an interrupt is ignored from the start
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += "from kitslib.commands import main; raise SystemExit(main())"
    return subprocess.Popen([sys.executable, "-c", code, *line], stderr=subprocess.DEVNULL)


def test_a_killed_call_is_gone_on_with(host: Host, tmp_path: Path) -> None:
    part = tmp_path / "case_00001" / "imaging.nii.gz.part"
    sizes, host.rate = [], 16_000  # bytes a second, of 23 kB
    for least in (4000, 12_000):
        process = run_apart(host, tmp_path)
        until = time.monotonic() + 60
        while downloads.length(part) < least and time.monotonic() < until:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        require_nothing_wrong(host, tmp_path)
        assert not part.with_name("imaging.nii.gz").exists()
        sizes.append(downloads.length(part))
    host.rate = 0
    host.log.clear()
    process = run_apart(host, tmp_path)
    assert process.wait(60) == 0
    assert host.asked(host.image(1)) == [f"bytes={sizes[-1]}-"]
    assert 4000 <= sizes[0] < sizes[1]
    require_whole(host, tmp_path, 1, 2)


def test_an_interrupt_ends_a_call_soon(host: Host, tmp_path: Path) -> None:
    host.rate = 500
    process = run_apart(host, tmp_path)
    until = time.monotonic() + 60
    while not list(tmp_path.rglob("*.part")) and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    require_nothing_wrong(host, tmp_path)


def test_two_calls_do_not_write_into_one_folder(
    host: Host, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    with fetch.alone(tmp_path):
        assert call(host, tmp_path) == 1
    assert "another call is fetching" in capsys.readouterr().err
    assert call(host, tmp_path) == 0


def test_int16_is_lossless_and_kept_by_the_next_call(
    host: Host, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert call(host, tmp_path, "--int16") == 0
    path = tmp_path / "case_00001" / "imaging.nii.gz"
    true, stored = nib.Nifti1Image.from_bytes(gzip.decompress(host.files[host.image(1)])), None
    stored = nib.load(path)
    assert stored.get_data_dtype() == np.int16 and true.get_data_dtype() == np.float64
    np.testing.assert_array_equal(np.asarray(stored.dataobj), imaging(1))
    np.testing.assert_array_equal(stored.affine, true.affine)
    for field in set(true.header) - {"datatype", "bitpix", "scl_slope", "scl_inter"}:
        np.testing.assert_array_equal(stored.header[field], true.header[field], err_msg=field)
    assert path.stat().st_size < len(host.files[host.image(1)])
    host.log.clear()
    for words in ([], ["--int16"], ["--verify"]):
        assert call(host, tmp_path, *words) == 0
        assert "0 fetched, 4 kept" in capsys.readouterr().out
    assert host.log == [] and not list(tmp_path.rglob("*.part"))


def test_int16_of_what_is_here_needs_no_server(
    host: Host, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert call(host, tmp_path) == 0
    host.log.clear()
    assert call(host, tmp_path, "--int16") == 0
    assert "2 kept, 2 stored anew as int16, 0 missing" in capsys.readouterr().out
    assert host.log == []
    stored = nib.load(tmp_path / "case_00002" / "imaging.nii.gz")
    np.testing.assert_array_equal(np.asarray(stored.dataobj), imaging(2))


@pytest.mark.parametrize("value", [0.5, 32768.0, -32769.0, np.nan, np.inf])
def test_int16_that_would_lose_something_is_not_made(
    host: Host, tmp_path: Path, value: float, capsys: pytest.CaptureFixture
) -> None:
    array = imaging(1)
    array[3, 2, 1] = value
    host.files[host.image(1)] = packed(array)
    host.list_all()
    assert call(host, tmp_path, "--int16") == 0
    assert "case_00001/imaging.nii.gz: kept as published, its values" in capsys.readouterr().err
    path = tmp_path / "case_00001" / "imaging.nii.gz"
    assert path.read_bytes() == host.files[host.image(1)]
    assert not list(tmp_path.rglob("*.part"))
    assert call(host, tmp_path, "--int16") == 0
    assert "kept as published" not in capsys.readouterr().err, "tried once"


@pytest.mark.parametrize("endianness", ["<", ">"])
def test_int16_of_scaled_files_with_extensions_in_any_byte_order(
    tmp_path: Path, endianness: str
) -> None:
    header = nib.Nifti1Header(endianness=endianness)
    header.set_data_dtype(np.uint8)
    image = nib.Nifti1Image(np.arange(60, dtype=np.uint8).reshape(3, 4, 5), np.eye(4), header)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"a note"))
    image.header.set_slope_inter(2, -1000)
    raw = image.to_bytes()
    path, small = tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"
    path.write_bytes(gzip.compress(raw))
    assert store_int16(path, small) == ""
    first, second = nib.load(path), nib.load(small)
    np.testing.assert_array_equal(first.get_fdata(), second.get_fdata())
    assert second.header.endianness == endianness
    assert second.header.extensions[0].get_content() == b"a note"
    assert store_int16(small, tmp_path / "c.nii.gz") == "it is int16"


def test_another_size_is_fetched_anew_and_another_hash_with_verify(
    host: Host, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert call(host, tmp_path) == 0
    for name in ("imaging.nii.gz", "segmentation.nii.gz"):
        path = tmp_path / "case_00001" / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-1])
        assert call(host, tmp_path) == 0
        assert path.read_bytes() == whole
        path.write_bytes(whole[:-1] + b"x")
        assert call(host, tmp_path) == 0
        assert path.read_bytes() != whole
        assert call(host, tmp_path, "--verify") == 0
        assert path.read_bytes() == whole
        path.write_bytes(whole[:-1] + b"x")
        assert call(host, tmp_path, "--int16") == 0, "what is stored anew is checked first"
        if name == "imaging.nii.gz":
            np.testing.assert_array_equal(np.asarray(nib.load(path).dataobj), imaging(1))
    assert not list(tmp_path.rglob("*.old*"))
    for line in capsys.readouterr().err.splitlines():
        assert re.match(r" *\d+%\|", line), "never more than was expected"


def test_files_of_others_are_kept_when_sound_and_else_set_aside(
    host: Host, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    case, other = tmp_path / "case_00001", tmp_path / "case_00002"
    case.mkdir()
    other.mkdir()
    labels_2 = host.files[f"{LABELS}/case_00002/segmentation.nii.gz"]
    (case / "imaging.nii.gz").write_bytes(b"my own")
    (case / "segmentation.nii.gz").write_bytes(POINTER)  # as a clone without Git LFS has
    (other / "imaging.nii.gz").write_bytes(host.files[host.image(2)])
    (other / "segmentation.nii.gz").write_bytes(labels_2)
    (tmp_path / "kits.json").write_text("[")
    assert call(host, tmp_path) == 0
    assert "2 fetched, 2 kept" in capsys.readouterr().out
    require_whole(host, tmp_path, 1, 2)
    assert (case / "imaging.nii.gz.old1").read_bytes() == b"my own"
    assert (case / "segmentation.nii.gz.old1").read_bytes() == POINTER
    assert (tmp_path / "kits.json.old1").read_text() == "["
    assert not [path for path, _ in host.log if "case_00002" in path]


def test_imaging_of_another_shape_than_its_label_gets_no_name(
    host: Host, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    label, path = f"{LABELS}/case_00001/segmentation.nii.gz", tmp_path / "case_00001"
    true = host.files[label]
    host.files[label] = packed(labels(1)[:5])
    assert call(host, tmp_path) == 1
    assert "expected the shape (5, 40, 40)" in capsys.readouterr().err
    assert not (path / "imaging.nii.gz").exists()
    (path / "segmentation.nii.gz").unlink()
    host.files[label] = true
    host.log.clear()
    assert call(host, tmp_path) == 0
    require_whole(host, tmp_path, 1, 2)
    assert host.asked(host.image(1)) == [], "it was here, under another name"


def test_imaging_that_is_damaged_as_published_gets_no_name(host: Host, tmp_path: Path) -> None:
    whole = host.files[host.image(1)]
    damaged = whole[:-6] + b"xx" + whole[-4:]  # the CRC
    for words in ([], ["--int16"]):
        host.files[host.image(1)] = damaged
        host.list_all()
        folder = tmp_path / str(len(words))
        assert call(host, folder, *words) == 1
        assert not (folder / "case_00001" / "imaging.nii.gz").exists()
        host.files[host.image(1)] = whole
        host.list_all()
        assert call(host, folder) == 0
        require_whole(host, folder, 1)


def test_cases_without_labels_come_by_number_only(
    host: Host, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert 210 not in RELEASES["kits19"].labelled and len(RELEASES["kits23"].labelled) == 489
    assert call(host, tmp_path, "--cases", "2,210") == 0
    text = capsys.readouterr().out
    assert "case_00210: imaging only of 1 case" in text and "3 fetched" in text
    require_whole(host, tmp_path, 2, 210)
    for number in (300, 589):
        assert call(host, tmp_path, "--cases", f"1,{number}") == 1
        assert f"has no case {number}" in capsys.readouterr().err
        assert call(host, tmp_path / "b", "--cases", number, release="kits23") == 1
    assert case_numbers("7, 0-2,1") == [0, 1, 2, 7]
    for text in ("", "a", "3-1", "-1", "1-", "1-9999999"):
        with pytest.raises(ValueError):
            case_numbers(text)


def test_kits23_has_a_table_of_its_own(host: Host, tmp_path: Path) -> None:
    for number in (1, 2):
        path = f"/case_{number:05}/segmentation.nii.gz"
        host.files[f"/neheller/kits23/HEAD/dataset{path}"] = host.files[LABELS + path]
    assert call(host, tmp_path, release="kits23") == 0
    cases = find_cases(tmp_path)
    assert {case.source for case in cases} == {"kits23"} and cases[1].record
    assert load_case(cases[0], "kits23").labels is not None


def test_folders_of_another_source_are_refused(
    host: Host, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert call(host, tmp_path / "kits19" / "data") == 0
    assert call(host, tmp_path / "kits19") == 1
    assert "pass that one" in capsys.readouterr().err
    assert call(host, tmp_path / "kits19" / "data", release="kits23") == 1
    assert "holds kits19 cases" in capsys.readouterr().err
    (tmp_path / "drawn" / "case_00001").mkdir(parents=True)
    (tmp_path / "drawn" / "synthetic.json").write_text("{}")
    assert call(host, tmp_path / "drawn") == 1
    assert "holds synthetic cases" in capsys.readouterr().err
    host.faults[API] = ["503"]
    assert call(host, tmp_path / "begun", release="kits23") == 1
    assert call(host, tmp_path / "begun") == 1
    assert "is not of kits19" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "[]", '{"images": {}}', '{"images": 1, "files": {}}'])
def test_a_damaged_manifest_is_named(
    host: Host, tmp_path: Path, text: str, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "manifest.json").write_text(text)
    assert call(host, tmp_path) == 1
    assert f"{tmp_path / 'manifest.json'}: expected" in capsys.readouterr().err


def test_a_manifest_of_another_revision_keeps_its_files_only(tmp_path: Path) -> None:
    known = {"size": 1, "sha256": "0" * 64}
    stored = {"release": "kits19", "revision": "older", "images": {"a": known}}
    (tmp_path / "manifest.json").write_text(json.dumps(stored | {"files": {"b": known}}))
    manifest = Manifest(tmp_path, "kits19")
    assert manifest.images == {} and manifest.files == {"b": known}


def test_what_cannot_be_is_said_in_one_line(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    nobody = ["fetch", "kits19", str(tmp_path), "--cases", "1", "--tries", "2", "--mirror"]
    for address, words in {
        "ftp://host": "expected an address", "host": "expected an address",
        "http://127.0.0.1:1": "the connection to 127.0.0.1:1 failed (NewConnectionError)",
    }.items():  # fmt: skip
        assert main([*nobody, address]) == 1
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda _: type("Disk", (), {"free": 1000})())
    assert call(host, tmp_path) == 1
    assert "fetch fewer --cases" in capsys.readouterr().err


def test_a_bar_shows_rate_and_time_left_and_a_log_a_line_each_tenth(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert call(host, tmp_path / "log") == 0
    lines = capsys.readouterr().err.splitlines()
    assert 3 <= len(lines) <= 11 and "100%" in lines[-1] and "B/s]" in lines[-1]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    host.rate = 40_000
    assert call(host, tmp_path / "bar") == 0
    assert re.search(r"\d+%\|.*k/\d.*k \[00:00<00:0.*B/s\]", capsys.readouterr().err)
