"""Whether a registry's folder is the one that it was; ``/proc`` stands for another disk wherever this runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harbor_satellite.edge.registry_root import MARK_FILE, KnownRoot, RootAwayError, check_root
from harbor_satellite.errors import StorageError

ELSEWHERE = Path("/proc")


def known_root(root: Path) -> KnownRoot:
    known = check_root(root, ELSEWHERE, None)
    assert known
    return known


def on_other_disk(known: KnownRoot) -> KnownRoot:
    """Return a root as it was known when its folder was on another disk than now."""
    return replace(known, device=known.device + 1)


def test_root_on_the_disk_of_the_satellite_needs_no_mark(tmp_path: Path) -> None:
    assert check_root(tmp_path / "root", tmp_path, None) is None
    assert list((tmp_path / "root").iterdir()) == []


def test_root_on_a_disk_of_its_own_is_marked_once(tmp_path: Path) -> None:
    root = tmp_path / "root"

    known = known_root(root)

    assert (root / MARK_FILE).read_text() == known.mark
    assert len(known.mark) == 32
    assert check_root(root, ELSEWHERE, known) == known
    assert known_root(root).mark == known.mark


def test_root_whose_disk_is_not_mounted_is_refused_and_stays_empty(tmp_path: Path) -> None:
    known = on_other_disk(known_root(tmp_path / "disk"))
    mount_point = tmp_path / "empty"
    mount_point.mkdir()

    for home in (ELSEWHERE, tmp_path):
        with pytest.raises(RootAwayError, match="its disk is not mounted") as error:
            check_root(mount_point, home, replace(known, root=str(mount_point)))

    assert str(mount_point / MARK_FILE) in str(error.value)
    assert list(mount_point.iterdir()) == []


def test_root_whose_mount_point_is_gone_is_refused_and_not_made(tmp_path: Path) -> None:
    root = tmp_path / "gone" / "root"
    known = KnownRoot(str(root), "mark", tmp_path.stat().st_dev + 1)

    with pytest.raises(RootAwayError):
        check_root(root, ELSEWHERE, known)

    assert not root.parent.exists()


def test_root_of_another_disk_with_another_mark_is_refused(tmp_path: Path) -> None:
    known = on_other_disk(known_root(tmp_path))
    (tmp_path / MARK_FILE).write_text("of another site")

    with pytest.raises(RootAwayError):
        check_root(tmp_path, ELSEWHERE, known)


def test_root_whose_disk_has_another_number_after_a_restart_is_the_same(tmp_path: Path) -> None:
    known = known_root(tmp_path)

    assert check_root(tmp_path, ELSEWHERE, on_other_disk(known)) == known


def test_root_that_was_wiped_on_its_disk_is_marked_again(tmp_path: Path) -> None:
    known = known_root(tmp_path)
    (tmp_path / MARK_FILE).unlink()

    assert check_root(tmp_path, ELSEWHERE, known) == known
    assert (tmp_path / MARK_FILE).read_text() == known.mark


def test_root_that_an_operator_has_marked_is_taken(tmp_path: Path) -> None:
    known = known_root(tmp_path)
    (tmp_path / MARK_FILE).write_text("")

    assert check_root(tmp_path, ELSEWHERE, on_other_disk(known)) == known
    assert (tmp_path / MARK_FILE).read_text() == known.mark


def test_root_that_cannot_be_made_says_where(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StorageError, match="file/root"):
        check_root(tmp_path / "file" / "root", ELSEWHERE, None)
