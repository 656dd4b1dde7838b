"""Counting failed authentications in memory, so that guessing gets slower and nobody else does.

Only failures are counted, so a fleet behind one address is never in its own way.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from threading import Lock
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Hashable

_WINDOW_SECONDS: Final = 60.0
_CAPACITY: Final = 10_000  # keys remembered; whoever sends more of them pushes the oldest out


class FailureThrottle:
    """Tells when a key has failed too often within a minute.

    Args:
        limit: failures that are answered as such; the next ones are told to wait.
        capacity: keys remembered at most.
    """

    def __init__(self, limit: int, capacity: int = _CAPACITY) -> None:
        self._limit = limit
        self._capacity = capacity
        self._lock = Lock()
        self._windows: OrderedDict[Hashable, tuple[float, int]] = OrderedDict()

    def note_failure(self, key: Hashable, now: float) -> int | None:
        """Count a failure.

        Args:
            key: who failed, such as address and username.
            now: seconds of a clock that never goes back.

        Returns:
            After how many seconds to come again, or None while the limit is not passed.
        """
        with self._lock:
            started, count = self._windows.pop(key, (now, 0))
            if now - started >= _WINDOW_SECONDS:
                started, count = now, 0
            self._windows[key] = (started, count + 1)
            while len(self._windows) > self._capacity:
                self._windows.popitem(last=False)
            return self._wait(started, count + 1, now)

    def retry_after(self, key: Hashable, now: float) -> int | None:
        """Return after how many seconds to come again, without counting; None while the limit is not passed."""
        with self._lock:
            started, count = self._windows.get(key, (now, 0))
            return self._wait(started, count + 1, now)

    def _wait(self, started: float, count: int, now: float) -> int | None:
        left = started + _WINDOW_SECONDS - now
        return max(1, math.ceil(left)) if count > self._limit and left > 0 else None
