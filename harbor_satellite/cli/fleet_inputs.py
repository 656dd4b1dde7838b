"""What ``fleet`` commands read from files and arguments: JSON, ``key=value`` pairs, values."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from harbor_satellite.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterable

_MAX_BYTES: Final = 10 * 1024 * 1024  # what the API takes


def read_json(path: Path, kind: type[Any] = dict) -> Any:
    """Return the JSON of a file, or of a pipe for ``-``.

    Raises:
        InvalidInputError: it cannot be read, is too large, no JSON, or of another kind.
    """
    try:
        if path == Path("-"):
            raw = sys.stdin.buffer.read(_MAX_BYTES + 1)
        else:
            with path.open("rb") as file:
                raw = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise InvalidInputError(f"cannot read {path}: {error.strerror}") from error
    if len(raw) > _MAX_BYTES:
        raise InvalidInputError(f"{path} has more than {_MAX_BYTES} bytes")
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"{path} is not JSON: {error}") from error
    if not isinstance(document, kind):
        raise InvalidInputError(f"{path} is not a JSON {'object' if kind is dict else 'list'}")
    return document


def read_pairs(texts: Iterable[str]) -> dict[str, str]:
    """Return ``key=value`` arguments as a mapping; an empty value is one too.

    Raises:
        InvalidInputError: one has no ``=``, or no key.
    """
    found: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise InvalidInputError(f"not KEY=VALUE: {text[:200]!r}")
        found[key] = value
    return found


def read_value(text: str) -> Any:
    """Return an argument as JSON where it is some, such as ``5``, ``true`` or ``null``; else as text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
