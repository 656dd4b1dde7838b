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
    if fields[4] == "*" and not _comes(fields[2].lower(), fields[3].lower()):
        # Nothing would ever run; Prefect takes it and only its scheduler's log says so.
        raise InvalidInputError(f"no such day in those months: {schedule!r}")
    return " ".join(fields)


def _comes(days: str, months: str) -> bool:
    earliest = min(_values(days, "day", 1, 31))
    return any(earliest <= _LONGEST_MONTHS[month - 1] for month in _values(months, "month", 1, 12))


def _values(text: str, field: str, lowest: int, highest: int) -> set[int]:
    """Return all values of a field that was found to be good."""
    found: set[int] = set()
    for part in text.split(","):
        match = _CRON_PART.fullmatch(part)
        if match is None:
            continue
        first = _number(match["first"], field, lowest) or lowest
        is_one = match["first"] and not match["last"] and not match["step"]
        last = first if is_one else (_number(match["last"], field, highest) or highest)
        found |= set(range(first, last + 1, int(match["step"] or 1)))
    return found


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
