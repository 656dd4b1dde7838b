"""How the supervisor speaks: lines on standard error, and datagrams to the service manager that started it.

Nothing but the standard library, and of that no ``logging``: the supervisor is there for years, and small.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

INFO: Final = 6
WARNING: Final = 4
ERROR: Final = 3
_NAMES: Final = {INFO: "INFO", WARNING: "WARNING", ERROR: "ERROR"}
_LEVELS: Final = {"DEBUG": INFO, "INFO": INFO, "WARNING": WARNING, "ERROR": ERROR, "CRITICAL": ERROR}
LOG_LEVEL_VARIABLE: Final = "HARBOR_SATELLITE_LOG_LEVEL"


class Journal:
    """One line per decision; with the journal's prefix where standard error is the journal."""

    def __init__(self, environment: Mapping[str, str], name: str = "supervisor") -> None:
        self._name = name
        self._lowest = _LEVELS.get(environment.get(LOG_LEVEL_VARIABLE, "").upper(), WARNING)
        self._is_journal = is_journal(environment, sys.stderr.fileno())

    def say(self, priority: int, message: str) -> None:
        """Write a line; a log that cannot be written stops nothing."""
        if priority > self._lowest:
            return
        stamped = f"{_stamp()} {_NAMES[priority]} {self._name} {message}\n"
        line = f"<{priority}>{message}\n" if self._is_journal else stamped
        with contextlib.suppress(OSError):
            os.write(sys.stderr.fileno(), line.encode(errors="replace"))


class Notifier:
    """The service manager's socket, as ``sd_notify`` speaks to it; mute where there is none."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self.watchdog_seconds = _watchdog_seconds(environment)
        """How often the manager wants to hear from us: twice in each of its intervals; None: never."""

    def tell(self, *words: str) -> None:
        """Send assignments such as ``READY=1``; who does not listen misses them."""
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.setblocking(False)
            channel.sendto("\n".join(words).encode(errors="replace"), self._address)


def is_journal(environment: Mapping[str, str], handle: int) -> bool:
    """Whether a descriptor is the stream that the service manager connected to the journal (systemd.exec)."""
    try:
        found = os.fstat(handle)
    except OSError:
        return False
    return environment.get("JOURNAL_STREAM", "") == f"{found.st_dev}:{found.st_ino}"


def _watchdog_seconds(environment: Mapping[str, str]) -> float | None:
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    microseconds = environment.get("WATCHDOG_USEC", "")
    return int(microseconds) / 2_000_000 if microseconds.isdecimal() and int(microseconds) else None


def _stamp() -> str:
    now = time.time()
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(now))},{int(now % 1 * 1000):03d}"
