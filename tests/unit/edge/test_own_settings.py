"""The site's settings while its processes go on: a change is taken over, a mistake is not."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from harbor_satellite.edge.own_settings import OwnSettings
from harbor_satellite.satellite.store import SatelliteStore
from harbor_satellite.settings import SatelliteSettings

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "satellite.env"
    monkeypatch.setenv("HARBOR_SATELLITE_ENV_FILE", str(path))
    monkeypatch.setenv("HARBOR_SATELLITE_DATA_DIR", str(tmp_path / "edge"))
    return path


def write(path: Path, text: str) -> None:
    """Replace a file, as an editor does: another inode, whatever the clock's steps are."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(path)


def says(folder: Path, **config: object) -> None:
    document = {"serial": 1, "state_digest": None, "config": config}
    SatelliteStore(folder).write_document("site-config.json", document)


def test_look_takes_over_what_the_env_file_says_now(env_file: Path) -> None:
    settings = OwnSettings(SatelliteSettings())
    assert settings.look() is False

    write(env_file, "HARBOR_SATELLITE_SCHEDULE=5 4 * * *\n")

    assert settings.look() is True
    assert (settings.own.schedule, settings.effective.schedule) == ("5 4 * * *", "5 4 * * *")
    assert settings.look() is False


def test_look_takes_over_the_centres_config_below_the_sites_own(env_file: Path, tmp_path: Path) -> None:
    write(env_file, "HARBOR_SATELLITE_SCHEDULE=5 4 * * *\n")
    settings = OwnSettings(SatelliteSettings())

    says(tmp_path / "edge", schedule="0 * * * *", poll_interval_seconds=120)

    assert settings.look() is True
    assert (settings.effective.schedule, settings.effective.poll_interval_seconds) == ("5 4 * * *", 120)
    assert settings.own.poll_interval_seconds == 60


def test_look_keeps_the_last_good_settings_and_says_so_once(env_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(env_file, "HARBOR_SATELLITE_SCHEDULE=5 4 * * *\n")
    settings = OwnSettings(SatelliteSettings())
    caplog.set_level(logging.WARNING)

    write(env_file, "HARBOR_SATELLITE_SCHEDULE=never\nHARBOR_SATELLITE_TOKEN=a-secret\n")

    assert [settings.look() for _ in range(3)] == [False] * 3
    assert settings.effective.schedule == "5 4 * * *"
    (said,) = caplog.messages
    assert "schedule" in said
    assert "a-secret" not in said


def test_look_keeps_the_last_good_settings_when_the_centres_config_is_damaged(env_file: Path, tmp_path: Path) -> None:
    says(tmp_path / "edge", schedule="0 * * * *")
    settings = OwnSettings(SatelliteSettings())

    (tmp_path / "edge" / "site-config.json").write_text("{")

    assert settings.look() is False
    assert settings.effective.schedule == "0 * * * *"


def test_settings_that_were_wrong_from_the_start_hold_once_they_are_put_right(env_file: Path, tmp_path: Path) -> None:
    says(tmp_path / "edge", schedule="0 * * * *")
    (tmp_path / "edge" / "site-config.json").write_text("{")
    settings = OwnSettings(SatelliteSettings())
    assert settings.effective.schedule == ""

    says(tmp_path / "edge", schedule="7 * * * *")

    assert settings.look() is True
    assert settings.effective.schedule == "7 * * * *"
