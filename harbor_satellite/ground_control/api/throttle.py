"""Counting in memory, so that guessing gets slower, a crazy caller is slowed down, and nobody else is.

Failures are counted by where they come from, successes by who calls: a fleet behind one address is never in its
own way. Each replica counts for itself.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Hashable

_WINDOW_SECONDS: Final = 60.0
_CAPACITY: Final = 10_000  # keys remembered; whoever sends more of them pushes the oldest out
_IDENTITIES: Final = (
    50_000  # satellites and people that are remembered; one that is forgotten starts with a full bucket
)


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


class TokenBuckets:
    """Tells when one of many callers calls faster than it may; each has a bucket of its own.

    Args:
        burst: calls at once that a caller may make after a pause.
        per_second: how fast its bucket fills again.
        capacity: callers remembered at most.
    """

    def __init__(self, burst: float, per_second: float, capacity: int = _IDENTITIES) -> None:
        self._burst = burst
        self._per_second = per_second
        self._capacity = capacity
        self._lock = Lock()
        self._levels: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def take(self, key: Hashable, now: float) -> int | None:
        """Count a call.

        Args:
            key: who calls; known to be that, or anybody could empty its bucket.
            now: seconds of a clock that never goes back.

        Returns:
            After how many seconds to come again, or None if the call may pass.
        """
        with self._lock:
            level, since = self._levels.pop(key, (self._burst, now))
            level = min(self._burst, level + (now - since) * self._per_second)
            may_pass = level >= 1
            self._levels[key] = (level - 1 if may_pass else level, now)
            while len(self._levels) > self._capacity:
                self._levels.popitem(last=False)
        return None if may_pass else max(1, math.ceil((1 - level) / self._per_second))


class KnownCallers:
    """Remembers from where a person logged in, so that somebody else's wrong guesses do not lock that person out.

    Args:
        max_failures: wrong passwords in a row until such a place is forgotten.
        capacity: pairs of person and place remembered at most.
    """

    def __init__(self, max_failures: int = 5, capacity: int = _CAPACITY) -> None:
        self._max_failures = max_failures
        self._capacity = capacity
        self._lock = Lock()
        self._failures: OrderedDict[Hashable, int] = OrderedDict()

    def __contains__(self, key: Hashable) -> bool:
        with self._lock:
            return key in self._failures

    def note_success(self, key: Hashable) -> None:
        """Remember a place, such as an address and a username."""
        with self._lock:
            self._failures.pop(key, None)
            self._failures[key] = 0
            while len(self._failures) > self._capacity:
                self._failures.popitem(last=False)

    def note_failure(self, key: Hashable) -> None:
        """Count a wrong password from a place; it is forgotten after too many."""
        with self._lock:
            if key in self._failures:
                self._failures[key] += 1
                if self._failures[key] >= self._max_failures:
                    del self._failures[key]


@dataclass(frozen=True)
class RateLimits:
    """How fast each caller may call once it is known who it is; nobody pays for another."""

    satellites: TokenBuckets = field(default_factory=lambda: TokenBuckets(burst=30, per_second=1))
    """Reports and other calls, by satellite: a site that is well makes one or two a minute."""
    renewals: TokenBuckets = field(default_factory=lambda: TokenBuckets(burst=10, per_second=1 / 60))
    """New credentials, by satellite: each makes an account at the source."""
    claims: TokenBuckets = field(default_factory=lambda: TokenBuckets(burst=30, per_second=1 / 60))
    """Claims, by one-time token: the claim key may repeat one, and each makes an account, too."""
    people: TokenBuckets = field(default_factory=lambda: TokenBuckets(burst=200, per_second=50))
    """Every call of the API, by person or by API token."""
