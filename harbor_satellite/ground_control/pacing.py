"""How many sites are asked to run in a second, and which need not be asked any more. Pure.

Prefect's automations start some four runs a second, one after another, whatever they are for: a change of the whole
fleet must leave room there for the events of groups, rollouts and satellites that come and go.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

if TYPE_CHECKING:
    from harbor_satellite.ground_control.outbox import LeasedEvent
    from harbor_satellite.ground_control.satellites.provisioning import WantedDeployment

RUNS_PER_SECOND: Final = 2.0
"""Half of what Prefect's automations make; a thousand sites are asked within nine minutes."""
AT_ONCE: Final = 4
"""After a pause."""
TURN: Final = timedelta(seconds=AT_ONCE / RUNS_PER_SECOND)
"""In which all replicas together ask no more than ``AT_ONCE``."""
_SOON: Final = timedelta(seconds=2)
_PUBLISHING: Final = timedelta(seconds=60)  # between the moment an event is of and the end of its transaction


class Pace:
    """So many in a second, and a few at once after a pause.

    Args:
        now: seconds of a clock that never goes back.
    """

    def __init__(self, now: float) -> None:
        self._left = float(AT_ONCE)
        self._at = now

    def allows(self, now: float) -> int:
        """Return how many may pass now."""
        self._left = min(AT_ONCE, self._left + max(0.0, now - self._at) * RUNS_PER_SECOND)
        self._at = max(now, self._at)
        return int(self._left)

    def take(self, count: int) -> None:
        """Note that so many passed."""
        self._left -= count

    def wait_seconds(self, now: float) -> float:
        """Return how long it is until one more may pass."""
        return 0.0 if self.allows(now) else (1.0 - self._left) / RUNS_PER_SECOND


def next_look_after(waited: timedelta) -> timedelta:
    """Return how long to wait for a deployment that is not there, which comes soon or not at all."""
    return max(_SOON, waited / 2)


def is_moot(event: LeasedEvent, satellite: WantedDeployment | None, now: datetime) -> bool:
    """Tell whether a satellite's schedule has brought a run since the change that an event tells of.

    Args:
        event: of the satellite.
        satellite: as its rows are now; None: it is gone, or revoked.
        now: this moment.
    """
    if satellite is None:
        return True
    try:
        since = (event.occurred + _PUBLISHING).astimezone(ZoneInfo(satellite.timezone))
        return next(CronSim(satellite.schedule, since)) <= now
    except (CronSimError, StopIteration, ZoneInfoNotFoundError):
        return False  # a schedule that brings no run makes nothing moot
