"""Reports of many sites, written together: each is answered after the commit that it is in.

The first report after a pause is written at once. While reports keep coming, those of a moment share one transaction:
a fleet's reports then cost what its news cost. What must not live here: what is written (``idle_reports.py``).
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from starlette.concurrency import run_in_threadpool

from harbor_satellite.ground_control.database import commit_soon
from harbor_satellite.ground_control.fleet.idle_reports import note_nothing_new

if TYPE_CHECKING:
    from collections.abc import Callable

    from harbor_satellite.ground_control.database import SessionFactory
    from harbor_satellite.ground_control.fleet.idle_reports import CheckedReport

_APART_SECONDS: Final = 0.05  # from one transaction's start to the next one's
_AT_ONCE: Final = 500  # reports in one transaction


@dataclass(frozen=True, slots=True)
class _Batch:
    reports: dict[int, CheckedReport]
    written: asyncio.Task[dict[int, bool]]

    @property
    def is_here(self) -> bool:
        """Whether it is of the event loop that asks."""
        return self.written.get_loop() is asyncio.get_running_loop()

    def takes(self, satellite_id: int) -> bool:
        return self.is_here and satellite_id not in self.reports and len(self.reports) < _AT_ONCE


class ReportQueue:
    """Collects reports while others are written.

    Args:
        factory: where they are written.
        monotonic: seconds of a clock that never goes back.
    """

    def __init__(self, factory: SessionFactory, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._factory = factory
        self._monotonic = monotonic
        self._open: _Batch | None = None  # not yet begun to be written
        self._last: _Batch | None = None
        self._begun_at = float("-inf")

    async def note_nothing_new(self, checked: CheckedReport) -> bool | None:
        """Write a report that says nothing new, and return after the commit.

        Returns:
            Whether the site is to renew its credential; None: the report is news, and nothing was written.
        """
        satellite_id, batch = checked.identity.satellite_id, self._open
        if batch is None or not batch.takes(satellite_id):
            batch = self._begin()
        batch.reports[satellite_id] = checked
        # A caller that goes away takes no other's report with it.
        return (await asyncio.shield(batch.written)).get(satellite_id)

    def _begin(self) -> _Batch:
        reports: dict[int, CheckedReport] = {}
        batch = _Batch(reports, asyncio.create_task(self._write(reports, self._last)))
        self._open = self._last = batch
        return batch

    async def _write(self, reports: dict[int, CheckedReport], before: _Batch | None) -> dict[int, bool]:
        await asyncio.sleep(max(0.0, self._begun_at + _APART_SECONDS - self._monotonic()))
        if before is not None and before.is_here:
            await asyncio.wait([before.written])  # one at a time: a slow database makes them larger, not more
        if self._open is not None and self._open.reports is reports:
            self._open = None
        self._begun_at = self._monotonic()
        return await run_in_threadpool(self._write_now, list(reports.values()))

    def _write_now(self, reports: list[CheckedReport]) -> dict[int, bool]:
        with self._factory.begin() as session:
            commit_soon(session)  # that a site is as it was, it says again at its next report
            return note_nothing_new(session, reports)
