"""What the supervisor keeps running: a plan, as a file that others write and it reads; and what became of it.

Plain values and JSON. The supervisor imports this, so it must need nothing but the standard library.
"""

from __future__ import annotations

import json
import os
import threading
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

PLAN_FILE: Final = "services.json"
"""In the satellite's folder, 0600: the plan may hold a probe's credential, of a user who may only read."""
SIGHTINGS_FILE: Final = "services-seen.json"
"""In the satellite's folder: what the supervisor saw last."""
ALIVE_FILE: Final = "agent.alive"
"""In the satellite's folder: the agent touches it while it is well."""
RESTART_NOW: Final = 75
"""Exit status by which a service asks to be started again at once (EX_TEMPFAIL)."""
_PRIVATE_FILE: Final = 0o600


@dataclass(frozen=True, slots=True)
class Probe:
    """A request that a service must answer, whatever the status; silence ends it."""

    url: str
    """A GET is sent."""
    headers: Mapping[str, str] = field(default_factory=dict)
    address: str = ""
    """Where to connect to, whatever the URL's host is: a name may not resolve while the uplink is out; empty: that
    host."""
    certificate: str = ""
    """A PEM file with the certificate that the service shows: to nobody else a request is sent; empty: to anybody."""
    interval_seconds: float = 10.0
    timeout_seconds: float = 5.0
    failures: int = 3
    """So many silent probes in a row, and the service is killed and started again."""
    grace_seconds: float = 60.0
    """After a start, silence counts only from then on, or from the first answer."""


@dataclass(frozen=True, slots=True)
class Service:
    """One child process that is to run for ever."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    """Added to the supervisor's own; an empty value takes a variable away."""
    revision: str = ""
    """Of the configuration that the process reads at its start: another one restarts it."""
    probe: Probe | None = None
    alive_file: str = ""
    """A file that the process touches while it is well; empty: none."""
    alive_seconds: float = 300.0
    """So long without a touch, and the process is killed and started again."""
    settings_file: str = ""
    """A file that people write: when it changes while the process waits for its next start, it is started at once."""


@dataclass(frozen=True, slots=True)
class ServicePlan:
    """All services, in the order of their start; they are stopped in the other order."""

    services: tuple[Service, ...] = ()


@dataclass(frozen=True, slots=True)
class Sighting:
    """What the supervisor knows of one service."""

    name: str
    pid: int = 0
    """0: it does not run now."""
    started_at: float = 0.0
    """Seconds since the epoch."""
    restarts: int = 0
    """Since the supervisor started; those are not counted that the plan asked for."""
    last_end: str = ""
    """How it ended last, such as ``exit 1``, ``signal 9`` or ``silent``; empty: it never has."""
    next_start_at: float = 0.0
    """Seconds since the epoch; 0: it runs."""


def read_plan(folder: Path) -> ServicePlan:
    """Read the plan of a satellite's folder; an empty one if there is none.

    Raises:
        ValueError: the file is damaged.
        OSError: it cannot be read.
    """
    try:
        document = json.loads((folder / PLAN_FILE).read_bytes())
    except FileNotFoundError:
        return ServicePlan()
    try:
        services = tuple(_service(item) for item in document["services"])
        if len({service.name for service in services}) < len(services):
            raise ValueError(f"{folder / PLAN_FILE}: two services of one name")
        return ServicePlan(services)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder / PLAN_FILE}: {error!r}") from error


def write_plan(folder: Path, plan: ServicePlan) -> None:
    """Keep a plan, atomically; the supervisor takes it over within a second or two."""
    # To the disk: where the settings are wrong after a power cut, this is what a registry is started by.
    _write(folder / PLAN_FILE, {"services": [asdict(service) for service in plan.services]}, is_lasting=True)


def read_sightings(folder: Path) -> tuple[Sighting, ...]:
    """Read what the supervisor saw last; nothing if it never ran, or the file is damaged."""
    try:
        document = json.loads((folder / SIGHTINGS_FILE).read_bytes())
        return tuple(Sighting(**item) for item in document["services"])
    except (OSError, ValueError, KeyError, TypeError):
        return ()


def running_services(folder: Path) -> frozenset[str]:
    """Return the names of the services that run now, by what the supervisor saw last.

    That may be from before a power cut, and the number of a process is given again: a service is a child of the
    supervisor that saw it, and nothing else is.
    """
    try:
        supervisor = int(json.loads((folder / SIGHTINGS_FILE).read_bytes())["supervisor"])
    except (OSError, ValueError, KeyError, TypeError):
        return frozenset()
    return frozenset(seen.name for seen in read_sightings(folder) if seen.pid and _parent(seen.pid) == supervisor)


def write_sightings(folder: Path, sightings: tuple[Sighting, ...]) -> None:
    """Keep what this process, the supervisor, saw, atomically."""
    services = [asdict(sighting) for sighting in sightings]
    _write(folder / SIGHTINGS_FILE, {"supervisor": os.getpid(), "services": services})


def _parent(pid: int) -> int | None:
    """Return the parent of a process; None: there is no such process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return int(fields[1])
    except (OSError, ValueError, IndexError):
        return None


def _service(item: dict[str, Any]) -> Service:
    said = item["probe"]
    probe = Probe(**said) if said else None
    service = Service(**{**item, "argv": tuple(item["argv"]), "probe": probe})
    if not service.argv or not all(name and "=" not in name for name in service.env):
        raise ValueError(f"service {service.name}: no argv, or a variable without a name")
    for text in (service.name, *service.argv, *service.env, *service.env.values()):
        if b"\0" in os.fsencode(text):  # which raises for what is no text
            raise ValueError(f"service {service.name}: a text that no process can be given")
    numbers = (probe.interval_seconds, probe.timeout_seconds, probe.failures, probe.grace_seconds) if probe else ()
    if not all(number >= 0 for number in (service.alive_seconds, *numbers)):
        raise ValueError(f"service {service.name}: a time before its beginning")
    return service


def _write(path: Path, document: dict[str, Any], *, is_lasting: bool = False) -> None:
    # Not by `tempfile`: with it come five packers, and the supervisor is to be small.
    temporary = path.with_name(f".{path.name}-{os.getpid()}-{threading.get_ident()}")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, _PRIVATE_FILE)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(document, file)
            if is_lasting:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
