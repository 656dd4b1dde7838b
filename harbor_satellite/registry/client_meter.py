"""Counting what a registry client sends and reads.

What lives here: counters, safe to use from many threads. What must not: limits; whoever listens to reads may set some.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Counters:
    """What a client did so far."""

    requests: int = 0
    """Requests sent, those to token services and redirects included."""
    bytes_read: int = 0
    """Bytes of bodies received."""
    bytes_written: int = 0
    """Bytes of bodies sent."""


class Meter:
    """Counts requests and bytes of all threads.

    Args:
        on_read: told the count of each piece of a body as it is read; what it raises ends that read.
    """

    def __init__(self, on_read: Callable[[int], None] | None = None) -> None:
        self.on_read = on_read
        """May be replaced at any time; None: nobody listens."""
        self._lock = threading.Lock()
        self._requests = self._read = self._written = 0

    @property
    def counters(self) -> Counters:
        """A snapshot."""
        with self._lock:
            return Counters(self._requests, self._read, self._written)

    def requested(self) -> None:
        """Count one request."""
        with self._lock:
            self._requests += 1

    def read(self, count: int) -> None:
        """Count bytes received."""
        with self._lock:
            self._read += count
        if (on_read := self.on_read) is not None:
            on_read(count)

    def wrote(self, count: int) -> None:
        """Count bytes sent."""
        with self._lock:
            self._written += count
