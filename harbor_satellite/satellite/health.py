"""What is wrong with a site, since when, and what to do about it: decided from its status. Pure."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal

from harbor_satellite.satellite.disk import show_bytes
from harbor_satellite.satellite.status import duration, plain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harbor_satellite.satellite.status import ServiceStatus, SiteStatus

Severity = Literal["failing", "attention"]
Health = Literal["well", "attention", "failing"]

AGENT_SILENT_SECONDS: Final = 120.0
"""The agent shows that it is well every half minute."""
_EXPIRY_WARNING: Final = timedelta(days=3)
_RESTARTS_MANY: Final = 3
_RESTART_RECENT: Final = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong."""

    kind: str
    """A word that stays the same from release to release."""
    severity: Severity
    """``attention``: the site does its work, somebody should look all the same."""
    text: str
    since: datetime | None = None
    advice: str = ""


def problems_of(status: SiteStatus) -> tuple[Problem, ...]:
    """Return what is wrong, the worst first."""
    found = [*_basics(status), *_processes(status), *_runs(status), *_room(status), *_link(status)]
    return tuple(sorted(found, key=lambda problem: problem.severity != "failing"))


def health_of(problems: tuple[Problem, ...]) -> Health:
    """Return the one word for a site."""
    return problems[0].severity if problems else "well"


def is_agent_well(status: SiteStatus) -> bool:
    """Tell whether the agent has shown lately that it is well; a clock that was put back shows nothing."""
    alive_at = status.agent_alive_at
    return alive_at is not None and abs((status.made_at - alive_at).total_seconds()) <= AGENT_SILENT_SECONDS


def not_ready(status: SiteStatus) -> tuple[str, ...]:
    """Say why containers cannot be pulled here as the centre wants it; nothing: they can."""
    reasons = []
    if not status.registry.is_answering:
        reasons.append(f"the local registry does not answer: {status.registry.reason}")
    if status.registration is None:
        reasons.append("this site is not registered")
    if not status.state.digest:
        reasons.append("no state was applied yet")
    return tuple(reasons)


def status_json(status: SiteStatus) -> bytes:
    """Write a status with what is wrong, for machines."""
    problems = problems_of(status)
    document = {"health": health_of(problems), "problems": plain(problems), **plain(status)}
    return json.dumps(document, indent=1).encode() + b"\n"


def _basics(status: SiteStatus) -> Iterator[Problem]:
    for text in status.damaged:
        yield Problem("damaged", "failing", f"Cannot be read: {text}")
    registration = status.registration
    if registration is None:
        if status.is_registration_readable:
            reason = status.link.away_reason or "it knows no state and has no credential"
            yield Problem(
                "not_registered",
                "failing",
                f"This site is not registered: {reason}",
                status.link.away_since,
                "harbor-satellite edge register --ground-control URL --token-file FILE",
            )
        return
    expires_at = registration.credential_expires_at
    if expires_at and expires_at <= status.made_at:
        yield Problem("credential_expired", "failing", "The credential for the central registry has ended", expires_at)
    elif expires_at and expires_at - status.made_at < _EXPIRY_WARNING:
        left = duration((expires_at - status.made_at).total_seconds())
        yield Problem("credential_ends", "attention", f"The credential ends in {left} and was not renewed")
    if not status.state.digest and not status.runs.failing_since:
        is_running = status.runs.running_since is not None
        text = "The first replication is under way" if is_running else "Nothing was replicated here yet"
        yield Problem("never_applied", "attention" if is_running else "failing", text, status.runs.running_since)


def _processes(status: SiteStatus) -> Iterator[Problem]:
    alive_at = status.agent_alive_at
    if alive_at and not is_agent_well(status):
        advice = "systemctl status harbor-satellite; or start it: harbor-satellite edge run"
        yield Problem("agent_down", "failing", "The agent does not run, or hangs", alive_at, advice)
    if not status.registry.is_answering:
        text = f"The local registry at {status.registry.url} does not answer: {status.registry.reason}"
        yield Problem("registry_silent", "failing", text)
    if status.registry.problem:
        text = f"The local registry is not set up as the settings say: {status.registry.problem}"
        yield Problem("registry_setup", "attention", text)
    for service in status.services:
        yield from _service(service, status.made_at)
    for runtime in status.runtimes:
        if runtime.problem:
            yield Problem("runtime", "attention", f"{runtime.name} is not set up: {runtime.problem}")


def _service(service: ServiceStatus, now: datetime) -> Iterator[Problem]:
    end = f", it ended with {service.last_end}" if service.last_end else ""
    if not service.is_running:
        yield Problem("service_down", "failing", f"The service {service.name} does not run{end}")
    elif service.restarts >= _RESTARTS_MANY and service.started_at and now - service.started_at < _RESTART_RECENT:
        text = f"The service {service.name} was started again {service.restarts} times{end}"
        yield Problem("service_restarts", "attention", text, service.started_at)


def _runs(status: SiteStatus) -> Iterator[Problem]:
    runs, last = status.runs, status.runs.last
    if runs.failing_since and last:
        yield Problem("run_failed", "failing", f"Replication fails: {last.summary}", runs.failing_since)
    if status.failures:
        first, count = status.failures[0], len(status.failures)
        what = "1 image" if count == 1 else f"{count} images"
        since = min((failure.since for failure in status.failures if failure.since), default=None)
        text = f"{what} could not be brought, such as {first.reference}: {first.reason}"
        yield Problem(
            "images_failed", "failing", text, since, f"harbor-satellite edge why {shlex.quote(first.reference)}"
        )
    is_told = bool(status.failures or runs.failing_since) or not status.state.digest
    if not status.state.is_converged and not is_told:
        yield Problem("not_converged", "attention", "The site is not wholly on its state yet", status.state.applied_at)
    if status.state.is_rolled_back:
        text = "The site stays on its previous generation until the centre publishes another: somebody went back"
        yield Problem("rolled_back", "attention", text, status.state.published_at)
    if runs.overdue_since and not runs.running_since:
        yield Problem("run_overdue", "attention", "A run was due and has not come", runs.overdue_since)


def _room(status: SiteStatus) -> Iterator[Problem]:
    disk = status.disk
    if disk is None:
        yield Problem("disk_unknown", "failing", "The disk of the local registry does not say how full it is")
    elif disk.free_bytes <= disk.reserve_bytes:
        text = (
            f"The disk is nearly full: {show_bytes(disk.free_bytes)} are free on {disk.path}, and the last "
            f"{show_bytes(disk.reserve_bytes)} stay in reserve, so nothing more is brought"
        )
        yield Problem("disk_full", "failing", text)
    elif disk.free_bytes <= 2 * disk.reserve_bytes:
        left = show_bytes(disk.free_bytes - disk.reserve_bytes)
        yield Problem("disk_filling", "attention", f"{left} more can be brought before the disk is full")


def _link(status: SiteStatus) -> Iterator[Problem]:
    link = status.link
    if link.away_since and status.registration:
        waiting = f"; {status.receipts_waiting} reports wait" if status.receipts_waiting else ""
        text = f"Ground Control is out of reach: {link.away_reason}{waiting}"
        yield Problem("centre_away", "attention", text, link.away_since)
    if link.refused_since:
        advice = "harbor-satellite edge register --again --token-file FILE"
        text = f"Ground Control refuses this site: {link.refused_reason}"
        yield Problem("refused", "failing", text, link.refused_since, advice)
