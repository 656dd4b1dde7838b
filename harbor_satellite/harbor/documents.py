"""Reading the JSON objects of Harbor's answers, so that a parser never leaks a ``KeyError``.

Harbor leaves false and zero out, writes null for an empty list, and the year 1 for "never".
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from harbor_satellite.errors import UntrustedDataError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harbor_satellite.harbor.client import HarborAnswer, HarborClient


@dataclass(frozen=True, slots=True)
class Document:
    """One JSON object of an answer; every reader raises ``UntrustedDataError`` for a value of another kind."""

    values: Mapping[str, Any]
    what: str
    """For messages: what it is and where it came from."""

    @classmethod
    def of(cls, value: object, what: str) -> Document:
        """Return a value as an object.

        Raises:
            UntrustedDataError: it is none.
        """
        if not isinstance(value, dict):
            raise UntrustedDataError(f"{what}: not an object")
        return cls(value, what)

    def text(self, key: str) -> str:
        """Return a string; empty if it was left out or null."""
        value = self.values.get(key)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self._wrong(key, "a string")
        return value

    def required(self, key: str) -> str:
        """Return a string that must be there."""
        value = self.text(key)
        if not value:
            raise self._wrong(key, "a string")
        return value

    def number(self, key: str) -> int:
        """Return a whole number; 0 if it was left out."""
        value = self.values.get(key)
        if value is None:
            return 0
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._wrong(key, "a whole number")
        return value

    def id(self) -> int:
        """Return the ``id``, which must be there."""
        value = self.number("id")
        if value <= 0:
            raise self._wrong("id", "a number above 0")
        return value

    def flag(self, key: str) -> bool:
        """Return a boolean; false if it was left out."""
        return self.values.get(key) is True

    def moment(self, key: str) -> datetime | None:
        """Return a time in UTC; None if it was left out or is Harbor's zero, the year 1."""
        text = self.text(key)
        if not text:
            return None
        try:
            moment = datetime.fromisoformat(text)
        except ValueError as error:
            raise self._wrong(key, "a time") from error
        if moment.tzinfo is None:
            raise self._wrong(key, "a time with its zone")
        return None if moment.year == 1 else moment.astimezone(UTC)

    def maybe(self, key: str) -> Document:
        """Return an object within; an empty one if it was left out or null."""
        value = self.values.get(key)
        return Document.of({} if value is None else value, f"{self.what}, {key}")

    def objects(self, key: str) -> tuple[Document, ...]:
        """Return a list of objects; empty if it was left out or null."""
        return tuple(Document.of(value, f"{self.what}, {key}") for value in self._list(key))

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a list of strings; empty if it was left out or null."""
        values = self._list(key)
        if not all(isinstance(value, str) for value in values):
            raise self._wrong(key, "a list of strings")
        return tuple(values)

    def _list(self, key: str) -> list[Any]:
        values = self.values.get(key)
        if values is None:
            return []
        if not isinstance(values, list):
            raise self._wrong(key, "a list")
        return values

    def _wrong(self, key: str, wanted: str) -> UntrustedDataError:
        return UntrustedDataError(f"{self.what}: {key} is not {wanted}")


def created_id(client: HarborClient, answer: HarborAnswer, what: str) -> int:
    """Return the id of what was just created: the last part of its ``Location``.

    Raises:
        UntrustedDataError: there is none.
    """
    text = answer.location.rpartition("/")[2]
    if not (text.isascii() and text.isdigit()):
        raise UntrustedDataError(f"{what} at {client.url}: the answer does not name what was created")
    return int(text)
