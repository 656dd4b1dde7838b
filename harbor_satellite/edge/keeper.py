"""One service of the supervisor: started, asked, ended, and started again."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from harbor_satellite.edge import children
from harbor_satellite.edge.notices import ERROR, INFO, WARNING
from harbor_satellite.edge.probe import Asker
from harbor_satellite.edge.restarts import wait_seconds
from harbor_satellite.edge.services import Sighting

if TYPE_CHECKING:
    from collections.abc import Callable

    from harbor_satellite.edge.children import End
    from harbor_satellite.edge.notices import Journal
    from harbor_satellite.edge.restarts import Pace
    from harbor_satellite.edge.services import Service

_NEVER: Final = float("inf")
_LONGEST_LOOK_SECONDS: Final = 5.0
"""What one look adds to a silence at most: while this process, or the machine, stood still, nobody could be heard."""
_NOTHING: Final = 0, 0
"""What marks a file that is not there."""
_NO_SERVICES_BUSINESS: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID")


class Keeper:
    """Keeps one service running. All moments are of the monotonic clock: the other one may jump."""

    def __init__(self, service: Service, pace: Pace, journal: Journal, wake: Callable[[], None]) -> None:
        self.service = service
        self.pid = 0
        self.is_wanted = True
        self._pace, self._journal, self._wake = pace, journal, wake
        self._restarts = self._streak = 0
        self._last_end = ""
        self._started = self._next_start = time.monotonic()
        self._started_at = self._next_start_at = 0.0  # by the other clock, for people
        self._kill_at = _NEVER
        self._why = ""
        """Why we end it; empty: we do not."""
        self._is_planned = True
        """Whether the next start is one that the plan asks for, and not one after a failure."""
        self._has_answered = False
        self._asker = Asker(wake)
        self._next_probe = _NEVER
        self._unanswered = 0
        self._untouched_seconds = self._looked = 0.0
        self._mark = self._settings_mark = _NOTHING

    @property
    def is_settled(self) -> bool:
        """Whether it runs and has answered once, if it is asked at all."""
        return bool(self.pid) and (self._has_answered or self.service.probe is None)

    @property
    def is_done(self) -> bool:
        """Whether it is wanted no more, and gone."""
        return not self.is_wanted and not self.pid

    @property
    def due(self) -> float:
        """The next moment at which something is to be done."""
        if self.pid:
            return self._kill_at if self._why else self._next_probe
        return self._next_start if self.is_wanted else _NEVER

    def sighting(self) -> Sighting:
        """Return what is known of it."""
        next_start_at = 0.0 if self.pid or not self.is_wanted else self._next_start_at
        return Sighting(self.service.name, self.pid, self._started_at, self._restarts, self._last_end, next_start_at)

    def take_over(self, service: Service) -> None:
        """Keep a service of the same name as the plan has it now."""
        old, self.service, self.is_wanted = self.service, service, True
        if (old.argv, dict(old.env), old.revision) == (service.argv, dict(service.env), service.revision):
            if old.probe != service.probe:
                self._next_probe, self._unanswered = time.monotonic() if service.probe else _NEVER, 0
            return
        self._streak = 0
        self._next_start = time.monotonic()
        if self.pid:
            self.end("changed", self._pace.stop_seconds)

    def drop(self, seconds: float) -> None:
        """End it for good."""
        self.is_wanted = False
        if self.pid:
            self.end("stopped", seconds)

    def end(self, why: str, seconds: float) -> None:
        """Tell it to end; by force after so many seconds."""
        if not self._why:
            self._journal.say(INFO, f"ending service={self.service.name} reason={why} pid={self.pid}")
            children.signal_group(self.pid, signal.SIGTERM)
        self._why = why
        self._kill_at = min(self._kill_at, time.monotonic() + max(0.0, seconds))

    def look(self) -> None:
        """Do what is due."""
        now = time.monotonic()
        if not self.pid:
            if self.is_wanted and (now >= self._next_start or self._settings_mark != _mark(self.service.settings_file)):
                self._start()
            return
        if now >= self._kill_at:
            self._kill_at = now + self._pace.look_seconds  # until it is seen to be gone
            children.signal_group(self.pid, signal.SIGKILL)
        if not self._why:
            self._look_at_file(now)
        if not self._why:
            self._look_at_probe(now)

    def ended(self, end: End) -> None:
        """Take note of its end, and decide when it is started again."""
        ran_seconds = time.monotonic() - self._started
        why, self._why, self.pid, self._kill_at = self._why, "", 0, _NEVER
        is_silent = why == "silent"
        self._last_end = why if is_silent else str(end)
        if why in {"changed", "stopped"}:
            self._journal.say(INFO, f"ended service={self.service.name} how={end}")
            self._next_start, self._is_planned = time.monotonic(), True
            return
        if ran_seconds >= self._pace.well_seconds:
            self._streak = 0
        self._wait(end.status, f"after_seconds={ran_seconds:.1f}", is_silent=is_silent)

    def _wait(self, status: int, more: str, *, is_silent: bool = False) -> None:
        luck = random.random()  # noqa: S311  (jitter)
        wait = wait_seconds(self._pace, status, self._streak, luck, is_silent=is_silent)
        self._streak += 1
        self._is_planned = False
        self._next_start, self._next_start_at = time.monotonic() + wait, round(time.time() + wait, 3)
        name = self.service.name
        self._journal.say(WARNING, f"ended service={name} how={self._last_end!r} {more} wait_seconds={wait:.1f}")

    def _start(self) -> None:
        service = self.service
        self._settings_mark = _mark(service.settings_file)  # before it is read: what changes from now on counts
        taken_away = {*_NO_SERVICES_BUSINESS, *(name for name, value in service.env.items() if not value)}
        environment = {**os.environ, **service.env}
        environment = {name: value for name, value in environment.items() if name not in taken_away}
        try:
            self.pid = children.start(service.argv, environment)
        except OSError as error:
            self._last_end = f"not started: {error.strerror}"
            self._wait(1, "pid=0")
            return
        self._started, self._started_at = time.monotonic(), round(time.time(), 3)
        self._restarts += not self._is_planned
        self._asker = Asker(self._wake)  # what a process before it still answers is not heard
        self._has_answered, self._unanswered = False, 0
        self._next_probe = self._started if service.probe else _NEVER
        self._untouched_seconds, self._looked, self._mark = 0.0, self._started, _mark(service.alive_file)
        self._journal.say(INFO, f"started service={service.name} pid={self.pid} restarts={self._restarts}")

    def _look_at_file(self, now: float) -> None:
        """End a process that has not touched its file for too long: not by the file's time, which may jump."""
        if not self.service.alive_file:
            return
        mark = _mark(self.service.alive_file)
        passed, self._looked = min(now - self._looked, _LONGEST_LOOK_SECONDS), now
        # Where nobody can write, as on a disk that an error has made read-only, an old file says nothing.
        is_silent = mark == self._mark and os.access(Path(self.service.alive_file).parent, os.W_OK)
        self._untouched_seconds = self._untouched_seconds + passed if is_silent else 0.0
        self._mark = mark
        if self._untouched_seconds > self.service.alive_seconds:
            self._silence(f"file={self.service.alive_file} untouched_seconds={self._untouched_seconds:.0f}")

    def _look_at_probe(self, now: float) -> None:
        probe = self.service.probe
        if probe is None:
            return
        answer = self._asker.take()
        is_counted = self._has_answered or now - self._started >= probe.grace_seconds
        if answer is not None:
            self._has_answered |= answer
            self._unanswered = self._unanswered + 1 if is_counted and not answer else 0
        if self._unanswered >= probe.failures:
            self._silence(f"unanswered={self._unanswered} url={probe.url}")
        elif now >= self._next_probe:
            is_hurried = not self._has_answered and not is_counted
            wait = min(probe.interval_seconds, self._pace.hurry_seconds) if is_hurried else probe.interval_seconds
            self._next_probe = now + wait
            self._asker.ask(probe)

    def _silence(self, more: str) -> None:
        self._why = "silent"
        self._kill_at = time.monotonic()
        self._journal.say(ERROR, f"killing service={self.service.name} reason=silent pid={self.pid} {more}")
        self.look()


def _mark(path: str) -> tuple[int, int]:
    """Return what changes when a file is touched."""
    try:
        found = Path(path).stat() if path else None
    except (OSError, ValueError):
        found = None
    return (found.st_ino, found.st_mtime_ns) if found else _NOTHING
