"""Secrets on disk: for their owner only, encrypted or not, and whole whatever is killed between two writes."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import stat
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr

from harbor_satellite.errors import OtherMachineError, StorageError
from harbor_satellite.satellite.machine_key import MachineIdentity
from harbor_satellite.satellite.secret_files import SECRET_FILES
from harbor_satellite.satellite.store import RegisteredBy, SatelliteStore
from harbor_satellite.state.wire import Registration, RegistryAuth

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "made-up-secret"
BY = RegisteredBy("https://gc.example", "/ca.pem", "00ff")
WRITER = {"username": "writer", "password": SECRET}


@pytest.fixture
def machine_id(tmp_path: Path) -> Path:
    path = tmp_path / "machine-id"
    path.write_text("3d1219c7c4c5404aaa1f6d2a48adfda4\n")
    return path


@pytest.fixture
def store(tmp_path: Path, machine_id: Path) -> SatelliteStore:
    return store_of(tmp_path, machine_id)


def store_of(folder: Path, machine_id: Path) -> SatelliteStore:
    return SatelliteStore(folder / "satellite", MachineIdentity({"machine-id": machine_id}))


def registration(password: str = SECRET) -> Registration:
    auth = RegistryAuth(url="https://harbor.example", username="robot$shop", password=SecretStr(password))
    return Registration(auth=auth, state="harbor.example/s:latest", satellite="shop")


def fill(store: SatelliteStore) -> None:
    store.save_registration(registration("made-up-secret before"), BY)
    store.save_renewed(registration())
    store.claim_key(SECRET)
    store.renewal_key(SECRET)
    store.write_secret("registry/writer.json", WRITER)
    store.write_secret("registry/external.json", WRITER)


def shown(store: SatelliteStore) -> list[str]:
    """Name the files that show a secret."""
    return sorted(name for name in SECRET_FILES if SECRET in (store.folder / name).read_text())


def check(store: SatelliteStore) -> None:
    previous = store.previous_auth()
    assert store.registration() == registration()
    assert store.registered_by() == BY
    assert previous is not None
    assert previous.password.get_secret_value() == "made-up-secret before"
    assert store.claim_key("other") == store.renewal_key("other") == SECRET
    assert store.read_secret("registry/writer.json") == WRITER
    assert store.read_secret("registry/external.json") == WRITER


def test_secrets_switched_on_and_off_stay_the_same(store: SatelliteStore, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    fill(store)
    assert shown(store) == sorted(SECRET_FILES)

    store.secrets.protect(is_encrypted=True)
    assert shown(store) == []
    check(store)

    store.secrets.protect(is_encrypted=False)
    assert shown(store) == sorted(SECRET_FILES)
    check(store)
    assert SECRET not in caplog.text


def test_secrets_written_while_encryption_is_on_are_encrypted(store: SatelliteStore) -> None:
    store.write_document("nothing.json", {})
    store.secrets.protect(is_encrypted=True)

    fill(store)

    assert shown(store) == []
    check(store)


def test_secrets_of_another_process_follow_the_switch(store: SatelliteStore, tmp_path: Path, machine_id: Path) -> None:
    other = store_of(tmp_path, machine_id)
    fill(other)
    store.secrets.protect(is_encrypted=True)

    other.save_renewed(registration("made-up-secret next"))

    assert "made-up-secret" not in (store.folder / "registration.json").read_text()
    assert store.registration().auth.password.get_secret_value() == "made-up-secret next"


def test_switch_keeps_when_the_credential_came(store: SatelliteStore) -> None:
    fill(store)
    os.utime(store.folder / "registration.json", (1e9, 1e9))

    store.secrets.protect(is_encrypted=True)

    at = store.registered_at()
    assert at is not None
    assert at.timestamp() == 1e9


@pytest.mark.parametrize("switch", ["on", "off"])
@pytest.mark.parametrize("writes", range(7))
def test_switch_killed_between_writes_loses_nothing_and_is_finished_later(
    store: SatelliteStore, monkeypatch: pytest.MonkeyPatch, writes: int, switch: str
) -> None:
    fill(store)
    is_encrypted = switch == "on"
    if not is_encrypted:
        store.secrets.protect(is_encrypted=True)
    replace, left = type(store.folder).replace, writes

    def dies(self: Path, target: Path) -> Path:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(type(store.folder), "replace", dies)
    with pytest.raises(KeyboardInterrupt):
        store.secrets.protect(is_encrypted=is_encrypted)
    monkeypatch.undo()
    check(store)
    store.secrets.protect(is_encrypted=is_encrypted)

    check(store)
    assert shown(store) == ([] if is_encrypted else sorted(SECRET_FILES))


def test_secrets_on_another_machine_say_so_and_can_be_replaced(store: SatelliteStore, machine_id: Path) -> None:
    fill(store)
    store.secrets.protect(is_encrypted=True)
    machine_id.write_text("another")

    with pytest.raises(OtherMachineError, match=f"another machine: {machine_id}") as raised:
        store.registration()
    assert "edge register --again" in raised.value.diagnostics()
    with pytest.raises(OtherMachineError):
        store.read_secret("registry/writer.json")
    store.secrets.protect(is_encrypted=True)  # does not stop at what it cannot read

    assert store.claim_key("of this machine") == "of this machine"
    store.save_registration(registration(), BY)
    assert store.registration() == registration()
    assert store.previous_auth() is None


def test_secrets_without_the_salt_name_its_file(store: SatelliteStore) -> None:
    fill(store)
    store.secrets.protect(is_encrypted=True)
    (store.folder / "machine-key.json").unlink()

    with pytest.raises(OtherMachineError, match=r"machine-key\.json"):
        store.registration()


@pytest.mark.parametrize("content", ["{}", "{", '{"salt": "xyz"}'])
def test_damaged_salt_is_reported(store: SatelliteStore, content: str) -> None:
    fill(store)
    store.secrets.protect(is_encrypted=True)
    (store.folder / "machine-key.json").write_text(content)

    with pytest.raises(StorageError, match=r"machine-key\.json"):
        store.registration()


def test_tampered_registration_is_damaged(store: SatelliteStore) -> None:
    fill(store)
    store.secrets.protect(is_encrypted=True)
    path = store.folder / "registration.json"
    path.write_text((store.folder / "previous.json").read_text())

    with pytest.raises(StorageError, match="another file's") as raised:
        store.registration()

    assert not isinstance(raised.value, OtherMachineError)
    assert json.loads(path.read_text())["encrypted"] == 1


def test_secrets_that_others_could_read_are_tightened_with_a_warning(
    store: SatelliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    fill(store)
    store.folder.chmod(0o755)
    (store.folder / "registration.json").chmod(0o644)

    store.secrets.protect(is_encrypted=False)

    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE((store.folder / name).stat().st_mode) for name in SECRET_FILES} == {0o600}
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    caplog.clear()
    store.secrets.protect(is_encrypted=False)
    assert not caplog.records


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files away: needs root")
def test_files_written_by_root_belong_to_the_owner_of_the_folder(store: SatelliteStore) -> None:
    store.folder.mkdir()
    os.chown(store.folder, 12345, 12346)

    fill(store)
    with store.lock(), store.credentials_lock():
        pass

    found = [path.stat() for path in store.folder.rglob("*")]
    assert len(found) >= 8
    assert {(one.st_uid, one.st_gid) for one in found} == {(12345, 12346)}


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files away: needs root")
@pytest.mark.parametrize("kind", ["link", "second name"])
def test_root_gives_nobody_a_file_that_only_looks_like_one_of_the_folder(
    store: SatelliteStore, tmp_path: Path, kind: str
) -> None:
    precious = tmp_path / "shadow"
    precious.write_text("root's")
    precious.chmod(0o644)
    store.folder.mkdir()
    os.chown(store.folder, 4711, 4711)
    for name in (".lock", "registration.json"):
        place = store.folder / name
        place.symlink_to(precious) if kind == "link" else os.link(precious, place)

    with contextlib.suppress(StorageError), store.lock():
        pass
    store.secrets.protect(is_encrypted=False)

    assert (precious.stat().st_uid, stat.S_IMODE(precious.stat().st_mode)) == (0, 0o644)
    assert precious.read_text() == "root's"


def test_renewed_registration_remembers_where_it_was_registered(store: SatelliteStore) -> None:
    store.save_registration(registration(), BY)

    store.save_renewed(registration("made-up-secret next"))

    assert store.registered_by() == BY
    store.save_registration(registration())
    assert store.registered_by() == RegisteredBy()
