"""A site's credential as its processes care for it: the way to Ground Control, whether the source refuses, renewal.

What must not live here: how a renewal goes (``satellite/renewal.py``).
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from harbor_satellite.edge.site import open_home, verify_option
from harbor_satellite.errors import AuthenticationError, InvalidInputError, RemoteError
from harbor_satellite.satellite.ground_control_client import GroundControlClient
from harbor_satellite.satellite.registration import clear_refusal, note_refusal
from harbor_satellite.satellite.renewal import renew
from harbor_satellite.satellite.store import SatelliteStore

if TYPE_CHECKING:
    import httpx

    from harbor_satellite.settings import SatelliteSettings
    from harbor_satellite.state.wire import Registration

_LOG = logging.getLogger(__name__)
_UNAUTHORIZED: Final = 401


def open_ground_control(
    settings: SatelliteSettings, transport: httpx.BaseTransport | None = None
) -> GroundControlClient:
    """Open the site's way to Ground Control.

    Args:
        settings: the site's.
        transport: a connection that is there already; None: an own one.

    Raises:
        InvalidInputError: no address is set, and the site is not registered.
    """
    url = ground_control_url(settings, SatelliteStore(settings.data_dir))
    if not url:
        raise InvalidInputError("no Ground Control: register this site, or set HARBOR_SATELLITE_GROUND_CONTROL_URL")
    return GroundControlClient(url, verify=verify_option(settings), transport=transport)


def ground_control_url(settings: SatelliteSettings, store: SatelliteStore) -> str:
    """Return where to report and renew: what is set, else where this site was registered; empty: neither."""
    return settings.ground_control_url or store.registered_by().ground_control_url


def renew_own_credential(settings: SatelliteSettings) -> Registration:
    """Fetch the site's next credential, try it at the source, and keep it; see ``renewal.renew`` for what it raises."""

    def try_out(registration: Registration) -> None:
        if is_refused(settings, registration):
            raise RemoteError(f"{registration.auth.url} does not take the new credential", status=_UNAUTHORIZED)

    store = SatelliteStore(settings.data_dir)
    with open_ground_control(settings) as client:
        try:
            registration = renew(client, store, try_out)
        except AuthenticationError as error:
            if note_refusal(store, str(error), datetime.now(UTC)):
                _LOG.error("refused by the centre: %s", error)
            raise
    clear_refusal(store)
    return registration


def is_refused(settings: SatelliteSettings, registration: Registration) -> bool:
    """Tell whether the source does not take a credential; a source that cannot be reached refuses nobody."""
    repository = registration.state.rpartition(":")[0].removeprefix(f"{registration.auth.url}/")
    with open_home(settings, registration) as home:
        try:
            home.manifest_head(repository, "latest")
        except RemoteError as error:
            return error.status == _UNAUTHORIZED
    return False
