"""When a site's runs are due, whatever the zone and the season; ``tests/flows`` holds it against Prefect."""

from __future__ import annotations

import statistics
from datetime import UTC, datetime, timedelta

import pytest

from harbor_satellite.satellite.schedule import (
    DEFAULT_SCHEDULE,
    Schedule,
    effective_schedule,
    interval_seconds,
    jitter_of,
    jitter_window,
    next_run,
    previous_run,
)
from harbor_satellite.state.cron import check_schedule, plain_schedule

SPRING, AUTUMN, SUMMER = (datetime(2026, month, day, 12, tzinfo=UTC) for month, day in ((3, 28), (10, 24), (6, 1)))
SOUTHERN_SPRING = datetime(2026, 10, 3, 8, tzinfo=UTC)


def own_runs(cron: str, zone: str, start: datetime, count: int) -> list[datetime]:
    runs, at = [], start - timedelta(seconds=1)
    for _ in range(count):
        found = next_run(cron, zone, at)
        assert found is not None
        at = found
        runs.append(at)
    return runs


@pytest.mark.parametrize(
    ("cron", "plain"),
    [
        ("0 0 */2 * 1", "0 0 1,3,5,7,9,11,13,15,17,19,21,23,25,27,29,31 * 1"),
        ("0 0 * * fri-7", "0 0 * * 0,5,6"),
        ("0 0 * jan-mar/2 sun", "0 0 * 1,3 0"),
        ("0 6 6-6 * *", "0 6 * * *"),
        ("0 0 1 12/4 *", "0 0 1 1,5,9 *"),
    ],
)
def test_plain_schedule_of_odd_expressions(cron: str, plain: str) -> None:
    assert plain_schedule(check_schedule(cron)) == plain


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])
@pytest.mark.parametrize("start", [SPRING, AUTUMN, SOUTHERN_SPRING], ids=["spring", "autumn", "southern spring"])
def test_previous_run_undoes_next_run(zone: str, start: datetime) -> None:
    runs = own_runs("*/20 1-4 * * *", zone, start, 16)

    assert [previous_run("*/20 1-4 * * *", zone, run) for run in runs] == runs
    before = [previous_run("*/20 1-4 * * *", zone, run - timedelta(microseconds=1)) for run in runs[1:]]
    assert before == runs[:-1]


def test_next_run_is_after_the_moment_even_if_that_is_due() -> None:
    assert next_run("0 * * * *", "UTC", datetime(2026, 6, 1, 12, tzinfo=UTC)) == datetime(2026, 6, 1, 13, tzinfo=UTC)


def test_schedule_that_never_comes_has_no_run() -> None:
    assert next_run("0 0 31 2 *", "UTC", SUMMER) is None
    assert previous_run("0 0 31 2 *", "UTC", SUMMER) is None


@pytest.mark.parametrize(
    ("cron", "seconds"),
    [("*/5 * * * *", 300), ("0,5 * * * *", 300), ("0 * * * *", 3600), ("0 3 * * *", 86400), ("0 9 * * mon-fri", 86400)],
)
def test_interval_is_the_shortest_between_two_runs(cron: str, seconds: int) -> None:
    assert interval_seconds(cron) == seconds


@pytest.mark.parametrize(
    ("cron", "chosen", "seconds"),
    [("*/5 * * * *", None, 30), ("0 3 * * *", None, 300), ("0 3 * * *", 0, 0), ("*/5 * * * *", 900, 900)],
    ids=["a tenth", "300 s at most", "none", "the site's own"],
)
def test_jitter_window(cron: str, chosen: int | None, seconds: float) -> None:
    assert jitter_window(cron, chosen) == seconds


def test_jitter_of_a_satellite_is_always_the_same_and_of_a_fleet_spread_evenly() -> None:
    fleet = [jitter_of(f"shop-{number}", 300) for number in range(2000)]

    assert jitter_of("shop-1", 300) == fleet[1]
    assert all(0 <= jitter < 300 for jitter in fleet)
    tenths = [sum(30 * tenth <= jitter < 30 * (tenth + 1) for jitter in fleet) for tenth in range(10)]
    assert statistics.mean(tenths) == 200
    assert min(tenths) > 150


@pytest.mark.parametrize(
    ("chosen", "registered", "cron"),
    [
        ("5 * * * *", "7 * * * *", "5 * * * *"),
        ("", "7 * * * *", "7 * * * *"),
        ("", "", DEFAULT_SCHEDULE),
        ("", "@every 00h00m10s", DEFAULT_SCHEDULE),
    ],
    ids=["chosen", "registered", "nobody's", "the original's kind"],
)
def test_effective_schedule(chosen: str, registered: str, cron: str) -> None:
    assert effective_schedule(chosen, registered, "Europe/Berlin") == Schedule(cron, "Europe/Berlin")


def test_effective_schedule_of_an_unknown_zone_is_in_utc() -> None:
    assert effective_schedule("5 * * * *", "", "Mars/Olympus").timezone == "UTC"
