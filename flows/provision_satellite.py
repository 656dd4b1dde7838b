"""Give one satellite what it needs at the source and in Prefect, or take all of it away if it is no more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect import flow
from prefect.states import Completed, Failed

from tasks.centre import open_centre
from tasks.fleet import remove_deployments, upsert_deployments
from tasks.provision import (
    check_account,
    delete_revoked,
    find_satellites,
    grant_projects,
    list_retired,
    retire_satellite,
)
from tasks.satellites import ask_for_replication, publish_satellite_states

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

    from tasks.centre import Centre


@flow(name="provision-satellite", flow_run_name="provision-satellite {satellite}", persist_result=False)
def provision_satellite(satellite: str) -> State[None]:
    """Bring one satellite in step with its rows; every step can be repeated, and does only what is missing."""
    with open_centre() as centre:
        is_wanted = bool(find_satellites(centre, satellite))
        # What is in Prefect goes even while the source, which the rest has to ask, is down.
        done = "" if is_wanted else take_away(centre, satellite)
        if satellite in list_retired(centre):
            retire_satellite(centre, satellite)
        done = provide(centre, satellite) if is_wanted else done
    if centre.problems:
        return Failed(message="; ".join(centre.problems))
    return Completed(message=done)


def provide(centre: Centre, satellite: str) -> str:
    """Permissions first, then the state that needs them, then the deployments, then the first run."""
    check_account(centre, satellite)
    grant_projects(centre, satellite)
    wanted = find_satellites(centre, satellite)
    moved = publish_satellite_states(centre, wanted)
    created = upsert_deployments(wanted)
    ask_for_replication(centre, created)
    return f"state {'moved' if moved else 'as it was'}; {len(created)} deployed"


def take_away(centre: Centre, satellite: str) -> str:
    """Accounts first: they are what a stolen disk could be used with."""
    deleted = delete_revoked(centre, satellite)
    removed = remove_deployments((satellite,))
    return f"{deleted} accounts deleted; {len(removed)} deployments removed"
