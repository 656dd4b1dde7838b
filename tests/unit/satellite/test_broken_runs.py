"""What is left on disk of a run whose process ended before it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harbor_satellite.satellite.broken_runs import broken_runs, note_run

if TYPE_CHECKING:
    from pathlib import Path


def test_broken_runs_counts_those_in_a_row(tmp_path: Path) -> None:
    before = broken_runs(tmp_path)
    runs = [note_run(tmp_path) for _ in range(2)]
    for run in runs:
        run.__enter__()  # and the process is gone

    assert (before, broken_runs(tmp_path)) == (0, 2)
    del runs


@pytest.mark.parametrize("error", [None, ValueError("bad image")], ids=["well", "badly"])
def test_broken_runs_run_that_ended_is_none(tmp_path: Path, error: Exception | None) -> None:
    (tmp_path / "run-under-way").write_text("3")

    def run() -> None:
        with note_run(tmp_path):
            if error:
                raise error

    if error:
        with pytest.raises(ValueError, match="bad image"):
            run()
    else:
        run()

    assert broken_runs(tmp_path) == 0


@pytest.mark.parametrize("text", ["", "x", "-1", "9" * 5000])
def test_broken_runs_damaged_file_is_one(tmp_path: Path, text: str) -> None:
    (tmp_path / "run-under-way").write_text(text)

    assert broken_runs(tmp_path) == 1


def test_note_run_disk_that_refuses_is_no_reason_not_to_run(tmp_path: Path) -> None:
    (tmp_path / "run-under-way").mkdir()

    with note_run(tmp_path):
        pass
