"""Adding to lists of a JSON object while all else keeps its bytes. Pure."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final

from harbor_satellite.errors import InvalidInputError

_SPACE: Final = re.compile(r"[ \t\r\n]*")
_INDENT: Final = re.compile(r"\{[ \t]*\r?\n([ \t]+)\"")


@dataclass(frozen=True, slots=True)
class _Member:
    start: int
    """Of the value."""
    end: int


def parse_object(text: str, path: str) -> dict[str, Any]:
    """Parse a file that holds a JSON object, or nothing.

    Raises:
        InvalidInputError: it holds something else.
    """
    try:
        document = json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"{path} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidInputError(f"{path} is not a JSON object")
    return document


def put_first(text: str, path: str, key: str, item: str) -> str:
    """Return the text with an item at the head of a list of its object; unchanged if the list has it.

    Args:
        text: a JSON object, or nothing.
        path: of the file, for messages.
        key: of the list; made if there is none.
        item: a text.

    Raises:
        InvalidInputError: no JSON object, or no list of texts stands there.
    """
    document = parse_object(text, path)
    held = document.get(key, [])
    if not isinstance(held, list) or not all(isinstance(one, str) for one in held):
        raise InvalidInputError(f"{path}: {key} is no list of texts")
    if item.rstrip("/") in {one.rstrip("/") for one in held}:
        return text
    if not text.strip():
        text = "{\n}\n"
    edited = _into_list(text, key, item) if key in document else _new_list(text, key, item)
    if parse_object(edited, path) != document | {key: [item, *held]}:
        raise InvalidInputError(f"{path}: do not know how to add to {key}; is a key there twice?")
    return edited


def _members(text: str) -> dict[str, _Member]:
    decoder = json.JSONDecoder()
    found: dict[str, _Member] = {}
    at = _skip(text, _skip(text, 0) + 1)
    while text[at] != "}":
        key, at = decoder.raw_decode(text, at)
        start = _skip(text, _skip(text, at) + 1)  # past the colon
        _, at = decoder.raw_decode(text, start)
        found[key] = _Member(start, at)
        at = _skip(text, at)
        if text[at] == ",":
            at = _skip(text, at + 1)
    return found


def _into_list(text: str, key: str, item: str) -> str:
    start = _members(text)[key].start + 1
    inner = _skip(text, start)
    if text[inner] == "]":
        return text[:start] + json.dumps(item) + text[inner:]
    space = text[start:inner]
    return f"{text[:inner]}{json.dumps(item)},{space or ' '}{text[inner:]}"


def _new_list(text: str, key: str, item: str) -> str:
    """Add a list as the first member: no line of others is touched, not even for a comma."""
    member = f"{json.dumps(key)}: [{json.dumps(item)}]"
    end = "\r\n" if "\r\n" in text else "\n"
    opened = _skip(text, 0) + 1
    first = _skip(text, opened)
    if text[first] == "}":
        return f"{text[:opened]}{end}  {member}{end}{text[first:]}"
    indent = _INDENT.search(text)
    if indent is None:
        return f"{text[:first]}{member}, {text[first:]}"
    return f"{text[:opened]}{end}{indent[1]}{member},{text[opened:]}"


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at
