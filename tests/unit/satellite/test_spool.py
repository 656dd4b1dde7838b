"""Reports that wait on disk: in order, within bounds, whatever is damaged."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from harbor_satellite.satellite.spool import Spool
from harbor_satellite.state.news import news_digest
from harbor_satellite.state.wire import CachedImage, StatusReport

if TYPE_CHECKING:
    from pathlib import Path


def report(count: int) -> StatusReport:
    """Return a report whose news is the count of its images."""
    made = StatusReport(name="shop-1", image_count=count, cached_images=[CachedImage(reference=f"a{count}")])
    return made.model_copy(update={"news_digest": news_digest(made)})


def counts(spool: Spool) -> list[int]:
    found = [spool.read(one) for one in spool.waiting()]
    return [one.image_count for one in found if one]


def test_spool_gives_back_what_it_was_given_oldest_first(tmp_path: Path) -> None:
    spool = Spool(tmp_path)

    for count in (3, 1, 2):
        spool.add(report(count))

    assert counts(Spool(tmp_path)) == [3, 1, 2]
    assert spool.read(spool.waiting()[0]) == report(3)


def test_spool_report_that_was_taken_is_gone_and_the_order_stays(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    for count in (1, 2):
        spool.add(report(count))

    spool.remove(spool.waiting()[0])
    spool.add(report(3))

    assert counts(spool) == [2, 3]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        pytest.param([1, 2, 2, 3], [1, 2, 3], id="one that repeats goes first"),
        pytest.param([1, 2, 3, 4], [2, 3, 4], id="else the oldest"),
        pytest.param([1, 2, 3, 3], [2, 3, 3], id="the newest stays although it repeats"),
        pytest.param([1, 1, 1, 2, 3], [1, 2, 3], id="repetitions go until there is room"),
    ],
)
def test_spool_with_too_many_makes_room(tmp_path: Path, given: list[int], kept: list[int]) -> None:
    spool = Spool(tmp_path, max_count=3)

    for count in given:
        spool.add(report(count))

    assert counts(spool) == kept
    assert spool.dropped == len(given) - 3


def test_spool_with_too_many_bytes_keeps_the_newest_however_large(tmp_path: Path) -> None:
    spool = Spool(tmp_path, max_bytes=10)

    for count in (1, 2):
        spool.add(report(count))

    assert (counts(spool), spool.dropped) == ([2], 1)


def test_spool_dropped_count_is_told_once(tmp_path: Path) -> None:
    spool = Spool(tmp_path, max_count=1)
    for count in (1, 2, 3):
        spool.add(report(count))
    told = spool.dropped
    spool.add(report(4))

    spool.note_told(told)

    assert (told, spool.dropped) == (2, 1)


@pytest.mark.parametrize("damage", [b"", b"no gzip", b"\x1f\x8b\x08\x00"], ids=["empty", "other", "cut"])
def test_spool_damaged_report_is_set_aside(tmp_path: Path, damage: bytes) -> None:
    spool = Spool(tmp_path)
    for count in (1, 2):
        spool.add(report(count))
    first = spool.waiting()[0]
    first.path.write_bytes(damage)

    assert spool.read(first) is None
    assert counts(spool) == [2]
    assert [path.name for path in (tmp_path / "spool" / "refused").iterdir()] == [first.path.name]


def test_spool_refused_reports_are_kept_up_to_a_number(tmp_path: Path) -> None:
    spool = Spool(tmp_path)

    for count in range(25):
        spool.add(report(count))
        spool.set_aside(spool.waiting()[0], "HTTP 400")

    assert len(list((tmp_path / "spool" / "refused").iterdir())) == 20
    assert spool.waiting() == []


def test_spool_half_written_file_of_a_killed_writer_is_no_report(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.add(report(1))
    left = tmp_path / "spool" / ".000000000002-x.json.gz-ab12"
    left.write_bytes(b"half")
    os.utime(left, (1, 1))

    assert counts(spool) == [1]
    spool.add(report(2))
    assert (counts(spool), left.exists()) == ([1, 2], False)
