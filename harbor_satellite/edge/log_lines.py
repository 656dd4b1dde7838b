"""Log lines of a site's processes: one line per record, as journald or a terminal reads it.

What must not live here: what is logged.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Final

from harbor_satellite.edge.notices import is_journal

_PRIORITIES: Final = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
"""Level → priority of syslog, as in sd-daemon(3)."""
_DEBUG: Final = 7
# What steers a terminal, ends a line, turns the direction of writing, or is half a character, which no terminal and no
# page takes: names and messages come from peers.
_STEERING: Final = (
    *(*range(32), *range(127, 160), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A)),
    *range(0xD800, 0xE000),
)
_ESCAPES: Final = {code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" for code in _STEERING} | {  # noqa: PLR2004
    ord("\n"): "\\n",
    ord("\r"): "\\r",
    ord("\t"): "\\t",
}
_LINE_MAX: Final = 8000
"""Characters; journald cuts a line of its own accord at 48 KiB."""


def escape(text: str) -> str:
    """Return a text in one line that cannot steer a terminal, whoever sent it."""
    return text.translate(_ESCAPES)


class LineFormatter(logging.Formatter):
    """One line per record; those of a traceback follow it, each a line that says so.

    Args:
        is_journal: lines begin with ``<priority>`` instead of the time, which journald adds itself.
    """

    def __init__(self, *, is_journal: bool) -> None:
        super().__init__()
        self._is_journal = is_journal

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines of a record, without the last line's end."""
        run = getattr(record, "flow_run_name", None)  # Prefect's; the line's own text does not say it
        about = f" run={escape(str(run))}" if run else ""
        lines = [f"{record.levelname} {record.name} {_bounded(escape(record.getMessage()))}{about}"]
        lines += [f"  | {_bounded(escape(line))}" for line in self._trace(record)]
        if self._is_journal:
            return "\n".join(f"<{_priority(record.levelno)}>{line}" for line in lines)
        return f"{self.formatTime(record)} " + "\n".join(lines)

    def _trace(self, record: logging.LogRecord) -> list[str]:
        trace = self.formatException(record.exc_info) if record.exc_info and record.exc_info[0] else ""
        if record.stack_info:
            trace = f"{trace}\n{record.stack_info}"
        # Not `splitlines`, which also splits at what `escape` makes visible.
        return [line for line in trace.split("\n") if line.strip()]


def set_up_logging(level: int) -> None:
    """Send the log to standard error, unless somebody has set it up already.

    Prefect, imported later, leaves it so: its own loggers' lines come here as well.

    Args:
        level: the lowest that is shown.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter(is_journal=_is_in_journal()))
    logging.basicConfig(level=level, handlers=[handler])
    logging.getLogger("httpx").setLevel(logging.WARNING)  # one line per request is our clients' business


def adopt_handlers() -> None:
    """Let handlers that a library (Prefect) has given to loggers of its own write the same lines."""
    formatter = LineFormatter(is_journal=_is_in_journal())
    for logger in list(logging.root.manager.loggerDict.values()):
        for handler in getattr(logger, "handlers", ()):  # a placeholder has none
            if getattr(handler, "stream", None) is sys.stderr:
                handler.setFormatter(formatter)


def _is_in_journal() -> bool:
    try:
        return is_journal(os.environ, sys.stderr.fileno())
    except (OSError, ValueError, AttributeError):  # no file, as in a test
        return False


def _priority(level: int) -> int:
    return next((priority for lowest, priority in _PRIORITIES if level >= lowest), _DEBUG)


def _bounded(line: str) -> str:
    return line if len(line) <= _LINE_MAX else f"{line[:_LINE_MAX]}… ({len(line)} characters)"
