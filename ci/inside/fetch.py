"""Bring the Debian packages that a lock names, each checked by SHA-256: any mirror will do, and the archive.

`python -m ci.inside.fetch --lock LIST --into FOLDER [--sources FILE] [--snapshot TIME] [--cache FOLDER]`
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import os
import shutil
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

OWN_SOURCES: Final = ("/etc/apt/sources.list", "/etc/apt/sources.list.d")
"""Where Debian's mirrors are named by the machine that this runs on."""
SNAPSHOTS: Final = (
    "https://snapshot.debian.org/archive/debian/{time}",
    "https://snapshot.debian.org/archive/debian-security/{time}",
)
_TIMEOUT_SECONDS: Final = 60
_ATTEMPTS: Final = 3


@dataclass(frozen=True)
class Wanted:
    """One package."""

    sha256: str
    size_bytes: int
    path: str
    """In the archive: `pool/main/z/zlib/zlib1g_1.3.1-1_amd64.deb`."""

    @property
    def file_name(self) -> str:
        """Its last part."""
        return self.path.rpartition("/")[2]


def parse_wanted(text: str) -> tuple[Wanted, ...]:
    """Return what a list names: lines of SHA-256, size in bytes and path, with blanks between.

    Raises:
        ValueError: a line has not those three.
    """
    wanted = []
    for line in text.splitlines():
        sha256, size, path = line.split()
        wanted.append(Wanted(sha256, int(size), path))
    return tuple(wanted)


def archive_roots(sources: str) -> tuple[str, ...]:
    """Return the archives that a user's apt sources name, each once, in their order.

    Args:
        sources: of either format, `deb [options] URI suite component…` or deb822's `URIs: …`.
    """
    roots: list[str] = []
    for line in sources.splitlines():
        words = line.split("#")[0].split()
        if words[:1] == ["deb"]:
            options_end = next((index for index, word in enumerate(words) if word.endswith("]")), 0)
            roots += words[options_end + 1 : options_end + 2]
        elif words and words[0].lower() == "uris:":
            roots += words[1:]
    usable = [root.rstrip("/") for root in roots if root.startswith(("http://", "https://", "file:"))]
    return tuple(dict.fromkeys(usable))


def own_sources(places: Sequence[str] = OWN_SOURCES) -> tuple[Path, ...]:
    """Return the apt sources of this machine, sorted."""
    found = [file for place in map(Path, places) for file in (place, *place.glob("*.list"), *place.glob("*.sources"))]
    return tuple(sorted(file for file in found if file.is_file()))


def request_for(root: str, path: str) -> urllib.request.Request:
    """Return what to ask for a package; a name and password in the root's URL go into a header, as apt does it."""
    parts = urllib.parse.urlsplit(f"{root}/{urllib.parse.quote(path, safe='/+~')}")
    host = parts.netloc.rpartition("@")[2]
    request = urllib.request.Request(parts._replace(netloc=host).geturl())  # noqa: S310 - see archive_roots
    if parts.username is not None:
        pair = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
        request.add_header("Authorization", "Basic " + base64.b64encode(pair.encode()).decode())
    return request


def fetch(wanted: Wanted, roots: Sequence[str], folder: Path) -> Path:
    """Return the file of a package in a folder; what is there already and right is kept.

    Raises:
        RuntimeError: no archive has it with this digest.
    """
    file = folder / f"{wanted.sha256}.deb"
    if file.exists() and _sha256(file) == wanted.sha256:
        return file
    said: list[str] = []
    for attempt in range(_ATTEMPTS):
        for root in roots:
            try:
                with urllib.request.urlopen(request_for(root, wanted.path), timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310
                    body = answer.read(wanted.size_bytes + 1)
            except OSError as error:
                said.append(f"{_shown(root)}: {error}")
                continue
            if hashlib.sha256(body).hexdigest() == wanted.sha256:
                part = folder / f".{wanted.sha256}.{os.getpid()}"
                part.write_bytes(body)
                return part.replace(file)
            said.append(f"{_shown(root)}: other bytes than the lock names")
        time.sleep(2**attempt)
    raise RuntimeError(f"{wanted.path} (sha256 {wanted.sha256}) cannot be had: " + "; ".join(dict.fromkeys(said)))


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _shown(root: str) -> str:
    """Return an archive as it may be told: without a password."""
    parts = urllib.parse.urlsplit(root)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def main(argv: Sequence[str]) -> None:
    """Fetch; see the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--lock", type=Path, required=True)
    parser.add_argument("--into", type=Path, required=True)
    parser.add_argument("--sources", type=Path)
    parser.add_argument("--snapshot", default="")
    parser.add_argument("--cache", type=Path)
    options = parser.parse_args(argv)
    wanted = parse_wanted(options.lock.read_text(encoding="utf-8"))
    sources = [options.sources] if options.sources else own_sources()
    roots = archive_roots("\n".join(file.read_text(encoding="utf-8") for file in sources))
    if options.snapshot:
        roots += tuple(each.format(time=options.snapshot) for each in SNAPSHOTS)
    cache = options.cache or options.into
    for folder in (cache, options.into):
        folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(8) as pool:
        files = list(pool.map(lambda each: fetch(each, roots, cache), wanted))
    for each, file in zip(wanted, files, strict=True):
        shutil.copyfile(file, options.into / each.file_name)
    sys.stderr.write(f"{len(files)} packages, {sum(each.size_bytes for each in wanted)} bytes\n")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (RuntimeError, ValueError) as problem:
        sys.exit(f"fetch: {problem}")
