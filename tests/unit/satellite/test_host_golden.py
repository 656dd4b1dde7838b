"""Files as they are found in the field: what becomes of them, twice, and back to the byte."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from harbor_satellite.satellite.host import Host
from tests.unit.satellite.hosts import MIRRORS, Reloads, seen

CASES = Path(__file__).parents[2] / "data" / "runtimes"


@pytest.fixture(autouse=True)
def _disk_is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(params=sorted(path.name for path in CASES.iterdir()))
def case(request: pytest.FixtureRequest) -> Path:
    return CASES / str(request.param)


@pytest.fixture
def root(case: Path, tmp_path: Path) -> Path:
    shutil.copytree(case / "before", tmp_path / "root")
    return tmp_path / "root"


def test_apply_gives_the_files_that_were_agreed_on(case: Path, root: Path) -> None:
    plan = Host(root, Reloads()).apply(case.name.split("-")[0], MIRRORS)

    changed = {change.path.lstrip("/"): change.then for change in plan.changes if change.is_change}
    notes = case / "notes.txt"
    assert changed == files(case / "after")
    assert [note for note in plan.notes if "meet in one local registry" not in note] == (
        notes.read_text().splitlines() if notes.exists() else []
    )
    assert all((root / path).read_bytes() == content for path, content in changed.items())


def test_apply_twice_changes_nothing_even_if_the_record_is_lost(case: Path, root: Path) -> None:
    runtime, host = case.name.split("-")[0], Host(root, Reloads())
    host.apply(runtime, MIRRORS)
    once = seen(root)

    again = host.apply(runtime, MIRRORS)
    shutil.rmtree(host.folder)
    without_record = host.apply(runtime, MIRRORS)

    assert not [change.path for plan in (again, without_record) for change in plan.changes if change.is_change]
    assert seen(root) == once


def test_undo_is_exact(case: Path, root: Path) -> None:
    runtime, host, before = case.name.split("-")[0], Host(root, Reloads()), seen(root)
    host.apply(runtime, MIRRORS)

    host.undo(runtime)

    assert seen(root) == before
    assert host.configured() == {}
