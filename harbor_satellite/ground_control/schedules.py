"""How often: 5-field cron of a satellite, and the Go durations in which the original's satellites report."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

from harbor_satellite.errors import InvalidInputError

_LONGEST_SCHEDULE: Final = 128  # characters
_FIELDS: Final = (("minute", 0, 59), ("hour", 0, 23), ("day", 1, 31), ("month", 1, 12), ("weekday", 0, 7))
_NAMES: Final = {
    "month": ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"),
    "weekday": ("sun", "mon", "tue", "wed", "thu", "fri", "sat"),
}
_CRON_PART: Final = re.compile(
    r"(?:\*|(?P<first>[0-9]{1,2}|[a-z]{3})(?:-(?P<last>[0-9]{1,2}|[a-z]{3}))?)(?:/(?P<step>[0-9]{1,2}))?"
)

_DURATION_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_UNIT_SECONDS: Final = {
    "ns": Decimal("1e-9"),
    "us": Decimal("1e-6"),
    "µs": Decimal("1e-6"),
    "μs": Decimal("1e-6"),
    "ms": Decimal("1e-3"),
    "s": Decimal(1),
    "m": Decimal(60),
    "h": Decimal(3600),
}
_LONGEST_INTERVAL: Final = 366 * 24 * 3600  # seconds
_EVERY: Final = "@every "  # the original's satellites send "@every 00h00m30s"


def check_schedule(schedule: str) -> str:
    """Return a 5-field cron expression with single spaces.

    Raises:
        InvalidInputError: not five fields, or one out of its range; the message names it.
    """
    fields = schedule.split()
    if len(fields) != len(_FIELDS) or len(schedule) > _LONGEST_SCHEDULE:
        raise InvalidInputError(f"not a 5-field cron expression: {schedule[:_LONGEST_SCHEDULE]!r}")
    for text, (field, lowest, highest) in zip(fields, _FIELDS, strict=True):
        for part in text.lower().split(","):
            if not _is_cron_part(part, field, lowest, highest):
                raise InvalidInputError(f"not a cron {field}: {text!r} in {schedule!r}")
    return " ".join(fields)


def parse_interval(text: str) -> int | None:
    """Read a report interval into whole seconds; empty means that the site did not say.

    Args:
        text: a Go duration such as ``30s`` or ``1m30s``; the original's ``@every `` may stand in front.

    Raises:
        InvalidInputError: another form, less than a second, not whole seconds, or more than a year.
    """
    if not text:
        return None
    duration = text.removeprefix(_EVERY)
    parts = _DURATION_PART.findall(duration)
    if not parts or "".join(number + unit for number, unit in parts) != duration or len(duration) > 64:  # noqa: PLR2004 - digits enough for any duration
        raise InvalidInputError(f"not a duration such as 30s or 1m30s: {text[:100]!r}")
    seconds = sum((Decimal(number) * _UNIT_SECONDS[unit] for number, unit in parts), Decimal(0))
    if seconds != seconds.to_integral_value() or not 1 <= seconds <= _LONGEST_INTERVAL:
        raise InvalidInputError(f"not a report interval of whole seconds, 1 s to a year: {text[:100]!r}")
    return int(seconds)


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
