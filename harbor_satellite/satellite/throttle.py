"""A token bucket: how long a reader has to wait so that all of them together keep to a rate.

What lives here: arithmetic on times it is given. What must not: clocks and sleeping, so that threads wait side by side.
"""

from __future__ import annotations

import threading
from typing import Final

from harbor_satellite.errors import InvalidInputError

_DISORDER_SECONDS: Final = 10.0


class TokenBucket:
    """Tokens are bytes; they come at a steady rate and are kept up to the burst. Safe to use from many threads.

    A piece is counted when it has been read, so a reader may take more than there is: the bucket goes into debt,
    and the wait is what pays it. Over any time, what is let go on is at most ``burst + rate × time`` and one
    piece; what is read, that and one piece for every further reader.

    Args:
        bytes_per_second: the rate; at least 1.
        burst_bytes: what may be read at once after a pause; at least 1.

    Raises:
        InvalidInputError: one of them is less than 1.
    """

    def __init__(self, bytes_per_second: float, burst_bytes: int) -> None:
        if bytes_per_second < 1 or burst_bytes < 1:
            raise InvalidInputError(f"rate {bytes_per_second} or burst {burst_bytes}: both are 1 byte or more")
        self._rate = bytes_per_second
        self._burst = burst_bytes
        self._level = float(burst_bytes)
        self._filled_at: float | None = None
        self._lock = threading.Lock()

    def take(self, count: int, now: float) -> float:
        """Count bytes that were read, and return how many seconds their reader has to wait.

        Args:
            count: bytes, 0 or more.
            now: seconds of a monotonic clock. One that stands still only makes waits longer; one that jumps
                ahead gives at most a burst, one that jumps back gives nothing.
        """
        with self._lock:
            self._fill(now)
            self._level -= count
            return max(0.0, -self._level / self._rate)

    def _fill(self, now: float) -> None:
        if self._filled_at is None:
            self._filled_at = now
        elapsed = now - self._filled_at
        if elapsed > 0:
            self._level = min(self._burst, self._level + elapsed * self._rate)
        # A little back is another thread that looked at the clock earlier: were that time adopted, the same
        # seconds would be given twice. Far back is another clock, and the old time would never come again.
        if elapsed > 0 or elapsed < -_DISORDER_SECONDS:
            self._filled_at = now
