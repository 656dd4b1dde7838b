from __future__ import annotations

import contextlib
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harbor_satellite.errors import StorageError
from harbor_satellite.satellite.disk import DiskGuard, free_bytes, show_bytes

GB = 10**9


def guard(free: int, reserve: int = 0, path: Path = Path("/data")) -> DiskGuard:
    return DiskGuard(path, reserve, lambda _: free)


def test_disk_fits_up_to_the_reserve() -> None:
    guard(10, reserve=4).check(6)


def test_disk_reserve_is_left_alone() -> None:
    with pytest.raises(StorageError, match="needs 7 bytes"):
        guard(10, reserve=4).check(7)


def test_disk_message_says_what_where_and_how_much() -> None:
    with pytest.raises(StorageError) as caught:
        guard(4 * GB, reserve=GB // 2).check(12_300_000_000)

    assert str(caught.value) == (
        "needs 12.3 GB on the disk of /data, 4.0 GB are free and 500.0 MB of them stay in reserve"
    )


def test_disk_full_lets_a_complete_site_be() -> None:
    guard(0, reserve=GB).check(0)


def test_disk_reservations_count_together() -> None:
    disk = guard(10)

    with (
        disk.reserve(6),
        pytest.raises(StorageError, match=r"needs 5 bytes .* 6 bytes are on their way"),
        disk.reserve(5),
    ):
        pytest.fail("eleven bytes fit on ten")


def test_disk_reservation_refused_keeps_nothing() -> None:
    disk = guard(10)
    with pytest.raises(StorageError), disk.reserve(11):
        pass

    disk.check(10)


@pytest.mark.parametrize("error", [None, StorageError("cut")])
def test_disk_reservation_ends_with_its_block(error: Exception | None) -> None:
    disk = guard(10)
    with contextlib.suppress(StorageError), disk.reserve(6):
        if error:
            raise error

    disk.check(10)


def test_disk_bytes_that_are_written_are_not_counted_twice() -> None:
    free = 10
    disk = DiskGuard(Path("/data"), 0, lambda _: free)

    with disk.reserve(6) as arrival:
        free = 6
        arrival.wrote(4)

        disk.check(4)
        with pytest.raises(StorageError):
            disk.check(5)
    disk.check(6)


def test_disk_more_written_than_announced_frees_no_room() -> None:
    disk = guard(10)

    with disk.reserve(6), disk.reserve(3) as arrival:
        arrival.wrote(5)

        with pytest.raises(StorageError):
            disk.check(5)


def test_disk_folder_that_is_not_there_yet_is_its_parents(tmp_path: Path) -> None:
    asked: list[Path] = []

    def free(path: Path) -> int:
        asked.append(path)
        return free_bytes(path)

    DiskGuard(tmp_path / "registry" / "v2" / "blobs", 0, free).check(1)

    assert asked[-1] == tmp_path
    assert free_bytes(tmp_path) > 0


def test_disk_path_below_a_file_is_its_files_disk(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    DiskGuard(tmp_path / "file" / "blobs", 0).check(1)


def test_disk_relative_path_that_is_not_there_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    DiskGuard(Path("not/yet"), 0).check(1)


def test_disk_that_does_not_answer_is_named() -> None:
    def dead(path: Path) -> int:
        raise OSError(5, "Input/output error")

    with pytest.raises(StorageError, match="cannot tell the free space of /data: Input/output error"):
        DiskGuard(Path("/data"), 0, dead).check(1)


def test_disk_threads_never_overshoot_together() -> None:
    used, most, lock = 0, 0, threading.Lock()
    disk = DiskGuard(Path("/data"), 100, lambda _: 1_000)
    together = threading.Barrier(8)

    def fetch(size: int) -> None:
        nonlocal used, most
        together.wait()
        for _ in range(200):
            with contextlib.suppress(StorageError), disk.reserve(size):
                with lock:
                    used += size
                    most = max(most, used)
                with lock:
                    used -= size

    threads = [threading.Thread(target=fetch, args=(size,)) for size in (100, 200, 300, 400, 500, 600, 700, 800)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 0 < most <= 900
    disk.check(900)


@given(st.integers(0, 10**16))
def test_show_bytes_is_near_the_count(count: int) -> None:
    number, unit = show_bytes(count).split()
    scale = {"bytes": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}[unit]

    assert abs(float(number) * scale - count) <= 0.051 * scale
    assert unit == "TB" or float(number) < 1000
