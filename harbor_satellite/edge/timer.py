"""The site's own clock: runs what is due without Prefect when no flow run comes.

Prefect owns the schedule as long as it can be reached: the timer waits for it. It waits shortly where the centre is
known to be away, longer where it answers and gives no run. What is decided, and with which memory, is pure: all
times come in. The clock on the wall may jump by years (a board without a battery starts in 1970): it tells what is
due, and the monotonic clock how long to be patient.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from harbor_satellite.satellite.schedule import (
    Schedule,
    interval_seconds,
    jitter_of,
    jitter_window,
    next_run,
    previous_run,
)

_FIRST_PATIENCE_SECONDS: Final = (5.0, 60.0)
"""A site that has nothing yet waits no longer for a flow run: where the centre is away, and where it is not: there, its
pool and its first run are being made, and the worker polls for it every few seconds."""
_FIRST_RETRY_SECONDS: Final = (10.0, 300.0)
_RETRY_SECONDS: Final = (300.0, 3600.0)
_BUSY_SECONDS: Final = 30.0
_BROKEN_SECONDS: Final = (5.0, 300.0)
"""Before a run that was broken off is made up for; longer each time, since it may be the run that ends the agent."""
_LONGEST_AWAY_SECONDS: Final = 120.0
_LONGEST_HERE_SECONDS: Final = 600.0
_POLLS_AWAY: Final = 2
_POLLS_HERE: Final = 3
_EVER: Final = (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))
_AHEAD: Final = timedelta(minutes=1)
"""A record that is so much ahead of the clock shows that the clock went back."""

Reason = Literal["", "first", "due", "again", "broken off"]
"""Why a run is wanted now; empty: none is."""
End = Literal["done", "paused", "busy", "failed"]
"""How a run without Prefect ended; ``busy``: another one is under way."""


@dataclass(frozen=True, slots=True)
class Pace:
    """The site's choices that the timer goes by."""

    schedule: Schedule
    poll_seconds: float
    jitter_seconds: float
    has_prefect: bool = True

    @classmethod
    def of(
        cls, schedule: Schedule, satellite: str, poll_seconds: float, chosen_jitter: int | None, *, has_prefect: bool
    ) -> Pace:
        """Return the pace of a satellite; its jitter is always the same."""
        jitter = jitter_of(satellite, jitter_window(schedule.cron, chosen_jitter))
        return cls(schedule, poll_seconds, jitter, has_prefect)

    def patience_seconds(self, *, is_away: bool) -> float:
        """Return how long a flow run is waited for."""
        if not self.has_prefect:
            return 0.0
        if is_away:
            return min(_POLLS_AWAY * self.poll_seconds, _LONGEST_AWAY_SECONDS)
        share = min(_LONGEST_HERE_SECONDS, interval_seconds(self.schedule.cron) / 4)
        return max(_POLLS_HERE * self.poll_seconds, share)


@dataclass(frozen=True, slots=True)
class Look:
    """What the timer sees at one moment."""

    now: datetime
    """By the clock on the wall."""
    monotonic: float
    last_run_at: datetime | None
    """When a run of any kind ended last, by the record; None: there was none."""
    is_empty: bool
    """Whether no state was ever applied."""
    is_away: bool
    """Whether the centre cannot be reached."""
    is_busy: bool
    """Whether a run is under way."""
    broken_runs: int = 0
    """How many runs in a row ended with their process."""


@dataclass(slots=True)
class Timer:
    """Says when to run without Prefect."""

    started: float
    """Monotonic."""
    _record: datetime | None = None
    """``last_run_at`` as it was seen last: another one shows that somebody has run."""
    _due: datetime | None = None
    """What a run now would make up for."""
    _tried: datetime | None = None
    """The due time that the last run without Prefect was for."""
    _missed_since: float | None = None
    """Monotonic: since when a flow run is waited for."""
    _reset_at: datetime | None = None
    """When the clock was found to have gone back: what was due before that is not missed."""
    _failures: int = 0
    _retry_at: float = float("-inf")
    """Monotonic: after a failure."""
    _has_run: bool = False
    """Whether a run without Prefect has ended since the start: what was broken off before that is made up for."""
    _busy_until: float = float("-inf")
    """Monotonic: after the site was found to be held by another process."""

    _reckoned: tuple[Schedule, datetime, datetime] | None = None
    """The due times around the last look."""

    def wants(self, pace: Pace, look: Look) -> Reason:
        """Tell whether, and why, to run now."""
        if look.is_busy or look.monotonic < self._busy_until:
            return ""
        is_empty = look.is_empty or look.last_run_at is None
        if look.last_run_at != self._record:
            self._note(look, is_empty=is_empty)
        if is_empty:
            patience = _FIRST_PATIENCE_SECONDS[pace.has_prefect and not look.is_away]
            is_time = look.monotonic >= max(self._retry_at, self.started + patience)
            return "first" if is_time else ""
        if look.broken_runs and not self._has_run:
            shortest, longest = _BROKEN_SECONDS
            wait = min(longest, shortest * 4.0 ** min(look.broken_runs - 1, 10))
            return "broken off" if look.monotonic >= max(self._retry_at, self.started + wait) else ""
        self._due = self._missed(pace, look)
        if self._due is None or self._due == self._tried:
            self._missed_since = None
            return "again" if self._failures and look.monotonic >= self._retry_at else ""
        if self._missed_since is None:
            self._missed_since = look.monotonic
        waited = look.monotonic - self._missed_since
        return "due" if waited >= pace.patience_seconds(is_away=look.is_away) else ""

    def ran(self, end: End, look: Look) -> None:
        """Note how a run without Prefect ended.

        Args:
            end: how.
            look: what is seen after it.
        """
        if end == "busy":
            self._busy_until = look.monotonic + _BUSY_SECONDS
            return
        self._record, self._tried, self._missed_since, self._has_run = look.last_run_at, self._due, None, True
        # A pause is no failure, and yet a site that has nothing asks again soon.
        is_bad = end == "failed" or look.is_empty
        self._failures = self._failures + 1 if is_bad else 0
        shortest, longest = _FIRST_RETRY_SECONDS if look.is_empty else _RETRY_SECONDS
        self._retry_at = look.monotonic + min(longest, shortest * 2 ** min(max(self._failures - 1, 0), 20))

    def _note(self, look: Look, *, is_empty: bool) -> None:
        """Somebody else has run: what failed here before is theirs now."""
        is_news = self._record is not None or self._failures > 0
        self._record, self._failures = look.last_run_at, 0
        if is_empty and is_news:
            self._retry_at = look.monotonic + _FIRST_RETRY_SECONDS[0]

    def _missed(self, pace: Pace, look: Look) -> datetime | None:
        """Return the last due time whose moment has passed without a run since."""
        since = look.last_run_at
        if since is None or since > look.now + _AHEAD:
            if self._reset_at is None or self._reset_at > look.now + _AHEAD:
                self._reset_at = look.now
            since = self._reset_at
        due = self._last_due(pace.schedule, look.now - timedelta(seconds=pace.jitter_seconds))
        return due if due is not None and due > since else None

    def _last_due(self, schedule: Schedule, moment: datetime) -> datetime | None:
        """Return the last due time not after a moment; asked every few seconds, reckoned once between two of them."""
        known = self._reckoned
        if known is None or known[0] != schedule or not known[1] <= moment < known[2]:
            due = previous_run(schedule.cron, schedule.timezone, moment)
            after = next_run(schedule.cron, schedule.timezone, moment)
            self._reckoned = known = (schedule, due or _EVER[0], after or _EVER[1])
        return known[1] if known[1] != _EVER[0] else None
