"""Tasks that talk to Ground Control from a site: register, report, renew the credential."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prefect.logging import get_run_logger

from harbor_satellite.edge.credential import is_refused, open_ground_control, renew_own_credential
from harbor_satellite.edge.site import effective_settings, site_facts
from harbor_satellite.errors import AuthenticationError
from harbor_satellite.satellite.registration import read_token, register
from harbor_satellite.satellite.renewal import is_expiring, may_be_refused
from harbor_satellite.satellite.replication import utc_now
from harbor_satellite.satellite.report import compose_report
from harbor_satellite.satellite.store import SatelliteStore
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
    settings = SatelliteSettings()
    with open_ground_control(settings) as client:
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
    with open_ground_control(settings) as client:
        answer = client.report(report, registration.auth.username, registration.auth.password)
    get_run_logger().info("reported state=%s images=%d", report.latest_state_digest or "none", report.image_count)
    is_wanted = answer.is_renewal_due or is_expiring(registration, now, store.registered_at())
    is_wanted = is_wanted or (may_be_refused(applied) and is_refused(settings, registration))
    return Delivered(report.latest_state_digest, is_wanted)


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
