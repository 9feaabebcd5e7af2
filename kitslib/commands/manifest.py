"""A folder's manifest: what the hub lists, and what was stored here."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from kitslib.commands.downloads import IMAGES, REVISION, Client, FetchError, WrongFile, length
from kitslib.config import write_json

IMAGING = "case_{:05}/imaging.nii.gz"  # in a folder of cases
KNOWN = {IMAGING.format(0): "cdae5f3e0fbc7c98ab0430b3de42677abda2c1cf93ae0f86bd29fb8606688cb7"}


class Manifest:
    """A folder's `manifest.json`: what the hub lists, and what was stored here.

    images: size and SHA-256 of the published imaging, by path in the folder; empty before the
    hub was asked, and after its answer was found wrong. files: the same of each file here;
    `int16`: "stored", or why not.
    """

    def __init__(self, folder: Path, release: str) -> None:
        """Read the manifest, if there is one. Raises ValueError for that of another release."""
        self.folder, self.release, self.path = folder, release, folder / "manifest.json"
        self.images, self.files, self.doubted = {}, {}, False
        self.lock = threading.Lock()
        if not self.path.is_file():
            return
        try:
            stored = json.loads(self.path.read_bytes())
            for known in (*stored["images"].values(), *stored["files"].values()):
                require_known(known)
            name, revision = stored["release"], stored["revision"]
        except (ValueError, TypeError, KeyError, AttributeError):
            text = f"{self.path}: expected what an earlier fetch wrote, got something else; remove "
            raise ValueError(f"{text}it (imaging stored as int16 is then fetched anew)") from None
        if name != release:
            raise ValueError(f"{self.path} is not of {release}; choose another folder")
        self.files = stored["files"]
        if revision == REVISION:
            self.images = stored["images"]

    def holds(self, name: str, *, by_hash: bool = False) -> bool:
        """Whether a file is here as stored or as published, by size, on demand also by hash."""
        size, digests = length(self.folder / name), []
        for known in (self.files.get(name), self.images.get(name)):
            if known and known["size"] == size:
                digests.append(known["sha256"])
        return bool(digests) and (not by_hash or sha256(self.folder / name) in digests)

    def tried_int16(self, name: str) -> bool:
        """Whether the file that is here was stored as int16, or could not be."""
        known = self.files.get(name, {})
        return "int16" in known and known["size"] == length(self.folder / name)

    def settle(self, part: Path, name: str, say: Callable[[str], None], **noted: str) -> None:
        """Give a checked file its name; one of unknown origin that had it is set aside."""
        path = self.folder / name
        foreign = path.exists() and name not in self.files and not self.holds(name)
        with part.open("rb") as written:
            os.fsync(written.fileno())  # later its size alone is trusted
        self.record(name, part, **noted)
        if foreign:
            say(f"{name}: another file had this name, it is now {set_aside(path).name}")
        os.replace(part, path)

    def record(self, name: str, file: Path, **noted: str) -> None:
        """Note a file that has this name, or is about to get it."""
        known = {"size": length(file), "sha256": sha256(file)}
        with self.lock:
            self.files[name] = known | noted
            self.save()

    def doubt(self) -> None:
        """Have the next call ask the hub anew."""
        with self.lock:
            self.doubted = True
            self.save()

    def save(self) -> None:
        """Write it down."""
        stored = {"release": self.release, "revision": REVISION, "images": self.images}
        if self.doubted:
            stored["images"] = {}
        write_json(self.path, stored | {"files": self.files})


def require_known(known: dict) -> None:
    """Raises ValueError, TypeError or KeyError for an entry without size and SHA-256."""
    if not (known["size"] > 0 and re.fullmatch("[0-9a-f]{64}", known["sha256"])):
        raise ValueError(known)


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, 64 hex digits."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def require_hash(path: Path, expected: str) -> None:
    """Raises WrongFile for a file with another SHA-256."""
    if (found := sha256(path)) != expected:
        raise WrongFile(f"expected SHA-256 {expected}, got {found}, also when fetched anew")


def set_aside(path: Path) -> Path:
    """Rename a file to a name that is free, and return that."""
    names = (path.with_name(f"{path.name}.old{number}") for number in itertools.count(1))
    return path.rename(next(name for name in names if not name.exists()))


def list_images(client: Client) -> dict[str, dict]:
    """Ask the hub for size and SHA-256 of each case's imaging. Raises FetchError."""
    base, images, asked = client.hub, {}, set()
    url = f"{base}/api/{IMAGES}/tree/{REVISION}/images"
    while url and url not in asked:
        asked.add(url)
        page, url = client.document(url, read_listing)
        images |= page
        if url and not url.startswith(base):  # a mirror that repeats the hub's own address
            url = base + urlsplit(url)._replace(scheme="", netloc="").geturl()
    if not images:
        raise FetchError(f"{base} lists no imaging")
    for name, digest in KNOWN.items():
        if name in images and images[name]["sha256"] != digest:
            text = f"{base} lists another {name} than the one published"
            if not client.mirror:
                raise FetchError(f"{text}; nothing was fetched")
            print(f"kitslib fetch: {text}", file=sys.stderr)
    return images


def read_listing(content: bytes) -> dict[str, dict]:
    """The imaging on one page of the hub's tree API."""
    images = {}
    for item in json.loads(content):
        if found := re.fullmatch(r"images/case_(\d{5})\.nii\.gz", item["path"]):
            known = {"size": item["lfs"]["size"], "sha256": item["lfs"]["oid"]}
            require_known(known)
            images[IMAGING.format(int(found[1]))] = known
    return images
