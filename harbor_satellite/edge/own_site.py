"""One run's hold on the site: its lock, its registration, and the engine that does the work.

Flows and the timer go the same way, so that the two never overlap, and each knows of the other. What must not live
here: when a run is due (``timer.py``), the steps of one (``satellite/sync.py``, ``flows/``).
"""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from harbor_satellite.edge.own_settings import read_settings
from harbor_satellite.edge.site import effective_settings, open_home, open_own_engine
from harbor_satellite.errors import InvalidInputError
from harbor_satellite.satellite.broken_runs import note_run
from harbor_satellite.satellite.store import SatelliteStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harbor_satellite.registry.client import HttpRegistry
    from harbor_satellite.satellite.engine import Engine
    from harbor_satellite.settings import SatelliteSettings
    from harbor_satellite.state.wire import Registration

_HOMES: Final[dict[tuple[str, str, str, str, bool], HttpRegistry]] = {}


class OwnSite:
    """What the steps of one run share. Not a dataclass, so that Prefect passes it on without looking inside."""

    def __init__(self, satellite: str, registration: Registration, engine: Engine) -> None:
        self.satellite = satellite
        self.registration = registration
        self.engine = engine


@dataclass(slots=True)
class Hold:
    """Whether a run of this process holds the site now."""

    since: float | None = None
    """By the monotonic clock; None: no run does."""
    is_local: bool = False
    """Whether the timer runs it, and not Prefect."""
    ended: int = 0
    """Runs that have let go of the site since the process started."""


HOLD: Final = Hold()
"""Of this process: written by whoever holds the site's lock, read by anybody."""
_CHANGED: Final = threading.Condition()


@contextlib.contextmanager
def open_own_site(satellite: str = "", *, is_local: bool = False) -> Iterator[OwnSite]:
    """Take the site's lock and open its registries.

    Args:
        satellite: who this site should be; a run meant for another satellite is refused. Empty: whoever it is.
        is_local: whether the site itself runs it, and not Prefect.

    Raises:
        NotFoundError: this site is not registered.
        ConflictError: another run is under way.
    """
    own = read_settings()
    store = SatelliteStore(own.data_dir)
    settings = effective_settings(own, store)  # without a restart: every run reads what the centre said last
    registration = store.registration()
    if satellite and registration.satellite and registration.satellite != satellite:
        raise InvalidInputError(f"this site is {registration.satellite}; the run is meant for {satellite}")
    options = settings.replication_options()
    with (
        _told_of_end(),
        store.lock(),
        _held(is_local=is_local),
        note_run(store.folder),
        open_own_engine(settings, store, registration, options, _home_registry(settings, registration)) as engine,
    ):
        yield OwnSite(satellite or registration.satellite, registration, engine)


def wait_for_local_run(seconds: float) -> None:
    """Wait until the run ends that the site's own timer has begun, if there is one, but no longer than so long."""
    with _CHANGED:
        _CHANGED.wait_for(lambda: HOLD.since is None or not HOLD.is_local, seconds)


@contextlib.contextmanager
def _told_of_end() -> Iterator[None]:
    """Wake who waits, once the lock is free."""
    try:
        yield
    finally:
        with _CHANGED:
            _CHANGED.notify_all()


@contextlib.contextmanager
def _held(*, is_local: bool) -> Iterator[None]:
    with _CHANGED:
        HOLD.since, HOLD.is_local = time.monotonic(), is_local
    try:
        yield
    finally:
        with _CHANGED:
            HOLD.since, HOLD.ended = None, HOLD.ended + 1


def _home_registry(settings: SatelliteSettings, registration: Registration) -> HttpRegistry:
    """Open the source, or take the one that the process's last run left open: that saves logging in again."""
    auth = registration.auth
    is_slowed = settings.bytes_per_second is not None
    key = (auth.url, auth.username, auth.password.get_secret_value(), str(settings.ca or ""), is_slowed)
    if key not in _HOMES:
        while _HOMES:  # the credential was renewed: the old one is of no use
            _HOMES.popitem()[1].close()
        _HOMES[key] = open_home(settings, registration)
    return _HOMES[key]
