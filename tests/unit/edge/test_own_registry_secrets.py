from __future__ import annotations

from typing import TYPE_CHECKING

from harbor_satellite.edge.own_registry import Access, Current, Place, load_current, save_current, writer
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


def test_writer_of_another_machine_is_made_anew(tmp_path: Path) -> None:
    data, elsewhere = tmp_path / "data", tmp_path / "other-machine-id"
    first = writer(data)
    elsewhere.write_text("another")
    SatelliteStore(data, MachineIdentity({"machine-id": elsewhere})).secrets.protect(is_encrypted=True)
    SatelliteStore(data).secrets.switch(is_encrypted=False)  # this machine may have no identity to encrypt with

    second = writer(data)

    assert second != first
    assert writer(data) == second
