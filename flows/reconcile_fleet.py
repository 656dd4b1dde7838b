"""Make Prefect's work pools and deployments what Ground Control's rows say, one of each per satellite."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect import flow
from prefect.states import Completed, Failed

from tasks.centre import open_centre
from tasks.fleet import remove_deployments, upsert_deployments
from tasks.satellites import list_satellites, publish_satellite_states, start_replication

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State


@flow(name="reconcile-fleet", persist_result=False)
def reconcile_fleet() -> State[None]:
    """Publish the states that are missing, deploy what is new, remove what is gone, start what never ran."""
    with open_centre() as centre:
        satellites = list_satellites(centre)
        moved = publish_satellite_states(centre, satellites)
        created = upsert_deployments(satellites)
        removed = remove_deployments(satellites)
        # Read again after deploying: publish-state looks for a deployment after publishing a state, so whichever
        # of the two comes second starts the first replication. One without a state has nothing to replicate yet.
        ready = {str(satellite.name) for satellite in list_satellites(centre) if satellite.state_digest}
        start_replication(tuple(sorted({*moved, *(name for name in created if name in ready)})))
    if centre.problems:
        return Failed(message="; ".join(centre.problems))
    return Completed(message=f"{len(satellites)} satellites: {len(created)} deployed, {len(removed)} removed")
