"""Processes of the supervisor: each the head of its own session, none of which outlives it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence

_PR_SET_CHILD_SUBREAPER: Final = 36  # linux/prctl.h
# A second start asks the kernel for a kill when the supervisor is gone, and then becomes the service: between a fork
# and an exec of this process nothing of the kind is safe, since probes run in threads. Who comes too late to ask
# has another parent already.
_BECOME: Final = f"""
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, {int(signal.SIGKILL)}, 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    os._exit(1)
try:
    os.execvp(sys.argv[2], sys.argv[2:])
except (OSError, ValueError) as error:
    os.write(2, f"cannot start {{sys.argv[2]}}: {{error}}\\n".encode())
    os._exit(127)
"""


@dataclass(frozen=True, slots=True)
class End:
    """How a child ended."""

    pid: int
    status: int
    """Its exit status; negative: the signal that ended it."""

    def __str__(self) -> str:
        return f"signal {-self.status}" if self.status < 0 else f"exit {self.status}"


def start(argv: Sequence[str], environment: Mapping[str, str]) -> int:
    """Start a process as the head of a new session, and return its id; its output goes where ours goes.

    Raises:
        OSError: the system has no room for another process.
    """
    return os.posix_spawn(
        sys.executable,
        [sys.executable, "-I", "-S", "-c", _BECOME, str(os.getpid()), *argv],
        environment,
        file_actions=[(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)],
        setsid=True,
        setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],  # Python ignores them, and what is ignored stays so in a child
    )


def signal_group(pid: int, number: signal.Signals) -> None:
    """Send a signal to all of a session; one that is gone is none the worse."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def reap(services: Container[int]) -> list[End]:
    """Collect the children that have ended, ours and those of children that died before them.

    Args:
        services: ids of children of ours. What one of them has left running in its session ends with it: the next
            start must find nobody in its place.
    """
    ends: list[End] = []
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return ends
        if found is None:
            return ends
        if found.si_pid in services:
            signal_group(found.si_pid, signal.SIGKILL)  # while it is not waited for, its id is nobody else's
        _, code = os.waitpid(found.si_pid, 0)
        ends.append(End(found.si_pid, os.waitstatus_to_exitcode(code)))


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent dies, as process 1 is."""
    import ctypes  # noqa: PLC0415  (for this one call)

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def kill_all() -> None:
    """Kill every child that is left, such as one that made itself a session of its own."""
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    with contextlib.suppress(OSError, ValueError):  # not every kernel has that file
        for pid in map(int, children.read_text(encoding="ascii").split()):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
