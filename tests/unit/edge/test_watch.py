"""What makes an agent start again, and what follows a change: by clocks and files that a test moves."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import pytest

from harbor_satellite.edge.own_settings import OwnSettings
from harbor_satellite.edge.own_site import HOLD
from harbor_satellite.edge.watch import Watch, follow_settings
from harbor_satellite.settings import SatelliteSettings

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
