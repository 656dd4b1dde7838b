"""A site's credential as its processes care for it: the way to Ground Control, whether the source refuses, renewal.

What must not live here: how a renewal goes (``satellite/renewal.py``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from harbor_satellite.edge.site import open_home
from harbor_satellite.errors import InvalidInputError, RemoteError
from harbor_satellite.satellite.ground_control_client import GroundControlClient
from harbor_satellite.satellite.renewal import renew
from harbor_satellite.satellite.store import SatelliteStore

if TYPE_CHECKING:
    from harbor_satellite.settings import SatelliteSettings
    from harbor_satellite.state.wire import Registration

_UNAUTHORIZED: Final = 401


def open_ground_control(settings: SatelliteSettings) -> GroundControlClient:
    """Open the site's way to Ground Control.

    Raises:
        InvalidInputError: no address is set.
    """
    if not settings.ground_control_url:
        raise InvalidInputError("HARBOR_SATELLITE_GROUND_CONTROL_URL is not set")
    return GroundControlClient(settings.ground_control_url, verify=str(settings.ca) if settings.ca else True)


def renew_own_credential(settings: SatelliteSettings) -> Registration:
    """Fetch the site's next credential, try it at the source, and keep it; see ``renewal.renew`` for what it raises."""

    def try_out(registration: Registration) -> None:
        if is_refused(settings, registration):
            raise RemoteError(f"{registration.auth.url} does not take the new credential", status=_UNAUTHORIZED)

    with open_ground_control(settings) as client:
        return renew(client, SatelliteStore(settings.data_dir), try_out)


def is_refused(settings: SatelliteSettings, registration: Registration) -> bool:
    """Tell whether the source does not take a credential; a source that cannot be reached refuses nobody."""
    repository = registration.state.rpartition(":")[0].removeprefix(f"{registration.auth.url}/")
    with open_home(settings, registration) as home:
        try:
            home.manifest_head(repository, "latest")
        except RemoteError as error:
            return error.status == _UNAUTHORIZED
    return False
