"""Make the source and Prefect what Ground Control's rows say, for the whole fleet; only what differs is touched."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect import flow
from prefect.states import Completed, Failed

from tasks.centre import open_centre
from tasks.fleet import list_deployed, remove_deployments, upsert_deployments
from tasks.provision import find_satellites, grant_projects, list_retired, retire_satellite
from tasks.satellites import ask_for_replication, publish_satellite_states

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State


@flow(name="reconcile-fleet", persist_result=False)
def reconcile_fleet() -> State[None]:
    """Publish the states that are missing, deploy what is new, take away what is gone."""
    with open_centre() as centre:
        # First Prefect, then the rows: a satellite that comes in between is not taken for one that is gone.
        deployed = list_deployed()
        satellites = find_satellites(centre)
        grant_projects(centre)
        publish_satellite_states(centre, satellites)
        created = upsert_deployments(satellites)
        gone = set(deployed) - {str(satellite.name) for satellite in satellites}
        removed = remove_deployments(tuple(sorted(gone)))
        for name in list_retired(centre):
            retire_satellite(centre, name)
        ask_for_replication(centre, created)
    if centre.problems:
        return Failed(message="; ".join(centre.problems))
    return Completed(message=f"{len(satellites)} satellites: {len(created)} deployed, {len(removed)} removed")
