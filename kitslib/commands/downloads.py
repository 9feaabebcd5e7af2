"""Files over HTTP, gone on with where they were cut."""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import BinaryIO, TypeVar
from urllib.parse import urljoin, urlsplit

import requests
from tqdm.auto import tqdm
from urllib3.exceptions import HTTPError, ReadTimeoutError

from kitslib import __version__

T = TypeVar("T")
HUB, RAW = "https://huggingface.co", "https://raw.githubusercontent.com"
IMAGES = "datasets/neheller/KiTS-Challenge-Imaging"
REVISION = "65f1f295873a326230153c7e1de0c7dba10f0b29"
FIRST_WAIT, LONGEST_WAIT, LONGEST_AFTER = 1.0, 60.0, 600.0  # seconds
GAIN = 1 << 16  # bytes that make a failed try count as the first
LARGEST = 1 << 28  # bytes of a file whose size is not known
SLOWEST = 100  # bytes a second: less for as long as the time-out is a stall
GZIP, LFS_POINTER = b"\x1f\x8b", b"version https://git-lfs"
TRY_LATER = (403, 408, 425, 429)  # 403: a signed address that ran out
HEADERS = {"Accept-Encoding": "identity", "User-Agent": f"kitslib/{__version__}"}


class FetchError(RuntimeError):
    """What a server did not give; `again`: another try may help, `after` this many seconds."""

    def __init__(self, message: str, *, again: bool = True, after: float = 0.0) -> None:
        super().__init__(message)
        self.again, self.after = again, after


class WrongFile(FetchError):
    """A file that is not what its listing says, or is damaged."""


class Progress:
    """Bytes over all files: a bar with rate and time left in a terminal, else a line each tenth."""

    def __init__(self, total: int, done: int) -> None:
        """Show `total` bytes, `done` of which are here from an earlier call."""
        self.total, self.count, self.initial = total, done, done
        self.began, self.terminal = time.monotonic(), sys.stderr.isatty()
        self.shown, self.lock = -1, threading.Lock()
        self.bar = tqdm(
            total=total, initial=done, unit="B", unit_scale=True, smoothing=0.05, leave=False,
            dynamic_ncols=True, disable=not self.terminal,
        )  # fmt: skip

    def add(self, count: int, *, more: int = 0) -> None:
        """Count bytes that came (minus: were thrown away), and bytes `more` that will come."""
        with self.lock:
            self.count, self.total = self.count + count, self.total + more
            self.initial = min(self.initial, self.count)  # of the rest is the rate
            self.bar.total, self.bar.initial = self.total, self.initial
            self.bar.update(count)
            tenth = self.count * 10 // max(self.total, 1)
            if self.terminal or not self.total or tenth <= self.shown:
                return
            self.shown, elapsed = tenth, time.monotonic() - self.began
            text = tqdm.format_meter(
                self.count, self.total, elapsed, ncols=79, ascii=True, unit="B", unit_scale=True,
                initial=self.initial,
            )  # fmt: skip
            print(text, file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        """Print a line on standard error, above the bar."""
        with self.lock:
            tqdm.write(text, file=sys.stderr)


@dataclass
class Client:
    """How to ask: seconds without data, tries in a row without gain, another host, when to stop."""

    timeout: float = 60.0
    tries: int = 8
    mirror: str = ""
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def hub(self) -> str:
        """Where imaging is published, or its mirror."""
        return self.mirror or HUB

    def raw_url(self, path: str) -> str:
        """The address of a file in a git repository."""
        return f"{self.mirror or RAW}/{path}"

    def imaging_url(self, number: int) -> str:
        """The address of a case's imaging."""
        folder = f"{self.hub}/{IMAGES}/resolve/{REVISION}/images"
        return f"{folder}/case_{number:05}.nii.gz"

    def get(self, url: str, headers: dict[str, str]) -> requests.Response:
        """Ask once; the body is not read yet."""
        return requests.get(url, headers=HEADERS | headers, stream=True, timeout=self.timeout)

    def pieces(
        self, response: requests.Response, most: int, *, decode: bool = False
    ) -> Iterator[bytes]:
        """The body as it comes. Raises FetchError for over `most` bytes, a stall, also a drip."""
        since, count = time.monotonic(), 0
        while piece := response.raw.read1(1 << 16, decode_content=decode):
            if len(piece) > most:
                raise FetchError("more bytes come than such a file has")
            yield piece
            self.require_going()
            most, count, passed = most - len(piece), count + len(piece), time.monotonic() - since
            if passed > self.timeout:
                if count < SLOWEST * passed:
                    raise FetchError(f"a stall: {count} bytes came in {passed:.0f} s")
                since, count = time.monotonic(), 0

    def document(self, url: str, read: Callable[[bytes], T]) -> tuple[T, str | None]:
        """Return what `read` makes of a small document, and the address of its next page.

        What `read` refuses by ValueError, TypeError or KeyError is asked for again.
        """

        def ask() -> tuple[T, str | None]:
            with self.get(url, {}) as response:
                require_status(response)
                content = b"".join(self.pieces(response, LARGEST, decode=True))
                further = response.links.get("next", {}).get("url")
            try:
                return read(content), further and urljoin(url, further)
            except (ValueError, TypeError, KeyError):
                raise refusal(content, "JSON of the form known") from None

        return self.persist(ask, url)

    def persist(
        self, action: Callable[[], T], url: str, position: Callable[[], int] = lambda: 0
    ) -> T:
        """Call `action` until it succeeds, at most `tries` times without a gain of `position`."""
        failures, furthest = 0, position()
        while True:
            self.require_going()
            try:
                return action()
            except FetchError as error:
                failed = error
            except (requests.RequestException, HTTPError) as error:
                failed = self._translate(error, urlsplit(url).netloc)
            if position() >= furthest + GAIN:
                failures, furthest = 0, position()
            failures += 1
            if failures >= self.tries or not failed.again:
                raise failed
            wait = min(FIRST_WAIT * 2 ** (failures - 1), LONGEST_WAIT)
            self.stop.wait(max(wait, min(failed.after, LONGEST_AFTER)))

    def require_going(self) -> None:
        """Raise FetchError when the call was interrupted."""
        if self.stop.is_set():
            raise FetchError("interrupted", again=False)

    def _translate(self, error: Exception, host: str) -> FetchError:
        if isinstance(error, requests.Timeout | ReadTimeoutError):
            return FetchError(f"nothing came from {host} for {self.timeout:g} s")
        cause = next(iter(error.args), None)  # requests wraps what says more
        kind = type(getattr(cause, "reason", None) or error).__name__
        text = f"the connection to {host} failed ({kind})"
        return FetchError(text, again=not isinstance(error, ValueError))  # an address that is none


@dataclass(frozen=True, kw_only=True)
class Download:
    """A gzip file on its way from `url` to `part`, and what is known of it.

    size: in bytes; None where it is not known, and then each try starts anew, since nothing would
    show that two pieces are of one file.
    """

    url: str
    part: Path
    size: int | None
    progress: Progress

    def run(self, client: Client, check: Callable[[Path], object]) -> None:
        """Go on where `part` ends until it is complete, and check it.

        What `check` refuses by WrongFile is removed and fetched once anew. Raises FetchError, and
        OSError of the disk.
        """
        for last in (False, True):
            client.persist(lambda: self._attempt(client), self.url, lambda: length(self.part))
            try:
                check(self.part)
                return
            except WrongFile:
                self.start_anew()
                if last:
                    raise

    def start_anew(self) -> None:
        """Remove what is there."""
        self._count(-length(self.part))
        self.part.unlink(missing_ok=True)

    def _count(self, came: int) -> None:
        self.progress.add(came, more=came * (self.size is None))

    def _attempt(self, client: Client) -> None:
        if self.size is None or length(self.part) > self.size:
            self.start_anew()
        here = length(self.part)
        if here == self.size:
            return
        with client.get(self.url, {"Range": f"bytes={here}-"} if here else {}) as response:
            (first, promised), head = offer(response), b""
            if response.status_code == 416 or first not in (0, here):
                self.start_anew()
                raise FetchError(f"the server does not go on at byte {here}")
            require_status(response)
            if first == 0:
                head = response.raw.read(len(GZIP), decode_content=False)
                if head != GZIP:
                    raise refusal(head + response.raw.read(100), "a gzip file")
            if self.size and promised not in (None, self.size):
                text = f"the server offers {promised} bytes, its listing says {self.size}"
                raise WrongFile(text)
            if first == 0:  # also where the server ignores what was asked for
                self.start_anew()
            with self.part.open("ab") as sink:
                sink.write(head)
                self._count(len(head))
                size = self.size or promised
                pieces = client.pieces(response, (size or LARGEST) - sink.tell())
                self._receive(pieces, sink, size)

    def _receive(self, pieces: Iterator[bytes], sink: BinaryIO, size: int | None) -> None:
        """Append what comes to the part, until it has `size` bytes."""
        for piece in pieces:
            sink.write(piece)
            self._count(len(piece))
        if size and sink.tell() < size:
            raise FetchError(f"the connection ended after {sink.tell()} of {size} bytes")


def length(file: Path) -> int:
    """Bytes of a file, 0 where there is none."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def require_status(response: requests.Response) -> None:
    """Refuse an answer that is no file, and say whether to try again."""
    status = response.status_code
    if status in (200, 206):
        return
    after = retry_after(response.headers.get("Retry-After", ""))
    text = f"{urlsplit(response.url).netloc} answers {status} {response.reason}".strip()
    raise FetchError(text, again=status >= 500 or status in TRY_LATER, after=after)


def retry_after(text: str) -> float:
    """Seconds that a server asks to wait: a number, or the date until when; 0 for nonsense."""
    try:
        if re.fullmatch(r"\d{1,9}", text.strip()):
            return float(text)
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return 0.0


def offer(response: requests.Response) -> tuple[int, int | None]:
    """The first byte that comes, and the size of the whole file where the headers say it."""
    if response.status_code != 206:
        size = response.headers.get("Content-Length", "")
        return 0, int(size) if size.isdecimal() else None
    found = re.match(r"bytes (\d+)-\d*/(\d+)?", response.headers.get("Content-Range", ""))
    if not found:
        return -1, None
    return int(found[1]), found[2] and int(found[2])


def refusal(content: bytes, expected: str) -> FetchError:
    """The refusal of a document by its first bytes."""
    if content.startswith(LFS_POINTER):
        text = f"expected {expected}, got a Git LFS pointer, which only names the file; fetch it "
        return FetchError(f"{text}with `git lfs pull` in a clone", again=False)
    if content.lstrip()[:1] == b"<":
        return FetchError(f"expected {expected}, got a web page")
    return FetchError(f"expected {expected}, got bytes that begin {content[:8]!r}")
