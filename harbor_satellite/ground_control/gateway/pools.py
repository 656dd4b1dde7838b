"""What every idle worker asks for again and again, from memory: its pool, and that its heartbeat was heard."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, TypeVar

from harbor_satellite.ground_control.gateway.prefect_api import Answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from harbor_satellite.ground_control.gateway.prefect_api import PrefectApi

_T = TypeVar("_T")
_CAPACITY: Final = 20_000  # pools
_FRESH_SECONDS: Final = 300.0  # a pool changes only when an operator pauses it, which polls see at once anyway
_BYTES_MAX: Final = 64 * 1024  # of a pool that is kept
_REFRESHED_PER_MINUTE: Final = 30.0
_HEARTBEATS_PER_MINUTE: Final = 60.0
_OK: Final = 200
_NOT_FOUND: Final = 404
_ABSENT_SECONDS: Final = 5.0
"""For which a pool is remembered to be absent: a satellite registers before the centre has made its pool."""


class Budget:
    """So many a minute for the whole fleet; what is not used is saved for half a minute.

    Args:
        per_minute: how many.
    """

    def __init__(self, per_minute: float) -> None:
        self._rate = per_minute / 60.0
        self._most = per_minute / 2
        self._left = self._most
        self._at = float("-inf")

    def take(self, now: float, *, is_urgent: bool = True) -> bool:
        """Tell whether one more may pass now; half of what is saved is kept for urgent ones."""
        if now > self._at:
            self._left = min(self._most, self._left + (now - self._at) * self._rate)
            self._at = now
        if self._left < (1.0 if is_urgent else 1.0 + self._most / 2):
            return False
        self._left -= 1.0
        return True


class Pools:
    """Copies of work pools, and the budget of heartbeats.

    Args:
        api: Prefect.
        monotonic: seconds of a clock that never goes back.
    """

    def __init__(self, api: PrefectApi, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._api = api
        self._monotonic = monotonic
        self._kept: OrderedDict[str, tuple[Answer, float]] = OrderedDict()
        self._absent: OrderedDict[str, tuple[Answer, float]] = OrderedDict()
        self._beaten: OrderedDict[str, None] = OrderedDict()
        self._refreshes = Budget(_REFRESHED_PER_MINUTE)
        self._heartbeats = Budget(_HEARTBEATS_PER_MINUTE)

    async def read(self, pool: str) -> Answer:
        """Return Prefect's answer about a pool; a good one is kept, and renewed within a budget.

        Raises:
            PrefectAwayError: Prefect does not answer, and there is no copy.
        """
        now = self._monotonic()
        kept = self._kept.get(pool)
        if kept and (now - kept[1] < _FRESH_SECONDS or not self._refreshes.take(now)):
            return kept[0]
        absent = self._absent.get(pool)
        if absent and now - absent[1] < _ABSENT_SECONDS:
            return absent[0]
        answer = await self._api.call("GET", f"/work_pools/{pool}")
        if answer.status == _NOT_FOUND:
            _put(self._absent, pool, (Answer(_NOT_FOUND, answer.body[:_BYTES_MAX]), now))
        if answer.status == _OK and len(answer.body) <= _BYTES_MAX:
            _put(self._kept, pool, (answer, now))
        else:
            self._kept.pop(pool, None)
        return answer

    def takes_heartbeat(self, pool: str) -> bool:
        """Tell whether Prefect shall hear this heartbeat: a worker's first one before all others."""
        return self._heartbeats.take(self._monotonic(), is_urgent=pool not in self._beaten)

    def note_heartbeat(self, pool: str) -> None:
        """Note that Prefect heard of a worker."""
        _put(self._beaten, pool, None)


def _put(kept: OrderedDict[str, _T], key: str, value: _T) -> None:
    kept[key] = value
    kept.move_to_end(key)
    while len(kept) > _CAPACITY:
        kept.popitem(last=False)
