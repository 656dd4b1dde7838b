"""One look at Prefect for all sites that poll: which work pools have anything due.

However many sites poll, Prefect is asked once every few seconds, and not at all while nobody does. A poll is
told "nothing" only by a look that began no longer ago than it may be old, succeeded, and saw everything. And not if
a run is expected there: an event that makes one is seen by the next poll, however old the look is.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from harbor_satellite.ground_control.gateway.prefect_api import PrefectApi, PrefectAwayError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

HORIZON_MAX: Final = timedelta(hours=1)
"""Nobody is handed runs that are due later than this; workers fetch a poll interval ahead."""
_FRESH_SECONDS: Final = 3.0
_FRESH_MOST_SECONDS: Final = 30.0
_SHARE: Final = 5.0  # a look that takes long is made seldom: Prefect spends at most a fifth of its time on it
_FAILED_SECONDS: Final = 2.0
_EXPECTED_SECONDS: Final = _FRESH_MOST_SECONDS + 5.0
"""For which a run is expected: an automation makes it within seconds, and then a look must have begun."""
_SLACK: Final = timedelta(seconds=2 * _FRESH_MOST_SECONDS)
_PAGE: Final = 200  # Prefect's own most
_STEP: Final = 160  # pages overlap: runs that start meanwhile move the others up
_PAGES_MAX: Final = 60


@dataclass(frozen=True, slots=True)
class _Seen:
    due: Mapping[str, datetime]  # work pool: its earliest
    until: datetime  # everything that is due before is in it
    asked: datetime  # until then, but for what was too much
    began: float
    fresh_seconds: float


class SharedLook:
    """Tells which pools have runs due.

    Args:
        api: Prefect.
        clock: what time it is.
        monotonic: seconds of a clock that never goes back.
    """

    def __init__(
        self, api: PrefectApi, clock: Callable[[], datetime], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._api = api
        self._clock = clock
        self._monotonic = monotonic
        self._lock = asyncio.Lock()
        self._seen: _Seen | None = None
        self._horizon = timedelta()
        self._failed_at = float("-inf")
        self._expected: dict[str, float] = {}

    def expect(self, pool: str) -> None:
        """Note that a run of a pool is being made: its polls are not answered without Prefect for a while.

        May be called in another thread, but in one only.
        """
        now = self._monotonic()
        still = {name: until for name, until in self._expected.items() if until > now}
        self._expected = {**still, pool: now + _EXPECTED_SECONDS}  # a new one: the loop may be reading the old one

    async def is_due(self, pool: str, before: datetime) -> bool:
        """Tell whether Prefect must be asked for the runs of a pool that are due before a moment.

        Raises:
            PrefectAwayError: nobody can tell now.
        """
        horizon = min(before - self._clock(), HORIZON_MAX)
        self._horizon = max(self._horizon, horizon)
        if self._expected.get(pool, 0.0) > self._monotonic():
            return True
        seen = await self._current(before)
        earliest = seen.due.get(pool)
        if earliest is not None and earliest <= before:
            return True
        return before >= seen.until

    async def _current(self, before: datetime) -> _Seen:
        async with self._lock:  # those who come meanwhile share what the first one finds
            now = self._monotonic()
            seen = self._seen
            if seen and now - seen.began < seen.fresh_seconds and before <= seen.asked:
                return seen
            if now - self._failed_at < _FAILED_SECONDS:
                raise PrefectAwayError("the last look failed")
            try:
                self._seen = await self._look(now)
            except PrefectAwayError:
                self._failed_at = self._monotonic()
                raise
            return self._seen

    async def _look(self, began: float) -> _Seen:
        began_at = self._clock()
        until = began_at + self._horizon + _SLACK
        due: dict[str, datetime] = {}
        asked = until
        runs: list[dict[str, Any]] = []
        for page in range(_PAGES_MAX):
            runs = await self._page(until, page * _STEP)
            for run in runs:
                pool, moment = run.get("work_pool_name"), _moment(run.get("next_scheduled_start_time"))
                if isinstance(pool, str) and moment is not None:
                    due[pool] = min(moment, due.get(pool, moment))
            if len(runs) < _PAGE:
                break
        else:
            # Too much to see: what is due before the last that was seen is known all the same. So a site that asks
            # far ahead, or whose clock is ahead, does not send all the others to Prefect.
            until = moment if runs and (moment := _moment(runs[-1].get("next_scheduled_start_time"))) else began_at
        took = self._monotonic() - began
        return _Seen(due, until, asked, began, min(_FRESH_MOST_SECONDS, max(_FRESH_SECONDS, took * _SHARE)))

    async def _page(self, until: datetime, offset: int) -> list[dict[str, Any]]:
        scheduled = {
            "state": {"type": {"any_": ["SCHEDULED"]}},
            "next_scheduled_start_time": {"before_": until.isoformat()},
            "deployment_id": {"is_null_": False},  # runs inside runs are in no pool, and whoever makes many hides none
        }
        body = {
            "flow_runs": scheduled,
            "sort": "NEXT_SCHEDULED_START_TIME_ASC",
            "limit": _PAGE,
            "offset": offset,
        }
        runs = (await self._api.call("POST", "/flow_runs/filter", body)).value()
        if not isinstance(runs, list) or not all(isinstance(run, dict) for run in runs):
            raise PrefectAwayError("the look was not answered with runs")
        return runs


def _moment(value: object) -> datetime | None:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return moment if moment and moment.tzinfo else None
