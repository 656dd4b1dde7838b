"""Partial blobs on the disk: what is kept, what a reboot leaves of it, and a disk that does not go along."""

from __future__ import annotations

import os
import resource
from typing import TYPE_CHECKING

import pytest

from harbor_satellite.oci.descriptor import Descriptor
from harbor_satellite.oci.digest import Digest
from harbor_satellite.registry.partials import SPOOL_MIN_BYTES, SYNC_BYTES, PartialFolder, durable_size

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STEP = 64 * 1024
CONTENT = bytes(index % 251 for index in range(400_000))
BLOB = Descriptor("application/octet-stream", Digest.of(CONTENT), len(CONTENT))
OTHER = Digest.of(b"other")


def folder(path: Path, boot: str = "boot-1") -> PartialFolder:
    return PartialFolder(path / "partials", sync_bytes=STEP, boot_id=lambda: boot)


def keep(partials: PartialFolder, content: bytes, blob: Descriptor = BLOB) -> None:
    with partials.open(blob) as partial:
        partial.append(content)


def held(partials: PartialFolder, blob: Descriptor = BLOB) -> bytes:
    with partials.open(blob) as partial:
        return b"".join(partial.chunks())


@pytest.fixture
def small_files() -> Iterator[None]:
    """Let no file of this process grow beyond 200 kB, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_open_new_blob_has_nothing_at_hand(tmp_path: Path) -> None:
    assert held(folder(tmp_path)) == b""


def test_append_in_pieces_is_at_hand_in_the_next_process(tmp_path: Path) -> None:
    partials = folder(tmp_path)
    keep(partials, CONTENT[:100_000])

    keep(partials, CONTENT[100_000:300_000])

    assert held(folder(tmp_path)) == CONTENT[:300_000]


def test_folder_is_made_on_first_use_for_this_user_alone(tmp_path: Path) -> None:
    partials = folder(tmp_path)
    assert (partials.arrivals(), partials.held_bytes(), partials.prune(())) == ({}, 0, 0)
    assert not partials.folder.exists()

    keep(partials, CONTENT[:10])
    partials.note_arrival(OTHER, "acme/app")

    assert partials.folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in partials.folder.iterdir()} == {0o600}


def test_small_blob_is_not_kept(tmp_path: Path) -> None:
    partials = folder(tmp_path)
    small = Descriptor("x", OTHER, SPOOL_MIN_BYTES - 1)

    keep(partials, b"some", small)

    assert held(partials, small) == b""
    assert not partials.folder.exists()


def test_append_syncs_what_is_before_each_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (synced.append(os.fstat(file).st_size), real(file)))
    partials = folder(tmp_path)

    for start in range(0, STEP * 3 + 1, 50_000):
        keep(partials, CONTENT[start : min(start + 50_000, STEP * 3 + 1)])

    assert synced == [STEP, STEP * 2, STEP * 3]


@pytest.mark.parametrize(
    ("size", "left"),
    [(0, 0), (1, 0), (STEP, 0), (STEP + 1, STEP), (STEP * 2, STEP), (STEP * 2 + 1, STEP * 2), (STEP * 3 - 1, STEP * 2)],
)
def test_open_after_a_reboot_leaves_what_was_synced(tmp_path: Path, size: int, left: int) -> None:
    keep(folder(tmp_path), CONTENT[:size])

    assert held(folder(tmp_path, "boot-2")) == CONTENT[:left]
    assert durable_size(size, STEP) == left


def test_open_twice_after_one_reboot_cuts_once(tmp_path: Path) -> None:
    keep(folder(tmp_path), CONTENT[: STEP * 2 + 1])
    held(folder(tmp_path, "boot-2"))

    assert held(folder(tmp_path, "boot-2")) == CONTENT[: STEP * 2]


def test_open_where_no_start_has_a_name_counts_each_as_a_reboot(tmp_path: Path) -> None:
    keep(folder(tmp_path, ""), CONTENT[: STEP + 1])

    assert held(folder(tmp_path, "")) == CONTENT[:STEP]


def test_durable_size_default_step_is_eight_mebibytes() -> None:
    assert durable_size(20 * 1024 * 1024) == 2 * SYNC_BYTES == 16 * 1024 * 1024


def test_open_more_than_the_blob_is_dropped(tmp_path: Path) -> None:
    partials = folder(tmp_path)
    keep(partials, CONTENT + b"!")

    assert held(partials) == b""


def test_open_by_a_second_at_the_same_time_neither_gets_nor_keeps(tmp_path: Path) -> None:
    partials = folder(tmp_path)
    with partials.open(BLOB) as first:
        first.append(CONTENT[:1000])
        with folder(tmp_path).open(BLOB) as second:
            assert second.size == 0
            second.append(b"wrong")
            second.discard()

    assert held(partials) == CONTENT[:1000]


def test_discard_leaves_nothing(tmp_path: Path) -> None:
    partials = folder(tmp_path)
    keep(partials, CONTENT)
    with partials.open(BLOB) as partial:
        partial.discard()
        assert partial.size == 0

    assert (held(partials), partials.held_bytes()) == (b"", 0)
    assert partials.discard(BLOB.digest)  # opening it made an empty one
    assert not partials.discard(BLOB.digest)


def test_prune_keeps_what_is_wanted(tmp_path: Path) -> None:
    partials = folder(tmp_path)
    unwanted = Descriptor("x", OTHER, len(CONTENT))
    keep(partials, CONTENT[:1000])
    keep(partials, CONTENT[:500], unwanted)
    assert partials.held_bytes() == 1500

    freed = partials.prune({BLOB.digest})

    assert (freed, partials.held_bytes()) == (500, 1000)
    assert held(partials) == CONTENT[:1000]


@pytest.mark.usefixtures("small_files")
def test_append_full_disk_gives_room_back_and_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    partials = folder(tmp_path)
    for _ in range(2):
        with partials.open(BLOB) as partial:
            for start in range(0, len(CONTENT), 50_000):
                partial.append(CONTENT[start : start + 50_000])

    assert partials.held_bytes() == 0
    assert len(caplog.records) == 1
    assert "File too large" in caplog.text


def test_open_folder_that_cannot_be_made_keeps_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "partials").write_text("a file")
    partials = folder(tmp_path)

    keep(partials, CONTENT)
    partials.note_arrival(OTHER, "acme/app")

    assert held(partials) == b""
    assert len(caplog.records) == 1


def test_open_disk_without_room_for_blob_and_part_keeps_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    partials = PartialFolder(tmp_path / "partials", reserve_bytes=2**62)

    keep(partials, CONTENT)

    assert partials.held_bytes() == 0
    assert "bytes are free" in caplog.text


def test_arrivals_are_known_to_the_next_process(tmp_path: Path) -> None:
    partials = folder(tmp_path)
    for repository in ("acme/app", "acme/app", "acme/other"):
        partials.note_arrival(BLOB.digest, repository)
    partials.note_arrival(OTHER, "acme/app")

    again = folder(tmp_path)

    assert again.arrivals() == {BLOB.digest: "acme/other", OTHER: "acme/app"}
    assert (again.arrival(OTHER), again.arrival(Digest.of(b"unknown"))) == ("acme/app", None)


@pytest.mark.parametrize("torn", [f"{OTHER} acme/oth", "sha256:12", "\x00\x00\x00", f"{OTHER}"])
def test_arrivals_torn_last_line_is_ignored_for_good(tmp_path: Path, torn: str) -> None:
    partials = folder(tmp_path)
    partials.note_arrival(BLOB.digest, "acme/app")
    with (partials.folder / "arrivals").open("a") as file:
        file.write(torn)
    assert folder(tmp_path).arrivals() == {BLOB.digest: "acme/app"}

    folder(tmp_path).note_arrival(OTHER, "acme/next")

    assert folder(tmp_path).arrivals() == {BLOB.digest: "acme/app", OTHER: "acme/next"}


def test_clear_arrivals_forgets_them(tmp_path: Path) -> None:
    partials = folder(tmp_path)
    partials.note_arrival(OTHER, "acme/app")

    partials.clear_arrivals()

    assert partials.arrivals() == folder(tmp_path).arrivals() == {}
