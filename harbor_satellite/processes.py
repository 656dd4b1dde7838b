"""Child processes: started with their own log, waited for until they answer, stopped in order.

What must not live here: which processes there are.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final

import httpx

from harbor_satellite.errors import HarborSatelliteError, InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_LOG = logging.getLogger(__name__)
_POLL_SECONDS: Final = 0.1
_STOP_SECONDS: Final = 10.0  # then it is killed
_LOG_TAIL_BYTES: Final = 2000  # bytes of a dead child's log that go into the error
_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
# Asks the kernel for a kill when this process is gone, then becomes the child: a demo that is killed leaves
# nothing behind. (`preexec_fn` would do it without a second start, but is unsafe beside threads.)
_DIES_WITH_PARENT: Final = (
    *(sys.executable, "-I", "-S", "-c"),
    (
        f"import ctypes, os, sys; ctypes.CDLL(None).prctl({_PR_SET_PDEATHSIG}, {int(signal.SIGKILL)}); "
        "os.execvp(sys.argv[1], sys.argv[1:])"
    ),
)


class ChildError(HarborSatelliteError):
    """A child process ended or never answered; the message carries the end of its log."""

    def diagnostics(self) -> str:
        """Say what an operator should check."""
        return "Look at the whole log of that process; its path is in the message."


class Child:
    """One child process with a log file."""

    def __init__(self, name: str, argv: Sequence[str], *, env: Mapping[str, str], log: Path) -> None:
        """Start it; its environment is this process's plus ``env``, where an empty value takes a variable away."""
        self.name = name
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603  (argv is ours)
                [*_DIES_WITH_PARENT, *argv],
                env={key: value for key, value in {**os.environ, **env}.items() if value},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        _LOG.debug("started process=%s pid=%d", name, self._process.pid)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """How it ended, or None while it runs."""
        if self._process.returncode is None and self._process.poll() is not None:
            self._end_group()
        return self._process.returncode

    def check(self) -> None:
        """Raise ``ChildError`` if it has ended."""
        if self.returncode is not None:
            raise ChildError(f"{self.name} ended with status {self.returncode} ({self.log}): {self._tail()}")

    def wait_for(self, url: str, timeout_seconds: float) -> None:
        """Wait until an HTTP GET of ``url`` gets an answer that is no server error.

        Raises:
            ChildError: the process ended, or did not answer in time.
        """
        deadline = time.monotonic() + timeout_seconds
        with httpx.Client(timeout=2.0, trust_env=False) as client:
            while time.monotonic() < deadline:
                self.check()
                with contextlib.suppress(httpx.HTTPError):
                    if not client.get(url).is_server_error and self.returncode is None:
                        return
                time.sleep(_POLL_SECONDS)
        raise ChildError(
            f"{self.name} did not answer at {url} within {timeout_seconds:.0f} s ({self.log}): {self._tail()}"
        )

    def wait(self, timeout_seconds: float | None = None) -> int:
        """Wait for its end, and return its status; ``subprocess.TimeoutExpired`` if it takes longer."""
        if self.returncode is None:
            self._process.wait(timeout_seconds)
            self._end_group()
        return self._process.returncode

    def stop(self) -> None:
        """End it: politely first, its whole process group by force after ten seconds."""
        if self.returncode is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_SECONDS)
        self._end_group()
        self._process.wait()

    def _end_group(self) -> None:
        """Kill what its group still has; at once when its end is known: later its id may be that of another."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _tail(self) -> str:
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - _LOG_TAIL_BYTES))
            return file.read().decode(errors="replace").strip()


def check_port_is_free(host: str, port: int) -> None:
    """Raise ``InvalidInputError`` if somebody listens there already, who would be taken for a child of ours."""
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1.0):
        raise InvalidInputError(f"{host}:{port} is in use by another process")


def free_port() -> int:
    """Return a TCP port of the loopback address that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
