"""What there is to see of a site: values, and their JSON with stable keys. Pure.

No secret is among them: whoever can reach the page may read all of it. What is wrong is in ``health``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass
from datetime import datetime
from typing import Any, Final

IMAGES_MAX: Final = 10_000
"""Images that are listed; of more, the first by name."""


@dataclass(frozen=True, slots=True)
class RegistrationStatus:
    """As whom the site is registered."""

    satellite: str
    source_url: str
    """The central registry."""
    state: str
    """Reference of the satellite state that it follows."""
    registered_at: datetime | None = None
    """Or when its credential was renewed last."""
    credential_expires_at: datetime | None = None
    """None: never, or the centre did not say."""


@dataclass(frozen=True, slots=True)
class GroupStatus:
    """Which generation of a group the site follows."""

    group: str
    generation: int = 0
    digest: str = ""


@dataclass(frozen=True, slots=True)
class StateStatus:
    """What the site follows."""

    digest: str = ""
    """Of the satellite state that was followed last; empty: none ever."""
    is_converged: bool = False
    """Whether the site is wholly on it."""
    applied_at: datetime | None = None
    """When the site last became wholly one with its state."""
    published_at: datetime | None = None
    """When tags last moved to what a state says."""
    groups: tuple[GroupStatus, ...] = ()
    is_rolled_back: bool = False
    config_digest: str = ""
    """Of the centre's config that is applied; empty: it said nothing."""


@dataclass(frozen=True, slots=True)
class LastRunStatus:
    """How the last run went."""

    finished_at: datetime
    seconds: float
    outcome: str
    """``done``, ``failed`` or ``paused``."""
    summary: str
    bytes_from_source: int = 0
    copied_count: int = 0
    deleted_count: int = 0


@dataclass(frozen=True, slots=True)
class RunStatus:
    """When the site replicates, and how that went."""

    schedule: str = ""
    """5-field cron; empty: none."""
    timezone: str = "UTC"
    next_at: datetime | None = None
    """When the next one is due, without its jitter."""
    overdue_since: datetime | None = None
    """A run was due then, and long afterwards none has come."""
    running_since: datetime | None = None
    """None: none is under way."""
    last: LastRunStatus | None = None
    failing_since: datetime | None = None
    """When the first of the runs ended that failed as a whole, one after the other; None: the last one did not."""


@dataclass(frozen=True, slots=True)
class ImageStatus:
    """One image in the local registry."""

    reference: str
    size_bytes: int | None = None
    """None: its state does not say."""


@dataclass(frozen=True, slots=True)
class ImagesStatus:
    """What this satellite has put into the local registry."""

    count: int = 0
    size_bytes: int = 0
    """Of all; layers that images share count for each of them."""
    listed: tuple[ImageStatus, ...] = ()


@dataclass(frozen=True, slots=True)
class FailureStatus:
    """One image that could not be brought."""

    reference: str
    reason: str
    since: datetime | None = None
    """None: it failed in the last run for the first time, or nobody kept it."""
    retry_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class DiskStatus:
    """The disk that the local registry fills."""

    path: str
    free_bytes: int
    """For an ordinary user."""
    used_bytes: int
    total_bytes: int
    reserve_bytes: int
    """What a replication leaves free."""


@dataclass(frozen=True, slots=True)
class LinkStatus:
    """The way to the centre, and what it may carry."""

    measured_bytes_per_second: int | None = None
    """By the last run that read enough to tell."""
    limit_bytes_per_second: int | None = None
    away_since: datetime | None = None
    """Ground Control is out of reach since then; None: it answered last time."""
    away_reason: str = ""
    refused_since: datetime | None = None
    """Ground Control does not take the credential, or the one-time token; None: it does."""
    refused_reason: str = ""
    bytes_today: int = 0
    daily_bytes: int | None = None
    """The cap; None: none."""
    bytes_this_month: int = 0
    monthly_bytes: int | None = None
    windows: tuple[str, ...] = ()
    """When bytes may move; empty: always."""
    is_open: bool = True
    opens_at: datetime | None = None
    """When the next window opens; None: one is open."""
    closes_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class RegistryStatus:
    """The local registry."""

    kind: str
    url: str
    is_answering: bool
    reason: str = ""
    """Why it does not."""
    next_kind: str = ""
    """Another kind that takes over once all content was copied to it; empty: none."""
    problem: str = ""
    """Why it could not be set up as the settings say; empty: it is."""


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """A process that the supervisor keeps running."""

    name: str
    is_running: bool
    pid: int = 0
    started_at: datetime | None = None
    restarts: int = 0
    """Since the supervisor started."""
    last_end: str = ""
    next_start_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class RuntimeStatus:
    """A container runtime that pulls from the local registry."""

    name: str
    applied_at: datetime | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class SiteStatus:
    """What there is to see of a site at one moment."""

    made_at: datetime
    version: str
    ground_control_url: str
    disk: DiskStatus | None
    """None: it does not say."""
    registry: RegistryStatus
    registration: RegistrationStatus | None = None
    is_registration_readable: bool = True
    """False: there is one, and ``damaged`` says why nobody can read it."""
    state: StateStatus = field(default_factory=StateStatus)
    runs: RunStatus = field(default_factory=RunStatus)
    images: ImagesStatus = field(default_factory=ImagesStatus)
    failures: tuple[FailureStatus, ...] = ()
    link: LinkStatus = field(default_factory=LinkStatus)
    agent_alive_at: datetime | None = None
    """When the agent last showed that it is well; None: it never ran here."""
    services: tuple[ServiceStatus, ...] = ()
    receipts_waiting: int = 0
    """What runs did, and the centre does not know yet."""
    runtimes: tuple[RuntimeStatus, ...] = ()
    damaged: tuple[str, ...] = ()
    """What could not be read, and why."""


def plain(value: Any) -> Any:
    """Write a status, or a part of one, as what JSON knows; times in ISO 8601."""
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: plain(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return value.isoformat() if isinstance(value, datetime) else value


def duration(seconds: float) -> str:
    """Write a duration as people say it: ``45 s``, ``12 min``, ``3 h``, ``5 days``."""
    for limit, size, unit in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{max(0, seconds) / size:.0f} {unit}"
    return f"{seconds / 86_400:.0f} days"


def ago(moment: datetime, now: datetime) -> str:
    """Say how far a moment is from another: ``12 min ago``, ``in 3 h`` or ``now``."""
    seconds = (now - moment).total_seconds()
    if abs(seconds) < 1:
        return "now"
    return f"{duration(seconds)} ago" if seconds > 0 else f"in {duration(-seconds)}"
