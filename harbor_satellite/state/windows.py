"""When bytes may move: a site's sync windows, by the clock on its wall.

What lives here: parsing windows, and answering when they are open. What must not: reading a clock, waiting.

A window is open whenever the site's wall clock shows a time inside it. So in the night that has an hour twice,
a window in that hour is open twice; in the night that lacks it, it does not come at all.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from harbor_satellite.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import tzinfo

_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY: Final = 24 * 60  # minutes
_WEEK: Final = 7 * _DAY  # minutes
_FORM: Final = "say DAYS, HH:MM-HH:MM or both, such as 'Mon-Fri 22:00-06:00', 'Sat-Sun' or '01:00-03:30'"
_ENTRY: Final = re.compile(r"(?P<days>[A-Za-z][A-Za-z,\-]*)?\s*(?:(?<![A-Za-z,\-])(?P<times>[0-9][0-9:\-]*))?")
_TIMES: Final = re.compile(r"([0-9]{1,2}):([0-9]{2})-([0-9]{1,2}):([0-9]{2})")
# A window that falls into a missing hour comes a week later: two weeks and a day always hold an opening.
_HORIZON: Final = timedelta(days=15)
_SECOND: Final = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class SyncWindows:
    """The times of a week at which bytes may move; made by ``parse``."""

    texts: tuple[str, ...]
    """The windows as they were written."""
    zone: tzinfo
    """The site's time zone."""
    edges: tuple[int, ...]
    """Minutes of the week at which it opens, closes, opens, …; sorted, even in number; empty: always open."""

    @classmethod
    def parse(cls, texts: tuple[str, ...], timezone: str) -> SyncWindows:
        """Read windows such as ``Mon-Fri 22:00-06:00``, ``Sat-Sun``, ``22:00-06:00`` or ``Mon,Wed 01:00-03:30``.

        Args:
            texts: one window each; without days it is every day's, without times the whole day. A window that
                goes past midnight belongs to the day on which it began. Empty: always open.
            timezone: IANA name of the site's zone.

        Raises:
            InvalidInputError: an entry is no window, or there is no such zone; the message names it.
        """
        zone = load_zone(timezone)
        spans = [span for text in texts for span in _spans(text)]
        return cls(texts, zone, _merged(spans))

    @property
    def is_always_open(self) -> bool:
        """Whether there is no time at which it is closed."""
        return not self.edges

    def is_open(self, moment: datetime) -> bool:
        """Tell whether bytes may move at this moment (with a time zone, any)."""
        if not self.edges:
            return True
        local = moment.astimezone(self.zone)
        minute = local.weekday() * _DAY + local.hour * 60 + local.minute
        return bisect_right(self.edges, minute) % 2 == 1

    def closes_at(self, moment: datetime) -> datetime | None:
        """Return the first time from this moment on at which it is closed, in UTC; None: never.

        The moment itself if it is closed then.
        """
        return self._first(moment, is_open=False)

    def next_opening(self, moment: datetime) -> datetime | None:
        """Return the first time from this moment on at which it is open, in UTC; None: not within two weeks.

        The moment itself if it is open then.
        """
        return self._first(moment, is_open=True)

    def show(self, moment: datetime) -> str:
        """Write a moment as the site's wall clock shows it, such as ``Mon 2026-11-23 22:00 CET``."""
        return f"{moment.astimezone(self.zone):%a %Y-%m-%d %H:%M %Z}"

    def __str__(self) -> str:
        return f"{', '.join(self.texts) or 'always'} ({self.zone})"

    def _first(self, moment: datetime, *, is_open: bool) -> datetime | None:
        # In UTC: two datetimes of one zone are compared and subtracted by their wall clocks, wrong over a change.
        moment = moment.astimezone(UTC)
        if self.is_open(moment) is is_open:
            return moment
        changes = (change for change in self._changes(moment) if self.is_open(change) is is_open)
        return next(changes, None)

    def _changes(self, moment: datetime) -> Iterator[datetime]:
        """Give, in order, every later time at which it may open or close."""
        # From yesterday on: a clock that is put back just after midnight shows it again.
        first = moment.astimezone(self.zone).date() - timedelta(days=1)
        found = set[datetime]()
        for days in range(_HORIZON.days + 2):
            day = first + timedelta(days=days)
            for edge in self.edges:
                if edge // _DAY % 7 == day.weekday():
                    found.update(_instants(datetime.combine(day, time(edge % _DAY // 60, edge % 60)), self.zone))
        return iter(sorted(change for change in found if change > moment))


def load_zone(name: str) -> tzinfo:
    """Return the time zone of an IANA name such as ``Europe/Berlin``.

    Raises:
        InvalidInputError: there is no such zone, or this machine has no database of zones.
    """
    if name == "UTC":  # the default must work where there is no database at all
        return UTC
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError) as error:  # a folder's name is an OSError, `../x` a ValueError
        message = f"no time zone {name!r} here: use an IANA name such as Europe/Berlin (from the tzdata package)"
        raise InvalidInputError(message) from error


def start_of_day(day: date, zone: tzinfo) -> datetime:
    """Return the moment at which a day begins in a zone, in UTC."""
    return min(
        instant
        for instant in _instants(datetime.combine(day, time()), zone)
        if instant.astimezone(zone).date() >= day  # where midnight is missing, one reading lies before the gap
    )


def _instants(wall: datetime, zone: tzinfo) -> set[datetime]:
    """Return every moment at which a wall time comes, or would, and the change of offset that makes it doubtful."""
    once, again = (wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    if once == again:
        return {once}
    # The hour is missing or comes twice: look for the second at which the clock is put on or back.
    before, after = min(once, again), max(once, again)
    offset = before.astimezone(zone).utcoffset()
    while after - before > _SECOND:
        middle = (before + (after - before) / 2).replace(microsecond=0)
        if middle.astimezone(zone).utcoffset() == offset:
            before = middle
        else:
            after = middle
    return {once, again, after}


def _spans(text: str) -> Iterator[tuple[int, int]]:
    """Give each window of one entry as minutes of the week, the end possibly in the next."""
    entry = _ENTRY.fullmatch(text.strip())
    if entry is None or not text.strip():
        raise InvalidInputError(f"no sync window: {text!r}; {_FORM}")
    begin, end = _times(text, entry["times"]) if entry["times"] else (0, _DAY)
    for day in _days(text, entry["days"]) if entry["days"] else range(7):
        yield day * _DAY + begin, day * _DAY + end


def _days(text: str, days: str) -> Iterator[int]:
    for part in days.lower().split(","):
        first, dash, last = part.partition("-")
        if first not in _DAYS or (dash and last not in _DAYS):
            raise InvalidInputError(f"no days {part!r} in sync window {text!r}: they are Mon Tue Wed Thu Fri Sat Sun")
        begin = _DAYS.index(first)
        count = (_DAYS.index(last) - begin) % 7 if dash else 0
        yield from ((begin + more) % 7 for more in range(count + 1))


def _times(text: str, times: str) -> tuple[int, int]:
    """Return begin and end in minutes of the day on which the window begins."""
    matched = _TIMES.fullmatch(times)
    if matched is None:
        raise InvalidInputError(f"no times {times!r} in sync window {text!r}; {_FORM}")
    hours, minutes, end_hours, end_minutes = map(int, matched.groups())
    begin, end = hours * 60 + minutes, end_hours * 60 + end_minutes
    if max(minutes, end_minutes) >= 60 or begin >= _DAY or end > _DAY:  # noqa: PLR2004 - minutes of an hour
        raise InvalidInputError(f"no times {times!r} in sync window {text!r}: they go from 00:00 to 24:00")
    if begin == end:
        raise InvalidInputError(f"sync window {text!r} ends as it begins: for a whole day say the day, or 00:00-24:00")
    return begin, end if end > begin else end + _DAY


def _merged(spans: Iterable[tuple[int, int]]) -> tuple[int, ...]:
    """Return the edges of the union of windows within one week, none if that is all of it or nothing was given."""
    pieces = sorted(
        piece
        for begin, end in spans
        for piece in ((begin, min(end, _WEEK)), (0, end - _WEEK))  # Sunday's night ends on Monday
        if piece[0] < piece[1]
    )
    edges: list[int] = []
    for begin, end in pieces:
        if edges and begin <= edges[-1]:
            edges[-1] = max(edges[-1], end)
        else:
            edges += [begin, end]
    return () if edges == [0, _WEEK] else tuple(edges)
