"""``edge status``: what a person at the site reads, and what a script gets."""

from __future__ import annotations

import json
import logging
import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from harbor_satellite.cli import app
from harbor_satellite.cli.status import show
from harbor_satellite.errors import StorageError
from harbor_satellite.oci.digest import Digest
from harbor_satellite.satellite.applied import Applied, LastRun
from harbor_satellite.satellite.store import SatelliteStore
from harbor_satellite.state.wire import Registration, RegistryAuth
from tests.fakes import statuses

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

RUNNER = CliRunner()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HARBOR_SATELLITE_ENV_FILE", "")
    monkeypatch.setenv("HARBOR_SATELLITE_DATA_DIR", str(tmp_path / "site"))
    monkeypatch.setenv("HARBOR_SATELLITE_LOCAL_REGISTRY_URL", "http://127.0.0.1:1")
    return tmp_path / "site"


def status(*arguments: str) -> Result:
    return RUNNER.invoke(app, ["edge", "status", *arguments])


def test_status_of_a_new_machine_says_what_to_do_and_fails(folder: Path) -> None:
    result = status()

    assert result.exit_code == 1
    assert "This site: Something is wrong" in result.stdout
    assert "edge register --ground-control URL --token-file FILE" in result.stdout
    assert not folder.exists()


def test_status_as_json_is_whole_and_fails_as_well(folder: Path) -> None:
    result = status("--output", "json")

    document = json.loads(result.stdout)
    assert result.exit_code == 1
    assert document["health"] == "failing"
    assert document["registry"]["kind"] == "external"


def test_status_of_a_site_says_who_it_is_without_its_secret(folder: Path) -> None:
    store, now = SatelliteStore(folder), datetime.now(UTC)
    auth = RegistryAuth(url="https://harbor.test", username="robot", password=SecretStr("never-to-be-seen"))
    store.save_registration(Registration(auth=auth, state="harbor.test/s:latest", satellite="shop-1"))
    run = LastRun(now - timedelta(minutes=5), 1, 0, 0, 0, "2 kept")
    store.save_applied(Applied(Digest.of(b"state"), is_converged=True, applied_at=now, last_run=run))

    result = status()

    assert result.stdout.startswith("shop-1: ")
    assert "outcome          done: 2 kept" in result.stdout
    assert "never-to-be-seen" not in result.stdout


def test_status_for_a_user_who_may_not_read_the_folder_says_so_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.mkdir()
    monkeypatch.setattr(os, "access", lambda *_: False)

    result = status()

    assert isinstance(result.exception, StorageError)
    assert "run this as root" in str(result.exception)
    assert result.stdout == ""


def test_status_in_a_narrow_terminal_fits(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "72")

    health = show(statuses.away())

    lines = capsys.readouterr().out.splitlines()
    assert health == "failing"
    # What is to be copied as it is stays whole.
    assert max(len(line) for line in lines if "/" not in line) <= 72
    assert any("✗ Replication fails: cannot reach" in line for line in lines)
    assert "(since Fri 20 Nov 06:12 CET" in " ".join(" ".join(lines).split())


def test_status_of_a_site_that_is_well_is_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert show(statuses.well()) == "well"
    assert capsys.readouterr().out.startswith("shop-0042: All is well (Mon 23 Nov 08:12 CET)")


@pytest.mark.parametrize(
    ("arguments", "level"),
    [
        (("edge", "run"), logging.INFO),
        (("--log-level", "ERROR", "edge", "run"), logging.ERROR),
        (("edge", "status"), logging.WARNING),
    ],
    ids=["for ever", "as asked", "once"],
)
def test_log_level_is_info_for_what_runs_for_ever(
    folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], level: int
) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])  # as in a new process
    monkeypatch.setattr(root, "level", logging.WARNING)

    RUNNER.invoke(app, [*arguments, "--no-such-option"])

    assert root.level == level
