from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harbor_satellite.errors import InvalidInputError
from harbor_satellite.state.windows import SyncWindows, load_zone, start_of_day

MINUTE = timedelta(minutes=1)
ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",  # half an hour of summer time
    "Africa/Cairo",  # its missing hour begins at midnight
    "Asia/Kolkata",
)
WEEK_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def wall(text: str, zone: str, fold: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold)


# 2026-11-23 is a Monday.
@pytest.mark.parametrize(
    ("texts", "moment", "is_open"),
    [
        pytest.param((), "2026-11-23T12:00", True, id="no windows, always open"),
        pytest.param(("Mon-Fri 22:00-06:00",), "2026-11-23T21:59:59.999", False, id="just before it begins"),
        pytest.param(("Mon-Fri 22:00-06:00",), "2026-11-23T22:00", True, id="as it begins"),
        pytest.param(("Mon-Fri 22:00-06:00",), "2026-11-24T05:59:59.999", True, id="just before it ends"),
        pytest.param(("Mon-Fri 22:00-06:00",), "2026-11-24T06:00", False, id="as it ends"),
        pytest.param(("Mon-Fri 22:00-06:00",), "2026-11-23T05:00", False, id="Monday morning belongs to Sunday"),
        pytest.param(("Mon-Fri 22:00-06:00",), "2026-11-28T05:00", True, id="Saturday morning belongs to Friday"),
        pytest.param(("Mon-Fri 22:00-06:00",), "2026-11-28T22:00", False, id="Saturday night"),
        pytest.param(("Sun 22:00-06:00",), "2026-11-23T05:00", True, id="Sunday night ends on Monday"),
        pytest.param(("Sat-Sun",), "2026-11-28T00:00", True, id="the whole weekend, its begin"),
        pytest.param(("Sat-Sun",), "2026-11-29T23:59", True, id="the whole weekend, its end"),
        pytest.param(("Sat-Sun",), "2026-11-30T00:00", False, id="after the weekend"),
        pytest.param(("Fri-Mon",), "2026-11-23T12:00", True, id="days over the end of the week"),
        pytest.param(("Fri-Mon",), "2026-11-24T12:00", False, id="beside days over the end of the week"),
        pytest.param(("22:00-06:00",), "2026-11-25T03:00", True, id="without days, every day's"),
        pytest.param(("Mon,Wed 01:00-03:30",), "2026-11-25T03:29", True, id="a list of days"),
        pytest.param(("Mon,Wed 01:00-03:30",), "2026-11-24T02:00", False, id="not in the list of days"),
        pytest.param(("  mon-FRI   6:00-24:00 ",), "2026-11-23T23:59", True, id="spaces, case, one figure, 24:00"),
        pytest.param(("Mon 01:00-02:00", "Tue 01:00-02:00"), "2026-11-24T01:30", True, id="the second of two"),
        pytest.param(WEEK_DAYS, "2026-11-25T03:00", True, id="all days"),
    ],
)
def test_windows_moment_in_week(texts: tuple[str, ...], moment: str, *, is_open: bool) -> None:
    assert SyncWindows.parse(texts, "UTC").is_open(utc(moment)) is is_open


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "Mon-Fri 22-06", "Mon-Fry 22:00-06:00", "Mon-", "-Fri", "Mon,,Tue", "Mon Tue", "Monday", "25:00-06:00",
        "22:60-06:00", "24:00-06:00", "22:00-24:01", "22:00-22:00", "22:00", "22:00-06:00 Mon", "Mon22:00-06:00",
        "Mon-Fri 22:00-06:00 UTC", "Mon-Tue-Wed", "٢٢:00-06:00", "22:00 - 06:00", "always", "Mon\x00", "x" * 100_000,
        "Mon-" * 50_000,
    ],
    ids=lambda text: repr(text[:20]),
)  # fmt: skip
def test_windows_bad_text_names_entry(text: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        SyncWindows.parse(("Sat-Sun", text), "UTC")

    assert repr(text) in str(caught.value)


def test_windows_bad_text_shows_form() -> None:
    with pytest.raises(InvalidInputError, match=r"no sync window: 'whenever it suits'; .*'Mon-Fri 22:00-06:00'"):
        SyncWindows.parse(("whenever it suits",), "UTC")


@given(st.text(max_size=30))
def test_windows_any_text_is_read_or_refused(text: str) -> None:
    try:
        windows = SyncWindows.parse((text,), "UTC")
    except InvalidInputError:
        return

    assert windows.next_opening(utc("2026-11-23T12:00")) is not None


@pytest.mark.parametrize(
    "name", ["", "Europe", "Mars/Olympus", "../etc/passwd", "/etc/passwd", "a\0b", "zone.tab", "x" * 300]
)
def test_zone_unknown_is_named(name: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        load_zone(name)

    assert repr(name) in str(caught.value)


def test_zone_machine_without_database_has_utc_only() -> None:
    # As in an image without tzdata: neither the system's folders nor the package.
    script = (
        "import sys; sys.modules['tzdata'] = None\n"
        "from harbor_satellite.state.windows import load_zone\n"
        "print(load_zone('UTC'))\n"
        "load_zone('Europe/Berlin')\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONTZPATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stdout == "UTC\n"
    assert "InvalidInputError: no time zone 'Europe/Berlin' here" in done.stderr


@pytest.mark.parametrize(
    ("zone", "text", "moment", "closes", "opens"),
    [
        # The night of 25 hours: in Berlin 03:00 becomes 02:00 at 01:00 UTC, in New York 02:00 becomes 01:00 at 06:00.
        pytest.param(
            "Europe/Berlin", "22:00-06:00", "2026-10-24T20:00", "2026-10-25T05:00", "2026-10-24T20:00",
            id="Berlin, nine hours from 22 to 6",
        ),
        pytest.param(
            "Europe/Berlin", "02:00-02:30", "2026-10-25T00:00", "2026-10-25T00:30", "2026-10-25T00:00",
            id="Berlin, half of the double hour, first time",
        ),
        pytest.param(
            "Europe/Berlin", "02:00-02:30", "2026-10-25T00:30", "2026-10-25T00:30", "2026-10-25T01:00",
            id="Berlin, half of the double hour, it comes again",
        ),
        pytest.param(
            "Europe/Berlin", "02:30-03:30", "2026-10-25T00:30", "2026-10-25T01:00", "2026-10-25T00:30",
            id="Berlin, a window closes as the clock is put back",
        ),
        pytest.param(
            "Europe/Berlin", "02:30-03:30", "2026-10-25T01:15", "2026-10-25T01:15", "2026-10-25T01:30",
            id="Berlin, and opens again",
        ),
        pytest.param(
            "America/New_York", "01:00-02:00", "2026-11-01T05:00", "2026-11-01T07:00", "2026-11-01T05:00",
            id="New York, the double hour is two hours",
        ),
        # The night of 23 hours: Berlin goes from 02:00 to 03:00 at 01:00 UTC, New York at 07:00 UTC.
        pytest.param(
            "Europe/Berlin", "22:00-06:00", "2026-03-28T21:00", "2026-03-29T04:00", "2026-03-28T21:00",
            id="Berlin, seven hours from 22 to 6",
        ),
        pytest.param(
            "Europe/Berlin", "02:00-03:00", "2026-03-28T12:00", "2026-03-28T12:00", "2026-03-30T00:00",
            id="Berlin, the missing hour does not come that day",
        ),
        pytest.param(
            "Europe/Berlin", "Sun 02:15-02:45", "2026-03-28T12:00", "2026-03-28T12:00", "2026-04-05T00:15",
            id="Berlin, a weekly window in the missing hour comes a week later",
        ),
        pytest.param(
            "Europe/Berlin", "02:30-04:00", "2026-03-28T12:00", "2026-03-28T12:00", "2026-03-29T01:00",
            id="Berlin, a window that begins in the missing hour opens after it",
        ),
        pytest.param(
            "Europe/Berlin", "01:00-02:30", "2026-03-29T00:00", "2026-03-29T01:00", "2026-03-29T00:00",
            id="Berlin, a window that ends in the missing hour closes before it",
        ),
        pytest.param(
            "America/New_York", "01:30-03:30", "2026-03-08T06:30", "2026-03-08T07:30", "2026-03-08T06:30",
            id="New York, a window around the missing hour is shorter",
        ),
        pytest.param(
            "Africa/Cairo", "Fri", "2026-04-23T12:00", "2026-04-23T12:00", "2026-04-23T22:00",
            id="Cairo, a day that begins at one o'clock",
        ),
        pytest.param(
            "America/St_Johns", "23:30-23:45", "2010-11-07T02:30", "2010-11-07T02:30", "2010-11-07T03:00",
            id="St John's, at a minute past midnight it is yesterday again",
        ),
        pytest.param(
            "UTC", "Mon-Fri 22:00-06:00", "2026-11-28T12:00", "2026-11-28T12:00", "2026-11-30T22:00",
            id="over the weekend",
        ),
        pytest.param(
            "UTC", "Sun 12:00-24:00", "2026-11-29T13:00", "2026-11-30T00:00", "2026-11-29T13:00",
            id="up to the end of the week",
        ),
    ],
)  # fmt: skip
def test_windows_changes_of_offset(zone: str, text: str, moment: str, closes: str, opens: str) -> None:
    windows = SyncWindows.parse((text,), zone)

    assert windows.closes_at(utc(moment)) == utc(closes)
    assert windows.next_opening(utc(moment)) == utc(opens)


def test_windows_adjoining_close_when_the_last_does() -> None:
    windows = SyncWindows.parse(("Mon 20:00-24:00", "Tue", "Wed 00:00-01:00", "Tue 23:00-02:00"), "UTC")

    assert windows.closes_at(utc("2026-11-23T20:00")) == utc("2026-11-25T02:00")


@pytest.mark.parametrize("texts", [(), ("Mon-Sun",), ("00:00-24:00",), ("06:00-22:00", "22:00-06:00"), ("Wed-Tue",)])
def test_windows_that_cover_all_never_close(texts: tuple[str, ...]) -> None:
    windows = SyncWindows.parse(texts, "Europe/Berlin")

    assert windows.is_always_open
    assert windows.closes_at(utc("2026-11-23T12:00")) is None


def test_windows_moment_of_another_zone_is_the_same_moment() -> None:
    windows = SyncWindows.parse(("22:00-23:00",), "Europe/Berlin")

    moment = wall("2026-11-23T16:30", "America/New_York")

    assert windows.is_open(moment)
    assert windows.closes_at(moment) == utc("2026-11-23T22:00")
    assert windows.next_opening(moment) == utc("2026-11-23T21:30")
    assert getattr(windows.next_opening(moment), "tzinfo", None) is UTC


def test_windows_second_reading_of_a_doubled_hour_is_told_apart() -> None:
    windows = SyncWindows.parse(("22:00-06:00",), "Europe/Berlin")
    first, second = (wall("2026-10-25T02:30", "Europe/Berlin", fold) for fold in (0, 1))

    left = [(windows.closes_at(moment) or moment) - moment.astimezone(UTC) for moment in (first, second)]

    assert left == [timedelta(hours=4, minutes=30), timedelta(hours=3, minutes=30)]


_TIMES = st.tuples(st.integers(0, 95), st.integers(1, 96)).filter(lambda pair: pair[0] != pair[1] and pair != (0, 96))
_CHANGES = st.sampled_from(
    ["2026-03-28", "2026-10-24", "2026-03-07", "2026-10-31", "2026-10-03", "2026-04-04", "2026-04-23", "2026-10-29"]
)


@settings(deadline=None)
@given(
    zone=st.sampled_from(ZONES),
    days=st.sets(st.sampled_from(WEEK_DAYS), min_size=1),
    times=_TIMES,
    start=_CHANGES,
    minutes=st.integers(0, 2 * 24 * 60),
)
@example("Europe/Berlin", {"Sun"}, (10, 12), "2026-10-24", 1400)
@example("Africa/Cairo", {"Fri"}, (0, 2), "2026-04-23", 1200)
def test_windows_changes_are_those_of_a_walk_by_the_minute(
    zone: str, days: set[str], times: tuple[int, int], start: str, minutes: int
) -> None:
    # The reference knows neither weeks nor instants: it looks at the wall clock, minute after minute.
    begin, end = (f"{quarter // 4:02}:{quarter % 4 * 15:02}" for quarter in times)
    windows = SyncWindows.parse((f"{','.join(sorted(days))} {begin}-{end}",), zone)
    moment = utc(f"{start}T00:00") + minutes * MINUTE

    def is_open(at: datetime) -> bool:
        local = at.astimezone(ZoneInfo(zone))
        clock = f"{local:%H:%M}"
        today, yesterday = (f"{local.date() - timedelta(days=back):%a}" in days for back in (0, 1))
        if begin < end:
            return today and begin <= clock < end
        return (today and clock >= begin) or (yesterday and clock < end)

    def walk(*, wanted: bool) -> datetime | None:
        steps = (moment + step * MINUTE for step in range(24 * 60))
        return next((at for at in steps if is_open(at) is wanted), None)

    assert windows.is_open(moment) is is_open(moment)
    for found, walked in (
        (windows.closes_at(moment), walk(wanted=False)),
        (windows.next_opening(moment), walk(wanted=True)),
    ):
        if walked is not None:
            assert found == walked
        else:
            assert found is None or found >= moment + timedelta(days=1)


@pytest.mark.parametrize("zone", [*ZONES, "America/Sao_Paulo", "Pacific/Apia", "America/Toronto", "Asia/Beirut"])
@pytest.mark.parametrize("year", [1919, 2011, 2018, 2026])
def test_start_of_day_days_join_without_gap(zone: str, year: int) -> None:
    place = load_zone(zone)
    starts = [(day, start_of_day(day, place)) for day in (date(year, 1, 1) + timedelta(days=n) for n in range(365))]

    for (day, start), (_, after) in pairwise(starts):
        if start == after:  # Samoa had no 30 December 2011
            continue
        assert start.astimezone(place).date() == day
        assert (start - timedelta(seconds=1)).astimezone(place).date() < day
