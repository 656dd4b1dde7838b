"""Tasks that talk to Ground Control from a site: register, report, renew the credential."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prefect.logging import get_run_logger

from harbor_satellite.edge.credential import renew_own_credential
from harbor_satellite.edge.delivery import Delivered, deliver
from harbor_satellite.edge.registration import register_now
from harbor_satellite.errors import AuthenticationError
from harbor_satellite.settings import SatelliteSettings
from tasks.policy import remote_task

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

_TIMEOUT_SECONDS = 60.0


@remote_task(name="claim-token", timeout_seconds=_TIMEOUT_SECONDS)
def claim_token() -> str:
    """Exchange the one-time token for credentials, keep them on the site's disk, return the satellite's name.

    The token is read here, from the environment or a file: it is never a parameter.
    """
    registration, _ = register_now(SatelliteSettings(), None)
    get_run_logger().info("registered satellite=%s source=%s", registration.satellite, registration.auth.url)
    return registration.satellite


@remote_task(name="post-status", run_name="post status of {satellite}", timeout_seconds=_TIMEOUT_SECONDS)
def post_status(satellite: str) -> Delivered:
    """Keep on disk how the site is now, deliver what waits there, and see whether the credential is to be renewed.

    It is if Ground Control says so, if it is about to expire, or if the source refuses what Ground Control takes.
    """
    delivered = deliver(SatelliteSettings(), satellite)
    get_run_logger().info("reported state=%s images=%d", delivered.state_digest or "none", delivered.image_count)
    return delivered


@remote_task(name="renew-credential", run_name="renew credential of {satellite}", timeout_seconds=_TIMEOUT_SECONDS)
def renew_credential(satellite: str) -> str:
    """Fetch the next credential, try it and keep it; return its username. The present one works until it is used."""
    registration = renew_own_credential(SatelliteSettings())
    get_run_logger().info("credential renewed satellite=%s username=%s", satellite, registration.auth.username)
    return registration.auth.username


def wants_renewal(delivered: State[Any]) -> bool:
    """Tell whether a report's task run asks for a renewal, or could not deliver because the credential expired."""
    result = delivered.result(raise_on_failure=False)
    return isinstance(result, AuthenticationError) or (isinstance(result, Delivered) and result.is_renewal_wanted)
