"""Tasks that talk to Ground Control from a site: register, report."""

from __future__ import annotations

from prefect.logging import get_run_logger

from harbor_satellite.edge_site import site_facts
from harbor_satellite.errors import InvalidInputError
from harbor_satellite.satellite.ground_control_client import GroundControlClient
from harbor_satellite.satellite.registration import read_token, register
from harbor_satellite.satellite.replication import utc_now
from harbor_satellite.satellite.report import compose_report
from harbor_satellite.satellite.store import SatelliteStore
from harbor_satellite.settings import SatelliteSettings
from tasks.policy import remote_task

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


@remote_task(name="post-status", run_name="post status of {satellite}", timeout_seconds=_TIMEOUT_SECONDS)
def post_status(satellite: str) -> str:
    """Deliver the status report, and return the digest that it says is applied."""
    settings = SatelliteSettings()
    store = SatelliteStore(settings.data_dir)
    auth = store.registration().auth
    report = compose_report(satellite, store.applied(), site_facts(settings, store), utc_now())
    with ground_control(settings) as client:
        client.report(report, auth.username, auth.password)
    get_run_logger().info("reported state=%s images=%d", report.latest_state_digest or "none", report.image_count)
    return report.latest_state_digest


def ground_control(settings: SatelliteSettings) -> GroundControlClient:
    """Open the site's way to Ground Control.

    Raises:
        InvalidInputError: no address is set.
    """
    if not settings.ground_control_url:
        raise InvalidInputError("HARBOR_SATELLITE_GROUND_CONTROL_URL is not set")
    return GroundControlClient(settings.ground_control_url, verify=str(settings.ca) if settings.ca else True)
