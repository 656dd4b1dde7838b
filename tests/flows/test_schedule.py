"""A site reckons its due times as Prefect does, whatever the zone and the season: both start the same runs."""

from __future__ import annotations

import asyncio
import random
import sys
from datetime import UTC, datetime, timedelta

import pytest
from prefect._vendor.croniter import croniter
from prefect.server.schemas.schedules import CronSchedule

from harbor_satellite.errors import InvalidInputError
from harbor_satellite.satellite.schedule import next_run
from harbor_satellite.state.cron import check_schedule, plain_schedule

SPRING, AUTUMN, SUMMER = (datetime(2026, month, day, 12, tzinfo=UTC) for month, day in ((3, 28), (10, 24), (6, 1)))
CRONS = ("*/15 * * * *", "0 * * * *", "30 2 * * *", "0 2,3 * * *", "30 1 13 * fri", "0 6 * * mon-fri")


def prefects_runs(cron: str, zone: str, start: datetime, count: int) -> list[datetime]:
    found = asyncio.run(CronSchedule(cron=cron, timezone=zone).get_dates(count, start))
    return sorted(datetime.fromtimestamp(date.timestamp(), UTC) for date in found)


def own_runs(cron: str, zone: str, start: datetime, count: int) -> list[datetime]:
    runs, at = [], start - timedelta(seconds=1)
    for _ in range(count):
        found = next_run(cron, zone, at)
        assert found is not None
        at = found
        runs.append(at)
    return runs


@pytest.mark.parametrize("cron", CRONS)
@pytest.mark.parametrize(
    ("zone", "start"),
    [
        ("UTC", SUMMER),
        ("Asia/Kathmandu", SUMMER),
        ("Europe/Berlin", AUTUMN),
        pytest.param(
            "Europe/Berlin",
            SPRING,
            marks=pytest.mark.skipif(sys.version_info >= (3, 13), reason="Prefect reads skipped times otherwise there"),
        ),
        ("America/New_York", datetime(2026, 10, 31, 20, tzinfo=UTC)),
        ("Australia/Lord_Howe", datetime(2026, 4, 4, 8, tzinfo=UTC)),
    ],
)
def test_due_times_are_prefects_own(cron: str, zone: str, start: datetime) -> None:
    count = 12 if cron.startswith("*/15") else 26 if cron.startswith("0 *") else 3

    assert own_runs(cron, zone, start, count) == prefects_runs(cron, zone, start, count)


def _random_field(lowest: int, highest: int, luck: random.Random) -> str:
    def part() -> str:
        first, last = luck.randint(lowest, highest), luck.randint(lowest, highest)
        text = luck.choice(("*", str(first), f"{first}-{last}"))
        return text + (f"/{luck.randint(1, min(highest, 9))}" if luck.random() < 0.4 else "")

    return ",".join(part() for _ in range(luck.choice((1, 1, 2))))


def test_plain_schedule_of_any_expression_reads_it_as_prefect_does() -> None:
    luck, bounds, seen = random.Random(1), ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7)), 0  # noqa: S311
    while seen < 200:
        text = " ".join(_random_field(*bound, luck) for bound in bounds)
        try:
            cron = check_schedule(text)
        except InvalidInputError:
            continue
        seen += 1

        theirs = ["*" if "*" in field else ",".join(map(str, field)) for field in croniter.expand(cron)[0]]
        assert plain_schedule(cron).split() == theirs, cron
