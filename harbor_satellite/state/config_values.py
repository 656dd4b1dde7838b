"""Checks of single values of a config; each raises ``InvalidInputError`` for a value that breaks its rule. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from harbor_satellite.errors import InvalidInputError
from harbor_satellite.inputs import parse_size
from harbor_satellite.oci.reference import Reference
from harbor_satellite.state.json_values import shown, text, values

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

_LIST_MAX_LENGTH: Final = 100
_TEXT_MAX_LENGTH: Final = 512  # characters
_SIZE_MAX: Final = 2**60  # bytes; more than any disk, and within what every JSON reader keeps exactly enough


def boolean(value: Any) -> bool:
    """Return the value if it is true or false."""
    if not isinstance(value, bool):
        raise InvalidInputError(f"neither true nor false: {shown(value)}")
    return value


def number(lowest: int, highest: int) -> Callable[[Any], int]:
    """Return a check for whole numbers of a range, both ends included."""

    def check(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
            raise InvalidInputError(f"not a whole number from {lowest} to {highest}: {shown(value)}")
        return value

    return check


def size(lowest: int) -> Callable[[Any], int]:
    """Return a check for counts of bytes, as a number or as text such as ``5M``."""

    def check(value: Any) -> int:
        found = parse_size(value.strip()) if isinstance(value, str) else value
        if not isinstance(found, int) or isinstance(found, bool) or not lowest <= found <= _SIZE_MAX:
            raise InvalidInputError(f"not a count of bytes of at least {lowest}: {shown(value)}")
        return found

    return check


def texts(value: Any) -> tuple[str, ...]:
    """Return a list of short texts, stripped."""
    found = tuple(text(one).strip() for one in values(value))
    if len(found) > _LIST_MAX_LENGTH or any(len(one) > _TEXT_MAX_LENGTH for one in found):
        raise InvalidInputError(
            f"too much: at most {_LIST_MAX_LENGTH} entries of at most {_TEXT_MAX_LENGTH} characters"
        )
    return found


def one_of(known: Collection[str]) -> Callable[[Any], str]:
    """Return a check for one of some words."""

    def check(value: Any) -> str:
        if value not in known:
            raise InvalidInputError(f"not one of {', '.join(known)}: {shown(value)}")
        return str(value)

    return check


def some_of(known: Collection[str]) -> Callable[[Any], tuple[str, ...]]:
    """Return a check for a list of some words."""
    check = one_of(known)
    return lambda value: tuple(dict.fromkeys(check(one) for one in texts(value)))


def hosts(value: Any) -> tuple[str, ...]:
    """Return a list of registries as ``host[:port]``."""
    for host in texts(value):
        if "/" in host or not host:
            raise InvalidInputError(f"not host[:port]: {shown(host)}")
        Reference(host, "any")  # checks host and port
    return texts(value)
