"""When a site runs without Prefect: every clock comes in, nobody sleeps."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from harbor_satellite.edge.timer import Look, Pace, Timer
from harbor_satellite.satellite.schedule import Schedule

if TYPE_CHECKING:
    from harbor_satellite.edge.timer import End, Reason

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
HOURLY = Pace(Schedule("0 * * * *"), poll_seconds=60, jitter_seconds=120)


@dataclass
class Site:
    """A site whose two clocks only move when told to."""

    now: datetime = NOON - timedelta(minutes=30)
    monotonic: float = 1000.0
    last_run_at: datetime | None = NOON - timedelta(minutes=58)
    is_empty: bool = False
    is_away: bool = False
    is_busy: bool = False
    broken_runs: int = 0
    pace: Pace = HOURLY
    timer: Timer = field(default_factory=lambda: Timer(1000.0))

    def look(self) -> Look:
        seen = (self.last_run_at, self.is_empty, self.is_away, self.is_busy, self.broken_runs)
        return Look(self.now, self.monotonic, *seen)

    def after(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.monotonic += seconds

    def wants(self) -> Reason:
        return self.timer.wants(self.pace, self.look())

    def ran(self, end: End = "done", *, is_recorded: bool = True) -> None:
        if is_recorded:
            self.last_run_at = self.now
            self.is_empty = self.is_empty and end != "done"
        self.timer.ran(end, self.look())

    def until_wanted(self, most_seconds: float = 7 * 86400.0, step: float = 5.0) -> tuple[float, Reason]:
        """Look every few seconds; return after how long a run was wanted, and why."""
        began = self.monotonic
        while self.monotonic - began <= most_seconds:
            if reason := self.wants():
                return self.monotonic - began, reason
            self.after(step)
        return self.monotonic - began, ""


def at_noon(**changes: object) -> Site:
    return replace(Site(), now=NOON, timer=Timer(1000.0), **changes)  # type: ignore[arg-type]


def test_run_of_prefects_in_time_leaves_nothing_to_do() -> None:
    site = at_noon()
    for _ in range(3):
        site.after(130)
        site.last_run_at = site.now
        assert site.until_wanted(3600 - 130) == (3600 - 125, "")


@pytest.mark.parametrize(
    ("is_away", "patience"), [(True, 120), (False, 600)], ids=["the centre is away", "the centre answers"]
)
def test_missed_run_is_made_up_for_after_jitter_and_patience(is_away: bool, patience: int) -> None:  # noqa: FBT001
    site = at_noon(is_away=is_away)

    assert site.until_wanted() == (120 + patience, "due")


def test_site_without_prefect_runs_at_its_own_moment() -> None:
    site = at_noon(pace=replace(HOURLY, has_prefect=False))

    assert site.until_wanted() == (120, "due")


def test_patience_of_a_busy_schedule_is_not_renewed_by_each_due_time() -> None:
    minutely = Pace(Schedule("* * * * *"), poll_seconds=60, jitter_seconds=6)
    site = at_noon(pace=minutely, last_run_at=NOON)

    assert site.until_wanted() == (60 + 10 + 180, "due")


def test_run_that_was_done_is_not_wanted_again_before_the_next_due_time() -> None:
    site = at_noon(is_away=True)
    site.until_wanted()

    site.ran()

    waited, reason = site.until_wanted()
    assert (site.now, reason) == (NOON + timedelta(minutes=64), "due")
    assert waited == 3600


@pytest.mark.parametrize("end", ["done", "paused"])
def test_run_that_leaves_no_record_is_not_repeated(end: End) -> None:
    site = at_noon(is_away=True)
    site.until_wanted()

    site.ran(end, is_recorded=False)

    assert site.until_wanted(3000)[1] == ""


def test_week_without_power_is_one_run() -> None:
    site = at_noon(last_run_at=NOON - timedelta(days=7), is_away=True)

    assert site.until_wanted() == (120, "due")
    site.ran()
    assert site.until_wanted(3400)[1] == ""


def test_failed_run_is_tried_again_ever_later_and_each_due_time_in_its_own_time() -> None:
    site = at_noon(is_away=True, pace=replace(HOURLY, schedule=Schedule("0 0 * * *")), last_run_at=NOON)
    site.now = NOON + timedelta(hours=12)
    waits = []
    for _ in range(7):
        waits.append(site.until_wanted())
        site.ran("failed")

    assert [reason for _, reason in waits] == ["due"] + ["again"] * 6
    assert [seconds for seconds, _ in waits[1:]] == [300, 600, 1200, 2400, 3600, 3600]


def test_due_time_comes_though_all_runs_before_failed() -> None:
    site = at_noon(is_away=True, pace=replace(HOURLY, schedule=Schedule("*/10 * * * *")), last_run_at=NOON)
    site.until_wanted()
    waits = []
    for _ in range(12):
        site.ran("failed")
        waits.append(site.until_wanted()[0])

    assert max(waits) == 600


def test_run_of_somebody_else_ends_the_retries() -> None:
    site = at_noon(is_away=True)
    site.until_wanted()
    site.ran("failed")
    site.after(60)

    site.last_run_at = site.now

    assert site.until_wanted(3300)[1] == ""


@pytest.mark.parametrize(
    ("is_away", "has_prefect", "seconds"),
    [(True, True, 5), (False, True, 60), (False, False, 5)],
    ids=["the centre is away", "the centre answers", "there is no Prefect"],
)
def test_empty_site_runs_soon_after_its_start(is_away: bool, has_prefect: bool, seconds: int) -> None:  # noqa: FBT001
    pace = replace(HOURLY, has_prefect=has_prefect)
    site = Site(last_run_at=None, is_empty=True, is_away=is_away, pace=pace)

    assert site.until_wanted(step=1) == (seconds, "first")


def test_empty_site_whose_centre_goes_away_waits_no_longer() -> None:
    site = Site(last_run_at=None, is_empty=True)
    site.after(20)
    before = site.wants()

    site.is_away = True

    assert (before, site.wants()) == ("", "first")


def test_empty_site_tries_again_soon_and_then_less_often() -> None:
    site = Site(last_run_at=None, is_empty=True, is_away=True)
    waits = []
    for _ in range(8):
        waits.append(site.until_wanted(step=1)[0])
        site.ran("failed")

    assert waits == [5, 10, 20, 40, 80, 160, 300, 300]


def test_empty_site_outside_its_window_tries_again_without_haste() -> None:
    site = Site(last_run_at=None, is_empty=True)
    site.until_wanted(step=1)

    site.ran("paused")

    assert site.until_wanted(step=1) == (10, "first")


def test_flow_run_under_way_is_not_met() -> None:
    site = at_noon(is_busy=True, last_run_at=None, is_empty=True)

    assert site.until_wanted(3600)[1] == ""


def test_site_held_by_another_process_is_tried_again_shortly() -> None:
    site = at_noon(is_away=True)
    site.until_wanted()

    site.ran("busy", is_recorded=False)

    assert site.until_wanted() == (30, "due")


def test_clock_that_jumps_ahead_by_years_makes_one_run() -> None:
    site = Site(now=datetime(1970, 1, 1, 0, 30, tzinfo=UTC), last_run_at=datetime(1970, 1, 1, 0, 2, tzinfo=UTC))
    assert site.wants() == ""

    site.now = NOON + timedelta(minutes=30)

    assert site.until_wanted() == (600, "due")
    site.ran()
    assert site.until_wanted(900)[1] == ""


def test_clock_that_falls_back_to_1970_keeps_the_schedule_there() -> None:
    site = Site(now=datetime(1970, 1, 1, 0, 30, tzinfo=UTC), last_run_at=NOON, is_away=True)

    waited, reason = site.until_wanted()

    assert (site.now, reason) == (datetime(1970, 1, 1, 1, 4, tzinfo=UTC), "due")
    site.ran()
    assert site.until_wanted() == (3600, "due")
    assert waited == 34 * 60


def test_pace_of_a_satellite_has_its_own_jitter_within_a_tenth_of_the_interval() -> None:
    paces = [Pace.of(Schedule("*/10 * * * *"), f"shop-{number}", 60, None, has_prefect=True) for number in range(50)]

    assert all(0 <= pace.jitter_seconds < 60 for pace in paces)
    assert len({pace.jitter_seconds for pace in paces}) == 50


@pytest.mark.parametrize(("times", "seconds"), [(1, 5), (2, 20), (3, 80), (9, 300)])
def test_run_that_was_broken_off_is_made_up_for_soon_after_the_start_and_later_each_time(
    times: int, seconds: int
) -> None:
    site = Site(broken_runs=times)

    assert site.until_wanted() == (seconds, "broken off")
    site.broken_runs = 0
    site.ran()
    assert site.until_wanted(1200) == (1205, "")


def test_broken_run_whose_mark_cannot_be_removed_is_made_up_for_once() -> None:
    site = Site(broken_runs=1)

    site.until_wanted()
    site.ran()

    assert site.until_wanted(1200) == (1205, "")
