"""The supervisor: keeps the services of a plan running for years, and ends them in ten seconds.

It is process 1 of a site's container, or what systemd starts; everything else dies with it. Nothing but the standard
library and its neighbours that keep to it: no site package is even on its path, and it stays below 20 MB.

    python -I -S -c "…; main(sys.argv[1:])" FOLDER LOCK_HANDLE [PACE]
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from harbor_satellite.edge import children
from harbor_satellite.edge.keeper import Keeper
from harbor_satellite.edge.notices import ERROR, INFO, WARNING, Journal, Notifier
from harbor_satellite.edge.restarts import Pace
from harbor_satellite.edge.services import PLAN_FILE, ServicePlan, read_plan, write_sightings

if TYPE_CHECKING:
    from types import FrameType

    from harbor_satellite.edge.services import Sighting

_WAKE_BYTES: Final = 4096


class Supervisor:
    """The services of one satellite's folder, as their plan has them."""

    def __init__(self, folder: Path, pace: Pace, journal: Journal, notifier: Notifier) -> None:
        self._folder, self._pace, self._journal, self._notifier = folder, pace, journal, notifier
        self._keepers: dict[str, Keeper] = {}
        self._mark: tuple[int, int, int] | None = None
        self._seen: tuple[Sighting, ...] | None = None
        self._looked_at: list[Keeper] = []
        self._is_stopping = self._is_ready = False
        self._is_disk_good = self._is_plan_good = True
        self._woken, self._waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._started = self._fed = time.monotonic()

    def run(self) -> None:
        """Keep the services running until SIGTERM or SIGINT, then end them, the last one first."""
        self._listen()
        self._journal.say(INFO, f"supervising folder={self._folder} pid={os.getpid()}")
        while not self._is_stopping:
            self._look_at_plan()
            self._look_at_services()
            self._say()
            self._rest()
        self._stop()

    def _listen(self) -> None:
        """Have signals end the rest between two looks."""
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        signal.signal(signal.SIGHUP, self._on_reload)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)  # without a handler, nothing wakes us

    def _on_stop(self, _number: int, _frame: FrameType | None) -> None:
        self._is_stopping = True

    def _on_reload(self, _number: int, _frame: FrameType | None) -> None:
        self._mark = None

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # full: it wakes all the same
            os.write(self._waker, b"!")

    def _look_at_plan(self) -> None:
        """Take over the plan if its file is another one; what cannot be read changes nothing."""
        try:
            found = (self._folder / PLAN_FILE).stat()
        except OSError:
            return  # what runs goes on
        mark = (found.st_ino, found.st_mtime_ns, found.st_size)
        if mark == self._mark:
            return
        self._mark = mark
        try:
            plan = read_plan(self._folder)
        except ValueError as error:
            self._journal.say(ERROR, f"keeping the services as they are: the plan is damaged reason={error}")
        except OSError as error:
            self._mark = None  # the disk may be better soon
            if self._is_plan_good:
                self._journal.say(ERROR, f"keeping the services as they are: the plan cannot be read reason={error}")
            self._is_plan_good = False
        else:
            self._is_plan_good = True
            self._take_over(plan)

    def _take_over(self, plan: ServicePlan) -> None:
        keepers: dict[str, Keeper] = {}
        for service in plan.services:
            keeper = self._keepers.get(service.name)
            if keeper:
                keeper.take_over(service)
            keepers[service.name] = keeper or Keeper(service, self._pace, self._journal, self._wake)
        for name, keeper in self._keepers.items():
            if name not in keepers:
                keeper.drop(self._pace.stop_seconds)
                keepers[name] = keeper
        self._keepers = keepers
        self._journal.say(INFO, f"plan services={','.join(service.name for service in plan.services) or 'none'}")

    def _look_at_services(self) -> None:
        """Collect what ended, start what is due; at first, nobody before those whom the plan puts before it."""
        self._reap()
        self._keepers = {name: keeper for name, keeper in self._keepers.items() if not keeper.is_done}
        is_first = time.monotonic() < self._started + self._pace.hold_seconds and not self._is_ready
        self._looked_at = []
        for keeper in self._keepers.values():
            keeper.look()
            self._looked_at.append(keeper)
            if is_first and not keeper.is_settled:
                return

    def _reap(self) -> None:
        by_pid = {keeper.pid: keeper for keeper in self._keepers.values() if keeper.pid}
        for end in children.reap(by_pid):
            if end.pid in by_pid:
                by_pid[end.pid].ended(end)

    def _say(self) -> None:
        """Tell the service manager and whoever reads the file what is seen, if it is something new."""
        now = time.monotonic()
        if not self._is_ready and self._keepers:
            is_settled = all(keeper.is_settled for keeper in self._keepers.values())
            if is_settled or now >= self._started + self._pace.ready_seconds:
                self._is_ready = True
                self._notifier.tell("READY=1")
        seen = tuple(keeper.sighting() for keeper in self._keepers.values())
        if seen != self._seen:
            self._seen = seen
            self._notifier.tell(f"STATUS={_status(seen)}")
            self._write(seen)

    def _write(self, seen: tuple[Sighting, ...]) -> None:
        try:
            write_sightings(self._folder, seen)
        except OSError as error:
            if self._is_disk_good:
                self._journal.say(WARNING, f"cannot write what is seen: {error.strerror}")
            self._is_disk_good = False
        else:
            self._is_disk_good = True

    def _rest(self) -> None:
        """Sleep until something is due or happens, and show the service manager that we live."""
        now = time.monotonic()
        if self._notifier.watchdog_seconds and now >= self._fed + self._notifier.watchdog_seconds:
            self._notifier.tell("WATCHDOG=1")
            self._fed = now
        longest = min(self._pace.look_seconds, self._notifier.watchdog_seconds or self._pace.look_seconds)
        due = min((keeper.due - now for keeper in self._looked_at), default=longest)
        select.select([self._woken], [], [], max(0.0, min(due, longest)))
        with contextlib.suppress(BlockingIOError):
            os.read(self._woken, _WAKE_BYTES)

    def _stop(self) -> None:
        self._notifier.tell("STOPPING=1", "STATUS=stopping")
        self._journal.say(INFO, "stopping")
        deadline = time.monotonic() + self._pace.stop_seconds
        order = list(reversed(self._keepers.values()))
        for keeper in order:
            keeper.is_wanted = False  # nobody is started again from here on
        for position, keeper in enumerate(order):
            kept = self._pace.share_seconds * (len(order) - position - 1)
            share = max(0.0, deadline - time.monotonic() - kept)
            keeper.drop(share)
            self._looked_at = [keeper]
            # What no SIGKILL ends hangs in the kernel: nothing here waits for that.
            give_up = min(time.monotonic() + share + self._pace.share_seconds, deadline + self._pace.share_seconds / 3)
            while keeper.pid and time.monotonic() < give_up:
                keeper.look()
                self._rest()
                self._reap()
        children.kill_all()
        self._write(tuple(keeper.sighting() for keeper in reversed(order)))
        self._journal.say(INFO, f"stopped seconds={time.monotonic() - deadline + self._pace.stop_seconds:.1f}")


def main(arguments: list[str]) -> None:
    """Supervise a satellite's folder; returns once everything is stopped.

    Args:
        arguments: the folder, the descriptor of the lock that is held for this process's life (-1: none), and, in
            tests, a pace as a JSON object.
    """
    folder, lock = Path(arguments[0]), int(arguments[1])
    if lock >= 0:
        os.set_inheritable(lock, False)  # a child that outlives us must not hold it
    pace = Pace(**json.loads(arguments[2])) if len(arguments) > 2 else Pace()  # noqa: PLR2004
    children.adopt_orphans()
    Supervisor(folder, pace, Journal(os.environ), Notifier(os.environ)).run()
    sys.stdout.flush()
    os._exit(0)  # a probe's thread may still wait


def _status(seen: tuple[Sighting, ...]) -> str:
    return ", ".join(
        f"{one.name} runs" if one.pid else f"{one.name} waits after {one.last_end or 'nothing'}" for one in seen
    )
