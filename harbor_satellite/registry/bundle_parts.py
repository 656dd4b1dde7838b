"""The parts of a bundle on the disk, as one stream: written with a sum per part, read at any offset.

What lives here: files. What must not: what stands in them.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, BinaryIO

from harbor_satellite.errors import BundleError, InvalidInputError
from harbor_satellite.oci.digest import Digest
from harbor_satellite.registry.api import CHUNK_BYTES
from harbor_satellite.registry.bundle_format import (
    PART_MIN_BYTES,
    PARTS_MAX,
    Segment,
    part_name,
)
from harbor_satellite.registry.layout_files import storage_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from hashlib import _Hash
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in the stream to go back to."""

    part: int
    size: int
    hasher: _Hash


class PartWriter:
    """Writes a stream into numbered files of one folder, each of at most ``part_bytes``.

    Args:
        folder: where; nobody else writes there.
        part_bytes: None: all in one file.
    """

    def __init__(self, folder: Path, part_bytes: int | None) -> None:
        if part_bytes is not None and part_bytes < PART_MIN_BYTES:
            raise InvalidInputError(f"parts of {part_bytes} bytes are too small: at least {PART_MIN_BYTES}")
        self._folder = folder
        self._part_bytes = part_bytes
        self._done: list[Segment] = []
        self._size = 0
        self._hasher = hashlib.sha256()
        self._file: BinaryIO = self._open(0, "xb")

    @property
    def position(self) -> int:
        """Bytes written so far."""
        return sum(segment.size for segment in self._done) + self._size

    def write(self, data: bytes) -> None:
        """Append bytes, in as many parts as they need.

        Raises:
            StorageError: the disk is full or refuses.
            InvalidInputError: they need more parts than can be numbered.
        """
        rest = memoryview(data)
        with storage_errors(self._folder, "writing the bundle"):
            while rest:
                if self._part_bytes is not None and self._size == self._part_bytes:
                    self._next()
                room = len(rest) if self._part_bytes is None else self._part_bytes - self._size
                count = self._file.write(rest[:room])
                self._hasher.update(rest[:count])
                self._size += count
                rest = rest[count:]

    def mark(self) -> Mark:
        """Remember this place."""
        return Mark(len(self._done), self._size, self._hasher.copy())

    def go_back(self, mark: Mark) -> None:
        """Take away everything written since the mark."""
        with storage_errors(self._folder, "taking back what did not arrive whole"):
            self._file.close()
            for number in range(mark.part + 1, len(self._done) + 1):
                self._path(number).unlink()
            del self._done[mark.part :]
            self._file = self._open(mark.part, "r+b")
            self._file.truncate(mark.size)
            self._file.seek(mark.size)
        self._size, self._hasher = mark.size, mark.hasher.copy()

    def segments(self) -> tuple[Segment, ...]:
        """Return the sizes and sums of what was written so far, part by part."""
        return (*self._done, Segment(self._size, Digest.from_hasher(self._hasher)))

    def close(self) -> tuple[Path, ...]:
        """Flush everything to the disk and return the parts, in order."""
        with storage_errors(self._folder, "flushing the bundle"), self._file:
            os.fsync(self._file.fileno())
        return tuple(self._path(number) for number in range(len(self._done) + 1))

    def abandon(self) -> None:
        """Let go of the open file."""
        self._file.close()

    def _next(self) -> None:
        if len(self._done) + 1 >= PARTS_MAX:
            raise InvalidInputError(f"the bundle needs more than {PARTS_MAX} parts: make them larger")
        os.fsync(self._file.fileno())
        self._file.close()
        self._done.append(Segment(self._size, Digest.from_hasher(self._hasher)))
        self._size, self._hasher = 0, hashlib.sha256()
        self._file = self._open(len(self._done), "xb")

    def _open(self, number: int, mode: str) -> BinaryIO:
        with storage_errors(self._folder, "writing the bundle"):
            # Unbuffered: what was written and what was hashed are the same bytes when a disk is full.
            return self._path(number).open(mode, buffering=0)  # type: ignore[return-value]

    def _path(self, number: int) -> Path:
        return self._folder / part_name("part", number)


class PartReader:
    """The parts of a bundle as one file to read from any offset, by many threads; close it.

    Args:
        path: the bundle, or the first of its parts.

    Raises:
        InvalidInputError: there is no such file.
        BundleError: a part between others is missing.
    """

    def __init__(self, path: Path) -> None:
        self.paths = find_parts(path)
        self.name = self.paths[0].name
        self._files: list[int] = []
        try:
            for part in self.paths:
                with storage_errors(part, "opening the bundle"):
                    self._files.append(os.open(part, os.O_RDONLY))
            self.sizes = [os.fstat(file).st_size for file in self._files]
        except BaseException:
            self.close()
            raise
        self._ends = list(accumulate(self.sizes))

    @property
    def size(self) -> int:
        """Bytes of all parts."""
        return self._ends[-1]

    def read(self, offset: int, size: int) -> bytes:
        """Return bytes from an offset; fewer than asked for only at the end of the last part."""
        return b"".join(self.chunks(offset, size))

    def chunks(self, offset: int, size: int) -> Iterator[bytes]:
        """Give bytes from an offset in chunks of at most ``CHUNK_BYTES``."""
        while size > 0:
            number = next((number for number, end in enumerate(self._ends) if offset < end), None)
            if number is None:
                return
            start = self._ends[number] - self.sizes[number]
            with storage_errors(self.paths[number], "reading the bundle"):
                count = min(size, CHUNK_BYTES, self._ends[number] - offset)
                chunk = os.pread(self._files[number], count, offset - start)
            if not chunk:
                raise BundleError(f"{self.paths[number]} became shorter while it was read")
            yield chunk
            offset += len(chunk)
            size -= len(chunk)

    def check(self, segments: Sequence[Segment], on_bytes: Callable[[int], None]) -> None:
        """Read all parts and hold each against its sum.

        Raises:
            BundleError: one is damaged, or is another part or another bundle's; the message names it.
        """
        offset = 0
        for number, segment in enumerate(segments):
            hasher = hashlib.sha256()
            for chunk in self.chunks(offset, segment.size):
                hasher.update(chunk)
                on_bytes(len(chunk))
            found = Digest.from_hasher(hasher)
            if found != segment.digest:
                place = [other for other, item in enumerate(segments) if item.digest == found]
                why = f"it is part {place[0]}" if place else "it is damaged, or a part of another bundle"
                raise BundleError(f"{self.paths[number]} is not part {number} of this bundle: {why}")
            offset += segment.size

    def close(self) -> None:
        """Close every file."""
        while self._files:
            os.close(self._files.pop())


def find_parts(path: Path) -> tuple[Path, ...]:
    """Return all parts of a bundle, in order, by the name of the whole or of any part of it.

    Raises:
        InvalidInputError: there is no such file.
        BundleError: a part between others is missing.
    """
    split = re.fullmatch(r"(.+)\.\d{3}", path.name)
    name = split[1] if split else path.name
    with storage_errors(path.parent, "looking for the parts of the bundle"):
        if path.is_file() and not split:
            return (path,)
        folder = path.parent.iterdir() if path.parent.is_dir() else ()
        pattern = re.compile(rf"{re.escape(name)}\.(\d{{3}})")
        found = {int(match[1]): item for item in folder if (match := pattern.fullmatch(item.name))}
    if not found:
        raise InvalidInputError(f"no such bundle: {path}")
    for number in range(max(found) + 1):
        if number not in found:
            raise BundleError(f"part {path.parent / part_name(name, number)} is missing")
    return tuple(found[number] for number in sorted(found))
