from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from harbor_satellite.errors import InvalidInputError, OtherMachineError, StorageError
from harbor_satellite.satellite.machine_key import MachineIdentity, check_encryption, is_sealed, seal, unseal

if TYPE_CHECKING:
    from pathlib import Path

SALT = bytes(range(32))
CONTENT = b'{"password":"made-up-secret"}'
NAME = "registration.json"


@pytest.fixture
def here(tmp_path: Path) -> MachineIdentity:
    return machine(tmp_path / "here", machine_id="3d1219c7c4c5404aaa1f6d2a48adfda4", serial="S1")


def machine(folder: Path, *, machine_id: str, serial: str = "") -> MachineIdentity:
    folder.mkdir()
    (folder / "machine-id").write_text(machine_id + "\n")
    (folder / "serial").write_text(serial + "\0")
    return MachineIdentity({"machine-id": folder / "machine-id", "device-serial": folder / "serial"})


def sealed(identity: MachineIdentity) -> dict[str, object]:
    return seal(CONTENT, NAME, SALT, identity.values(os.geteuid()))


def test_seal_comes_back_and_shows_nothing(here: MachineIdentity) -> None:
    envelope = sealed(here)

    assert is_sealed(envelope)
    assert "made-up-secret" not in str(envelope)
    assert unseal(envelope, NAME, SALT, here) == CONTENT


def test_seal_twice_is_never_the_same(here: MachineIdentity) -> None:
    first, second = sealed(here), sealed(here)

    assert first["nonce"] != second["nonce"]
    assert first["ciphertext"] != second["ciphertext"]


@pytest.mark.parametrize("name", ["machine-id", "device-serial"])
def test_unseal_on_another_machine_names_what_differs(tmp_path: Path, here: MachineIdentity, name: str) -> None:
    envelope = sealed(here)
    path = here.sources[name]
    path.write_text("another")

    with pytest.raises(OtherMachineError, match=f"{path} is not the same"):
        unseal(envelope, NAME, SALT, here)


def test_unseal_where_the_identity_cannot_be_read_names_it(here: MachineIdentity) -> None:
    envelope = sealed(here)
    here.sources["device-serial"].unlink()

    with pytest.raises(OtherMachineError, match="serial, which says nothing here"):
        unseal(envelope, NAME, SALT, here)


def test_unseal_with_another_salt_names_its_file(here: MachineIdentity) -> None:
    with pytest.raises(OtherMachineError, match=r"machine-key\.json is not the one"):
        unseal(sealed(here), NAME, bytes(32), here)


@pytest.mark.parametrize("field", ["nonce", "ciphertext"])
def test_unseal_tampered_is_damaged(here: MachineIdentity, field: str) -> None:
    envelope = sealed(here)
    text = str(envelope[field])
    envelope[field] = ("B" if text[0] == "A" else "A") + text[1:]

    with pytest.raises(StorageError, match="was changed after it was encrypted"):
        unseal(envelope, NAME, SALT, here)


@pytest.mark.parametrize(
    "change",
    [{"nonce": 5}, {"nonce": "?"}, {"ciphertext": None}, {"bound_to": []}, {"nonce": ""}, {"bound_to": {}}],
    ids=str,
)
def test_unseal_broken_envelope_is_storage_error(here: MachineIdentity, change: dict[str, object]) -> None:
    with pytest.raises(StorageError, match="damaged"):
        unseal(sealed(here) | change, NAME, SALT, here)


def test_unseal_envelope_without_a_field_is_damaged(here: MachineIdentity) -> None:
    envelope = sealed(here)
    del envelope["bound_to"]

    with pytest.raises(StorageError, match="does not parse"):
        unseal(envelope, NAME, SALT, here)


def test_unseal_in_place_of_another_file_is_damaged(here: MachineIdentity) -> None:
    with pytest.raises(StorageError, match="another file's"):
        unseal(sealed(here), "previous.json", SALT, here)


def test_unseal_of_a_newer_release_says_so(here: MachineIdentity) -> None:
    with pytest.raises(StorageError, match="newer"):
        unseal(sealed(here) | {"encrypted": 2}, NAME, SALT, here)


@pytest.mark.parametrize(
    "said",
    ["", "uninitialized", "00000000-0000-0000-0000-000000000000", "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF", "None"],
)
def test_identity_that_many_machines_share_is_none(tmp_path: Path, said: str) -> None:
    identity = machine(tmp_path / "m", machine_id=said, serial=said)

    assert identity.values(os.geteuid()) == {}
    with pytest.raises(InvalidInputError, match="cannot be bound to this machine"):
        sealed(identity)


def test_identity_for_root_alone_binds_only_files_of_root(tmp_path: Path) -> None:
    identity = machine(tmp_path / "m", machine_id="id", serial="serial")
    identity.sources["device-serial"].chmod(0o400)

    assert identity.values(owner=1000) == {"machine-id": "id"}
    assert identity.values(owner=0) == {"machine-id": "id", "device-serial": "serial"}


def test_encryption_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)

    with pytest.raises(InvalidInputError, match=r"pip install 'harbor-satellite\[encryption\]'"):
        check_encryption()
