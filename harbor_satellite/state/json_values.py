"""Reading and writing the values of a state's JSON: typed, capped in messages, never trusting their kind.

Every function raises ``InvalidInputError`` for a value of the wrong kind.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from harbor_satellite.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Mapping

_WHOLE_NUMBER_LIMIT: Final = 1_000_000
_SHOWN_MAX_LENGTH: Final = 200  # characters of a wrong value in a message


def text(value: Any) -> str:
    """Return the value if it is text."""
    if not isinstance(value, str):
        raise InvalidInputError(f"not text: {shown(value)}")
    return value


def count(value: Any, what: str) -> int:
    """Return the value if it is a count."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InvalidInputError(f"{what} is not a count: {shown(value)}")
    return value


def whole_number(value: Any, what: str) -> int:
    """Return the value if it is a whole number of a size that anybody would write."""
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > _WHOLE_NUMBER_LIMIT:
        raise InvalidInputError(f"{what} is not a whole number: {shown(value)}")
    return value


def values(value: Any) -> list[Any]:
    """Return the value if it is a list; none stands for an empty one."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidInputError(f"not a list: {shown(value)}")
    return value


def moment(value: Any) -> datetime | None:
    """Read an ISO time with a zone, in UTC; None stays None."""
    if value is None:
        return None
    when = datetime.fromisoformat(text(value))
    if when.tzinfo is None:
        raise InvalidInputError(f"time without a zone: {shown(value)}")
    return when.astimezone(UTC)


def moment_text(when: datetime | None) -> str | None:
    """Write a time as ISO text in UTC; None stays None."""
    return None if when is None else when.astimezone(UTC).isoformat()


def shown(value: Any) -> str:
    """Show a wrong value in a message, shortened."""
    return repr(value)[:_SHOWN_MAX_LENGTH]


def canonical_json(document: Mapping[str, object]) -> bytes:
    """Write JSON without white space, keys as given."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
