from __future__ import annotations

import contextlib
import logging
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest

from harbor_satellite.errors import InvalidInputError, PausedError, StorageError
from harbor_satellite.satellite.options import WanLimits
from harbor_satellite.satellite.wan import WanGate

if TYPE_CHECKING:
    from pathlib import Path

KIB = 1024
MIB = 1024 * KIB
BERLIN = "Europe/Berlin"
NIGHT = ("Mon-Fri 22:00-06:00",)


class World:
    """A site's clocks; whoever sleeps moves them on."""

    def __init__(self, now: str) -> None:
        self.moment = utc(now)
        self.seconds = 0.0
        self.slept: list[float] = []
        self.is_frozen = False
        self._lock = threading.Lock()

    def now(self) -> datetime:
        return self.moment

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self.slept.append(seconds)
            if not self.is_frozen:
                self.seconds += seconds
                self.moment += timedelta(seconds=seconds)

    def gate(self, folder: Path, limits: WanLimits) -> WanGate:
        return WanGate(limits, folder / "ledger.json", now=self.now, monotonic=self.monotonic, sleep=self.sleep)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.fixture
def world() -> World:
    return World("2026-11-23T12:00")  # a Monday; 13:00 in Berlin


def test_gate_without_limits_counts_only(tmp_path: Path, world: World) -> None:
    with world.gate(tmp_path, WanLimits()) as gate:
        gate.check()
        gate.spend(5)
        gate.spend(MIB)
        usage = gate.ledger

    assert (usage.day_bytes, usage.month_bytes, usage.total_bytes) == (MIB + 5,) * 3
    assert (usage.day_left_bytes, usage.month_left_bytes, usage.closes_at, usage.opens_at) == (None,) * 4
    assert (usage.is_open, usage.reason, usage.resumes_at) == (True, "", None)
    assert world.slept == []


def test_gate_closed_window_says_which_and_until_when(tmp_path: Path, world: World) -> None:
    gate = world.gate(tmp_path, WanLimits(windows=(*NIGHT, "Sat-Sun"), timezone=BERLIN))

    with pytest.raises(PausedError) as caught:
        gate.check()

    assert caught.value.until == utc("2026-11-23T21:00")
    assert str(caught.value) == (
        "outside the sync windows Mon-Fri 22:00-06:00, Sat-Sun (Europe/Berlin):"
        " the next opens at Mon 2026-11-23 22:00 CET"
    )


def test_gate_open_window_lets_through(tmp_path: Path) -> None:
    World("2026-11-23T21:00").gate(tmp_path, WanLimits(windows=NIGHT, timezone=BERLIN)).check()


def test_gate_window_that_closes_pauses_in_the_middle_and_counts_the_piece(tmp_path: Path) -> None:
    world = World("2026-11-24T04:59:59")
    gate = world.gate(tmp_path, WanLimits(windows=NIGHT, timezone=BERLIN))
    gate.spend(10)
    world.moment = utc("2026-11-24T05:00")

    with pytest.raises(PausedError, match="outside the sync windows") as caught:
        gate.spend(10)

    assert caught.value.until == utc("2026-11-24T21:00")
    assert gate.ledger.day_bytes == 20


def test_gate_daily_cap_pauses_until_midnight_of_the_site(tmp_path: Path, world: World) -> None:
    gate = world.gate(tmp_path, WanLimits(daily_bytes=10 * MIB, timezone=BERLIN))
    for _ in range(9):
        gate.spend(MIB)

    with pytest.raises(PausedError) as caught:
        gate.spend(MIB)

    assert caught.value.until == utc("2026-11-23T23:00")
    assert str(caught.value) == (
        "the daily cap of 10.5 MB is reached: 10.5 MB were read; it goes on at Tue 2026-11-24 00:00 CET"
    )
    with pytest.raises(PausedError):
        gate.check()
    world.moment = utc("2026-11-23T23:00")
    gate.check()
    gate.spend(MIB)


def test_gate_monthly_cap_pauses_until_the_month_ends(tmp_path: Path, world: World) -> None:
    gate = world.gate(tmp_path, WanLimits(monthly_bytes=2 * MIB, daily_bytes=2 * MIB, timezone="America/New_York"))

    with pytest.raises(PausedError, match=r"the monthly cap of 2\.1 MB is reached: 3\.1 MB were read") as caught:
        gate.spend(3 * MIB)

    assert caught.value.until == utc("2026-12-01T05:00")
    world.moment = utc("2026-11-30T12:00")
    with pytest.raises(PausedError):
        gate.check()
    world.moment = utc("2026-12-01T05:00")
    gate.check()


def test_gate_cap_resumes_in_the_window_after_midnight(tmp_path: Path) -> None:
    world = World("2026-11-28T12:00")
    gate = world.gate(tmp_path, WanLimits(daily_bytes=1, windows=("Sat", "Mon 03:00-04:00")))

    with pytest.raises(PausedError, match="daily cap") as caught:
        gate.spend(1)

    assert caught.value.until == utc("2026-11-30T03:00")


def test_gate_cap_of_nothing_lets_nothing_through(tmp_path: Path, world: World) -> None:
    with pytest.raises(PausedError, match="the daily cap of 0 bytes is reached"):
        world.gate(tmp_path, WanLimits(daily_bytes=0)).check()


def test_gate_clock_that_goes_back_keeps_the_cap(tmp_path: Path, world: World) -> None:
    gate = world.gate(tmp_path, WanLimits(daily_bytes=MIB))
    gate.spend(MIB // 2)
    world.moment = utc("2026-11-24T00:10")
    gate.spend(10)
    world.moment = utc("2026-11-23T23:59")

    with pytest.raises(PausedError, match="daily cap"):
        gate.spend(MIB // 2)


@pytest.mark.parametrize("kills", [1, 5])
def test_gate_cap_holds_over_kills(tmp_path: Path, world: World, kills: int) -> None:
    limits = WanLimits(daily_bytes=100 * MIB)
    read = 0
    for _ in range(kills):
        gate = world.gate(tmp_path, limits)  # and is never closed
        gate.spend(10 * MIB)
        read += 10 * MIB
    gate = world.gate(tmp_path, limits)

    while not gate.ledger.reason and read < 200 * MIB:
        read += MIB
        with contextlib.suppress(PausedError):
            gate.spend(MIB)

    assert 100 * MIB - kills * 400 * KIB - MIB <= read <= 100 * MIB


def test_gate_closed_cleanly_hands_over_the_exact_count(tmp_path: Path, world: World) -> None:
    with world.gate(tmp_path, WanLimits(daily_bytes=100 * MIB)) as gate:
        gate.spend(12_345)

    assert world.gate(tmp_path, WanLimits()).ledger.day_bytes == 12_345


def test_gate_damaged_ledger_pauses_for_the_day_only(tmp_path: Path, world: World) -> None:
    (tmp_path / "ledger.json").write_bytes(b"\0\0\0")
    gate = world.gate(tmp_path, WanLimits(daily_bytes=100 * MIB, monthly_bytes=3_000 * MIB))

    with pytest.raises(PausedError, match="daily cap") as caught:
        gate.check()

    assert caught.value.until == utc("2026-11-24T00:00")
    world.moment = utc("2026-11-24T00:00")
    gate.check()
    assert gate.ledger.month_left_bytes == 700 * MIB


def test_gate_rate_is_paid_in_slices(tmp_path: Path, world: World) -> None:
    gate = world.gate(tmp_path, WanLimits(bytes_per_second=100 * KIB))

    gate.spend(25 * KIB)
    gate.spend(160 * KIB)

    assert [round(one, 6) for one in world.slept] == [0.5, 0.5, 0.5, 0.1]


def test_gate_rate_frozen_clock_does_not_hold_for_ever(tmp_path: Path, world: World) -> None:
    world.is_frozen = True
    gate = world.gate(tmp_path, WanLimits(bytes_per_second=100 * KIB))

    gate.spend(1_025 * KIB)

    assert sum(world.slept) == pytest.approx(10)


def test_gate_wait_beyond_the_window_pauses_at_once(tmp_path: Path) -> None:
    world = World("2026-11-24T04:59:50")
    gate = world.gate(tmp_path, WanLimits(bytes_per_second=KIB, windows=NIGHT, timezone=BERLIN))

    with pytest.raises(
        PausedError, match=r"the rate asks for 20 s more, the sync window closes at Tue .* 06:00"
    ) as caught:
        gate.spend(20 * KIB + 256)

    assert caught.value.until == utc("2026-11-24T21:00")
    assert world.slept == []


def test_gate_wait_in_which_the_clock_is_set_notices_the_closed_window(tmp_path: Path) -> None:
    world = World("2026-11-24T04:00")
    gate = world.gate(tmp_path, WanLimits(bytes_per_second=KIB, windows=NIGHT, timezone=BERLIN))
    world.is_frozen = True
    world.sleep = lambda _: setattr(world, "moment", utc("2026-11-24T05:01"))  # type: ignore[method-assign]
    gate = world.gate(tmp_path, WanLimits(bytes_per_second=KIB, windows=NIGHT, timezone=BERLIN))

    with pytest.raises(PausedError, match="outside the sync windows") as caught:
        gate.spend(100 * KIB)

    assert caught.value.until == utc("2026-11-24T21:00")


def test_gate_in_the_long_night_waits_for_the_second_reading(tmp_path: Path) -> None:
    # 02:30 comes twice; of the first one, 90 minutes are left until 03:00. By the wall clock it were 30.
    world = World("2026-10-25T00:30")
    gate = world.gate(tmp_path, WanLimits(bytes_per_second=KIB, windows=("02:00-03:00",), timezone=BERLIN))

    gate.spend(60 * 60 * KIB)

    assert sum(world.slept) == pytest.approx(60 * 60, abs=1)


def test_gate_clock_in_the_zone_of_the_site_is_compared_by_moments(tmp_path: Path) -> None:
    gate = WanGate(
        WanLimits(windows=("02:00-02:30",), timezone=BERLIN),
        tmp_path / "ledger.json",
        now=lambda: datetime(2026, 10, 25, 2, 45, tzinfo=ZoneInfo(BERLIN)),
    )

    with pytest.raises(PausedError) as caught:
        gate.check()

    assert caught.value.until == utc("2026-10-25T01:00")


def test_gate_closing_ends_waits_of_other_threads_and_settles_their_pieces(tmp_path: Path, world: World) -> None:
    waiting, may_go_on = threading.Barrier(5, timeout=10), threading.Event()
    ended: list[PausedError] = []

    def sleep(_: float) -> None:
        waiting.wait()
        may_go_on.wait()

    gate = WanGate(
        WanLimits(bytes_per_second=KIB), tmp_path / "ledger.json", now=world.now, monotonic=world.monotonic, sleep=sleep
    )

    def read() -> None:
        try:
            gate.spend(1_000 * KIB)
        except PausedError as error:
            ended.append(error)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    waiting.wait()
    gate.close()
    may_go_on.set()
    for thread in threads:
        thread.join()

    assert [str(error) for error in ended] == [
        "reading from the source ends here: this replication is being stopped"
    ] * 4
    with pytest.raises(PausedError, match="being stopped"):
        gate.spend(7)
    with pytest.raises(PausedError, match="being stopped"):
        gate.check()
    assert world.gate(tmp_path, WanLimits()).ledger.day_bytes == 4_000 * KIB + 7


def test_gate_threads_pass_a_cap_by_a_piece_each_at_most(tmp_path: Path, world: World) -> None:
    gate, pieces = world.gate(tmp_path, WanLimits(daily_bytes=10 * MIB, timezone=BERLIN)), 0
    lock = threading.Lock()

    def read() -> None:
        nonlocal pieces
        while pieces < 1_000:
            with lock:
                pieces += 1
            try:
                gate.spend(100 * KIB)
            except PausedError:
                return

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 10 * MIB <= pieces * 100 * KIB <= 10 * MIB + 8 * 100 * KIB
    assert gate.ledger.day_bytes == pieces * 100 * KIB


def test_gate_usage_shows_what_is_left_and_the_next_window(tmp_path: Path, world: World) -> None:
    limits = WanLimits(daily_bytes=10 * MIB, monthly_bytes=100 * MIB, windows=NIGHT, timezone=BERLIN)
    gate = world.gate(tmp_path, limits)
    with pytest.raises(PausedError):
        gate.spend(MIB)

    closed = gate.ledger
    world.moment = utc("2026-11-23T22:00")
    opened = gate.ledger

    assert (closed.day_left_bytes, closed.month_left_bytes) == (9 * MIB, 99 * MIB)
    assert (closed.is_open, closed.closes_at, closed.opens_at) == (False, None, utc("2026-11-23T21:00"))
    assert closed.resumes_at == utc("2026-11-23T21:00")
    assert closed.reason.startswith("outside the sync windows")
    assert (opened.is_open, opened.closes_at, opened.opens_at) == (True, utc("2026-11-24T05:00"), None)
    assert (opened.reason, opened.resumes_at) == ("", None)


def test_gate_usage_sees_what_another_process_read(tmp_path: Path, world: World) -> None:
    limits = WanLimits(daily_bytes=10 * MIB)
    mine, other = world.gate(tmp_path, limits), world.gate(tmp_path, limits)
    mine.spend(1)
    with pytest.raises(PausedError):
        other.spend(10 * MIB)

    with pytest.raises(PausedError, match="daily cap"):
        mine.check()


def test_gate_disk_that_refuses_is_an_error_while_reading_and_a_warning_at_the_end(
    tmp_path: Path, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "site"
    gate = world.gate(folder, WanLimits(daily_bytes=MIB))
    gate.spend(1)
    (folder / "ledger.json").unlink()
    (folder / "ledger.json").mkdir()

    with pytest.raises(StorageError, match=str(folder)):
        gate.spend(MIB - 2)
    with caplog.at_level(logging.WARNING):
        gate.close()

    assert "ledger not settled" in caplog.text


@pytest.mark.parametrize(
    ("limits", "named"),
    [
        (WanLimits(windows=("nightly",)), "'nightly'"),
        (WanLimits(timezone="Mars/Olympus"), "'Mars/Olympus'"),
        (WanLimits(bytes_per_second=0), "rate 0"),
    ],
)
def test_gate_wrong_limits_are_named(tmp_path: Path, limits: WanLimits, named: str) -> None:
    with pytest.raises(InvalidInputError, match=named):
        WanGate(limits, tmp_path / "ledger.json")
