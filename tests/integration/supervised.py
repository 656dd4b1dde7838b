"""A real supervisor over small real children, at a pace that a test can wait for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Self

from harbor_satellite.edge.launch import supervisor_argv
from harbor_satellite.edge.services import Service, ServicePlan, Sighting, read_sightings, write_plan

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

PACE: Final = {
    "first_wait_seconds": 0.05,
    "longest_wait_seconds": 0.2,
    "configuration_wait_seconds": 30.0,
    "well_seconds": 0.5,
    "look_seconds": 0.05,
    "hurry_seconds": 0.02,
    "hold_seconds": 0.5,
    "ready_seconds": 0.5,
    "stop_seconds": 2.0,
    "share_seconds": 0.5,
}
SLEEP: Final = ("sleep", "1000")
DEAF: Final = ("sh", "-c", "trap '' TERM; while :; do sleep 1000 & wait; done")
_WAIT_SECONDS: Final = 20.0


def service(name: str, *argv: str, **more: Any) -> Service:
    return Service(name, argv, **more)


def python(name: str, program: str, **more: Any) -> Service:
    return Service(name, (sys.executable, "-I", "-S", "-c", program), **more)


class Supervised:
    """A supervisor at work in a folder."""

    def __init__(
        self, folder: Path, *services: Service, pace: Mapping[str, float] | None = None, **environment: str
    ) -> None:
        self.folder = folder
        self.plan(*services)
        with (folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*supervisor_argv(folder, -1), json.dumps({**PACE, **(pace or {})})],
                env={**os.environ, "HARBOR_SATELLITE_LOG_LEVEL": "INFO", **environment},
                stdout=log,
                stderr=log,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def plan(self, *services: Service) -> None:
        write_plan(self.folder, ServicePlan(services))

    def seen(self, name: str) -> Sighting:
        found = [one for one in read_sightings(self.folder) if one.name == name]
        return found[0] if found else Sighting(name)

    def wait(self, what: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + _WAIT_SECONDS
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log
            if found := what():
                return found
            time.sleep(0.01)
        raise AssertionError(self.log)

    def running(self, name: str, *, not_pid: int = 0, restarts: int = 0) -> Sighting:
        """Wait until a service runs, as another process than that one, started again so often."""

        def found() -> Sighting | None:
            seen = self.seen(name)
            return seen if seen.pid and seen.pid != not_pid and seen.restarts >= restarts else None

        sighting = self.wait(found)
        assert isinstance(sighting, Sighting)
        return sighting

    def stop(self) -> tuple[int, float]:
        """Send SIGTERM; return the exit status and the seconds it took."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(_WAIT_SECONDS)
        return status, time.monotonic() - began


def is_gone(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def became(process: int, name: str) -> bool:
    """Tell whether a process has become its program already."""
    with open(f"/proc/{process}/comm") as file:  # noqa: PTH123
        return file.read().strip() == name


__all__ = ["DEAF", "PACE", "SLEEP", "Supervised", "became", "is_gone", "python", "replace", "service"]
