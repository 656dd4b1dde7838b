"""How often: the Go durations in which the original's satellites report."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

from harbor_satellite.errors import InvalidInputError

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
