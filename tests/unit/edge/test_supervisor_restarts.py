from __future__ import annotations

import signal

import pytest

from harbor_satellite.edge.restarts import CONFIGURATION_ERROR, Pace, wait_seconds
from harbor_satellite.edge.services import RESTART_NOW

PACE = Pace()


@pytest.mark.parametrize(
    ("status", "streak", "luck", "seconds"),
    [
        (1, 0, 0.0, 1.0),
        (1, 0, 1.0, 0.75),
        (1, 3, 0.0, 8.0),
        (1, 6, 0.0, 60.0),
        (1, 10**9, 0.0, 60.0),
        (0, 2, 0.0, 4.0),
        (-signal.SIGKILL, 1, 0.0, 2.0),
        (RESTART_NOW, 0, 0.0, 0.0),
        (RESTART_NOW, 2, 0.0, 0.0),
        (RESTART_NOW, 3, 0.0, 8.0),
        (CONFIGURATION_ERROR, 0, 1.0, 300.0),
    ],
    ids=[
        "first",
        "first with luck",
        "fourth",
        "longest",
        "for years",
        "a good end is one too many",
        "killed",
        "asked for",
        "asked for thrice",
        "asked for in a loop",
        "configuration",
    ],
)
def test_wait_seconds(status: int, streak: int, luck: float, seconds: float) -> None:
    assert wait_seconds(PACE, status, streak, luck) == seconds


def test_wait_seconds_silent_is_at_once_but_for_a_loop() -> None:
    waits = [wait_seconds(PACE, -signal.SIGKILL, streak, 0.0, is_silent=True) for streak in range(5)]

    assert waits == [0.0, 0.0, 0.0, 8.0, 16.0]


def test_pace_stops_within_ten_seconds_whatever_hangs() -> None:
    assert PACE.stop_seconds < 10
    assert 3 * PACE.share_seconds < PACE.stop_seconds
