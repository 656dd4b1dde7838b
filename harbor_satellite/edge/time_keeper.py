"""Keeps a site's time: looks every few seconds whether a run is due that Prefect does not give, and runs it."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from harbor_satellite.edge.delivery import leave_receipt
from harbor_satellite.edge.local_run import run_locally
from harbor_satellite.edge.own_site import HOLD
from harbor_satellite.edge.threads import in_thread
from harbor_satellite.edge.timer import Look, Pace, Timer
from harbor_satellite.errors import HarborSatelliteError
from harbor_satellite.satellite.broken_runs import broken_runs
from harbor_satellite.satellite.schedule import effective_schedule
from harbor_satellite.satellite.store import SatelliteStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from harbor_satellite.edge.own_settings import OwnSettings
    from harbor_satellite.edge.proxy import RunningProxy
    from harbor_satellite.edge.reporter import Reporter
    from harbor_satellite.edge.timer import End
    from harbor_satellite.settings import SatelliteSettings
    from harbor_satellite.state.wire import Registration

_LOG = logging.getLogger(__name__)
_TICK_SECONDS: Final = 5.0
_FIRST_TICK_SECONDS: Final = 1.0
_AFTER_ERROR_SECONDS: Final = 60.0
_COMING_SECONDS: Final = 600.0
"""A flow run that has begun takes the site within seconds, if the centre is not lost meanwhile."""


class TimeKeeper:
    """The timer at work.

    Args:
        settings: the site's, which may change at any time.
        registration: what Ground Control handed out.
        proxy: knows whether the centre is away; None: there is no Prefect, or an operator has named one.
        reporter: told after each run; None: nobody is.
        has_prefect: whether there is anybody to wait for.
    """

    def __init__(
        self,
        settings: OwnSettings,
        registration: Registration,
        proxy: RunningProxy | None,
        reporter: Reporter | None,
        *,
        has_prefect: bool,
    ) -> None:
        self._settings = settings
        self._registration = registration
        self._proxy = proxy
        self._reporter = reporter
        self._has_prefect = has_prefect
        self._timer = Timer(time.monotonic())
        self._paced: tuple[SatelliteSettings, Pace] | None = None
        self._coming_since: float | None = None
        self.is_worker_busy: Callable[[], bool] = lambda: False
        """Whether a flow run is under way, in any phase."""

    def pace(self) -> Pace:
        """Return what the timer goes by, by the settings that hold now."""
        settings = self._settings.effective
        if self._paced is None or self._paced[0] is not settings:
            schedule = effective_schedule(settings.schedule, self._registration.schedule, settings.timezone)
            pace = Pace.of(
                schedule,
                self._registration.satellite,
                settings.poll_interval_seconds,
                settings.jitter_seconds,
                has_prefect=self._has_prefect,
            )
            if self._paced is None or self._paced[1] != pace:
                _LOG.info(
                    "schedule=%s zone=%s jitter_seconds=%.0f", schedule.cron, schedule.timezone, pace.jitter_seconds
                )
            self._paced = settings, pace
        return self._paced[1]

    async def keep(self) -> None:
        """Look and run for ever; whatever goes wrong, it looks again."""
        while True:
            try:
                wait = await self._step()
            except Exception as error:  # noqa: BLE001  (nobody else keeps time here)
                is_known = isinstance(error, HarborSatelliteError)
                _LOG.warning("cannot keep time reason=%s", error, exc_info=not is_known)
                wait = _AFTER_ERROR_SECONDS
            await asyncio.sleep(wait)

    async def _step(self) -> float:
        look = self.look()
        reason = self._timer.wants(self.pace(), look)
        if not reason:
            return _FIRST_TICK_SECONDS if look.is_empty else _TICK_SECONDS
        self._timer.ran(await in_thread(lambda: self._run(reason)), self.look())
        return _FIRST_TICK_SECONDS

    def _run(self, reason: str) -> End:
        end = run_locally(reason)
        if end != "busy":
            try:
                leave_receipt(self._settings.own, self._registration.satellite)
            except (HarborSatelliteError, OSError, ValueError) as error:
                _LOG.warning("no receipt left reason=%s", error)
            if self._reporter:
                self._reporter.nudge()
        return end

    def look(self) -> Look:
        """Return what the timer sees now.

        Raises:
            StorageError: the record is damaged.
        """
        applied, monotonic = SatelliteStore(self._settings.own.data_dir).applied(), time.monotonic()
        is_away = self._proxy is not None and self._proxy.is_away
        return Look(
            now=datetime.now(UTC),
            monotonic=monotonic,
            last_run_at=applied.last_run.finished_at if applied.last_run else None,
            is_empty=applied.state_digest is None,
            is_away=is_away,
            is_busy=HOLD.since is not None or (self._is_run_coming(monotonic) and not is_away),
            broken_runs=broken_runs(self._settings.own.data_dir),
        )

    def _is_run_coming(self, now: float) -> bool:
        """Tell whether a flow run has begun that may take the site soon; one that hangs is not waited for."""
        if HOLD.since is not None or not self.is_worker_busy():
            self._coming_since = None
            return False
        if self._coming_since is None:
            self._coming_since = now
        return now - self._coming_since < _COMING_SECONDS
