"""One run's hold on a site: its lock, and the engine that does the work.

Secrets are read here, inside the run, from the site's own disk: they are never parameters.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from harbor_satellite.edge.site import effective_settings, open_home, open_own_engine
from harbor_satellite.errors import InvalidInputError, StorageError
from harbor_satellite.satellite.store import SatelliteStore
from harbor_satellite.settings import SatelliteSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harbor_satellite.registry.client import HttpRegistry
    from harbor_satellite.satellite.engine import Engine
    from harbor_satellite.state.wire import Registration


_HOMES: dict[tuple[str, str, str, str, bool], HttpRegistry] = {}


class Site:
    """What the tasks of one run share. Not a dataclass, so that Prefect passes it on without looking inside."""

    def __init__(self, satellite: str, registration: Registration, engine: Engine) -> None:
        self.satellite = satellite
        self.registration = registration
        self.engine = engine


@contextlib.contextmanager
def open_site(satellite: str) -> Iterator[Site]:
    """Take the site's lock and open its registries.

    Args:
        satellite: who this site should be; a run meant for another satellite is refused.

    Raises:
        NotFoundError: this site is not registered.
        ConflictError: another run is under way.
    """
    own = SatelliteSettings()
    store = SatelliteStore(own.data_dir)
    settings = effective_settings(own, store)  # without a restart: every run reads what the centre said last
    registration = store.registration()
    if registration.satellite and registration.satellite != satellite:
        raise InvalidInputError(f"this site is {registration.satellite}; the run is meant for {satellite}")
    home = _home_registry(settings, registration)
    with store.lock(), open_own_engine(settings, store, registration, settings.replication_options(), home) as engine:
        yield Site(satellite, registration, engine)


def image_workers() -> int:
    """Return how many images a run of this site brings at once, as it is about to start."""
    own = SatelliteSettings()
    try:
        return effective_settings(own).image_workers
    except StorageError:  # the run itself says what is damaged
        return own.image_workers


def _home_registry(settings: SatelliteSettings, registration: Registration) -> HttpRegistry:
    """Open the source, or take the one that the worker's last run left open: that saves logging in again."""
    auth = registration.auth
    is_slowed = settings.bytes_per_second is not None
    key = (auth.url, auth.username, auth.password.get_secret_value(), str(settings.ca or ""), is_slowed)
    if key not in _HOMES:
        while _HOMES:  # the credential was renewed: the old one is of no use
            _HOMES.popitem()[1].close()
        _HOMES[key] = open_home(settings, registration)
    return _HOMES[key]
