from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from harbor_satellite.errors import DigestMismatchError, StorageError
from harbor_satellite.oci.digest import Digest
from harbor_satellite.registry.layout_files import is_disk_full, storage_errors, write_durably
from harbor_satellite.registry.layout_refusals import RefusedError
from harbor_satellite.registry.layout_uploads import UploadStore

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def store(tmp_path: Path) -> UploadStore:
    return UploadStore(tmp_path / ".uploads")


def append(store: UploadStore, identifier: str, content: bytes, offset: int | None = None) -> None:
    with store.open("acme/app", identifier, offset) as writer:
        writer.write(content)


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("is_restarted", [False, True], ids=["in one go", "restarted between"])
def test_upload_in_chunks_is_published(
    store: UploadStore,
    tmp_path: Path,
    algorithm: str,
    is_restarted: bool,  # noqa: FBT001, a table's column
) -> None:
    identifier = store.start("acme/app")
    append(store, identifier, b"abc", 0)
    store = UploadStore(store.directory) if is_restarted else store
    append(store, identifier, b"def", 3)

    target = tmp_path / "blobs" / "target"
    assert store.finish("acme/app", identifier, Digest.of(b"abcdef", algorithm), target) == 6

    assert target.read_bytes() == b"abcdef"
    with pytest.raises(RefusedError, match="no upload"):
        store.size("acme/app", identifier)


def test_upload_wrong_offset_is_refused_and_keeps_session(store: UploadStore) -> None:
    identifier = store.start("acme/app")
    append(store, identifier, b"abc")

    with pytest.raises(RefusedError, match="continues at 3, not at 5") as refused:
        append(store, identifier, b"x", 5)

    assert refused.value.status == 416
    append(store, identifier, b"d", 3)
    assert store.size("acme/app", identifier) == 4


def test_upload_one_writer_at_a_time(store: UploadStore, tmp_path: Path) -> None:
    identifier = store.start("acme/app")

    with store.open("acme/app", identifier):
        with pytest.raises(RefusedError, match="another request") as refused:
            store.open("acme/app", identifier)
        with pytest.raises(RefusedError, match="another request"):
            store.finish("acme/app", identifier, Digest.of(b""), tmp_path / "target")

    assert refused.value.status == 409
    append(store, identifier, b"free again")


def test_upload_rewind_forgets_what_was_written(store: UploadStore, tmp_path: Path) -> None:
    identifier = store.start("acme/app")
    append(store, identifier, b"abc")
    with store.open("acme/app", identifier) as writer:
        writer.write(b"wrong")
        writer.rewind()

    append(store, identifier, b"def", 3)

    assert store.finish("acme/app", identifier, Digest.of(b"abcdef"), tmp_path / "target") == 6


def test_upload_wrong_digest_drops_session(store: UploadStore, tmp_path: Path) -> None:
    identifier = store.start("acme/app")
    append(store, identifier, b"abc")

    with pytest.raises(DigestMismatchError, match="acme/app"):
        store.finish("acme/app", identifier, Digest.of(b"other"), tmp_path / "target")

    assert not (tmp_path / "target").exists()
    assert store.cancel("acme/app", identifier) is False


@pytest.mark.parametrize("identifier", ["../../etc/passwd", "0" * 31, "G" * 32, "0" * 32])
def test_upload_unknown_identifier(store: UploadStore, identifier: str) -> None:
    with pytest.raises(RefusedError, match="no upload") as refused:
        store.open("acme/app", identifier)

    assert refused.value.status == 404


def test_upload_of_another_repository_is_unknown(store: UploadStore) -> None:
    identifier = store.start("acme/app")

    with pytest.raises(RefusedError, match="no upload"):
        store.size("acme", identifier)


def test_uploads_abandoned_are_swept_at_start(store: UploadStore) -> None:
    old, young = store.start("acme/app"), store.start("acme/app")
    os.utime(store.directory / "acme+app" / old, (0, 0))
    (store.directory / ".new-leftover").write_bytes(b"half")

    again = UploadStore(store.directory)

    assert again.size("acme/app", young) == 0
    with pytest.raises(RefusedError):
        again.size("acme/app", old)
    assert not (store.directory / ".new-leftover").exists()


def fail_fsync(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)


def test_upload_finish_disk_full_drops_session(
    store: UploadStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identifier = store.start("acme/app")
    append(store, identifier, b"abc")
    fail_fsync(monkeypatch, errno.ENOSPC)

    with pytest.raises(StorageError, match=r"no space left on .* while storing sha256:.* for acme/app") as full:
        store.finish("acme/app", identifier, Digest.of(b"abc"), tmp_path / "target")

    assert is_disk_full(full.value)
    assert not (tmp_path / "target").exists()
    assert list(store.directory.glob("*/*")) == []


@pytest.mark.parametrize(
    ("number", "message", "is_full"),
    [
        (errno.ENOSPC, "no space left on", True),
        (errno.EDQUOT, "no space left on", True),
        (errno.EROFS, "Read-only file system", False),
        (errno.EIO, "Input/output error", False),
    ],
)
def test_write_durably_failure_leaves_old_content(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    message: str,
    is_full: bool,  # noqa: FBT001, a table's column
) -> None:
    target = tmp_path / "index.json"
    target.write_bytes(b"old")
    fail_fsync(monkeypatch, number)

    with (
        pytest.raises(StorageError, match=f"{message}.* while testing") as failed,
        storage_errors(target, "testing"),
    ):
        write_durably(target, b"new", staging=tmp_path)

    assert is_disk_full(failed.value) is is_full
    assert [path.name for path in tmp_path.iterdir()] == ["index.json"]
    assert target.read_bytes() == b"old"
