"""When a site's runs are due, by its schedule. Pure: the moment comes in as an argument.

What a schedule means is what Prefect takes it to mean (``state.cron.plain_schedule``), in wall-clock time of the
site's zone: a wall-clock time that the clocks show twice comes once, the first time.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from cronsim import CronSim, CronSimError

from harbor_satellite.errors import InvalidInputError
from harbor_satellite.state.cron import check_schedule, plain_schedule
from harbor_satellite.state.windows import load_zone

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import tzinfo

DEFAULT_SCHEDULE: Final = "0 * * * *"
"""Of a site that nobody gave a schedule."""
_SHIFT: Final = timedelta(hours=3)
"""More than clocks are ever put forward or back at once."""
_NONE: Final = timedelta()
_LONGEST_JITTER_SECONDS: Final = 300.0
_JITTER_SHARE: Final = 0.1
_LOOKS: Final = 16
"""So many due times in a row tell a schedule's shortest interval."""
_ANCHOR: Final = datetime(2001, 1, 1)  # noqa: DTZ001  (wall-clock time; any will do, always the same)
_NEVER_SECONDS: Final = 366.0 * 24 * 3600
_SPREAD_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a site replicates."""

    cron: str
    """5 fields."""
    timezone: str = "UTC"
    """IANA name."""


def effective_schedule(chosen: str, registered: str, timezone: str) -> Schedule:
    """Return the schedule that holds; one that is wrong, or an original Ground Control's own kind, counts as not set.

    Args:
        chosen: the site's own, else that of the centre's config; empty: neither has one.
        registered: what the site was registered with; empty: nothing.
        timezone: IANA name; UTC takes the place of one that this machine does not know.
    """
    for cron in (chosen, registered):
        with contextlib.suppress(InvalidInputError):
            return Schedule(check_schedule(cron), _known(timezone))
    return Schedule(DEFAULT_SCHEDULE, _known(timezone))


def next_run(cron: str, timezone: str, after: datetime) -> datetime | None:
    """Return the first due time after a moment, in UTC; None: it never comes.

    Raises:
        InvalidInputError: there is no such time zone.
    """
    zone, found = load_zone(timezone), None
    for wall in _walls(cron, _wall(after, zone) - _SHIFT):
        due = _moment(wall, zone)
        if due > after:
            found = due if found is None else min(found, due)
        # Where clocks are put forward, later wall-clock times may come first.
        if found is not None and wall > _wall(found, zone) + _SHIFT:
            return found
    return found


def previous_run(cron: str, timezone: str, until: datetime) -> datetime | None:
    """Return the last due time not after a moment, in UTC; None: there was none.

    Raises:
        InvalidInputError: there is no such time zone.
    """
    zone, found = load_zone(timezone), None
    for wall in _walls(cron, _wall(until, zone) + _SHIFT, is_reverse=True):
        due = _moment(wall, zone)
        if due <= until:
            found = due if found is None else max(found, due)
        if found is not None and wall < _wall(found, zone) - _SHIFT:
            return found
    return found


@lru_cache(maxsize=16)
def interval_seconds(cron: str) -> float:
    """Return the shortest time between two due times of a schedule; of one that never comes, a year."""
    walls = [wall for wall, _ in zip(_walls(cron, _ANCHOR), range(_LOOKS), strict=False)]
    gaps = [(after - before).total_seconds() for before, after in pairwise(walls)]
    return min(gaps, default=_NEVER_SECONDS)


def jitter_window(cron: str, chosen_seconds: int | None) -> float:
    """Return by how many seconds at most a scheduled run starts later, so that a fleet does not come at once.

    Args:
        cron: its schedule.
        chosen_seconds: what the site says; None: a tenth of the schedule's interval, 300 s at most.
    """
    if chosen_seconds is not None:
        return float(chosen_seconds)
    return min(_LONGEST_JITTER_SECONDS, interval_seconds(cron) * _JITTER_SHARE)


def jitter_of(name: str, window_seconds: float) -> float:
    """Return a satellite's own share of a window: always the same, and spread evenly over a fleet."""
    number = int.from_bytes(sha256(f"jitter {name}".encode()).digest()[:_SPREAD_BYTES], "big")
    return window_seconds * number / float(1 << 8 * _SPREAD_BYTES)


def _known(timezone: str) -> str:
    try:
        load_zone(timezone)
    except InvalidInputError:
        return "UTC"
    return timezone


def _walls(cron: str, start: datetime, *, is_reverse: bool = False) -> Iterator[datetime]:
    try:
        return iter(CronSim(plain_schedule(cron), start, reverse=is_reverse))
    except CronSimError:  # no such day in those months
        return iter(())


def _wall(moment: datetime, zone: tzinfo) -> datetime:
    return moment.astimezone(zone).replace(tzinfo=None)


def _moment(wall: datetime, zone: tzinfo) -> datetime:
    """Return the moment of a wall-clock time; one that the clocks skip has the later offset, as Prefect has it."""
    first, second = (wall.replace(tzinfo=zone, fold=fold) for fold in (0, 1))
    is_skipped = (first.utcoffset() or _NONE) < (second.utcoffset() or _NONE)
    return (second if is_skipped else first).astimezone(UTC)
