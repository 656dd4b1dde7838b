"""How often and when: the Go durations in which satellites report, and the schedules that are set at sites."""

from __future__ import annotations

import logging
import re
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Final
from zoneinfo import available_timezones

from harbor_satellite.errors import InvalidInputError
from harbor_satellite.ground_control import outbox
from harbor_satellite.state.cron import check_schedule

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from sqlalchemy.orm import Session

    from harbor_satellite.ground_control.models import Satellite
    from harbor_satellite.state.wire import StatusReport

logger = logging.getLogger(__name__)

_ZONE_LONGEST: Final = 64  # characters
_NO_ZONES: Final = frozenset({"Factory", "localtime"})  # beside the zones in some databases; here it is another one
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


def note_own_schedule(session: Session, satellite: Satellite, report: StatusReport, now: datetime) -> None:
    """Keep what was set at the site itself, which stands above the centre's; tell Prefect if it is another than before.

    What is no schedule, or no time zone, counts as not set: the site's mistake is no reason to refuse its report.
    """
    schedule = _good(check_schedule, report.own_schedule, satellite.name)
    timezone = _good(_check_zone, report.own_timezone, satellite.name)
    if (schedule, timezone) == (satellite.own_schedule, satellite.own_timezone):
        return
    satellite.own_schedule, satellite.own_timezone = schedule, timezone
    outbox.enqueue_fleet_changed(session, satellite.name, now)
    logger.info("own schedule satellite=%s cron=%s timezone=%s", satellite.name, schedule or "-", timezone or "-")


def _check_zone(name: str) -> str:
    # One that Prefect does not take would keep the schedules of the whole fleet from being brought in step.
    if len(name) > _ZONE_LONGEST or name not in _zones():
        raise InvalidInputError(f"not a time zone: {name[:_ZONE_LONGEST]!r}")
    return name


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones()) - _NO_ZONES | {"UTC"}


def _good(check: Callable[[str], str], said: str, satellite: str) -> str:
    try:
        return check(said) if said else ""
    except InvalidInputError as error:
        logger.warning("own schedule ignored satellite=%s reason=%s", satellite, error)
        return ""
