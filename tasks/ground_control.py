"""Tasks that talk to Ground Control from a site: register, report, renew the credential."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prefect.logging import get_run_logger

from harbor_satellite.edge_site import effective_settings, open_home, site_facts
from harbor_satellite.errors import AuthenticationError, InvalidInputError, RemoteError
from harbor_satellite.satellite.ground_control_client import GroundControlClient
from harbor_satellite.satellite.registration import read_token, register
from harbor_satellite.satellite.renewal import is_expiring, may_be_refused, renew
from harbor_satellite.satellite.replication import utc_now
from harbor_satellite.satellite.report import compose_report
from harbor_satellite.satellite.store import SatelliteStore
from harbor_satellite.settings import SatelliteSettings
from tasks.policy import remote_task

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

    from harbor_satellite.state.wire import Registration

_UNAUTHORIZED = 401
_TIMEOUT_SECONDS = 60.0


@remote_task(name="claim-token", timeout_seconds=_TIMEOUT_SECONDS)
def claim_token() -> str:
    """Exchange the one-time token for credentials, keep them on the site's disk, return the satellite's name.

    The token is read here, from the environment or a file: it is never a parameter.
    """
    settings = SatelliteSettings()
    with ground_control(settings) as client:
        registration = register(
            client, SatelliteStore(settings.data_dir), read_token(settings.token, settings.token_file)
        )
    get_run_logger().info("registered satellite=%s source=%s", registration.satellite, registration.auth.url)
    return registration.satellite


@dataclass(frozen=True, slots=True)
class Delivered:
    """A report that Ground Control has taken."""

    state_digest: str
    """Of the state that it says is applied; empty: none."""
    is_renewal_wanted: bool
    """Whether the site shall fetch its next credential now."""


@remote_task(name="post-status", run_name="post status of {satellite}", timeout_seconds=_TIMEOUT_SECONDS)
def post_status(satellite: str) -> Delivered:
    """Deliver the status report, and see whether the credential is to be renewed.

    It is if Ground Control says so, if it is about to expire, or if the source refuses what Ground Control takes.
    """
    settings = SatelliteSettings()
    store = SatelliteStore(settings.data_dir)
    registration, applied, now = store.registration(), store.applied(), utc_now()
    report = compose_report(satellite, applied, site_facts(effective_settings(settings, store), store), now)
    with ground_control(settings) as client:
        answer = client.report(report, registration.auth.username, registration.auth.password)
    get_run_logger().info("reported state=%s images=%d", report.latest_state_digest or "none", report.image_count)
    is_wanted = answer.is_renewal_due or is_expiring(registration, now, store.registered_at())
    is_wanted = is_wanted or (may_be_refused(applied) and is_refused(settings, registration))
    return Delivered(report.latest_state_digest, is_wanted)


@remote_task(name="renew-credential", run_name="renew credential of {satellite}", timeout_seconds=_TIMEOUT_SECONDS)
def renew_credential(satellite: str) -> str:
    """Fetch the next credential, try it and keep it; return its username. The present one works until it is used."""
    settings = SatelliteSettings()

    def try_out(registration: Registration) -> None:
        if is_refused(settings, registration):
            raise RemoteError(f"{registration.auth.url} does not take the new credential", status=_UNAUTHORIZED)

    with ground_control(settings) as client:
        registration = renew(client, SatelliteStore(settings.data_dir), try_out)
    get_run_logger().info("credential renewed satellite=%s username=%s", satellite, registration.auth.username)
    return registration.auth.username


def wants_renewal(delivered: State[Any]) -> bool:
    """Tell whether a report's task run asks for a renewal, or could not deliver because the credential expired."""
    result = delivered.result(raise_on_failure=False)
    return isinstance(result, AuthenticationError) or (isinstance(result, Delivered) and result.is_renewal_wanted)


def is_refused(settings: SatelliteSettings, registration: Registration) -> bool:
    """Tell whether the source does not take a credential; a source that cannot be reached refuses nobody."""
    repository = registration.state.rpartition(":")[0].removeprefix(f"{registration.auth.url}/")
    with open_home(settings, registration) as home:
        try:
            home.manifest_head(repository, "latest")
        except RemoteError as error:
            return error.status == _UNAUTHORIZED
    return False


def ground_control(settings: SatelliteSettings) -> GroundControlClient:
    """Open the site's way to Ground Control.

    Raises:
        InvalidInputError: no address is set.
    """
    if not settings.ground_control_url:
        raise InvalidInputError("HARBOR_SATELLITE_GROUND_CONTROL_URL is not set")
    return GroundControlClient(settings.ground_control_url, verify=str(settings.ca) if settings.ca else True)
