"""Cron expressions of five fields: when a satellite replicates. Pure."""

from __future__ import annotations

import re
from typing import Final

from harbor_satellite.errors import InvalidInputError

_LONGEST_SCHEDULE: Final = 128  # characters
_FIELDS: Final = (("minute", 0, 59), ("hour", 0, 23), ("day", 1, 31), ("month", 1, 12), ("weekday", 0, 7))
_LONGEST_MONTHS: Final = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)  # days
_NAMES: Final = {
    "month": ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"),
    "weekday": ("sun", "mon", "tue", "wed", "thu", "fri", "sat"),
}
_CYCLES: Final = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
"""What a full turn of each field is; the weekday's 7 is another name of 0."""
_DAY: Final = 2
_WEEKDAY: Final = 4
_SUNDAY_TOO: Final = 7
_CRON_PART: Final = re.compile(
    r"(?:\*|(?P<first>[0-9]{1,2}|[a-z]{3})(?:-(?P<last>[0-9]{1,2}|[a-z]{3}))?)(?:/(?P<step>[0-9]{1,2}))?"
)


def check_schedule(schedule: str) -> str:
    """Return a 5-field cron expression with single spaces.

    Raises:
        InvalidInputError: not five fields, one out of its range, or a day that never comes; the message names it.
    """
    fields = schedule.split()
    if len(fields) != len(_FIELDS) or len(schedule) > _LONGEST_SCHEDULE:
        raise InvalidInputError(f"not a 5-field cron expression: {schedule[:_LONGEST_SCHEDULE]!r}")
    for text, (field, lowest, highest) in zip(fields, _FIELDS, strict=True):
        for part in text.lower().split(","):
            if not _is_cron_part(part, field, lowest, highest):
                raise InvalidInputError(f"not a cron {field}: {text!r} in {schedule!r}")
    if not _comes(" ".join(fields)):
        # Nothing would ever run; Prefect takes it and only its scheduler's log says so.
        raise InvalidInputError(f"no such day in those months: {schedule!r}")
    return " ".join(fields)


def plain_schedule(schedule: str) -> str:
    """Return a checked schedule with nothing but ``*`` and lists of numbers, meaning what Prefect takes it to mean.

    Programs that read cron differ: whether ``*/2`` as a day bounds the weekdays, what ``12/4`` and ``5-7`` are. It is
    Prefect that schedules, so its reading counts: a day comes by day *or* weekday unless one of them has a ``*``; a
    range whose ends are the same is a full turn (so is ``12/4`` of a month: it reads 12-12/4).
    """
    fields = schedule.lower().split()
    plain = []
    for index, text in enumerate(fields):
        found = {value for part in text.split(",") for value in _turn(part, index)}
        lowest, highest = _CYCLES[index]
        is_full = len(found) == highest - lowest + 1
        # A full list of days still stands beside the weekdays, unless those have a star.
        other = {_DAY: _WEEKDAY, _WEEKDAY: _DAY}.get(index)
        is_star = "*" in text.split(",") or (is_full and (other is None or "*" in fields[other]))
        plain.append("*" if is_star else ",".join(map(str, sorted(found))))
    return " ".join(plain)


def _turn(part: str, index: int) -> list[int]:
    """Return the values of one part of a field, as Prefect's reader of cron does."""
    lowest, highest = _CYCLES[index]
    match = _CRON_PART.fullmatch(part)
    if match is None:
        return []
    field = _FIELDS[index][0]
    first, last = (None if match[end] is None else _number(match[end], field, lowest) for end in ("first", "last"))
    step = int(match["step"] or 1)
    if index == _WEEKDAY:
        first = first and first % _SUNDAY_TOO
    if first is not None and last is None and match["step"] is None:
        return [first]
    first, last = lowest if first is None else first, highest if last is None else last
    is_turn = first == last or (index == _WEEKDAY and (first, last) == (0, _SUNDAY_TOO))
    values = range(lowest, highest + 1, step) if is_turn else range(first, last + 1, step)
    return [value % _SUNDAY_TOO for value in values] if index == _WEEKDAY else list(values)


def _comes(schedule: str) -> bool:
    _, _, days, months, weekdays = plain_schedule(schedule).split()
    if days == "*" or weekdays != "*":
        return True
    lengths = _LONGEST_MONTHS if months == "*" else [_LONGEST_MONTHS[int(month) - 1] for month in months.split(",")]
    return int(days.split(",")[0]) <= max(lengths)


def _is_cron_part(part: str, field: str, lowest: int, highest: int) -> bool:
    match = _CRON_PART.fullmatch(part)
    if match is None:
        return False
    first = _number(match["first"], field, lowest)
    last = _number(match["last"], field, highest) if match["last"] else highest
    step = int(match["step"] or 1)
    return first is not None and last is not None and lowest <= first <= last <= highest and 1 <= step <= highest


def _number(text: str | None, field: str, default: int) -> int | None:
    if text is None:
        return default
    if text.isdigit():
        return int(text)
    names = _NAMES.get(field, ())
    return names.index(text) + (field == "month") if text in names else None
