"""What a move to another registry says while it lasts."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from harbor_satellite.edge.registry_switch import saying_how_far
from harbor_satellite.satellite.adoption_journal import AdoptionJournal

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_copy_that_takes_long_says_how_far_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    journal = AdoptionJournal(tmp_path / "adopted.jsonl")
    until = time.monotonic() + 10

    with saying_how_far(journal, 0.01):
        journal.note("acme/app", "sha256:0", ["v1", "stable"])
        while "still taking over tags=2" not in caplog.text and time.monotonic() < until:
            time.sleep(0.01)

    assert "still taking over tags=2" in caplog.text
