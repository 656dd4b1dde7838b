"""Refusing secrets in what is published: a config is kept as an artifact, and an artifact is read by many. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from harbor_satellite.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterator

_SECRET_PARTS: Final = (
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "credential",
    "privatekey",
    "apikey",
    "accesskey",
)
_SECRET_NAMES: Final = frozenset({"auth", "authorization", "htpasswd"})
_NOT_IN_NAMES: Final = re.compile(r"[^a-z0-9]")
_USER_IN_URL: Final = re.compile(r"://[^/?#\s]*@")
_KEY_MATERIAL: Final = "-----BEGIN "
_DEEPEST: Final = 32  # what encoders and a merge patch can follow
_SHOWN_MAX_LENGTH: Final = 200  # characters of a place in a message


def refuse_secrets(document: Any, what: str) -> None:
    """Do nothing if no part of a JSON document looks like a secret; a secret's name with nothing in it is fine.

    Raises:
        InvalidInputError: there is one, or the document is nested too deeply; the message never shows the value.
    """
    for path, key, value in _parts(document, what):
        name = _NOT_IN_NAMES.sub("", key.lower())
        is_secret_name = name in _SECRET_NAMES or any(part in name for part in _SECRET_PARTS)
        if is_secret_name and _holds_something(value):
            raise InvalidInputError(f"{path} looks like a secret: a config is published, so keep secrets at the site")
        if isinstance(value, str) and _USER_IN_URL.search(value):
            raise InvalidInputError(f"{path} has a user in its URL: a config is published")
        if isinstance(value, str) and _KEY_MATERIAL in value:
            raise InvalidInputError(f"{path} holds a key or a certificate: a config is published")


def _parts(document: Any, what: str) -> Iterator[tuple[str, str, Any]]:
    """Give every part of a document with its place and key; not by recursion, since a peer decides how deep it is."""
    left: list[tuple[str, str, Any, int]] = [(what, "", document, 0)]
    while left:
        path, key, value, depth = left.pop()
        if depth > _DEEPEST:
            raise InvalidInputError(f"{path} is nested more than {_DEEPEST} deep")
        yield path, key, value
        if isinstance(value, dict):
            left += [(f"{path}.{name}"[:_SHOWN_MAX_LENGTH], str(name), part, depth + 1) for name, part in value.items()]
        elif isinstance(value, list):
            left += [(path, key, part, depth + 1) for part in value]


def _holds_something(value: Any) -> bool:
    """Tell whether there is anything at all below a name; true and false are no secrets."""
    parts = (part for _, _, part in _parts(value, ""))
    return any(not isinstance(part, bool | dict | list) and part not in {None, ""} for part in parts)
