from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import SecretStr

from harbor_satellite.edge.own_registry import Access, Current, Place, load_current, save_current, watcher, writer
from harbor_satellite.registry.auth import Credentials
from harbor_satellite.satellite.machine_key import MachineIdentity
from harbor_satellite.satellite.store import SatelliteStore

if TYPE_CHECKING:
    from pathlib import Path


def test_password_of_the_own_registry_is_in_one_file_alone(tmp_path: Path) -> None:
    data = tmp_path / "data"
    credentials = writer(data)
    current = Current(Place("embedded", root="/r"), Access("http://127.0.0.1:8585", credentials))

    save_current(data, current)

    password = credentials.password.get_secret_value()
    showing = [path.name for path in data.rglob("*") if path.is_file() and password in path.read_text()]
    assert showing == ["writer.json"]
    assert load_current(data) == current


PASSWORD = "made-up-password"
THEIRS = Current(
    Place("external", url="https://registry.example"),
    Access("https://registry.example", Credentials("robot", SecretStr(PASSWORD))),
)


def files_with(folder: Path, text: str) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file() and text in path.read_text()]


def test_password_of_an_external_registry_is_in_one_file_alone(tmp_path: Path) -> None:
    save_current(tmp_path, THEIRS)

    assert files_with(tmp_path, PASSWORD) == ["external.json"]
    assert (tmp_path / "registry/external.json").stat().st_mode & 0o777 == 0o600
    assert load_current(tmp_path) == THEIRS


def test_password_of_an_external_registry_is_encrypted_with_the_other_secrets(tmp_path: Path) -> None:
    machine = tmp_path / "machine-id"
    machine.write_text("this one")
    data = tmp_path / "data"
    save_current(data, THEIRS)
    secrets = SatelliteStore(data, MachineIdentity({"machine-id": machine})).secrets

    secrets.protect(is_encrypted=True)

    assert files_with(data, PASSWORD) == []
    secrets.protect(is_encrypted=False)
    assert load_current(data) == THEIRS


def test_external_registry_that_needs_no_user_any_more_leaves_no_password(tmp_path: Path) -> None:
    save_current(tmp_path, THEIRS)

    save_current(tmp_path, Current(THEIRS.place, Access("https://registry.example")))

    assert files_with(tmp_path, PASSWORD) == []
    assert load_current(tmp_path) == Current(THEIRS.place, Access("https://registry.example"))


def test_watcher_is_the_same_each_time_and_tells_nothing_of_the_writer(tmp_path: Path) -> None:
    first, second = watcher(tmp_path), watcher(tmp_path)

    assert first == second
    assert first.username != writer(tmp_path).username
    assert writer(tmp_path).password.get_secret_value() not in first.password.get_secret_value()


def test_writer_of_another_machine_is_made_anew(tmp_path: Path) -> None:
    data, elsewhere = tmp_path / "data", tmp_path / "other-machine-id"
    first = writer(data)
    elsewhere.write_text("another")
    SatelliteStore(data, MachineIdentity({"machine-id": elsewhere})).secrets.protect(is_encrypted=True)
    SatelliteStore(data).secrets.switch(is_encrypted=False)  # this machine may have no identity to encrypt with

    second = writer(data)

    assert second != first
    assert writer(data) == second
