"""Opening a site from its settings: lock, limits, registries, and the engine on top. For commands and tasks alike."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

from harbor_satellite.edge.own_registry import load_current, with_access
from harbor_satellite.errors import NoRecordError
from harbor_satellite.inputs import LOCAL_VARIABLES, SOURCE_VARIABLES, refuse_user
from harbor_satellite.registry.auth import Credentials
from harbor_satellite.registry.client import HttpRegistry
from harbor_satellite.registry.client_urls import parse_address
from harbor_satellite.registry.cosign import RegistryAccess
from harbor_satellite.satellite.connections import Connections, registry_host
from harbor_satellite.satellite.disk import free_bytes
from harbor_satellite.satellite.engine import Engine
from harbor_satellite.satellite.generations import load_generations
from harbor_satellite.satellite.link_rate import link_rate
from harbor_satellite.satellite.record import load_decisions
from harbor_satellite.satellite.report import SiteFacts
from harbor_satellite.satellite.site_config import load_site_config
from harbor_satellite.satellite.store import SatelliteStore
from harbor_satellite.satellite.wan import WanGate
from harbor_satellite.settings import SatelliteSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pydantic import SecretStr

    from harbor_satellite.satellite.options import ReplicationOptions, WanLimits
    from harbor_satellite.state.config import SatelliteConfig
    from harbor_satellite.state.wire import Registration

_LEDGER_FILE: Final = "ledger.json"
_RECORD_FILES: Final = ("applied.json", "generations.json")
_RECEIVE_BUFFER_BYTES: Final = 64 * 1024
"""Of each socket where the rate is limited: the system must not take in what the limit holds back."""


def site_settings(data_dir: Path | None = None, target: str = "") -> SatelliteSettings:
    """Read the site's settings, with the registry that serves there; what a command line gives stands above them.

    Args:
        data_dir: the satellite's folder.
        target: URL of the local registry.

    Raises:
        InvalidInputError: the target is no URL of a registry, or has a user in it.
        StorageError: the record of the site's registry is damaged.
    """
    settings = SatelliteSettings()
    if data_dir:
        settings = settings.model_copy(update={"data_dir": data_dir})
    if target:
        parse_address(refuse_user(target, "--target", f"say {LOCAL_VARIABLES}"))
        own = with_local_registry(settings)
        is_own = registry_host(own.local_registry_url) == registry_host(target)
        return (own if is_own else settings).model_copy(update={"local_registry_url": target})
    return with_local_registry(settings)


def effective_settings(
    settings: SatelliteSettings, store: SatelliteStore | None = None, *, is_target_given: bool = False
) -> SatelliteSettings:
    """Return the site's settings with what the centre's config says; see ``SatelliteSettings.with_config``.

    For what a registered site does by itself; states given by hand are followed by the site's own settings alone.

    Args:
        settings: the site's own.
        store: the satellite's folder; None: that of the settings.
        is_target_given: the command line names the local registry: then it is not the site's own.

    Raises:
        StorageError: what the centre said is damaged on disk.
    """
    settings = settings.with_config(load_site_config(store or SatelliteStore(settings.data_dir)).config)
    return settings if is_target_given else with_local_registry(settings)


def with_local_registry(settings: SatelliteSettings) -> SatelliteSettings:
    """Return the settings with URL, user, password and CA of the registry that serves at this site.

    That is what the agent put to work (see ``own_registry``), which may be another than the settings want by now.

    Raises:
        StorageError: the record of it is damaged, or not for this user to read.
    """
    current = load_current(settings.data_dir)
    if current is None:
        return _without_agent(settings)
    if current.place.is_managed:
        root = current.place.root if settings.registry_root and not settings.storage else ""
        settings = settings.model_copy(update={"storage": Path(root)}) if root else settings
        return with_access(settings, current.access)
    is_same = settings.registry_kind == "external" and settings.local_registry_url == current.place.url
    return settings if is_same else with_access(settings, current.access)


def _without_agent(settings: SatelliteSettings) -> SatelliteSettings:
    """Return the settings of a site whose agent never ran: its registry is somebody else's, or will be here."""
    if settings.registry_kind == "external" or "local_registry_url" in settings.model_fields_set:
        return settings
    scheme = "https" if settings.registry_tls_certificate else "http"
    host, _, port = settings.registry_listen.rpartition(":")
    host = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)  # noqa: S104  (nobody can call "everywhere")
    return settings.model_copy(update={"local_registry_url": f"{scheme}://{host}:{port}"})


def given_source(url: str) -> str:
    """Return the URL of a source as the command line gives it; empty stays empty.

    Raises:
        InvalidInputError: it is no URL of a registry, or has a user in it.
    """
    if url:
        parse_address(refuse_user(url, "--source", f"say {SOURCE_VARIABLES}"))
    return url


def given_store(settings: SatelliteSettings) -> SatelliteStore:
    """Return the record of states given by hand: what the satellite copied is not theirs to delete."""
    host = registry_host(settings.local_registry_url)
    return SatelliteStore(settings.data_dir / "sync" / host.replace(":", "_"))


def recorded_store(settings: SatelliteSettings, *, is_target_given: bool) -> SatelliteStore:
    """Return the record of what was replicated to the local registry: the satellite's own, or that of given states.

    Args:
        settings: the site's, as the command line has changed them.
        is_target_given: the command line names the local registry: then the record of given states comes first, and
            the satellite's own is none of another registry.

    Raises:
        NoRecordError: nothing was replicated there.
    """
    own, given = SatelliteStore(settings.data_dir), given_store(settings)
    stores: tuple[SatelliteStore, ...] = (own, given)
    if is_target_given:
        site = with_local_registry(SatelliteSettings().model_copy(update={"data_dir": settings.data_dir}))
        is_own = registry_host(site.local_registry_url) == registry_host(settings.local_registry_url)
        stores = (given, own) if is_own else (given,)
    for store in stores:
        if any((store.folder / name).exists() for name in _RECORD_FILES):
            return store
    raise NoRecordError(
        f"no record in {stores[0].folder}: nothing was replicated here yet; "
        "`edge sync --state` keeps its own record, named by --target"
    )


@contextlib.contextmanager
def open_engine(
    settings: SatelliteSettings,
    store: SatelliteStore,
    options: ReplicationOptions,
    *,
    home_url: str,
    credentials: Credentials | None,
    is_only: bool = False,
    home: HttpRegistry | None = None,
    limits_of: Callable[[SatelliteConfig], WanLimits] | None = None,
) -> Iterator[Engine]:
    """Open everything that a replication needs; the caller holds the store's lock.

    Args:
        settings: the site's.
        store: its record.
        options: how to go about it.
        home_url: the registry that credentials go to; empty: none.
        credentials: for that registry alone.
        is_only: copy everything from ``home_url``, whatever a state names.
        home: that registry, if it is open already; left open.
        limits_of: the bounds under a config that the centre sends meanwhile; None: it bounds nothing.

    Raises:
        InvalidInputError: a window, a time zone or an address in the settings is wrong.
    """
    with (
        open_gate(settings, options) as gate,
        local_registry(settings) as target,
        Connections(
            home_url=home_url,
            credentials=credentials,
            target=target,
            verify=verify_option(settings),
            is_only=is_only,
            home=home,
            local_access=local_access(settings),
            on_read=gate.spend,
            receive_buffer_bytes=receive_buffer_bytes(options),
        ) as connections,
    ):
        yield Engine(connections, store, options, gate, limits_of=limits_of)


def open_own_engine(
    settings: SatelliteSettings,
    store: SatelliteStore,
    registration: Registration,
    options: ReplicationOptions,
    home: HttpRegistry | None = None,
) -> contextlib.AbstractContextManager[Engine]:
    """Open the engine of a registered site; the caller holds the store's lock."""
    auth = registration.auth
    return open_engine(
        settings,
        store,
        options,
        home_url=auth.url,
        credentials=credentials_of(auth.username, auth.password),
        home=home,
        limits_of=lambda config: SatelliteSettings().with_config(config).wan_limits(),
    )


def open_gate(settings: SatelliteSettings, options: ReplicationOptions) -> WanGate:
    """Open the site's bounds on its link, with the ledger that all its runs share."""
    return WanGate(options.wan, settings.data_dir / _LEDGER_FILE)


def open_home(settings: SatelliteSettings, registration: Registration) -> HttpRegistry:
    """Open the registry that a site was registered with."""
    auth = registration.auth
    return HttpRegistry(
        auth.url,
        credentials=credentials_of(auth.username, auth.password),
        verify=verify_option(settings),
        receive_buffer_bytes=receive_buffer_bytes(settings.replication_options()),
    )


def local_registry(settings: SatelliteSettings) -> HttpRegistry:
    """Open the site's own registry."""
    credentials = credentials_of(settings.local_registry_username, settings.local_registry_password)
    verify = str(settings.local_registry_ca) if settings.local_registry_ca else True
    return HttpRegistry(settings.local_registry_url, credentials=credentials, verify=verify)


def local_access(settings: SatelliteSettings) -> RegistryAccess:
    """Say how another program reaches the site's own registry."""
    credentials = credentials_of(settings.local_registry_username, settings.local_registry_password)
    return RegistryAccess(settings.local_registry_url, credentials, settings.local_registry_ca)


def receive_buffer_bytes(options: ReplicationOptions) -> int | None:
    """Return how much the sockets to a source may take in beyond what was read; None: the system's choice."""
    if options.wan.bytes_per_second:
        return _RECEIVE_BUFFER_BYTES
    # A cap is passed by what is on its way: that is to be little, and yet enough for a fast link.
    return 4 * _RECEIVE_BUFFER_BYTES if options.wan.daily_bytes or options.wan.monthly_bytes else None


def credentials_of(username: str, password: SecretStr) -> Credentials | None:
    """Return credentials, or None for nobody in particular."""
    return Credentials(username, password) if username else None


def verify_option(settings: SatelliteSettings) -> bool | str:
    """Return what the central registry's certificate is held against."""
    return str(settings.ca or "") or SatelliteStore(settings.data_dir).registered_by().ca or True


def site_facts(settings: SatelliteSettings, store: SatelliteStore) -> SiteFacts:
    """Collect what a report says besides the record of the last run."""
    with open_gate(settings, settings.replication_options()) as gate:
        usage = gate.ledger
    return SiteFacts(
        storage_used_bytes=settings.storage_used_bytes(),
        bytes_today=usage.day_bytes,
        bytes_this_month=usage.month_bytes,
        decisions=load_decisions(store),
        is_rolled_back=load_generations(store).held is not None,
        storage_free_bytes=_free_bytes(settings.storage or settings.data_dir),
        link_bytes_per_second=link_rate(store, store.applied().last_run),
        config_digest=load_site_config(store).digest,
    )


def _free_bytes(folder: Path) -> int | None:
    try:
        return free_bytes(folder)
    except OSError:
        return None  # a disk that is not there is told by the run, not by the report
