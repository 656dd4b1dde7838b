"""What a site has read from its source: bytes of each day and month, and of all time.

What lives here: the counts, and the file that keeps them over kills and power cuts. What must not: clocks (days are
given, in the site's zone), limits on rates, waiting.

Counts are reserved on disk ahead of being spent, a step at a time: whoever is killed leaves a file that says
at most one step too much, never too little.
"""

from __future__ import annotations

import calendar
import contextlib
import fcntl
import json
import logging
import threading
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Final, NamedTuple

from harbor_satellite.errors import StorageError
from harbor_satellite.satellite.store import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_log = logging.getLogger(__name__)

_KEPT_DAYS: Final = 40
_KEPT_MONTHS: Final = 14
_STEPS_PER_CAP: Final = 256
_STEP_MIN: Final = 256 * 1024  # bytes
_STEP_MAX: Final = 8 * 1024 * 1024  # bytes
_STEP_UNCAPPED: Final = 64 * 1024 * 1024  # bytes; nothing is refused for being counted too much


class _DamagedError(ValueError):
    """What is on disk is no ledger."""

    def __init__(self, content: bytes, reason: Exception) -> None:
        super().__init__(repr(reason))
        self.content = content


class Counted(NamedTuple):
    """Bytes read from the source."""

    day: int
    month: int
    total: int


@dataclass(frozen=True, slots=True)
class Ledger:
    """Bytes read from the source.

    Every day and month has its own count: a clock that goes back finds what was spent then, and one that went
    far ahead by mistake leaves today's caps alone once it is put right. The days used last are kept.
    """

    days: Mapping[date, int] = field(default_factory=dict)
    months: Mapping[date, int] = field(default_factory=dict)
    """By the first day of the month."""
    total_bytes: int = 0

    def on(self, day: date) -> Counted:
        """Return what is counted for a day, its month and all time."""
        return Counted(self.days.get(day, 0), self.months.get(day.replace(day=1), 0), self.total_bytes)

    def spend(self, count: int, day: date) -> Ledger:
        """Count bytes; a negative count gives back what was reserved and not spent."""
        return Ledger(
            _add(self.days, day, count, _KEPT_DAYS),
            _add(self.months, day.replace(day=1), count, _KEPT_MONTHS),
            max(0, self.total_bytes + count),
        )


@dataclass(frozen=True, slots=True)
class Caps:
    """What may be read from the source in a day and a month of the site's zone; None: no cap."""

    daily_bytes: int | None = None
    monthly_bytes: int | None = None

    @property
    def step_bytes(self) -> int:
        """How much to reserve at a time: a kill costs no more of a cap, a fill of the site waits little for its disk.

        1/256 of the smaller cap between 256 KiB and 8 MiB; 64 MiB without caps.
        """
        caps = [cap for cap in (self.daily_bytes, self.monthly_bytes) if cap is not None]
        return min(_STEP_MAX, max(_STEP_MIN, min(caps) // _STEPS_PER_CAP)) if caps else _STEP_UNCAPPED


def assumed_ledger(day: date, caps: Caps) -> Ledger:
    """Return the counts to go on with on a day on which those on disk turn out damaged.

    The day counts as spent. The month counts as spent evenly up to and with this day: were it all counted as
    spent, one bad sector would stop a site for weeks with nobody near; were nothing, the cap could be read
    twice. So it may be broken by the share of the days that are left, in case that was read already.
    """
    length = calendar.monthrange(day.year, day.month)[1]
    month = -(-(caps.monthly_bytes or 0) * day.day // length)
    return Ledger({day: caps.daily_bytes or 0}, {day.replace(day=1): month}, max(caps.daily_bytes or 0, month))


class LedgerFile:
    """The site's ledger on disk. Safe to use from many threads, and from several processes at once.

    Each user of the file adds to what is there and gives back what it reserved in vain, under a lock.

    Args:
        path: the file; made when something is spent for the first time, and its folder.
        caps: what the site may read, for the step and for what a damaged file is replaced by.
    """

    def __init__(self, path: Path, caps: Caps) -> None:
        self._path = path
        self.caps = caps
        self._lock = threading.Lock()
        self._day = date.min
        self._left = 0  # reserved on disk for that day, and not spent
        self._reserved = Counted(0, 0, 0)  # that day on disk, reservations and all

    def spend(self, count: int, day: date) -> Counted:
        """Count bytes that were read, and return what that day, month and all time come to.

        Raises:
            StorageError: the file cannot be read or written.
        """
        with self._lock:
            if day != self._day or count > self._left:
                self._renew(count, day)
            self._left -= count
            left, reserved = self._left, self._reserved
        return Counted(reserved.day - left, reserved.month - left, reserved.total - left)

    def look(self, day: date) -> Counted:
        """Return what is counted for a day, by everybody who uses the file.

        Raises:
            StorageError: the file cannot be read.
        """
        with self._lock:
            try:
                ledger = self._read()
            except _DamagedError:
                with self._locked():
                    ledger = self._load(day)
            counted = ledger.on(day)
            if day == self._day:
                self._reserved = counted
                self._left = min(self._left, counted.day)  # a file that was taken away holds no reservation
            # Given back in thought: on another day, too, the total holds what is reserved for the day before.
            given_back = ledger.spend(-self._left, self._day) if self._left else ledger
        return given_back.on(day)

    def settle(self) -> None:
        """Write the exact counts: give back what was reserved and not spent.

        Raises:
            StorageError: the file cannot be read or written; it counts too much then, by a step at most.
        """
        with self._lock:
            if self._left:
                with self._locked():
                    self._save(self._load(self._day).spend(-self._left, self._day))
            self._left, self._day = 0, date.min

    def _renew(self, count: int, day: date) -> None:
        """Reserve on disk for these bytes and a step more; give back what another day did not use."""
        with self._locked():
            ledger = self._load(day)
            if self._left and day != self._day:
                ledger = ledger.spend(-self._left, self._day)
                self._left = 0
            wanted = count - self._left + self.caps.step_bytes
            ledger = ledger.spend(wanted, day)
            self._save(ledger)
        self._day, self._left, self._reserved = day, self._left + wanted, ledger.on(day)

    def _load(self, day: date) -> Ledger:
        """Return what is on disk; the caller holds the lock."""
        try:
            return self._read()
        except _DamagedError as error:
            return self._replace_damaged(day, error)

    def _read(self) -> Ledger:
        try:
            return _parse(self._path.read_bytes())
        except FileNotFoundError:
            return Ledger()
        except OSError as error:
            raise StorageError(f"cannot read {self._path}: {error.strerror}") from error

    def _replace_damaged(self, day: date, error: _DamagedError) -> Ledger:
        """Go on with counts that are assumed; what was reserved lies in the damaged file."""
        aside = self._path.with_name(f"{self._path.name}.damaged")
        # A copy first, then the new file in one step: at no moment is there none, which would open the caps.
        write_atomically(aside, error.content)
        ledger = assumed_ledger(day, self.caps)
        self._save(ledger)
        self._left = 0
        _log.warning("ledger is damaged: counting today as spent path=%s kept=%s reason=%s", self._path, aside, error)
        return ledger

    def _save(self, ledger: Ledger) -> None:
        write_atomically(self._path, _format(ledger))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other processes from the file between its reading and its writing."""
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = self._path.with_name(f".{self._path.name}.lock").open("w")
        except OSError as error:
            raise StorageError(f"cannot lock {self._path}: {error.strerror}") from error
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _parse(content: bytes) -> Ledger:
    try:
        document = json.loads(content)
        return Ledger(
            {date.fromisoformat(day): _count(count) for day, count in document["days"].items()},
            {date.fromisoformat(month): _count(count) for month, count in document["months"].items()},
            _count(document["total_bytes"]),
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise _DamagedError(content, error) from error


def _format(ledger: Ledger) -> bytes:
    document = {
        "days": {day.isoformat(): count for day, count in ledger.days.items()},
        "months": {month.isoformat(): count for month, count in ledger.months.items()},
        "total_bytes": ledger.total_bytes,
    }
    return json.dumps(document, indent=1).encode()


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"no count of bytes: {value!r}")
    return value


def _add(counts: Mapping[date, int], key: date, count: int, kept: int) -> dict[date, int]:
    """Return the counts with one of them changed and last; those that were not changed for longest fall away."""
    others = [item for item in counts.items() if item[0] != key]
    return dict([*others, (key, max(0, counts.get(key, 0) + count))][-kept:])
