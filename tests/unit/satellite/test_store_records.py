"""The satellite's records between runs and processes: values that are kept parsed, the small record, what is swept."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from harbor_satellite.errors import StorageError
from harbor_satellite.oci.digest import Digest
from harbor_satellite.satellite.applied import Applied, LastRun
from harbor_satellite.satellite.store import SatelliteStore, write_atomically
from harbor_satellite.state.desired import LocalTag

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
APPLIED = Applied(
    state_digest=Digest.of(b"state"),
    is_converged=True,
    wanted={LocalTag("acme/app", "v1"): Digest.of(b"image")},
    look_at=3,
    last_run=LastRun(NOW, 1.5, 4711, 1, 0, "1 copied"),
)
LATER = LastRun(NOW + timedelta(minutes=5), 0.1, 0, 0, 0, "1 kept")
HOUR = 3600


@pytest.fixture
def store(tmp_path: Path) -> SatelliteStore:
    return SatelliteStore(tmp_path / "satellite")


class Counting:
    """Parses one number, and counts how often it was asked to."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, document: dict[str, Any] | None) -> int:
        self.count += 1
        return 0 if document is None else int(document["number"])


def replace_elsewhere(path: Path, document: dict[str, Any]) -> None:
    """Replace a file as another process does: nothing in this one is told."""
    write_atomically(path, json.dumps(document).encode())


def test_parsed_file_that_stays_is_read_once(store: SatelliteStore) -> None:
    store.write_document("x.json", {"number": 1})
    parse = Counting()

    values = [store.parsed("x.json", parse) for _ in range(3)]

    assert (values, parse.count) == ([1, 1, 1], 1)


def test_parsed_file_replaced_by_another_process_is_seen(store: SatelliteStore) -> None:
    store.write_document("x.json", {"number": 1})
    first = store.parsed("x.json", Counting())
    replace_elsewhere(store.folder / "x.json", {"number": 2})

    second = store.parsed("x.json", Counting())

    assert (first, second) == (1, 2)


def test_parsed_file_of_the_same_age_and_size_replaced_is_seen(store: SatelliteStore) -> None:
    path = store.folder / "x.json"
    store.write_document("x.json", {"number": 1})
    age = path.stat().st_mtime_ns
    os.utime(path, ns=(age, age))
    store.parsed("x.json", Counting())
    store.write_document("x.json", {"number": 2})
    os.utime(path, ns=(age, age))

    assert store.parsed("x.json", Counting()) == 2


def test_parsed_file_written_in_place_is_seen(store: SatelliteStore) -> None:
    store.write_document("x.json", {"number": 1})
    store.parsed("x.json", Counting())
    (store.folder / "x.json").write_text('{"number": 22}')

    assert store.parsed("x.json", Counting()) == 22


def test_parsed_file_taken_away_is_seen(store: SatelliteStore) -> None:
    store.write_document("x.json", {"number": 1})
    store.parsed("x.json", Counting())
    (store.folder / "x.json").unlink()

    assert store.parsed("x.json", Counting()) == 0


def test_parsed_file_that_comes_after_there_was_none_is_seen(store: SatelliteStore) -> None:
    store.parsed("x.json", Counting())
    store.write_document("x.json", {"number": 1})

    assert store.parsed("x.json", Counting()) == 1


def test_parsed_file_damaged_afterwards_is_reported(store: SatelliteStore) -> None:
    store.write_document("x.json", {"number": 1})
    store.parsed("x.json", Counting())
    replace_elsewhere(store.folder / "x.json", {"number": "none"})

    with pytest.raises(StorageError, match=r"x\.json is damaged"):
        store.parsed("x.json", Counting())


def test_parsed_same_name_in_two_folders_is_two_files(tmp_path: Path) -> None:
    stores = [SatelliteStore(tmp_path / name) for name in ("a", "b")]
    for number, store in enumerate(stores):
        store.write_document("x.json", {"number": number})

    values = [store.parsed("x.json", Counting()) for store in stores]

    assert values == [0, 1]


def test_parsed_more_files_than_are_kept_are_all_right(store: SatelliteStore) -> None:
    for number in range(20):
        store.write_document(f"{number}.json", {"number": number})

    values = [store.parsed(f"{number}.json", Counting()) for _ in range(2) for number in range(20)]

    assert values == [*range(20), *range(20)]


def test_applied_saved_by_another_process_is_seen(store: SatelliteStore) -> None:
    store.save_applied(APPLIED)
    store.applied()
    other = SatelliteStore(store.folder / ".." / store.folder.name)
    other.save_applied(replace(APPLIED, is_converged=False))

    assert not store.applied().is_converged


def test_applied_with_a_later_rest_has_its_last_run(store: SatelliteStore) -> None:
    store.save_applied(APPLIED)
    store.save_rest(LATER, 7)

    assert store.applied() == replace(APPLIED, last_run=LATER, look_at=7)


def test_applied_with_an_earlier_rest_keeps_its_own(store: SatelliteStore) -> None:
    store.save_rest(replace(LATER, finished_at=NOW - timedelta(minutes=5)), 7)
    store.save_applied(APPLIED)

    assert store.applied() == APPLIED


def test_applied_without_a_run_takes_the_rest(store: SatelliteStore) -> None:
    store.save_applied(replace(APPLIED, last_run=None))
    store.save_rest(LATER, 7)

    assert store.applied().last_run == LATER


def test_save_rest_leaves_the_large_record_alone(store: SatelliteStore) -> None:
    store.save_applied(APPLIED)
    before = (store.folder / "applied.json").stat().st_ino

    store.save_rest(LATER, 7)

    assert (store.folder / "applied.json").stat().st_ino == before


@pytest.mark.parametrize(
    "document",
    [{"look_at": 0}, {"last_run": None}, {"last_run": 5}, {"last_run": {"finished_at": "yesterday"}, "look_at": 0}],
    ids=["no last run", "no run", "a number", "no time"],
)
def test_applied_with_a_damaged_rest_names_the_file(store: SatelliteStore, document: dict[str, Any]) -> None:
    store.save_applied(APPLIED)
    replace_elsewhere(store.folder / "rest.json", document)

    with pytest.raises(StorageError, match=r"rest\.json is damaged"):
        store.applied()


def left_behind(store: SatelliteStore, name: str, age_seconds: float) -> Path:
    """Leave what a writer that was killed so long ago leaves."""
    store.folder.mkdir(parents=True, exist_ok=True)
    path = store.folder / name
    path.write_bytes(b"{")
    then = time.time() - age_seconds
    os.utime(path, (then, then))
    return path


def test_lock_sweeps_what_killed_writers_left(store: SatelliteStore) -> None:
    left = left_behind(store, ".applied.json-abc123", 2 * HOUR)

    with store.lock():
        pass

    assert not left.exists()


def test_lock_leaves_what_another_writer_is_writing(store: SatelliteStore) -> None:
    fresh = left_behind(store, ".applied.json-abc123", 0)

    with store.lock():
        pass

    assert fresh.exists()


@pytest.mark.parametrize("name", ["applied.json", "claim.json", ".hidden", "notes.json-old"])
def test_lock_leaves_what_no_writer_left(store: SatelliteStore, name: str) -> None:
    old = left_behind(store, name, 1000 * HOUR)

    with store.lock():
        pass

    assert old.exists()


def test_lock_sweeps_past_what_cannot_be_removed(store: SatelliteStore) -> None:
    stuck = store.folder / ".a.json-folder"
    stuck.mkdir(parents=True)
    then = time.time() - 2 * HOUR
    os.utime(stuck, (then, then))
    left = left_behind(store, ".b.json-abc123", 2 * HOUR)

    with store.lock():
        pass

    assert stuck.exists()
    assert not left.exists()
