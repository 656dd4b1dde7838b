"""One run's hold on a site: its lock, its connections, and what became of each image so far.

Secrets are read here, inside the run, from the site's own disk: they are never parameters.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING

from harbor_satellite.errors import HarborSatelliteError, InvalidInputError
from harbor_satellite.registry.auth import Credentials
from harbor_satellite.registry.client import HttpRegistry
from harbor_satellite.registry.copy import KnownBlobs
from harbor_satellite.satellite.connections import Connections
from harbor_satellite.satellite.outcome import ImageOutcome, failed_outcome
from harbor_satellite.satellite.store import SatelliteStore
from harbor_satellite.settings import SatelliteSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harbor_satellite.state.plan import Copy
    from harbor_satellite.state.wire import Registration


_HOMES: dict[tuple[str, str, str, str], HttpRegistry] = {}


class Site:
    """What the tasks of one run share. Not a dataclass, so that Prefect passes it on without looking inside."""

    def __init__(self, settings: SatelliteSettings, registration: Registration, connections: Connections) -> None:
        self.settings = settings
        self.registration = registration
        self.connections = connections
        self.store = SatelliteStore(settings.data_dir)
        self.known = KnownBlobs()
        self.started = time.monotonic()
        self._staged: dict[Copy, ImageOutcome] = {}
        self._guard = threading.Lock()

    @property
    def satellite(self) -> str:
        """The satellite's name."""
        return self.registration.satellite

    def is_staged(self, copy: Copy) -> bool:
        """Whether the copy's content is at the site already; so a repeated task does only what is left."""
        with self._guard:
            return copy in self._staged and self._staged[copy].action == "copied"

    def note(self, copy: Copy, outcome: ImageOutcome) -> None:
        """Remember what became of a copy."""
        with self._guard:
            self._staged[copy] = outcome

    def staged(self, copies: tuple[Copy, ...]) -> dict[Copy, ImageOutcome]:
        """Return what became of each copy; one that nobody noted failed without saying why."""
        unknown = HarborSatelliteError("its task ended without a result; see the task's log")
        with self._guard:
            return {copy: self._staged.get(copy) or failed_outcome(str(copy), copy.digest, unknown) for copy in copies}


@contextlib.contextmanager
def open_site(satellite: str) -> Iterator[Site]:
    """Take the site's lock and open its registries.

    Args:
        satellite: who this site should be; a run meant for another satellite is refused.

    Raises:
        NotFoundError: this site is not registered.
        ConflictError: another run is under way.
    """
    settings = SatelliteSettings()
    store = SatelliteStore(settings.data_dir)
    registration = store.registration()
    if registration.satellite and registration.satellite != satellite:
        raise InvalidInputError(f"this site is {registration.satellite}; the run is meant for {satellite}")
    registration = registration.model_copy(update={"satellite": satellite})
    auth = registration.auth
    with (
        store.lock(),
        local_registry(settings) as target,
        Connections(
            home_url=auth.url,
            credentials=Credentials(auth.username, auth.password) if auth.username else None,
            target=target,
            verify=str(settings.ca) if settings.ca else True,
            home=_home_registry(settings, registration),
        ) as connections,
    ):
        yield Site(settings, registration, connections)


def _home_registry(settings: SatelliteSettings, registration: Registration) -> HttpRegistry:
    """Open the source, or take the one that the worker's last run left open: that saves logging in again."""
    auth = registration.auth
    key = (auth.url, auth.username, auth.password.get_secret_value(), str(settings.ca or ""))
    if key not in _HOMES:
        while _HOMES:  # the credential was renewed: the old one is of no use
            _HOMES.popitem()[1].close()
        credentials = Credentials(auth.username, auth.password) if auth.username else None
        _HOMES[key] = HttpRegistry(auth.url, credentials=credentials, verify=str(settings.ca or "") or True)
    return _HOMES[key]


def local_registry(settings: SatelliteSettings) -> HttpRegistry:
    """Open the site's own registry."""
    username, password = settings.local_registry_username, settings.local_registry_password
    return HttpRegistry(settings.local_registry_url, credentials=Credentials(username, password) if username else None)
