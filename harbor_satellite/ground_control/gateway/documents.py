"""JSON that a site sent: parsed once, strictly; what is passed on is written anew from the parsed values."""

from __future__ import annotations

import json
import math
from typing import Any, Final, NoReturn
from uuid import UUID

BODY_MAX_BYTES: Final = 4 * 1024 * 1024
_DEPTH_MAX: Final = 64
_UUID_LENGTH: Final = 36
_DIGITS_MAX: Final = 18  # of a whole number: databases hold no larger ones


class RefusedError(Exception):
    """A call that is not the satellite's to make; the message says why, and holds nothing of the body."""


def parse(raw: bytes) -> Any:
    """Return the value of a JSON text.

    Raises:
        RefusedError: it is none, too large, nested too deeply, names a key twice, or holds a number that is none or
            that a database cannot hold.
    """
    if len(raw) > BODY_MAX_BYTES:
        raise RefusedError(f"the body is larger than {BODY_MAX_BYTES} bytes")
    try:
        value = json.loads(
            raw, object_pairs_hook=_unique, parse_constant=_no_constant, parse_int=_whole, parse_float=_fraction
        )
    except (ValueError, RecursionError):
        raise RefusedError("the body is no JSON") from None
    _check_depth(value)
    return value


def write(value: Any) -> bytes:
    """Return the JSON text of a value; characters that a database refuses are replaced."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    # Half a pair of surrogates, and NUL: PostgreSQL would refuse the whole batch, with what others wrote.
    return text.encode("utf-8", "replace").replace(b"\\u0000", b"\\ufffd")


def an_object(value: Any, what: str = "the body") -> dict[str, Any]:
    """Return the value if it is a JSON object; raises ``RefusedError`` otherwise."""
    if not isinstance(value, dict):
        raise RefusedError(f"{what} is no object")
    return value


def a_list(value: Any, what: str, at_most: int) -> list[Any]:
    """Return the value if it is a list of no more than so many; raises ``RefusedError`` otherwise."""
    if not isinstance(value, list) or len(value) > at_most:
        raise RefusedError(f"{what} is no list of at most {at_most}")
    return value


def an_id(value: Any, what: str) -> str:
    """Return an id in its one canonical form; raises ``RefusedError`` if it is no UUID."""
    try:
        if not isinstance(value, str) or len(value) != _UUID_LENGTH:
            raise RefusedError(f"{what} is no id")
        return str(UUID(value))
    except ValueError:
        raise RefusedError(f"{what} is no id") from None


def only(document: dict[str, Any], keys: frozenset[str]) -> dict[str, Any]:
    """Return what a document says under these keys; the rest stays here."""
    return {key: value for key, value in document.items() if key in keys}


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise RefusedError("the body names a key twice")
    return document


def _no_constant(name: str) -> NoReturn:
    raise RefusedError(f"the body holds {name}")


def _whole(text: str) -> int:
    if len(text.lstrip("-")) > _DIGITS_MAX:
        raise RefusedError("the body holds a number that is too large")
    return int(text)


def _fraction(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise RefusedError("the body holds a number that is too large")
    return number


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(_DEPTH_MAX):
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return
    raise RefusedError(f"the body is nested more than {_DEPTH_MAX} levels deep")
