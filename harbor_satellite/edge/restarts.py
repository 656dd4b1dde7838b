"""When a service that ended is started again. Pure: the end, how long it ran and the luck come in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from harbor_satellite.edge.services import RESTART_NOW

CONFIGURATION_ERROR: Final = 78
"""Exit status of a service whose configuration is wrong (EX_CONFIG): waiting does not mend it, a new plan may."""
_AT_ONCE_TIMES: Final = 3
"""So often in a row without a wait; then who asks for it has a loop."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast the supervisor is; other than these, only tests want."""

    first_wait_seconds: float = 1.0
    longest_wait_seconds: float = 60.0
    configuration_wait_seconds: float = 300.0
    well_seconds: float = 60.0
    """A service that ran so long was well: what comes then is a first failure."""
    look_seconds: float = 1.0
    """How often the plan and the files that services touch are looked at."""
    hurry_seconds: float = 0.25
    """How often a service that has just been started is asked, until it has answered once."""
    hold_seconds: float = 10.0
    """So long, at the start, later services wait for an earlier one's first answer."""
    ready_seconds: float = 30.0
    """The service manager is told that all is ready after so long, whatever answers."""
    stop_seconds: float = 9.0
    """From SIGTERM until the last service is gone, by force in the end."""
    share_seconds: float = 1.5
    """What is kept of that for each service that is still to be stopped."""


def wait_seconds(pace: Pace, status: int, streak: int, luck: float, *, is_silent: bool = False) -> float:
    """Return how long to wait before the next start.

    Args:
        pace: the bounds.
        status: exit status; negative: the signal that ended it.
        streak: failures before this one since it last ran well.
        luck: 0 to 1: up to a quarter less, so that a fleet that lost its power does not beat in time.
        is_silent: it was ended because it did not answer.
    """
    if status == CONFIGURATION_ERROR:
        return pace.configuration_wait_seconds
    if (is_silent or status == RESTART_NOW) and streak < _AT_ONCE_TIMES:
        return 0.0
    doubled = pace.first_wait_seconds * 2.0 ** min(streak, 30)
    return min(doubled, pace.longest_wait_seconds) * (1.0 - luck / 4)
