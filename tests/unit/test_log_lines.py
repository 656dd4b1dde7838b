"""Log lines as journald and a terminal read them."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
from typing import Any

import pytest

from harbor_satellite.edge.log_lines import LineFormatter, adopt_handlers, escape


def record(message: str, *arguments: object, level: int = logging.INFO, **extra: Any) -> logging.LogRecord:
    made = logging.LogRecord("harbor_satellite.x", level, __file__, 1, message, arguments, None)
    made.__dict__.update(extra)
    return made


@pytest.mark.parametrize(
    ("level", "priority"),
    [(logging.DEBUG, 7), (logging.INFO, 6), (logging.WARNING, 4), (logging.ERROR, 3), (logging.CRITICAL, 2)],
    ids=["debug", "info", "warning", "error", "critical"],
)
def test_line_for_the_journal_begins_with_its_priority_and_has_no_time(level: int, priority: int) -> None:
    line = LineFormatter(is_journal=True).format(record("copied bytes=%d", 7, level=level))

    assert line == f"<{priority}>{logging.getLevelName(level)} harbor_satellite.x copied bytes=7"


def test_line_for_a_terminal_begins_with_the_time() -> None:
    line = LineFormatter(is_journal=False).format(record("copied"))

    assert line[0].isdigit()
    assert line.endswith(" INFO harbor_satellite.x copied")


def test_line_says_which_flow_run_spoke() -> None:
    line = LineFormatter(is_journal=True).format(record("done", flow_run_name="brave-otter"))

    assert line.endswith("done run=brave-otter")


@pytest.mark.parametrize(
    "harm", ["\x1b[2Jgone", "a\n<0>forged", "\r\x9b31m", "b\u202egnp.exe", "\x00\x07", "\ud83d"], ids=ascii
)
def test_line_is_one_line_that_steers_nothing_whatever_a_peer_says(harm: str) -> None:
    line = LineFormatter(is_journal=True).format(record("reason=%s", harm))

    assert line.isprintable()
    assert "\\" in line


def test_escape_leaves_ordinary_text_of_any_language_alone() -> None:
    assert escape("Grüße, 你好 – ok") == "Grüße, 你好 – ok"


def test_line_of_an_error_gives_each_line_of_the_traceback_its_priority() -> None:
    try:
        raise ValueError("first\nsecond\x1b[0m")  # noqa: TRY301
    except ValueError:
        made = record("broke off", level=logging.ERROR)
        made.exc_info = sys.exc_info()

    lines = LineFormatter(is_journal=True).format(made).split("\n")

    assert lines[0] == "<3>ERROR harbor_satellite.x broke off"
    assert all(line.startswith("<3>  | ") and line.isprintable() for line in lines[1:])
    assert lines[-1] == "<3>  | second\\x1b[0m"


def test_line_that_is_endless_is_cut() -> None:
    line = LineFormatter(is_journal=True).format(record("x" * 1_000_000))

    assert len(line) < 9000
    assert "1000000 characters" in line


def test_lines_of_a_library_with_a_handler_of_its_own_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    logger = logging.getLogger("a.library")
    logger.propagate = False
    logger.addHandler(logging.StreamHandler(stream))

    adopt_handlers()
    logger.error("one\ntwo")
    logger.handlers.clear()

    assert stream.getvalue().endswith(" ERROR a.library one\\ntwo\n")


_PROGRAM = """
import logging
from harbor_satellite.edge.log_lines import set_up_logging
set_up_logging(logging.INFO)
logging.getLogger("harbor_satellite.x").info("one\\ntwo")
logging.getLogger("httpx").info("not of interest")
"""


@pytest.mark.parametrize("is_journal", [True, False], ids=["journal", "another place"])
def test_logging_speaks_to_the_journal_only_where_standard_error_is_the_journal(*, is_journal: bool) -> None:
    reader, writer = os.pipe()
    found = os.fstat(writer)
    stream = f"{found.st_dev}:{found.st_ino if is_journal else 1}"

    subprocess.run([sys.executable, "-c", _PROGRAM], stderr=writer, env={"JOURNAL_STREAM": stream}, check=True)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        lines = pipe.read().splitlines()

    assert len(lines) == 1
    assert lines[0].startswith("<6>INFO harbor_satellite.x one\\ntwo") is is_journal
