from __future__ import annotations

import os
import stat
import traceback
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr

from harbor_satellite.errors import ConflictError, NotFoundError, StorageError
from harbor_satellite.oci.digest import Digest
from harbor_satellite.satellite.applied import Applied, LastRun
from harbor_satellite.satellite.store import SatelliteStore, write_atomically
from harbor_satellite.state.desired import LocalTag
from harbor_satellite.state.wire import AppliedGroup, ImageFailure, Registration, RegistryAuth

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "made-up-secret"
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
D1, D2 = Digest.of(b"1"), Digest.of(b"2")
FULL = Applied(
    state_digest=D1,
    is_converged=True,
    applied_at=NOW,
    groups=(AppliedGroup(group="g", generation=7, digest=str(D2)),),
    owned={LocalTag("acme/app", "v1"): frozenset({D1, D2}), LocalTag("acme/app", str(D1)): frozenset({D1})},
    sizes={LocalTag("acme/app", "v1"): 4711},
    failures=(ImageFailure(reference="acme/bad:v1", reason="why"),),
    last_run=LastRun(NOW, 1.5, 4711, 1, 0, "1 copied"),
)


@pytest.fixture
def store(tmp_path: Path) -> SatelliteStore:
    return SatelliteStore(tmp_path / "site" / "satellite")


def registration() -> Registration:
    auth = RegistryAuth(url="https://harbor.example", username="robot$shop", password=SecretStr(SECRET))
    return Registration(auth=auth, state="https://harbor.example/s:latest", satellite="shop")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_store_registration_comes_back_with_its_secret(store: SatelliteStore) -> None:
    store.save_registration(registration())

    assert store.registration() == registration()
    assert store.registration().auth.password.get_secret_value() == SECRET


def test_store_files_are_for_their_owner_only(store: SatelliteStore) -> None:
    before = os.umask(0)
    try:
        store.save_registration(registration())
        store.save_applied(FULL)
        store.claim_key("key")
    finally:
        os.umask(before)

    assert mode(store.folder) == 0o700
    assert {mode(path) for path in store.folder.iterdir()} == {0o600}


def test_store_not_registered_is_not_found(store: SatelliteStore) -> None:
    with pytest.raises(NotFoundError, match="register this site first"):
        store.registration()


def test_store_applied_comes_back_whole(store: SatelliteStore) -> None:
    store.save_applied(FULL)

    assert store.applied() == FULL


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b"{}", b'{"owned": 5}', b'{"auth": {"url": 5}}'],
    ids=repr,
)
@pytest.mark.parametrize("name", ["registration.json", "applied.json"])
def test_store_damaged_file_is_reported_by_name(store: SatelliteStore, name: str, content: bytes) -> None:
    store.folder.mkdir(parents=True)
    (store.folder / name).write_bytes(content)

    with pytest.raises(StorageError, match=rf"{name} is damaged"):
        store.registration() if name.startswith("registration") else store.applied()

    assert (store.folder / name).read_bytes() == content


def test_store_file_of_brackets_is_reported(store: SatelliteStore) -> None:
    store.folder.mkdir(parents=True)
    (store.folder / "applied.json").write_bytes(b"[" * 100_000)

    with pytest.raises(StorageError):
        store.applied()


def test_store_damaged_registration_shows_no_secret_in_traceback(store: SatelliteStore) -> None:
    store.folder.mkdir(parents=True)
    (store.folder / "registration.json").write_text(f'{{"auth": {{"url": "h", "password": "{SECRET}"}}}}')

    with pytest.raises(StorageError) as raised:
        store.registration()

    assert SECRET not in "".join(traceback.format_exception(raised.value))


def test_store_claim_key_once_made_stays(store: SatelliteStore) -> None:
    first = store.claim_key("first")

    assert (first, store.claim_key("second"), SatelliteStore(store.folder).claim_key("third")) == ("first",) * 3


def test_store_save_registration_drops_claim_key(store: SatelliteStore) -> None:
    store.claim_key("first")

    store.save_registration(registration())

    assert store.claim_key("second") == "second"


def test_store_lock_held_is_a_conflict_and_free_afterwards(store: SatelliteStore) -> None:
    busy = pytest.raises(ConflictError, match="another replication is running")

    with store.lock(), busy, SatelliteStore(store.folder).lock():
        pytest.fail("two runs at once")

    with store.lock():
        pass


def test_store_lock_cannot_be_opened_is_storage_error(store: SatelliteStore) -> None:
    (store.folder / ".lock").mkdir(parents=True)

    with pytest.raises(StorageError), store.lock():
        pass


def test_store_folder_is_a_file_is_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(StorageError, match="cannot make"):
        SatelliteStore(tmp_path / "file" / "x").save_applied(Applied())


def test_write_atomically_fails_keeps_old_content_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    with pytest.raises(TypeError):
        write_atomically(path, "no bytes")  # type: ignore[arg-type]

    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_write_atomically_into_missing_folder_is_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot write"):
        write_atomically(tmp_path / "gone" / "file", b"")
