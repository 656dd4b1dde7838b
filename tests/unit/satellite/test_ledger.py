from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from datetime import date, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harbor_satellite.errors import StorageError
from harbor_satellite.satellite.ledger import Caps, Counted, Ledger, LedgerFile, assumed_ledger

KIB = 1024
MIB = 1024 * KIB
TODAY = date(2026, 11, 23)
TOMORROW = date(2026, 11, 24)
CAPPED = Caps(daily_bytes=100 * MIB)  # a step of 400 KiB


def on_disk(path: Path, day: date = TODAY) -> Counted:
    """Return what a site finds that starts after a power cut."""
    return LedgerFile(path, CAPPED).look(day)


def test_ledger_new_day_begins_at_nothing() -> None:
    ledger = Ledger().spend(100, TODAY)

    assert ledger.on(TOMORROW) == Counted(day=0, month=100, total=100)


def test_ledger_new_month_begins_at_nothing() -> None:
    ledger = Ledger().spend(100, date(2026, 11, 30))

    assert ledger.on(date(2026, 12, 1)) == Counted(day=0, month=0, total=100)


def test_ledger_same_month_of_next_year_is_another() -> None:
    ledger = Ledger().spend(100, date(2026, 11, 23))

    assert ledger.on(date(2027, 11, 23)) == Counted(day=0, month=0, total=100)


def test_ledger_clock_that_goes_back_finds_what_was_spent() -> None:
    ledger = Ledger().spend(100, TODAY).spend(1, date(2026, 12, 1)).spend(10, TODAY)

    assert ledger.on(TODAY) == Counted(day=110, month=110, total=111)


def test_ledger_clock_that_was_far_ahead_leaves_today_alone() -> None:
    ledger = Ledger().spend(100, date(2036, 1, 1)).spend(10, TODAY)

    assert ledger.on(TODAY) == Counted(day=10, month=10, total=110)


def test_ledger_years_of_days_stay_a_small_file() -> None:
    ledger = Ledger()
    for days in range(1_000):
        ledger = ledger.spend(1, TODAY + timedelta(days=days))

    assert (len(ledger.days), len(ledger.months)) == (40, 14)
    assert ledger.on(TODAY + timedelta(days=999)).total == 1_000
    assert ledger.on(TODAY + timedelta(days=999)).day == 1


def test_ledger_junk_days_of_a_wrong_clock_do_not_push_out_today() -> None:
    ledger = Ledger().spend(100, TODAY)
    for days in range(1_000):
        ledger = ledger.spend(1, date(2000, 1, 1) + timedelta(days=days)).spend(1, TODAY)

    assert ledger.on(TODAY).day == 1_100


@pytest.mark.parametrize(
    ("daily", "monthly", "step"),
    [
        pytest.param(None, None, 64 * MIB, id="no caps"),
        pytest.param(0, None, 256 * KIB, id="nothing allowed"),
        pytest.param(10 * MIB, None, 256 * KIB, id="small cap"),
        pytest.param(256 * MIB, None, MIB, id="a part of the cap"),
        pytest.param(None, 10**12, 8 * MIB, id="large cap"),
        pytest.param(10**12, 256 * MIB, MIB, id="the smaller of two"),
    ],
)
def test_caps_step(daily: int | None, monthly: int | None, step: int) -> None:
    assert Caps(daily, monthly).step_bytes == step


def test_ledger_file_new_site_has_read_nothing(tmp_path: Path) -> None:
    assert LedgerFile(tmp_path / "ledger.json", CAPPED).look(TODAY) == Counted(0, 0, 0)
    assert list(tmp_path.iterdir()) == []


def test_ledger_file_is_exact_while_it_runs_and_after_a_clean_end(tmp_path: Path) -> None:
    file = LedgerFile(tmp_path / "site" / "ledger.json", CAPPED)

    spent = [file.spend(count, TODAY) for count in (10, 500_000, 7)]
    looked = file.look(TODAY)
    file.settle()

    assert [one.day for one in spent] == [10, 500_010, 500_017]
    assert looked == on_disk(tmp_path / "site" / "ledger.json") == Counted(500_017, 500_017, 500_017)


def test_ledger_file_reserves_on_disk_before_it_counts(tmp_path: Path) -> None:
    file = LedgerFile(tmp_path / "ledger.json", CAPPED)

    file.spend(10, TODAY)

    assert on_disk(tmp_path / "ledger.json").day == 10 + CAPPED.step_bytes


def test_ledger_file_small_pieces_write_once_a_step(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    file = LedgerFile(path, CAPPED)
    versions = set()

    for _ in range(100):
        file.spend(CAPPED.step_bytes // 20, TODAY)
        versions.add(path.stat().st_ino)

    assert len(versions) <= 6


def test_ledger_file_midnight_gives_back_what_yesterday_did_not_use(tmp_path: Path) -> None:
    file = LedgerFile(tmp_path / "ledger.json", CAPPED)
    file.spend(10, TODAY)

    spent = file.spend(5, TOMORROW)
    file.settle()

    assert spent == Counted(day=5, month=15, total=15)
    assert on_disk(tmp_path / "ledger.json", TODAY) == Counted(day=10, month=15, total=15)


def test_ledger_file_look_at_a_new_day_does_not_count_yesterdays_reservation(tmp_path: Path) -> None:
    file = LedgerFile(tmp_path / "ledger.json", CAPPED)
    file.spend(10, TODAY)

    assert file.look(TOMORROW) == Counted(day=0, month=10, total=10)


def test_ledger_file_settled_goes_on_counting(tmp_path: Path) -> None:
    file = LedgerFile(tmp_path / "ledger.json", CAPPED)
    file.spend(10, TODAY)
    file.settle()
    file.settle()

    assert file.spend(5, TODAY) == Counted(15, 15, 15)


def test_ledger_file_deleted_under_way_is_counted_from_there(tmp_path: Path) -> None:
    file = LedgerFile(tmp_path / "ledger.json", CAPPED)
    file.spend(10, TODAY)
    (tmp_path / "ledger.json").unlink()

    assert file.look(TODAY) == Counted(0, 0, 0)
    assert file.spend(7, TODAY).day == 7


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\0" * 100, b"{", b"[]", b"null", b"{}", b"\xff\xfe", b"[" * 100_000, b"9" * 10_000,
        b'{"days": [], "months": {}, "total_bytes": 0}',
        b'{"days": {"today": 1}, "months": {}, "total_bytes": 0}',
        b'{"days": {"2026-11-23": -5}, "months": {}, "total_bytes": 0}',
        b'{"days": {"2026-11-23": true}, "months": {}, "total_bytes": 0}',
        b'{"days": {"2026-11-23": 1.5}, "months": {}, "total_bytes": 0}',
        b'{"days": {"2026-11-23": NaN}, "months": {}, "total_bytes": 0}',
        b'{"days": {}, "months": {}, "total_bytes": "1"}',
        b'{"days": {}, "months": {}}',
    ],
    ids=lambda content: repr(content[:60]),
)  # fmt: skip
def test_ledger_file_damaged_is_kept_aside_and_the_day_counts_as_spent(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    path = tmp_path / "ledger.json"
    path.write_bytes(content)

    with caplog.at_level(logging.WARNING):
        looked = LedgerFile(path, CAPPED).look(TODAY)

    assert looked.day == on_disk(path).day == CAPPED.daily_bytes
    assert on_disk(path, TOMORROW).day == 0
    assert (tmp_path / "ledger.json.damaged").read_bytes() == content
    assert [str(path) in record.getMessage() for record in caplog.records] == [True]


def test_ledger_file_damaged_under_way_opens_no_cap(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    file = LedgerFile(path, CAPPED)
    file.spend(10, TODAY)
    path.write_bytes(b"gone")

    assert file.look(TODAY).day == CAPPED.daily_bytes
    assert file.spend(7, TODAY).day == (CAPPED.daily_bytes or 0) + 7


def test_ledger_file_damaged_is_noticed_by_spending_too(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    path.write_bytes(b"gone")

    assert LedgerFile(path, CAPPED).spend(7, TODAY).day == (CAPPED.daily_bytes or 0) + 7


@pytest.mark.parametrize(
    ("day", "month"),
    [
        (date(2026, 11, 1), 10),
        (date(2026, 11, 15), 150),
        (date(2026, 11, 30), 300),
        (date(2026, 2, 1), 11),  # 300 / 28, rounded up
    ],
)
def test_assumed_ledger_month_is_spent_evenly(day: date, month: int) -> None:
    assert assumed_ledger(day, Caps(50, 300)).on(day) == Counted(day=50, month=month, total=max(50, month))


def test_ledger_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "ledger.json"

    with pytest.raises(StorageError, match=str(path)):
        LedgerFile(path, CAPPED).spend(1, TODAY)


def test_ledger_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=str(tmp_path)):
        LedgerFile(tmp_path, CAPPED).look(TODAY)


def test_ledger_file_threads_lose_nothing(tmp_path: Path) -> None:
    file = LedgerFile(tmp_path / "ledger.json", CAPPED)
    seen: list[int] = []

    def spend(piece: int) -> None:
        for _ in range(500):
            seen.append(file.spend(piece, TODAY).day)  # noqa: PERF401 - many threads, one list

    run_all([threading.Thread(target=spend, args=(piece,)) for piece in (1, 10, 100, 1_000, 10_000, 100_000)])
    file.settle()

    assert max(seen) == on_disk(tmp_path / "ledger.json").day == 500 * 111_111
    assert len(set(seen)) == len(seen)


def test_ledger_file_two_users_count_each_others_bytes(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    users = [LedgerFile(path, CAPPED) for _ in range(4)]

    def use(file: LedgerFile) -> None:
        for count in range(100):
            file.spend(count * 1_000, TODAY)
            if count % 10 == 9:
                file.settle()

    run_all([threading.Thread(target=use, args=(file,)) for file in users])

    assert on_disk(path) == Counted(*[4 * 4_950_000] * 3)


def run_all(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


_OTHER = date(2026, 12, 1)
_STEPS = st.one_of(
    st.tuples(st.just("spend"), st.integers(0, 3 * MIB)),
    st.tuples(st.just("kill"), st.just(0)),
    st.tuples(st.just("settle"), st.just(0)),
    st.tuples(st.just("clock"), st.integers(0, 2)),
)


@settings(deadline=None, max_examples=60)
@given(steps=st.lists(_STEPS, max_size=25))
def test_ledger_file_any_spends_kills_and_clocks_never_count_too_little(steps: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.json"
        file, day, exact, kills = LedgerFile(path, CAPPED), TODAY, Counter[date](), 0
        for verb, value in steps:
            if verb == "spend":
                file.spend(value, day)
                exact[day] += value
            elif verb == "kill":
                file, kills = LedgerFile(path, CAPPED), kills + 1
            elif verb == "settle":
                file.settle()
            else:
                day = (TODAY, TOMORROW, _OTHER)[value]
            assert_counts(file, exact, over=kills * CAPPED.step_bytes)
        assert_counts(LedgerFile(path, CAPPED), exact, over=(kills + 1) * CAPPED.step_bytes)
        file.settle()
        assert_counts(LedgerFile(path, CAPPED), exact, over=kills * CAPPED.step_bytes)


def assert_counts(file: LedgerFile, exact: Counter[date], over: int) -> None:
    months = Counter[date]()
    for day, count in exact.items():
        months[day.replace(day=1)] += count
    for day in (TODAY, TOMORROW, _OTHER):
        counted = file.look(day)
        assert exact[day] <= counted.day <= exact[day] + over
        assert months[day.replace(day=1)] <= counted.month <= months[day.replace(day=1)] + over
        assert exact.total() <= counted.total <= exact.total() + over


def test_ledger_file_process_killed_anywhere_counts_a_step_too_much_at_most(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    script = (
        "import sys, os, datetime, pathlib\n"
        "from harbor_satellite.satellite.ledger import Caps, LedgerFile\n"
        f"file = LedgerFile(pathlib.Path({str(path)!r}), Caps({CAPPED.daily_bytes}))\n"
        "while True:\n"
        f"    file.spend(50_000, datetime.date({TODAY.year}, {TODAY.month}, {TODAY.day}))\n"
        "    os.write(1, b'.')\n"
    )
    told = 0
    for kill_after in (1, 7, 8, 9, 33):
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.read(kill_after)
            process.send_signal(signal.SIGKILL)
            told += (kill_after + len(process.stdout.read())) * 50_000

    # One piece may have been counted and not been told of when the kill came.
    assert told <= on_disk(path).day <= told + 5 * (CAPPED.step_bytes + 50_000)
    assert json.loads(path.read_bytes())["days"] == {TODAY.isoformat(): on_disk(path).day}
    assert path.stat().st_mode & 0o777 == 0o600
