"""Collecting a site's status from its disk, and by one short question to the local registry.

Works while the agent is down, on damaged files (it says which) and before the site is registered. Files are read as
they are, not as the values that runs make of them: ten thousand images cost a tenth of a second so. Nothing is written.
"""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, TypeVar, cast

from harbor_satellite import __version__
from harbor_satellite.edge.own_registry import load_current
from harbor_satellite.edge.probe import is_answered
from harbor_satellite.edge.services import ALIVE_FILE, Probe, read_plan, read_sightings, running_services
from harbor_satellite.edge.site import effective_settings
from harbor_satellite.edge.status_files import (
    APPLIED_FILE,
    STANDING_FILE,
    AppliedStatus,
    StandingStatus,
    read_applied,
    read_ledger,
    read_link_rate,
    read_rested,
    read_runtimes,
    read_standing,
    with_later,
)
from harbor_satellite.errors import HarborSatelliteError, NotFoundError
from harbor_satellite.satellite.centre_contact import CentreContact, load_contact
from harbor_satellite.satellite.files import file_mark
from harbor_satellite.satellite.registration import refusal
from harbor_satellite.satellite.schedule import effective_schedule, next_run
from harbor_satellite.satellite.site_config import SiteConfig, load_site_config
from harbor_satellite.satellite.spool import Spool
from harbor_satellite.satellite.status import (
    DiskStatus,
    LinkStatus,
    RegistrationStatus,
    RegistryStatus,
    RunStatus,
    ServiceStatus,
    SiteStatus,
)
from harbor_satellite.satellite.store import RegisteredBy, SatelliteStore
from harbor_satellite.state.windows import SyncWindows

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harbor_satellite.settings import SatelliteSettings
    from harbor_satellite.state.wire import Registration

PROBE_SECONDS: Final = 2.0
_REGISTRY_SERVICE: Final = "registry"
_OVERDUE_AFTER: Final = timedelta(hours=1)
"""More than jitter, the timer's patience and a poll of the worker take together."""

T = TypeVar("T")


class StatusReader:
    """Collects the status of one site; keeps what it read of a file for as long as the file is the same.

    Args:
        settings: gives the site's own; what the centre's config says is laid over them each time.
        ask: whether a service answers; for tests.
    """

    def __init__(self, settings: Callable[[], SatelliteSettings], ask: Callable[[Probe], bool] = is_answered) -> None:
        self._settings = settings
        self._ask = ask
        self._store = SatelliteStore(settings().data_dir)
        self._damaged: dict[str, None] = {}
        self._kept: dict[str, tuple[object, object]] = {}

    def read(self, now: datetime) -> SiteStatus:
        """Return the status at a moment (in UTC); never raises for what is on the disk."""
        self._damaged = {}
        store = self._store
        registration = self._tried(self._registration, None)
        is_readable = not self._damaged
        own = self._settings()
        settings = self._tried(lambda: effective_settings(own, store), own)
        record = self._unless_same(APPLIED_FILE, lambda: read_applied(store), AppliedStatus())
        runs = with_later(record.runs, self._tried(lambda: read_rested(store), None))
        standing = self._unless_same(STANDING_FILE, lambda: read_standing(store), StandingStatus())
        contact = self._tried(lambda: load_contact(store), CentreContact())
        config = self._tried(lambda: load_site_config(store), SiteConfig())
        schedule = effective_schedule(
            settings.schedule, registration.schedule if registration else "", settings.timezone
        )
        return SiteStatus(
            made_at=now,
            version=__version__,
            ground_control_url=settings.ground_control_url
            or self._tried(store.registered_by, RegisteredBy()).ground_control_url,
            disk=_disk(settings),
            registry=self._registry(settings),
            registration=_registration_status(registration, store) if registration else None,
            is_registration_readable=is_readable,
            state=replace(
                record.state,
                config_digest=config.digest,
                published_at=standing.published_at,
                is_rolled_back=standing.is_rolled_back,
            ),
            runs=self._runs(replace(runs, schedule=schedule.cron, timezone=schedule.timezone), now),
            images=record.images,
            failures=record.failures,
            link=self._link(settings, contact, now),
            agent_alive_at=_touched_at(settings.data_dir / ALIVE_FILE),
            services=_services(settings.data_dir),
            receipts_waiting=self._tried(lambda: len(Spool(settings.data_dir).waiting()), 0),
            runtimes=self._tried(lambda: read_runtimes(store), ()),
            damaged=tuple(self._damaged),
        )

    def _tried(self, read: Callable[[], T], otherwise: T) -> T:
        """Read something; what cannot be read is noted and stands as if it were not there."""
        try:
            return read()
        except HarborSatelliteError as error:
            self._damaged[str(error)] = None
        except OSError as error:
            self._damaged[f"{error.filename or self._store.folder}: {error.strerror or error}"] = None
        return otherwise

    def _registration(self) -> Registration | None:
        try:
            return self._store.registration()
        except NotFoundError:
            return None

    def _unless_same(self, name: str, read: Callable[[], T], otherwise: T) -> T:
        """Read a large file, unless it is as it was; a damaged one is read, and told, each time."""
        mark = file_mark(self._store.folder / name)
        known = self._kept.get(name)
        if known and known[0] == mark:
            return cast("T", known[1])
        self._kept.pop(name, None)
        try:
            value = read()
        except HarborSatelliteError as error:
            self._damaged[str(error)] = None
            return otherwise
        self._kept[name] = mark, value
        return value

    def _runs(self, runs: RunStatus, now: datetime) -> RunStatus:
        runs = replace(runs, running_since=self._tried(self._store.locked_since, None))
        due = None
        if not runs.schedule:
            return runs
        next_at = self._tried(lambda: next_run(runs.schedule, runs.timezone, now), None)
        if runs.last and next_at:
            due = next_run(runs.schedule, runs.timezone, runs.last.finished_at)
        return replace(runs, next_at=next_at, overdue_since=due if due and now - due > _OVERDUE_AFTER else None)

    def _link(self, settings: SatelliteSettings, contact: CentreContact, now: datetime) -> LinkStatus:
        limits = settings.wan_limits()
        windows = self._tried(lambda: SyncWindows.parse(limits.windows, limits.timezone), SyncWindows.parse((), "UTC"))
        today = now.astimezone(windows.zone).date()
        counted = self._tried(lambda: read_ledger(self._store, today), (0, 0))
        is_open = windows.is_open(now)
        refused = refusal(self._store)
        return LinkStatus(
            measured_bytes_per_second=self._tried(lambda: read_link_rate(self._store), None),
            limit_bytes_per_second=limits.bytes_per_second,
            away_since=contact.away_since,
            away_reason=contact.reason,
            refused_since=refused.since if refused else None,
            refused_reason=refused.reason if refused else "",
            bytes_today=counted[0],
            daily_bytes=limits.daily_bytes,
            bytes_this_month=counted[1],
            monthly_bytes=limits.monthly_bytes,
            windows=windows.texts,
            is_open=is_open,
            opens_at=None if is_open else windows.next_opening(now),
            closes_at=windows.closes_at(now) if is_open else None,
        )

    def _registry(self, settings: SatelliteSettings) -> RegistryStatus:
        url = settings.local_registry_url.rstrip("/")
        probe = Probe(f"{url}/v2/")
        with contextlib.suppress(OSError, ValueError):  # what the plan is good for is told by whoever reads it
            services = read_plan(settings.data_dir).services
            probe = next((one.probe for one in services if one.name == _REGISTRY_SERVICE and one.probe), probe)
        is_answering = self._ask(replace(probe, timeout_seconds=PROBE_SECONDS))
        current = self._tried(lambda: load_current(settings.data_dir), None)
        return RegistryStatus(
            kind=current.place.kind if current else settings.registry_kind,
            url=url,
            is_answering=is_answering,
            reason="" if is_answering else f"no answer within {PROBE_SECONDS:.0f} s",
            next_kind=current.next.kind if current and current.next else "",
            problem=current.problem if current else "",
        )


def _registration_status(registration: Registration, store: SatelliteStore) -> RegistrationStatus:
    return RegistrationStatus(
        satellite=registration.satellite or registration.auth.username,
        source_url=registration.auth.url,
        state=registration.state,
        registered_at=store.registered_at(),
        credential_expires_at=registration.auth.expires_at,
    )


def _disk(settings: SatelliteSettings) -> DiskStatus | None:
    folder = (settings.storage or settings.data_dir).absolute()
    try:
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        usage = shutil.disk_usage(folder)
    except OSError:
        return None
    return DiskStatus(str(folder), usage.free, usage.used, usage.total, settings.disk_reserve_bytes)


def _services(folder: Path) -> tuple[ServiceStatus, ...]:
    running = running_services(folder)
    return tuple(
        ServiceStatus(
            name=seen.name,
            is_running=seen.name in running,
            pid=seen.pid,
            started_at=_moment(seen.started_at),
            restarts=seen.restarts,
            last_end=seen.last_end,
            next_start_at=_moment(seen.next_start_at),
        )
        for seen in read_sightings(folder)
    )


def _moment(seconds: float) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds else None


def _touched_at(path: Path) -> datetime | None:
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except (OSError, OverflowError, ValueError):
        return None
