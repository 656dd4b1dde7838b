"""What the audit log may keep of a change: plain JSON without secrets, and no more than a reader wants. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final

from pydantic import SecretBytes, SecretStr

HIDDEN: Final = "***"
"""What stands in the place of a secret."""
_LONG: Final = "(too long to be kept)"
_LONGEST_FIELD: Final = 16 * 1024  # characters of JSON; a group may name 20,000 artifacts
_DEEPEST: Final = 20  # levels

_SECRET_NAME: Final = re.compile(
    r"pass(word|wd|phrase)|secret|token|authorization|cookie|private|api_?key|(^|[_-])key([_-]hash)?$", re.IGNORECASE
)
_HARMLESS_NAME: Final = re.compile(r"_(at|id|days|seconds|count|name|names)$", re.IGNORECASE)


def redacted(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a change as plain JSON: secrets are hidden by the field's name or the value's type, long values left out.

    Of ``[from, to]`` of a secret only stays which of the two there was: ``[null, "***"]``.
    """
    plain = {str(name): _plain(value, is_secret=_is_secret(str(name)), depth=0) for name, value in changes.items()}
    return {name: value if len(json.dumps(value)) <= _LONGEST_FIELD else _LONG for name, value in plain.items()}


def _is_secret(name: str) -> bool:
    return _SECRET_NAME.search(name) is not None and _HARMLESS_NAME.search(name) is None


def _plain(value: Any, *, is_secret: bool, depth: int) -> Any:  # noqa: PLR0911  (one return for each kind of value)
    if depth > _DEEPEST:
        return _LONG
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Mapping):
        return {
            str(name): _plain(part, is_secret=is_secret or _is_secret(str(name)), depth=depth + 1)
            for name, part in value.items()
        }
    if isinstance(value, AbstractSet):
        return sorted((_plain(part, is_secret=is_secret, depth=depth + 1) for part in value), key=str)
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray)):
        return [_plain(part, is_secret=is_secret, depth=depth + 1) for part in value]
    if is_secret or isinstance(value, (SecretStr, SecretBytes, bytes, bytearray)):
        return HIDDEN
    if isinstance(value, (int, float)):
        return value
    return str(value).encode(errors="replace").decode().replace("\0", "?")
