"""Reports that wait on disk until the centre has taken them: in order, whole, and never more than fit.

One file each, compressed, named by its number and by what is news in it. What must not live here: what a report
says (``report.py``), and its delivery (``edge/reporter.py``).
"""

from __future__ import annotations

import contextlib
import gzip
import logging
import re
import time
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from harbor_satellite.errors import StorageError
from harbor_satellite.satellite.store import write_atomically
from harbor_satellite.state.wire import StatusReport

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_LOG = logging.getLogger(__name__)
_FOLDER: Final = "spool"
_REFUSED: Final = "refused"
_DROPPED: Final = "dropped"
_NAME: Final = re.compile(r"([0-9]{12})-([0-9a-f]{64})\.json\.gz")
_REFUSED_KEPT: Final = 20  # files
_REPORT_MAX_BYTES: Final = 32 * 1024 * 1024  # of one report, unpacked
_LEFT_BEHIND_SECONDS: Final = 3600.0
_PRIVATE_FOLDER: Final = 0o700


@dataclass(frozen=True, slots=True, order=True)
class Spooled:
    """One report on disk."""

    number: int
    """Later ones have higher numbers."""
    digest: str
    """Of what is news in it."""
    path: Path
    size_bytes: int


class Spool:
    """A satellite's waiting reports; its callers hold a lock among themselves.

    Args:
        folder: the satellite's.
        max_count: files.
        max_bytes: of all files together.
    """

    def __init__(self, folder: Path, *, max_count: int = 500, max_bytes: int = 16 * 1024 * 1024) -> None:
        self._folder = folder / _FOLDER
        self._max_count = max_count
        self._max_bytes = max_bytes

    def add(self, report: StatusReport) -> None:
        """Keep a report that has its ``news_digest``; older ones make room, never this one.

        Raises:
            StorageError: the disk is full, read-only or refuses.
        """
        waiting = self.waiting()
        number = waiting[-1].number + 1 if waiting else 1
        packed = gzip.compress(report.model_dump_json(exclude_defaults=True).encode(), 6, mtime=0)
        try:
            self._folder.mkdir(mode=_PRIVATE_FOLDER, parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"cannot make {self._folder}: {error.strerror}") from error
        self._sweep()
        write_atomically(self._folder / f"{number:012}-{report.news_digest}.json.gz", packed)
        self._make_room()

    def waiting(self) -> list[Spooled]:
        """Return the waiting reports, oldest first.

        Raises:
            StorageError: the disk refuses.
        """
        found = []
        try:
            names = {path: name for path in self._folder.iterdir() if (name := _NAME.fullmatch(path.name))}
            for path, name in names.items():
                with contextlib.suppress(FileNotFoundError):
                    found.append(Spooled(int(name[1]), name[2], path, path.stat().st_size))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StorageError(f"cannot read {self._folder}: {error.strerror}") from error
        return sorted(found)

    def read(self, spooled: Spooled) -> StatusReport | None:
        """Return a waiting report; None if it is damaged, and then it is set aside.

        Raises:
            StorageError: it cannot be read.
        """
        try:
            with gzip.open(spooled.path) as file:
                raw = file.read(_REPORT_MAX_BYTES + 1)
            if len(raw) > _REPORT_MAX_BYTES:
                raise ValueError("too large")  # noqa: TRY301  (one way out for all damage)
            return StatusReport.model_validate_json(raw)
        except (gzip.BadGzipFile, zlib.error, EOFError, ValueError, ValidationError) as error:
            self.set_aside(spooled, f"damaged: {type(error).__name__}")
            return None
        except OSError as error:
            raise StorageError(f"cannot read {spooled.path}: {error.strerror}") from error

    def remove(self, spooled: Spooled) -> None:
        """Forget a report that the centre has taken.

        Raises:
            StorageError: the disk refuses.
        """
        try:
            spooled.path.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"cannot remove {spooled.path}: {error.strerror}") from error

    def set_aside(self, spooled: Spooled, reason: str) -> None:
        """Put a report away that the centre will never take; the last few of these are kept to be looked at."""
        _LOG.warning("report set aside number=%d reason=%s", spooled.number, reason)
        refused = self._folder / _REFUSED
        try:
            refused.mkdir(mode=_PRIVATE_FOLDER, exist_ok=True)
            spooled.path.replace(refused / spooled.path.name)
            for old in _by_age(refused)[:-_REFUSED_KEPT]:
                old.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"cannot set {spooled.path} aside: {error.strerror}") from error

    @property
    def dropped(self) -> int:
        """How many reports made room for others and were not told to the centre yet."""
        try:
            return int((self._folder / _DROPPED).read_text())
        except (OSError, ValueError):
            return 0

    def note_told(self, count: int) -> None:
        """Note that the centre was told of so many dropped reports."""
        if count:
            self._set_dropped(max(0, self.dropped - count))

    def _sweep(self) -> None:
        """Remove what writers left behind that were killed."""
        for left in self._folder.glob(".*"):
            with contextlib.suppress(OSError):
                if time.time() - left.stat().st_mtime > _LEFT_BEHIND_SECONDS:
                    left.unlink()

    def _make_room(self) -> None:
        waiting = self.waiting()
        count = 0
        while len(waiting) > 1 and self._is_too_much(waiting):
            gone = waiting.pop(_first_to_go(waiting))
            self.remove(gone)
            count += 1
        if count:
            _LOG.warning("reports dropped, too many wait for the centre count=%d", count)
            self._set_dropped(self.dropped + count)

    def _is_too_much(self, waiting: Sequence[Spooled]) -> bool:
        return len(waiting) > self._max_count or sum(one.size_bytes for one in waiting) > self._max_bytes

    def _set_dropped(self, count: int) -> None:
        write_atomically(self._folder / _DROPPED, str(count).encode())


def _first_to_go(waiting: Sequence[Spooled]) -> int:
    """Return the place of the oldest that only repeats the one before it; if none does, of the oldest. Pure."""
    repeats = (place for place in range(1, len(waiting) - 1) if waiting[place].digest == waiting[place - 1].digest)
    return next(repeats, 0)


def _by_age(folder: Path) -> list[Path]:
    return sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime)
