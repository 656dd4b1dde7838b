"""A blob's bytes on their way out of a layout."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from harbor_satellite.registry.api import CHUNK_BYTES
from harbor_satellite.registry.layout_files import storage_errors

if TYPE_CHECKING:
    from collections.abc import Iterator


class LayoutBlobStream:
    """A blob's bytes from an offset, read from the disk."""

    def __init__(self, file: BinaryIO, offset: int, what: str) -> None:
        self._file = file
        self._what = what
        self.offset: int = offset

    def __iter__(self) -> Iterator[bytes]:
        """Give the bytes in chunks of at most ``CHUNK_BYTES``."""
        with storage_errors(Path(self._file.name), f"reading {self._what}"):
            while chunk := self._file.read(CHUNK_BYTES):
                yield chunk
