"""The services of a site: the registry that the agent runs, as the settings and the centre say, and the agent itself.

Configuration is generated, checked and written here, the plan of it too; the supervisor does the rest. What must not
live here: which registry holds the content (``own_registry``), and moving content to another (``registry_switch``).
"""

from __future__ import annotations

import contextlib
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from harbor_satellite.edge.left_roots import also_left
from harbor_satellite.edge.own_registry import (
    CHANGING,
    Access,
    Current,
    Place,
    access_of,
    load_current,
    save_current,
    wanted_place,
    writer,
)
from harbor_satellite.edge.registry_probe import probe_of
from harbor_satellite.edge.registry_process import (
    CLI,
    LOOPBACK,
    Listening,
    ca_of,
    forward_of,
    is_at,
    listening_of,
    process_of,
    program_of,
    reachable,
)
from harbor_satellite.edge.registry_root import RootAwayError, check_root
from harbor_satellite.edge.services import (
    ALIVE_FILE,
    Service,
    ServicePlan,
    read_plan,
    read_sightings,
    write_plan,
)
from harbor_satellite.errors import HarborSatelliteError, InvalidInputError, StorageError
from harbor_satellite.processes import check_port_is_free
from harbor_satellite.registry.layout_root import find_repositories
from harbor_satellite.satellite.disk import DiskGuard
from harbor_satellite.satellite.inventory import roots_of
from harbor_satellite.satellite.room import check_second_copy
from harbor_satellite.satellite.site_config import load_site_config
from harbor_satellite.satellite.store import SatelliteStore
from harbor_satellite.settings.satellite import env_file

if TYPE_CHECKING:
    from harbor_satellite.settings import SatelliteSettings

_LOG = logging.getLogger(__name__)
REGISTRY: Final = "registry"
NEXT: Final = "registry-next"
"""Takes the content over while the other one serves."""
AGENT: Final = "agent"


def make_services(settings: SatelliteSettings) -> ServicePlan:
    """Set up the registry as the settings and the centre's config say, and return what the supervisor shall run.

    Whatever is wrong with a change, a registry that runs goes on as it was; ``registry_problem`` says why.

    Args:
        settings: the site's own, without the centre's config.

    Raises:
        InvalidInputError: there is no registry yet, and it cannot be run as the settings say.
        StorageError: the disk refuses.
    """
    with CHANGING:
        return _made(settings)


def _made(settings: SatelliteSettings) -> ServicePlan:
    data_dir = settings.data_dir.absolute()
    store = SatelliteStore(data_dir)
    site = with_site_config(settings)
    before = load_current(data_dir)
    try:
        current, services = _set_up(site, store, before)
    except HarborSatelliteError as error:
        if before is None:
            raise
        # One whose disk is away must not run: it would hold nothing, and be filled in the wrong place.
        services = [] if isinstance(error, RootAwayError) else _as_before(site, store, before)
        current = replace(before, problem=str(error))
    if current.problem and (before is None or before.problem != current.problem):
        _LOG.error("registry %s reason=%s", "stays as it was" if services else "does not run", current.problem)
    save_current(data_dir, current)
    after: list[Service] = []
    if "docker" in site.runtimes:  # last: nobody waits for a port 80 that may not be ours to have
        after = [forward_of(current.access.url, current.access.ca)]
    return ServicePlan((*services, _agent(data_dir), *after))


def _set_up(site: SatelliteSettings, store: SatelliteStore, before: Current | None) -> tuple[Current, list[Service]]:
    wanted = wanted_place(site, before)
    if before and before.place.is_managed and _is_our_own(site, before, wanted.url):
        raise InvalidInputError(
            f"an external registry is asked for, and {wanted.url} is the one that the agent runs: "
            "HARBOR_SATELLITE_LOCAL_REGISTRY_URL must name another"
        )
    current = _settled(site, store, before, wanted)
    services: list[Service] = []
    if current.place.is_managed:
        current, service = _registry(site, store, current, before)
        services.append(service)
    try:  # whatever is wrong with where it goes, what serves now follows its settings
        if wanted != current.place:
            _check_move(site, current, wanted)
        if current.next and current.next.is_managed:
            services.append(_next_registry(site, current.next, current.next_port))
    except HarborSatelliteError as error:
        current = replace(current, problem=str(error))
    return current, services


def _check_move(site: SatelliteSettings, current: Current, wanted: Place) -> None:
    """Find out before everything is copied that the other registry could not serve afterwards."""
    if wanted.is_managed and not current.place.is_managed:
        _check_port(site, listening_of(site))
    if wanted.kind == "zot":
        program_of(site)
    if wanted.is_managed and current.place.is_managed:
        old, new = Path(current.place.root), Path(wanted.root)
        check_second_copy(old, new, DiskGuard(new, site.disk_reserve_bytes))


def _as_before(site: SatelliteSettings, store: SatelliteStore, before: Current) -> list[Service]:
    """Return the registry as it ran so far; if that is a Zot that is gone, the embedded one serves what it left."""
    if before.place.kind == "zot" and shutil.which(site.zot) is None:
        instead = site.model_copy(update={"registry_kind": "embedded"})
        with contextlib.suppress(HarborSatelliteError):
            return [_registry(instead, store, before, before)[1]]
    return [service for service in _running(site.data_dir) if service.name in {REGISTRY, NEXT}]


def _is_our_own(site: SatelliteSettings, before: Current, url: str) -> bool:
    return bool(url) and any(is_at(at, url) for at in (before.access.url.partition("://")[2], site.registry_listen))


def _check_port(site: SatelliteSettings, listening: Listening) -> None:
    """Say that somebody else listens, instead of starting a registry again and again that cannot."""
    try:
        check_port_is_free(reachable(listening.host), listening.port)
    except InvalidInputError as error:
        raise InvalidInputError(
            f"HARBOR_SATELLITE_REGISTRY_LISTEN={site.registry_listen}: {error}; choose another, or, if that is to be "
            f"this site's registry, set HARBOR_SATELLITE_LOCAL_REGISTRY_URL={listening.url}"
        ) from error


def _running(data_dir: Path) -> tuple[Service, ...]:
    try:
        return read_plan(data_dir).services
    except (OSError, ValueError) as error:
        _LOG.warning("plan of services not read reason=%s", error)
        return ()


def with_site_config(settings: SatelliteSettings) -> SatelliteSettings:
    """Return the site's settings with what the centre's config says, for the registry that they want.

    Raises:
        StorageError: what the centre said is damaged on disk.
    """
    return settings.with_config(load_site_config(SatelliteStore(settings.data_dir.absolute())).config)


def refresh_plan(settings: SatelliteSettings) -> ServicePlan:
    """Make the plan anew and write it if it is another; for the agent, after each run and each change.

    Args:
        settings: the site's own, read anew, without the centre's config.

    Raises:
        StorageError: the disk refuses; the plan stays.
    """
    folder = settings.data_dir.absolute()
    with CHANGING:  # else an older plan, of another thread, could be written after this one
        plan = _made(settings)
        try:
            if _running(folder) != plan.services:
                write_plan(folder, plan)
        except OSError as error:
            raise StorageError(f"cannot write the plan of services in {folder}: {error}") from error
    return plan


def registry_problem(data_dir: Path) -> str:
    """Return why the registry is not set up as the settings say; empty if it is.

    Raises:
        StorageError: the file that says it is damaged.
    """
    current = load_current(data_dir)
    return current.problem if current else ""


def _settled(site: SatelliteSettings, store: SatelliteStore, before: Current | None, wanted: Place) -> Current:
    """Say what serves: what the settings want if nothing is lost by it, else what holds the content."""
    if before is None:
        return Current(_first_place(site, store, wanted), access_of(site))
    if before.next and before.next != wanted:
        _LOG.warning("taking over given up kind=%s root=%s", before.next.kind, before.next.root)
        before = replace(before, next=None, next_port=0, left=also_left(before.left, before.next))
    # Zot and the embedded registry keep content alike: on one root, the other just goes on.
    is_same_root = bool(wanted.root) and wanted.root == before.place.root
    if is_same_root:
        before = replace(before, place=wanted)
    if wanted != before.place and not _has_content(site, store, before.place):
        before = replace(before, place=wanted, left=also_left(before.left, before.place), next=None, next_port=0)
    if before.place.kind == "external" and before.place == wanted:
        before = replace(before, access=access_of(site))
    return replace(before, problem="")


def _first_place(site: SatelliteSettings, store: SatelliteStore, wanted: Place) -> Place:
    """Say what serves before the agent ran first: content may be in a registry that was run by somebody else so far."""
    url = site.local_registry_url
    is_named = "local_registry_url" in site.model_fields_set
    is_own_address = url.rpartition(":")[2] == site.registry_listen.rpartition(":")[2]
    if wanted.is_managed and is_named and not is_own_address and roots_of(store):
        return Place("external", url=url)
    return wanted


def _has_content(site: SatelliteSettings, store: SatelliteStore, place: Place) -> bool:
    """Tell whether something would be lost: what the site put there, or at a registry of its own anybody."""
    if place.is_managed:
        return next(find_repositories(Path(place.root)), None) is not None
    return bool(roots_of(store, site.replication_options().platforms))


def _registry(
    site: SatelliteSettings, store: SatelliteStore, current: Current, before: Current | None
) -> tuple[Current, Service]:
    known_root = check_root(Path(current.place.root), site.data_dir, current.known_root)
    listening = listening_of(site)
    # At its old port, the one who listens is our own registry, whatever else has changed; unless that does not run.
    is_at_its_port = before is not None and before.place.is_managed and before.access.url.endswith(f":{listening.port}")
    if not is_at_its_port or _is_down(site.data_dir):
        _check_port(site, listening)
    access = Access(listening.url, writer(site.data_dir), ca_of(site))
    service = process_of(REGISTRY, site, current.place, listening)
    return replace(current, access=access, known_root=known_root), replace(
        service, probe=probe_of(site, store, listening)
    )


def _is_down(data_dir: Path) -> bool:
    return any(seen.name == REGISTRY and not seen.pid and seen.last_end for seen in read_sightings(data_dir))


def _next_registry(site: SatelliteSettings, place: Place, port: int) -> Service:
    return process_of(NEXT, site, place, Listening(LOOPBACK, port, f"http://{LOOPBACK}:{port}"))


def _agent(data_dir: Path) -> Service:
    # Every run has threads of its own: the C library would keep what they freed in an arena for each.
    env = {"HARBOR_SATELLITE_DATA_DIR": str(data_dir), "MALLOC_ARENA_MAX": "2"}
    settings_file = str(env_file() or "")
    alive_file = str(data_dir / ALIVE_FILE)
    return Service(AGENT, (*CLI, "edge", "agent"), env, alive_file=alive_file, settings_file=settings_file)
