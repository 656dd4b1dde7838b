"""Run commands side by side and measure them; a small process of its own, standard library only.

It is small because a child's peak memory counts from what its parent had when it was forked. Reads an order
as JSON from standard input and writes the outcome to standard output; ``measure`` is who calls it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import deque
from typing import Any, Final

_POLL_SECONDS: Final = 0.002


def run(order: dict[str, Any]) -> dict[str, Any]:
    """Run every command until it succeeds, or its tries or the time are up.

    Args:
        order: ``commands``, ``parallel`` (how many at once), ``tries`` (of each command), ``limit_seconds``,
            ``kill_after_seconds`` (when to ``kill -9`` all that runs, once; None: never), ``log``.

    Returns:
        ``wall`` and ``cpu`` (seconds, user and system, of the commands), ``rss`` (bytes, of the largest single
        process), ``starts`` and ``unfinished`` (counts of commands).
    """
    waiting = deque((command, 1) for command in order["commands"])
    running: dict[int, tuple[list[str], int]] = {}
    outcome = {"cpu": 0.0, "rss": 0, "starts": 0, "unfinished": 0}
    kill_after = order["kill_after_seconds"]
    started = time.monotonic()
    while waiting or running:
        passed = time.monotonic() - started
        if passed > order["limit_seconds"]:
            outcome["unfinished"] += len(waiting)
            waiting.clear()
        while waiting and len(running) < order["parallel"]:
            command, number = waiting.popleft()
            running[_start(command, order["log"])] = command, number
            outcome["starts"] += 1
        if passed > order["limit_seconds"] or (kill_after is not None and passed > kill_after):
            kill_after = None
            for process in running:
                os.kill(process, signal.SIGKILL)
        if running:
            _take_ended(running, waiting, outcome, order["tries"])
    return outcome | {"wall": time.monotonic() - started}


def _start(command: list[str], log: str) -> int:
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    actions = [(os.POSIX_SPAWN_OPEN, 1, log, append, 0o600), (os.POSIX_SPAWN_DUP2, 1, 2)]
    return os.posix_spawnp(command[0], command, os.environ, file_actions=actions)


def _take_ended(
    running: dict[int, tuple[list[str], int]],
    waiting: deque[tuple[list[str], int]],
    outcome: dict[str, Any],
    tries: int,
) -> None:
    process, status, used = os.wait4(-1, os.WNOHANG)
    if not process:
        time.sleep(_POLL_SECONDS)
        return
    command, number = running.pop(process)
    outcome["cpu"] += used.ru_utime + used.ru_stime
    outcome["rss"] = max(outcome["rss"], used.ru_maxrss * 1024)
    if status and number < tries:
        waiting.append((command, number + 1))
    elif status:
        outcome["unfinished"] += 1


if __name__ == "__main__":
    json.dump(run(json.load(sys.stdin)), sys.stdout)
