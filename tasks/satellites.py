"""Tasks on satellites at the centre: which there are, publishing their states, asking for their replication."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.logging import get_run_logger

from harbor_satellite.errors import HarborSatelliteError, NotFoundError
from harbor_satellite.ground_control import credentials, satellite_states
from harbor_satellite.ground_control.satellite_publishing import is_satellite_lost, publish_satellite
from harbor_satellite.oci.digest import Digest
from harbor_satellite.satellite.replication import utc_now
from harbor_satellite.state.names import (
    satellite_state_repository,
)
from tasks.policy import remote_task

if TYPE_CHECKING:
    from harbor_satellite.ground_control.satellite_states import SatelliteDeployment
    from tasks.centre import Centre

_TIMEOUT_SECONDS = 600.0
_FLEET_TIMEOUT_SECONDS = 3600.0  # signing takes a second for each satellite


@remote_task(name="list-satellites", timeout_seconds=_TIMEOUT_SECONDS)
def list_satellites(centre: Centre) -> tuple[SatelliteDeployment, ...]:
    """Return every satellite with what Prefect must hold for it."""
    with centre.reading() as session:
        return satellite_states.satellite_deployments(session)


@remote_task(name="publish-satellites", timeout_seconds=_FLEET_TIMEOUT_SECONDS)
def publish_satellite_states(
    centre: Centre, satellites: tuple[SatelliteDeployment, ...], *, is_thorough: bool = False
) -> tuple[str, ...]:
    """Push the state of every satellite whose groups moved, after its credential may read them.

    Args:
        centre: the run's hold on the centre.
        satellites: all of them.
        is_thorough: also ask the source for each, push again what it has lost, and sign what is not signed.

    Returns:
        The satellites whose state was pushed.
    """
    logger = get_run_logger()
    moved = []
    with centre.source_of("") as own:
        for satellite in satellites:
            try:
                is_lost = is_thorough and is_satellite_lost(own, satellite.name, satellite.state_digest)
                if _publish_satellite(centre, satellite.name, is_lost=is_lost):
                    moved.append(str(satellite.name))
                    logger.info("published satellite state satellite=%s", satellite.name)
                elif is_thorough and centre.signer and satellite.state_digest:
                    repository = satellite_state_repository(satellite.name)
                    centre.signer.ensure_signed(repository, Digest.parse(satellite.state_digest))
            except NotFoundError:
                logger.info("satellite is gone satellite=%s", satellite.name)
            except HarborSatelliteError as error:  # one satellite never holds up the others
                logger.error("state not published satellite=%s reason=%s", satellite.name, error)  # noqa: TRY400
                centre.problems.append(f"state of satellite {satellite.name}: {error}")
    return tuple(moved)


def _publish_satellite(centre: Centre, satellite: str, *, is_lost: bool) -> bool:
    with centre.sessions.begin() as session:
        credentials.grant_projects(session, centre.source, satellite)
    with centre.sessions.begin() as session:
        return publish_satellite(
            session, centre.pusher, satellite, registry=centre.public_url, now=utc_now(), is_lost=is_lost
        )


@remote_task(name="start-replication", timeout_seconds=_TIMEOUT_SECONDS)
def start_replication(satellites: tuple[str, ...]) -> int:
    """Ask for a run at every satellite whose state moved; one whose deployment is still to come gets its run then."""
    started = 0
    with get_client(sync_client=True) as client:
        for satellite in satellites:
            try:
                deployment = client.read_deployment_by_name(f"replicate-state/{satellite}")
            except ObjectNotFound:
                continue
            client.create_flow_run_from_deployment(deployment.id, tags=["state-moved"])
            started += 1
    return started
