"""A site's status in words, for the terminal and the page alike. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING, Final

from harbor_satellite.errors import InvalidInputError
from harbor_satellite.satellite.disk import show_bytes
from harbor_satellite.satellite.status import ago
from harbor_satellite.state.windows import load_zone

if TYPE_CHECKING:
    from datetime import datetime, tzinfo

    from harbor_satellite.satellite.status import LinkStatus, ServiceStatus, SiteStatus

HEADLINES: Final = {
    "well": "All is well",
    "attention": "Works, needs attention",
    "failing": "Something is wrong",
}
_DIGEST_SHOWN: Final = len("sha256:") + 12
_GROUPS_SHOWN: Final = 12


@dataclass(frozen=True, slots=True)
class Section:
    """What is said about one matter."""

    title: str
    rows: tuple[tuple[str, str], ...]
    """Label and text."""


class Clock:
    """Writes moments as the clock on the site's wall shows them, and how long ago they were.

    Args:
        status: whose moment and time zone count.
    """

    def __init__(self, status: SiteStatus) -> None:
        self._now = status.made_at
        self.zone: tzinfo = UTC
        try:
            self.zone = load_zone(status.runs.timezone)
        except InvalidInputError:  # told by whoever collected the status
            self.zone = UTC

    def show(self, moment: datetime) -> str:
        """Write a moment, such as ``Mon 23 Nov 08:12 CET``; the year only where it is another one."""
        local, now = moment.astimezone(self.zone), self._now.astimezone(self.zone)
        year = "" if local.year == now.year else f" {local.year}"
        return f"{local:%a} {local.day} {local:%b}{year} {local:%H:%M %Z}"

    def ago(self, moment: datetime) -> str:
        """Write how long ago a moment was."""
        return ago(moment, self._now)

    def both(self, moment: datetime | None, otherwise: str = "never") -> str:
        """Write a moment, and how long ago it was."""
        return f"{self.show(moment)}, {self.ago(moment)}" if moment else otherwise


def sections_of(status: SiteStatus) -> tuple[Section, ...]:
    """Return everything there is to say, but for problems and lists of images."""
    clock = Clock(status)
    return (
        Section("Follows", _followed(status, clock)),
        Section("Replication", _runs(status, clock)),
        Section("Link", _link(status, clock)),
        Section("Here", _here(status, clock)),
        Section("Site", _site(status, clock)),
    )


def short(digest: str) -> str:
    """Return as much of a digest as tells it from others."""
    return digest[:_DIGEST_SHOWN]


def _followed(status: SiteStatus, clock: Clock) -> tuple[tuple[str, str], ...]:
    state = status.state
    if not state.digest:
        return (("state", "none was ever applied"), ("groups", "none"))
    groups = [f"{group.group} {group.generation or ''}".strip() for group in state.groups]
    more = f" and {len(groups) - _GROUPS_SHOWN} more" if len(groups) > _GROUPS_SHOWN else ""
    return (
        ("state", f"{short(state.digest)}, {'wholly applied' if state.is_converged else 'NOT wholly applied'}"),
        ("whole since" if state.is_converged else "last whole", clock.both(state.applied_at)),
        ("tags moved", clock.both(state.published_at)),
        ("groups", (", ".join(groups[:_GROUPS_SHOWN]) + more) or "none"),
        ("config", short(status.state.config_digest) or "the centre says nothing"),
    )


def _runs(status: SiteStatus, clock: Clock) -> tuple[tuple[str, str], ...]:
    runs, last = status.runs, status.runs.last
    said = [("schedule", f"{runs.schedule} ({runs.timezone})" if runs.schedule else "none")]
    if runs.running_since:
        said.append(("under way", f"since {clock.both(runs.running_since)}"))
    said += [
        ("next run", clock.both(runs.next_at, "none")),
        ("last run", clock.both(last.finished_at if last else None)),
    ]
    if last:
        said.append(("outcome", f"{last.outcome}: {last.summary}"))
    return tuple(said)


def _link(status: SiteStatus, clock: Clock) -> tuple[tuple[str, str], ...]:
    link = status.link
    answered = "answered last time" if status.registration else "this site is not registered there"
    away = f"out of reach since {clock.both(link.away_since)}" if link.away_since else answered
    measured = _rate(link.measured_bytes_per_second) if link.measured_bytes_per_second else "not measured yet"
    limit = f", limited to {_rate(link.limit_bytes_per_second)}" if link.limit_bytes_per_second else ""
    waiting = f"{status.receipts_waiting} waiting" if status.receipts_waiting else "none waiting"
    return (
        ("centre", away if status.ground_control_url or link.away_since else "none is set"),
        ("speed", f"{measured}{limit}"),
        ("read today", _of(link.bytes_today, link.daily_bytes)),
        ("this month", _of(link.bytes_this_month, link.monthly_bytes)),
        ("sync windows", _windows(link, clock)),
        ("reports", waiting),
    )


def _windows(link: LinkStatus, clock: Clock) -> str:
    if not link.windows:
        return "always open"
    if link.is_open:
        until = f" until {clock.both(link.closes_at)}" if link.closes_at else ""
        return f"open{until} ({'; '.join(link.windows)})"
    return f"closed, next {clock.both(link.opens_at, 'not within two weeks')} ({'; '.join(link.windows)})"


def _here(status: SiteStatus, clock: Clock) -> tuple[tuple[str, str], ...]:
    disk, registry = status.disk, status.registry
    said = [("images", f"{status.images.count}, {show_bytes(status.images.size_bytes)}")]
    if disk:
        free = f"{show_bytes(disk.free_bytes)} free of {show_bytes(disk.total_bytes)} on {disk.path}"
        said.append(("disk", f"{free}; {show_bytes(disk.reserve_bytes)} in reserve"))
    answers = "answers" if registry.is_answering else f"DOES NOT ANSWER: {registry.reason}"
    moving = f"; {registry.next_kind} takes over once all is copied" if registry.next_kind else ""
    said.append(("registry", f"{registry.kind} at {registry.url} {answers}{moving}"))
    said.append(
        ("agent", f"was well {clock.ago(status.agent_alive_at)}" if status.agent_alive_at else "never ran here")
    )
    said += [(f"{service.name} process", _service(service, clock)) for service in status.services]
    said += [
        (runtime.name, runtime.problem or f"set up {clock.both(runtime.applied_at, 'once')}")
        for runtime in status.runtimes
    ]
    return tuple(said)


def _service(service: ServiceStatus, clock: Clock) -> str:
    running = (
        f"runs since {clock.both(service.started_at)} (pid {service.pid})" if service.is_running else "DOES NOT RUN"
    )
    times = "once" if service.restarts == 1 else f"{service.restarts} times"
    restarts = f", started again {times}" if service.restarts else ""
    return f"{running}{restarts}{f', last end: {service.last_end}' if service.last_end else ''}"


def _site(status: SiteStatus, clock: Clock) -> tuple[tuple[str, str], ...]:
    registration = status.registration
    said: tuple[tuple[str, str], ...] = (("registered as", "not registered"),)
    if registration:
        said = (
            ("registered as", registration.satellite),
            ("since", clock.both(registration.registered_at, "not known")),
            ("credential", f"ends {clock.both(registration.credential_expires_at)}"),
            ("source", registration.source_url),
            ("state at", registration.state),
        )
    return (*said, ("Ground Control", status.ground_control_url or "none is set"), ("version", status.version))


def _of(count: int, cap: int | None) -> str:
    return show_bytes(count) if cap is None else f"{show_bytes(count)} of {show_bytes(cap)}"


def _rate(count: int) -> str:
    return f"{show_bytes(count)}/s"
