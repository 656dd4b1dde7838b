"""A thread of the agent that reports every few minutes, and renews the credential when that is due.

What must not live here: how a report is made and delivered (``delivery.py``).
"""

from __future__ import annotations

import logging
import random
import threading
from typing import TYPE_CHECKING, Final

from harbor_satellite.edge.credential import renew_own_credential
from harbor_satellite.edge.delivery import deliver, report_interval
from harbor_satellite.errors import AuthenticationError, HarborSatelliteError, RemoteError
from harbor_satellite.satellite.replication import utc_now
from harbor_satellite.settings import SatelliteSettings

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    import httpx

_LOG = logging.getLogger(__name__)
_FIRST_WAIT_SECONDS: Final = 30.0
_INTERVAL_SECONDS: Final = 300  # where the settings cannot be read


class Reporter:
    """Reports every few minutes, in a thread of its own.

    Args:
        satellite: whose site it is: each of a fleet reports at another moment.
        transport: the way to Ground Control; None: an own connection for each report.
        fraction: random numbers from 0 to 1.
        load: reads the site's own settings, which may change at any time.
    """

    def __init__(
        self,
        satellite: str,
        *,
        transport: httpx.BaseTransport | None = None,
        fraction: Callable[[], float] = random.random,
        load: Callable[[], SatelliteSettings] = SatelliteSettings,
    ) -> None:
        self._transport = transport
        self._fraction = fraction
        self._load = load
        self._phase = random.Random(satellite).random()  # noqa: S311  (not for security: always the same for a site)
        self._failures = 0
        self._spread_seconds = 0.0
        self._stopped = threading.Event()
        self._wake = threading.Event()
        self.reported_at: datetime | None = None
        """When the centre took a report last; None: not since this process began."""
        self._thread = threading.Thread(target=self._run, name="reporter", daemon=True)

    def start(self) -> None:
        """Begin; the first report comes within one interval."""
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """End, and wait so long for a report that is under way; what waits on disk stays there."""
        self._stopped.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(seconds)

    def nudge(self, spread_seconds: float = 0.0) -> None:
        """Report soon: something happened, or the centre is back.

        Args:
            spread_seconds: within how many seconds; when a centre is back, its whole fleet wants to tell it so.
        """
        self._spread_seconds = spread_seconds
        self._wake.set()

    def report_once(self) -> float:
        """Report, renew the credential if that is due, and return how many seconds to wait for the next time."""
        interval = _INTERVAL_SECONDS
        try:
            settings = self._load()
            interval = report_interval(settings)
            self._report_and_renew(settings)
        except Exception as error:  # noqa: BLE001  (a site that falls silent for good is the worst of all failures)
            self._failures += 1
            wait = retry_seconds(self._failures, interval, self._fraction())
            level = logging.WARNING if self._failures == 1 else logging.INFO
            is_bug = not isinstance(error, (HarborSatelliteError, ValueError))
            _LOG.log(level, "not reported reason=%s wait_seconds=%.0f", error, wait, exc_info=is_bug)
            asked_for = error.retry_after_seconds if isinstance(error, RemoteError) else None
            return max(wait, min(asked_for or 0.0, float(interval)))
        if self._failures:
            _LOG.info("reported again failures=%d", self._failures)
        self._failures = 0
        self.reported_at = utc_now()
        # A little early rather than late, and never all sites of a fleet in step.
        return interval * (0.9 + 0.1 * self._fraction())

    def _report_and_renew(self, settings: SatelliteSettings) -> None:
        try:
            delivered = deliver(settings, is_source_tried=False, transport=self._transport)
            is_renewal_wanted = delivered.is_renewal_wanted
        except AuthenticationError:
            renew_own_credential(settings)
            is_renewal_wanted = False
            delivered = deliver(settings, is_source_tried=False, transport=self._transport)
        if is_renewal_wanted:
            try:
                renew_own_credential(settings)
            except HarborSatelliteError as error:  # the present one is still good
                _LOG.warning("credential not renewed reason=%s", error)
            else:
                delivered = deliver(settings, is_source_tried=False, transport=self._transport)
        if delivered.is_news:
            _LOG.info("reported state=%s images=%d", delivered.state_digest or "none", delivered.image_count)

    def _run(self) -> None:
        wait = self._first_wait()
        while True:
            self._wake.wait(wait)
            self._wake.clear()
            self._stopped.wait(self._spread_seconds * self._fraction())
            self._spread_seconds = 0.0
            if self._stopped.is_set():
                return
            wait = self.report_once()

    def _first_wait(self) -> float:
        try:
            return self._phase * report_interval(self._load())
        except Exception:  # noqa: BLE001  (the first report will say why; without this thread nothing ever would)
            return _FIRST_WAIT_SECONDS


def retry_seconds(failures: int, interval: int, fraction: float) -> float:
    """Return how long to wait after so many failures in a row: twice as long each time, up to the interval. Pure."""
    longest = max(float(interval), _FIRST_WAIT_SECONDS)
    return min(_FIRST_WAIT_SECONDS * 2.0 ** min(failures - 1, 20), longest) * (0.5 + 0.5 * fraction)
