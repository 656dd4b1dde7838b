"""Tasks that bring satellites in step with their rows, at the source and in the registry; all can be repeated."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect.logging import get_run_logger

from harbor_satellite.errors import HarborSatelliteError, NotFoundError, RemoteError
from harbor_satellite.ground_control.people.audit_log import flow_actor
from harbor_satellite.ground_control.satellites import credentials, provisioning, retirement, rotation
from harbor_satellite.harbor.projects import project_exists
from harbor_satellite.satellite.replication import utc_now
from harbor_satellite.state.names import satellite_name, satellite_state_repository
from tasks.policy import local_task, remote_task

if TYPE_CHECKING:
    from harbor_satellite.ground_control.satellites.provisioning import WantedDeployment
    from tasks.centre import Centre

_TIMEOUT_SECONDS = 600.0
_CANNOT_DELETE = frozenset({404, 405})  # gone already; a registry that deletes nothing


@local_task(name="find-satellites")
def find_satellites(centre: Centre, satellite: str | None = None) -> tuple[WantedDeployment, ...]:
    """Return what Prefect must hold for one satellite, or for all; nothing for one that is gone or revoked."""
    with centre.reading() as session:
        return provisioning.wanted_deployments(session, None if satellite is None else [satellite])


@local_task(name="list-retired")
def list_retired(centre: Centre) -> tuple[str, ...]:
    """Return the deleted satellites of which something may be left."""
    with centre.reading() as session:
        return retirement.list_retired(session)


@remote_task(name="grant-projects", timeout_seconds=_TIMEOUT_SECONDS)
def grant_projects(centre: Centre, satellite: str | None = None) -> int:
    """Let the credentials of one satellite, or of all that differ, pull from what their groups need now.

    Returns:
        How many the source was told of.
    """
    told = 0
    for name in (satellite,) if satellite else find_ungranted(centre):
        try:
            with centre.sessions.begin() as session:
                told += credentials.grant_projects(session, centre.source, name)
        except NotFoundError:
            get_run_logger().info("satellite is gone satellite=%s", name)
        except HarborSatelliteError as error:
            if satellite and error.retryable:
                raise
            get_run_logger().error("projects not granted satellite=%s reason=%s", name, error)
            centre.problems.append(f"projects of satellite {name}: {error}")
    return told


def find_ungranted(centre: Centre) -> tuple[str, ...]:
    """Return the satellites whose permissions at the source can be brought in step, by name."""
    with centre.reading() as session:
        differences = provisioning.grant_differences(session)
    missing = {project for item in differences for project in item.missing}
    # A group may name a project long before it is there: it is asked for once, and not for each satellite.
    harbor = centre.source.harbor
    absent = {project for project in missing if not project_exists(harbor, project)} if harbor else set[str]()
    return provisioning.satellites_to_grant(differences, absent)


@remote_task(name="check-account", run_name="check account of {satellite}", timeout_seconds=_TIMEOUT_SECONDS)
def check_account(centre: Centre, satellite: str) -> None:
    """See before the site calls whether the source could make its account; the secret is made by the claim only."""
    with centre.reading() as session:
        account = provisioning.next_account(session, satellite)
    if account is None:
        return
    try:
        centre.source.check_name(account)
        centre.source.check()
    except HarborSatelliteError as error:
        if error.retryable:
            raise
        centre.problems.append(f"account of satellite {satellite}: {error}")


@remote_task(name="delete-ended", run_name="delete ended accounts of {satellite}", timeout_seconds=_TIMEOUT_SECONDS)
def delete_revoked(centre: Centre, satellite: str) -> int:
    """Delete the accounts of a satellite that is revoked; return how many."""
    now, actor = utc_now(), flow_actor("provision-satellite")
    done = rotation.delete_ended(
        centre.sessions, centre.source, actor, grace=centre.superseded_grace, now=now, satellite=satellite
    )
    centre.problems.extend(done.problems)
    return len(done.accounts)


@remote_task(name="retire-satellite", run_name="retire {satellite}", timeout_seconds=_TIMEOUT_SECONDS)
def retire_satellite(centre: Centre, satellite: str) -> bool:
    """Take away what is left of a deleted satellite at the source, and then forget it.

    Returns:
        Whether there is nothing left; else the problem is told and the next run goes on.
    """
    repository = satellite_state_repository(satellite_name(satellite))
    try:
        with centre.sessions.begin() as session:
            retirement.delete_retired_accounts(session, centre.source, satellite)
        with centre.sessions.begin() as session:
            retirement.forget_retired(session, satellite, lambda: delete_repository(centre, repository))
    except HarborSatelliteError as error:
        if error.retryable:
            raise
        centre.problems.append(f"what is left of satellite {satellite}: {error}")
        return False
    get_run_logger().info("retired satellite=%s", satellite)
    return True


def delete_repository(centre: Centre, repository: str) -> None:
    """Delete a repository of states, over the source's own API or manifest by manifest."""
    if centre.source.delete_repository(repository):
        return
    with centre.source_of("") as own:
        try:
            for tag in own.tag_list(repository):
                found = own.manifest_head(repository, tag)
                if found is not None:
                    own.manifest_delete(repository, str(found.digest))
        except RemoteError as error:
            if error.status not in _CANNOT_DELETE:
                raise
