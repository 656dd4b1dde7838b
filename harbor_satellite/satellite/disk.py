"""Free space of the disk that a replication fills: checked before bytes are fetched, with a reserve left alone.

What lives here: reckoning with free space. What must not: writing anything.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
from typing import TYPE_CHECKING

from harbor_satellite.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def free_bytes(path: Path) -> int:
    """Return what an ordinary user may still write to the disk of a path that exists."""
    return shutil.disk_usage(path).free


class Arrival:
    """A size that is spoken for on the disk while its bytes arrive."""

    def __init__(self, guard: DiskGuard, size_bytes: int) -> None:
        self._guard = guard
        self.left_bytes = size_bytes
        """Bytes that are still to come."""

    def wrote(self, count: int) -> None:
        """Say that bytes are on the disk: its free space knows of them now, and they are not reckoned twice."""
        self._guard.landed(self, count)


class DiskGuard:
    """Says no before a disk is full. Safe to use from many threads.

    Args:
        path: a file or folder on the disk; if it is not there yet, its nearest parent that is.
        reserve_bytes: what stays free whatever is asked for.
        free: how free bytes of a path that exists are found out.
    """

    def __init__(self, path: Path, reserve_bytes: int, free: Callable[[Path], int] = free_bytes) -> None:
        self._path = path
        self._reserve = reserve_bytes
        self._free = free
        self._coming = 0
        self._lock = threading.Lock()

    def check(self, needed_bytes: int) -> None:
        """Do nothing if so many bytes fit, beside what is on its way.

        Raises:
            StorageError: they do not, or the disk does not say.
        """
        with self._lock:
            self._check(needed_bytes)

    @contextlib.contextmanager
    def reserve(self, size_bytes: int) -> Iterator[Arrival]:
        """Keep room for bytes that are about to arrive: several at once cannot overshoot together.

        Raises:
            StorageError: they do not fit, or the disk does not say.
        """
        arrival = Arrival(self, size_bytes)
        with self._lock:
            self._check(size_bytes)
            self._coming += size_bytes
        try:
            yield arrival
        finally:
            self.landed(arrival, arrival.left_bytes)

    def landed(self, arrival: Arrival, count: int) -> None:
        """Reckon no longer with bytes of an arrival: they are on the disk, or will not come."""
        with self._lock:
            count = min(count, arrival.left_bytes)
            arrival.left_bytes -= count
            self._coming -= count

    def _check(self, needed: int) -> None:
        if needed <= 0:  # a site that is complete goes on, however full its disk
            return
        free = self._free_bytes()
        if needed + self._coming + self._reserve <= free:
            return
        coming = f", {show_bytes(self._coming)} are on their way" if self._coming else ""
        raise StorageError(
            f"needs {show_bytes(needed)} on the disk of {self._path}, {show_bytes(free)} are free"
            f" and {show_bytes(self._reserve)} of them stay in reserve{coming}"
        )

    def _free_bytes(self) -> int:
        path = self._path.absolute()
        while True:
            try:
                return self._free(path)
            except (FileNotFoundError, NotADirectoryError) as error:
                if path == path.parent:
                    raise StorageError(f"cannot tell the free space of {self._path}: it is nowhere") from error
                path = path.parent
            except OSError as error:
                raise StorageError(f"cannot tell the free space of {self._path}: {error.strerror}") from error


def show_bytes(count: int) -> str:
    """Write a size for people, in decimal units as disks and links are sold: ``12.3 GB``."""
    if abs(count) < 1000:  # noqa: PLR2004 - the unit
        return f"{count} bytes"
    size = float(count)
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if abs(size) < 999.95:  # noqa: PLR2004 - rounds to less than 1000.0
            return f"{size:.1f} {unit}"
    return f"{size / 1000:.1f} TB"
