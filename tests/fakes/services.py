"""A supervisor in small: starts and stops the processes of a site's plan as it changes, without probes and waits."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from typing import TYPE_CHECKING, Self

from harbor_satellite.edge.services import ServicePlan, Sighting, read_plan, write_sightings

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from harbor_satellite.edge.services import Service

_LOOK_SECONDS = 0.02
_STOP_SECONDS = 10.0


class PlannedServices:
    """Runs the registries of a site's plan while the context lasts; the agent is the test itself."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: dict[str, tuple[Service, subprocess.Popen[bytes]]] = {}
        self._seen: tuple[Sighting, ...] = ()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join()
        for name in list(self._running):
            self._stop(name)

    def _work(self) -> None:
        plan = ServicePlan()
        while not self._stopping.wait(_LOOK_SECONDS):
            with contextlib.suppress(ValueError, OSError):
                plan = read_plan(self._folder)
            self._follow({service.name: service for service in plan.services if service.name != "agent"})

    def _follow(self, wanted: dict[str, Service]) -> None:
        for name, (service, process) in list(self._running.items()):
            if wanted.get(name) is None or _differ(wanted[name], service) or process.poll() is not None:
                self._stop(name)
        for name, service in wanted.items():
            if name not in self._running:
                environment = {key: value for key, value in {**os.environ, **service.env}.items() if value}
                with (self._folder / f"{name}.log").open("ab") as log:
                    process = subprocess.Popen(service.argv, env=environment, stdout=log, stderr=log)
                self._running[name] = service, process
        seen = tuple(Sighting(name, process.pid) for name, (_, process) in self._running.items())
        if seen != self._seen:
            self._seen = seen
            write_sightings(self._folder, seen)

    def _stop(self, name: str) -> None:
        _, process = self._running.pop(name)
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _differ(one: Service, other: Service) -> bool:
    return (one.argv, one.env, one.revision) != (other.argv, other.env, other.revision)
