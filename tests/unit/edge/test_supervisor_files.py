"""What the supervisor reads and writes, and how it speaks."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from harbor_satellite.edge.notices import INFO, WARNING, Journal, Notifier, is_journal
from harbor_satellite.edge.services import (
    PLAN_FILE,
    SIGHTINGS_FILE,
    Probe,
    Service,
    ServicePlan,
    Sighting,
    read_plan,
    read_sightings,
    write_plan,
    write_sightings,
)

if TYPE_CHECKING:
    from pathlib import Path

PLAN = ServicePlan(
    (
        Service("registry", ("zot", "serve"), {"TOKEN": ""}, "1", Probe("http://127.0.0.1:1/v2/", {"Accept": "*/*"})),
        Service("agent", ("python",), alive_file="/somewhere/agent.alive", alive_seconds=30.0),
    )
)


def test_plan_is_read_as_it_was_written_and_private(tmp_path: Path) -> None:
    write_plan(tmp_path, PLAN)

    assert read_plan(tmp_path) == PLAN
    assert stat.S_IMODE((tmp_path / PLAN_FILE).stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == [PLAN_FILE]  # noqa: PTH208


def test_plan_that_cannot_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    write_plan(tmp_path, PLAN)
    broken = ServicePlan((Service("registry", ("zot",), alive_file=b"no text"),))  # type: ignore[arg-type]

    with pytest.raises(TypeError):
        write_plan(tmp_path, broken)

    assert read_plan(tmp_path) == PLAN
    assert os.listdir(tmp_path) == [PLAN_FILE]  # noqa: PTH208


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "{}",
        '{"services": {"a": 1}}',
        '{"services": [{"name": "a", "argv": ["b"], "probe": {"where": "x"}}]}',
        '{"services": [{"name": "a", "argv": ["b\\u0000"], "probe": null}]}',
        '{"services": [{"name": "a", "argv": [7], "probe": null}]}',
        '{"services": [{"name": "a", "argv": ["b"], "env": {"c": 7}, "probe": null}]}',
        '{"services": [{"name": "a", "argv": ["b"], "env": 7, "probe": null}]}',
        '{"services": [{"name": "a", "argv": ["b"], "env": {"c=d": "e"}, "probe": null}]}',
        '{"services": [{"name": "a", "argv": ["\\ud800"], "probe": null}]}',
        '{"services": [{"name": "a", "argv": ["b"], "alive_seconds": "c", "probe": null}]}',
        '{"services": [{"name": "a", "argv": ["b"], "probe": {"url": "c", "interval_seconds": -1}}]}',
        '{"services": [{"name": "a", "argv": ["b"], "probe": null}, {"name": "a", "argv": ["b"], "probe": null}]}',
    ],
)
def test_plan_damaged_is_one_kind_of_error(tmp_path: Path, content: str) -> None:
    (tmp_path / PLAN_FILE).write_text(content)

    with pytest.raises(ValueError, match=r"."):
        read_plan(tmp_path)


def test_sightings_are_read_as_they_were_written(tmp_path: Path) -> None:
    seen = (Sighting("registry", 7, 1.5, 2, "silent", 0.0),)
    write_sightings(tmp_path, seen)

    found = read_sightings(tmp_path)
    (tmp_path / SIGHTINGS_FILE).write_text("{")

    assert found == seen
    assert read_sightings(tmp_path) == ()


def test_is_journal_only_for_the_stream_it_names(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as log:
        found = os.fstat(log.fileno())
        there = is_journal({"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}, log.fileno())
        elsewhere = is_journal({"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino + 1}"}, log.fileno())
        nowhere = is_journal({}, log.fileno())

    assert (there, elsewhere, nowhere) == (True, False, False)


@pytest.mark.parametrize(
    ("level", "shown"), [("INFO", 2), ("debug", 2), ("WARNING", 1), ("", 1), ("ERROR", 0)], ids=repr
)
def test_journal_shows_what_the_level_asks_for(capfd: pytest.CaptureFixture[str], level: str, shown: int) -> None:
    journal = Journal({"HARBOR_SATELLITE_LOG_LEVEL": level})

    journal.say(INFO, "started")
    journal.say(WARNING, "ended")

    assert len(capfd.readouterr().err.splitlines()) == shown


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "mine"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
    ids=repr,
)
def test_notifier_watchdog(environment: dict[str, str], seconds: float | None) -> None:
    # Not in the table itself: every test process must collect the same names.
    given = {name: str(os.getpid()) if value == "mine" else value for name, value in environment.items()}

    assert Notifier(given).watchdog_seconds == seconds
