"""The gate on the link to the source: sync windows, caps and the rate, asked for every piece that is read.

What lives here: putting windows, ledger and bucket together with the clocks. What must not: requests, and anything
that reads or writes at the site: only what comes from the source is limited.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Self

from harbor_satellite.errors import PausedError, StorageError
from harbor_satellite.satellite.disk import show_bytes
from harbor_satellite.satellite.ledger import Caps, LedgerFile
from harbor_satellite.satellite.throttle import TokenBucket
from harbor_satellite.state.windows import SyncWindows, start_of_day

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import date
    from pathlib import Path
    from types import TracebackType

    from harbor_satellite.satellite.ledger import Counted
    from harbor_satellite.satellite.options import WanLimits

_log = logging.getLogger(__name__)

_BURST_SECONDS: Final = 0.25
_SLICE_SECONDS: Final = 0.5  # how long the end of a window, or of the run, may go unnoticed


@dataclass(frozen=True, slots=True)
class WanUsage:
    """What the link has carried and may still carry, for status and reports."""

    day: date
    """Today in the site's zone."""
    day_bytes: int
    month_bytes: int
    total_bytes: int
    daily_bytes: int | None
    """The cap; None: none."""
    monthly_bytes: int | None
    is_open: bool
    """Whether a sync window is open; caps are another matter."""
    closes_at: datetime | None
    """When the open window closes, in UTC; None if it never does, or none is open."""
    opens_at: datetime | None
    """When the next window opens, in UTC; None if one is open."""
    reason: str
    """Why bytes may not move now, as an operator reads it; empty: they may."""
    resumes_at: datetime | None
    """When they may again, in UTC; None if they may."""

    @property
    def day_left_bytes(self) -> int | None:
        """What may still be read today; None: no cap."""
        return None if self.daily_bytes is None else max(0, self.daily_bytes - self.day_bytes)

    @property
    def month_left_bytes(self) -> int | None:
        """What may still be read this month; None: no cap."""
        return None if self.monthly_bytes is None else max(0, self.monthly_bytes - self.month_bytes)


def _utc_now() -> datetime:
    return datetime.now(UTC)


class WanGate:
    """Counts, slows and stops what is read from the source. Safe to use from many threads.

    A piece is told of when it has been read, so a cap is passed by at most one piece of each thread.
    One gate serves one process for as long as it likes; ``settle`` it after each run, ``close`` it at the end.

    Args:
        limits: rate, caps and windows of the site.
        ledger_path: the file that keeps what was read.
        now: the site's clock; any time zone.
        monotonic: seconds of a clock that nobody sets.
        sleep: waits so many seconds.

    Raises:
        InvalidInputError: a window or the time zone is none, or the rate is less than a byte a second.
    """

    def __init__(
        self,
        limits: WanLimits,
        ledger_path: Path,
        *,
        now: Callable[[], datetime] = _utc_now,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._windows, self._caps, self._bucket = _bounds(limits)
        self._file = LedgerFile(ledger_path, self._caps)
        self._now, self._monotonic, self._sleep = now, monotonic, sleep
        self._is_stopping = threading.Event()
        self._is_permitted = False

    def change(self, limits: WanLimits) -> None:
        """Go on with other windows, caps and rate; what was counted stays.

        Raises:
            InvalidInputError: a window or the time zone is none; nothing is changed.
        """
        self._windows, self._caps, self._bucket = _bounds(limits)
        self._file.caps = self._caps

    @contextlib.contextmanager
    def permitted(self) -> Iterator[None]:
        """Let what is read meanwhile through whatever the bounds say: it is counted all the same.

        For the few bytes with which the centre lifts bounds that it set; not while images are read.
        """
        self._is_permitted = True
        try:
            yield
        finally:
            self._is_permitted = False

    def check(self) -> None:
        """Do nothing if bytes may move now; to be asked before a run and before a request.

        Raises:
            PausedError: no window is open, a cap is reached, or the gate is closed.
            StorageError: the ledger cannot be read.
        """
        now = self._now()
        self._refuse_stopping()
        self._refuse(now, self._file.look(self._day(now)))

    def spend(self, count: int) -> None:
        """Count a piece that was read, and wait as long as the rate asks; the client's ``on_read``.

        Raises:
            PausedError: no window is open any more or will be after the wait, a cap is reached, or the gate is
                closed. The piece is counted all the same.
            StorageError: the ledger cannot be read or written.
        """
        now = self._now()
        counted = self._file.spend(count, self._day(now))
        wait = self._bucket.take(count, self._monotonic()) if self._bucket else 0.0
        if self._is_stopping.is_set():
            self.settle()  # nobody else will, any more
            self._refuse_stopping()
        self._refuse(now, counted)
        if wait > 0:
            self._wait(now, wait)

    @property
    def ledger(self) -> WanUsage:
        """What is counted, by everybody who uses the file, and what may still be read.

        Raises:
            StorageError: the ledger cannot be read.
        """
        now = self._now()
        day = self._day(now)
        counted = self._file.look(day)
        is_open, reason = self._windows.is_open(now), self._reason(now, counted)
        return WanUsage(
            day=day,
            day_bytes=counted.day,
            month_bytes=counted.month,
            total_bytes=counted.total,
            daily_bytes=self._caps.daily_bytes,
            monthly_bytes=self._caps.monthly_bytes,
            is_open=is_open,
            closes_at=self._windows.closes_at(now) if is_open else None,
            opens_at=None if is_open else self._windows.next_opening(now),
            reason=reason,
            resumes_at=self._resumes_at(now, counted) if reason else None,
        )

    def settle(self) -> None:
        """Write the exact counts; a disk that refuses costs a warning: it counts a little too much then."""
        try:
            self._file.settle()
        except StorageError as error:
            _log.warning("ledger not settled: %s", error)

    def close(self) -> None:
        """End every wait and further read with PausedError, and write the exact counts."""
        self._is_stopping.set()
        self.settle()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _day(self, now: datetime) -> date:
        return now.astimezone(self._windows.zone).date()

    def _wait(self, now: datetime, seconds: float) -> None:
        closes_at = self._windows.closes_at(now)
        if not self._is_permitted and closes_at is not None and closes_at - now < timedelta(seconds=seconds):
            raise PausedError(
                f"the rate asks for {seconds:.0f} s more, the sync window closes at {self._windows.show(closes_at)}",
                until=self._windows.next_opening(closes_at),
            )
        # Slices are counted, not timed: a clock that stands still must not keep a thread here for ever.
        while seconds > 0:
            self._sleep(min(seconds, _SLICE_SECONDS))
            seconds -= _SLICE_SECONDS
            self._refuse_stopping()
            if not self._windows.is_open(now := self._now()):
                self._refuse(now, self._file.look(self._day(now)))

    def _refuse_stopping(self) -> None:
        if self._is_stopping.is_set():
            raise PausedError("reading from the source ends here: this replication is being stopped")

    def _refuse(self, now: datetime, counted: Counted) -> None:
        if not self._is_permitted and (reason := self._reason(now, counted)):
            raise PausedError(reason, until=self._resumes_at(now, counted))

    def _reason(self, now: datetime, counted: Counted) -> str:
        """Say which bound is reached, the longest-lasting first; empty: none."""
        caps = self._caps
        if caps.monthly_bytes is not None and counted.month >= caps.monthly_bytes:
            return self._cap_reached("monthly", caps.monthly_bytes, counted.month, now, counted)
        if caps.daily_bytes is not None and counted.day >= caps.daily_bytes:
            return self._cap_reached("daily", caps.daily_bytes, counted.day, now, counted)
        if not self._windows.is_open(now):
            opening = self._resumes_at(now, counted)
            when = f": the next opens at {self._windows.show(opening)}" if opening else ""
            return f"outside the sync windows {self._windows}{when}"
        return ""

    def _cap_reached(self, name: str, cap: int, count: int, now: datetime, counted: Counted) -> str:
        resumes = self._resumes_at(now, counted)
        when = f"; it goes on at {self._windows.show(resumes)}" if resumes else ""
        return f"the {name} cap of {show_bytes(cap)} is reached: {show_bytes(count)} were read{when}"

    def _resumes_at(self, now: datetime, counted: Counted) -> datetime | None:
        """Return when caps and windows let bytes through again, in UTC; None: not that anybody knows."""
        day, caps = self._day(now), self._caps
        if caps.monthly_bytes is not None and counted.month >= caps.monthly_bytes:
            now = start_of_day((day.replace(day=1) + timedelta(days=32)).replace(day=1), self._windows.zone)
        elif caps.daily_bytes is not None and counted.day >= caps.daily_bytes:
            now = start_of_day(day + timedelta(days=1), self._windows.zone)
        return self._windows.next_opening(now)


def _bounds(limits: WanLimits) -> tuple[SyncWindows, Caps, TokenBucket | None]:
    rate = limits.bytes_per_second
    bucket = None if rate is None else TokenBucket(rate, max(1, int(rate * _BURST_SECONDS)))
    return (
        SyncWindows.parse(limits.windows, limits.timezone),
        Caps(limits.daily_bytes, limits.monthly_bytes),
        bucket,
    )
