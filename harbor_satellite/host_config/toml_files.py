"""Reading TOML of runtimes, so that errors name the file. Pure."""

from __future__ import annotations

import tomllib
from typing import Any

from harbor_satellite.errors import InvalidInputError


def parse_toml(text: str, path: str) -> dict[str, Any]:
    """Parse a file's text.

    Raises:
        InvalidInputError: it is not TOML; the message shows where, and none of its text.
    """
    if text.startswith("\ufeff"):
        raise InvalidInputError(f"{path} begins with a byte order mark: save it without")
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InvalidInputError(f"{path} is not TOML: {error}") from error


def table(document: object, *keys: str) -> dict[str, Any]:
    """Return a table within a table; an empty one where there is none."""
    for key in keys:
        document = document.get(key) if isinstance(document, dict) else None
    return document if isinstance(document, dict) else {}


def tables(document: object, key: str) -> list[dict[str, Any]]:
    """Return the tables of an array of tables; none where it is something else."""
    found = document.get(key) if isinstance(document, dict) else None
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def line_end(text: str) -> str:
    """Return how the lines of a text end."""
    return "\r\n" if "\r\n" in text else "\n"
