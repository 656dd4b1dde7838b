"""What makes an agent start again, and what follows a change: by clocks and files that a test moves."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from harbor_satellite.edge.own_registry import load_current, save_current
from harbor_satellite.edge.own_settings import OwnSettings
from harbor_satellite.edge.own_site import HOLD
from harbor_satellite.edge.registry_root import MARK_FILE, KnownRoot
from harbor_satellite.edge.watch import Watch, follow_settings
from harbor_satellite.settings import SatelliteSettings
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DAY = 86400.0


@pytest.fixture
def held_since_the_start() -> Iterator[None]:
    HOLD.since = 0.0
    yield
    HOLD.since = None


@pytest.fixture
def watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watch:
    monkeypatch.setenv("HARBOR_SATELLITE_ENV_FILE", "")
    monkeypatch.setenv("HARBOR_SATELLITE_DATA_DIR", str(tmp_path))
    return Watch(OwnSettings(SatelliteSettings()), None, None)


def test_site_that_nobody_holds_is_never_stuck(watch: Watch) -> None:
    assert watch.is_stuck(100 * DAY) is False


@pytest.mark.usefixtures("held_since_the_start")
def test_run_of_a_day_is_stuck_if_nothing_comes_from_the_source(watch: Watch, tmp_path: Path) -> None:
    (tmp_path / "ledger.json").write_text("{}")
    seen = [watch.is_stuck(now * DAY) for now in (0.5, 1.5, 2.4, 2.6)]

    assert seen == [False, False, False, True]


@pytest.mark.usefixtures("held_since_the_start")
def test_run_of_a_week_that_goes_on_reading_is_not_stuck(watch: Watch, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.json"
    ledger.write_text("{}")
    seen = []
    for half_days in range(14):
        os.utime(ledger, (half_days, half_days))
        seen.append(watch.is_stuck(half_days * DAY / 2))

    assert not any(seen)


class Told:
    """Counts how often the centre would be told."""

    def __init__(self) -> None:
        self.times = 0

    def nudge(self) -> None:
        self.times += 1


def test_registry_that_is_copied_for_hours_holds_up_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "satellite.env"
    file.write_text("")
    monkeypatch.setenv("HARBOR_SATELLITE_ENV_FILE", str(file))
    monkeypatch.setenv("HARBOR_SATELLITE_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("HARBOR_SATELLITE_REGISTRY_KIND", "external")
    monkeypatch.setenv("HARBOR_SATELLITE_LOCAL_REGISTRY_URL", "http://registry.example")
    begun, copied, told, switched = threading.Event(), threading.Event(), Told(), list[bool]()

    def copy(_: SatelliteSettings) -> bool:
        begun.set()
        switched.append(copied.wait(30))
        return False

    async def look() -> None:
        watch = Watch(OwnSettings(SatelliteSettings()), None, told, copy)  # type: ignore[arg-type]
        assert await watch._look() == ""
        assert await asyncio.to_thread(begun.wait, 10)
        file.write_text("HARBOR_SATELLITE_SCHEDULE=5 4 * * *\n")
        assert await watch._look() == ""
        file.write_text("HARBOR_SATELLITE_POLL_INTERVAL_SECONDS=7\n")
        assert await watch._look() == "settings have changed"
        assert told.times == 2
        assert switched == []
        copied.set()
        assert watch._switching
        await watch._switching

    asyncio.run(look())

    assert switched == [True]


def test_registry_that_has_moved_is_told_to_the_runtimes_at_once(watch: Watch) -> None:
    calls = 0

    def move(_: SatelliteSettings) -> bool:
        nonlocal calls
        calls += 1
        return calls == 1

    async def look() -> list[float]:
        followed = []
        watch._switch = move
        for _ in range(2):
            await watch._look()
            assert watch._switching
            await watch._switching
            followed.append(watch._follow_at - time.monotonic())
        return followed

    first, second = asyncio.run(look())

    assert calls == 2
    assert first <= 0 < second


def test_follow_settings_never_raises_and_says_what_was_not_done(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARBOR_SATELLITE_ENV_FILE", "")
    caplog.set_level(logging.WARNING)
    file = tmp_path / "file"
    file.write_text("")
    settings = SatelliteSettings(data_dir=file / "below-a-file")

    assert follow_settings(settings) is False
    assert "plan of services: not done" in caplog.text


def test_follow_settings_of_a_site_whose_disk_is_away_is_not_done(tmp_path: Path) -> None:
    root = tmp_path / "disk"
    settings = SatelliteSettings(
        data_dir=tmp_path / "site",
        _env_file=None,
        registry_kind="embedded",
        registry_root=root,
        registry_listen=f"127.0.0.1:{free_port()}",
    )
    at_first = follow_settings(settings)
    current = load_current(settings.data_dir)
    assert current
    elsewhere = KnownRoot(str(root), "mark-of-the-disk", root.stat().st_dev + 1)
    save_current(settings.data_dir, replace(current, known_root=elsewhere))

    while_away = follow_settings(settings)
    (root / MARK_FILE).write_text(elsewhere.mark)

    assert (at_first, while_away, follow_settings(settings)) == (True, False, True)
