"""Tasks of the centre: resolve and publish states, keep Prefect's pools and deployments in step with the rows."""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags
from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.logging import get_run_logger

from deployments.edge import SATELLITE_TAG, satellite_deployments
from deployments.spec import PULL_STEPS, DeploymentSpec
from harbor_satellite.errors import ConflictError, HarborSatelliteError, NotFoundError, RemoteError
from harbor_satellite.ground_control import fleet
from harbor_satellite.ground_control.publishing import (
    drop_generation,
    is_group_lost,
    is_satellite_lost,
    publish_group,
    publish_satellite,
    resolve_group,
)
from harbor_satellite.ground_control.unresolved import record_unresolved
from harbor_satellite.oci.digest import Digest
from harbor_satellite.satellite.replication import utc_now
from harbor_satellite.state.names import (
    WORKER_TYPE,
    SatelliteName,
    group_state_repository,
    satellite_state_repository,
    work_pool_name,
)
from tasks.policy import remote_task

if TYPE_CHECKING:
    from prefect.client.schemas.responses import DeploymentResponse

    from harbor_satellite.ground_control.fleet import GroupSpec, SatelliteDeployment
    from harbor_satellite.ground_control.publishing import ResolvedGroup
    from harbor_satellite.state.artifact import StateArtifact
    from tasks.centre import Centre

_TIMEOUT_SECONDS = 600.0
_FLEET_TIMEOUT_SECONDS = 3600.0  # signing takes a second for each satellite
_PAGE = 200
_ATTEMPTS = 3  # to publish a group that changes meanwhile


@remote_task(name="list-groups", timeout_seconds=_TIMEOUT_SECONDS)
def list_groups(centre: Centre) -> tuple[str, ...]:
    """Return the names of all groups."""
    with centre.reading() as session:
        return tuple(fleet.list_group_names(session))


@remote_task(name="publish-group", run_name="publish {group}", timeout_seconds=_TIMEOUT_SECONDS)
def publish_group_state(centre: Centre, group: str) -> tuple[str, ...]:
    """Resolve a group at the source and publish its next generation if anything changed.

    Returns:
        What could not be resolved, each with its reason.
    """
    logger = get_run_logger()
    try:
        spec, resolved, state = _publish_patiently(centre, group)
    except NotFoundError:
        logger.info("group is gone group=%s", group)
        return ()
    generation = state.generation if state else spec.generation
    logger.info("%s group=%s generation=%d", "published" if state else "unchanged", group, generation)
    for problem in resolved.unresolved:
        logger.warning("not resolved reference=%s reason=%s", problem.reference, problem.reason)
    return tuple(f"{problem.reference}: {problem.reason}" for problem in resolved.unresolved)


def _publish_patiently(centre: Centre, group: str) -> tuple[GroupSpec, ResolvedGroup, StateArtifact | None]:
    for _ in range(_ATTEMPTS - 1):
        with contextlib.suppress(ConflictError):  # another publisher, or a change: what was resolved is out of date
            return _publish(centre, group)
    return _publish(centre, group)


def _publish(centre: Centre, group: str) -> tuple[GroupSpec, ResolvedGroup, StateArtifact | None]:
    with centre.reading() as session:
        spec = fleet.group_spec(session, group)
    with centre.source_of(spec.registry) as source:
        resolved = resolve_group(source, spec)
    with centre.sessions.begin() as session:  # of its own: it is known even if nothing can be published
        record_unresolved(session, spec, resolved.unresolved, utc_now())
    registry = centre.public_url if centre.is_own(spec.registry) else spec.registry
    with centre.source_of("") as own:
        is_lost = is_group_lost(own, spec)
        with centre.sessions.begin() as session:
            state = publish_group(
                session, centre.pusher, spec, resolved, registry=registry, now=utc_now(), is_lost=is_lost
            )
        if state is None and centre.signer and spec.published_digest:
            # Published before there was a key, or its signature is lost.
            centre.signer.ensure_signed(group_state_repository(spec.name), spec.published_digest)
        if state:
            with contextlib.suppress(RemoteError):  # a tag too many harms nobody
                drop_generation(own, group, state.generation)
    return spec, resolved, state


@remote_task(name="list-satellites", timeout_seconds=_TIMEOUT_SECONDS)
def list_satellites(centre: Centre) -> tuple[SatelliteDeployment, ...]:
    """Return every satellite with what Prefect must hold for it."""
    with centre.reading() as session:
        return fleet.satellite_deployments(session)


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
        fleet.grant_projects(session, centre.source, satellite)
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


@remote_task(name="upsert-deployments", timeout_seconds=_TIMEOUT_SECONDS)
def upsert_deployments(satellites: tuple[SatelliteDeployment, ...]) -> tuple[str, ...]:
    """Make one work pool per satellite, and its deployments; what is right already is left alone.

    Returns:
        The satellites that had no deployment before.
    """
    created = []
    with get_client(sync_client=True) as client:
        existing = _satellite_deployments(client)
        for satellite in satellites:
            found = existing.get(satellite.name, {})
            for spec in satellite_deployments(satellite.name, satellite.schedule):
                if spec.entrypoint in found and _is_as(found[spec.entrypoint], spec):
                    continue
                _apply(client, spec)
                get_run_logger().info("deployed satellite=%s flow=%s cron=%s", satellite.name, spec.flow, spec.cron)
            if not found:
                created.append(str(satellite.name))
    return tuple(created)


@remote_task(name="remove-deployments", timeout_seconds=_TIMEOUT_SECONDS)
def remove_deployments(satellites: tuple[SatelliteDeployment, ...]) -> tuple[str, ...]:
    """Take away deployments and work pool of every satellite that is no more.

    Returns:
        The satellites whose deployments were removed.
    """
    wanted = {str(satellite.name) for satellite in satellites}
    removed = []
    with get_client(sync_client=True) as client:
        for name, deployments in _satellite_deployments(client).items():
            if name in wanted:
                continue
            for deployment in deployments.values():
                client.delete_deployment(deployment.id)
            with contextlib.suppress(ObjectNotFound):
                client.delete_work_pool(work_pool_name(SatelliteName(name)))
            get_run_logger().info("removed deployments satellite=%s", name)
            removed.append(name)
    return tuple(removed)


def _satellite_deployments(client: SyncPrefectClient) -> dict[str, dict[str, DeploymentResponse]]:
    """Return every satellite's deployments by entrypoint, by the satellite's name, as its Prefect tag says."""
    found: dict[str, dict[str, DeploymentResponse]] = {}
    tagged = DeploymentFilter(tags=DeploymentFilterTags(all_=["harbor-satellite"]))
    for offset in itertools.count(0, _PAGE):
        page = client.read_deployments(deployment_filter=tagged, limit=_PAGE, offset=offset)
        for deployment in page:
            for tag in deployment.tags:
                if tag.startswith(SATELLITE_TAG):
                    found.setdefault(tag.removeprefix(SATELLITE_TAG), {})[deployment.entrypoint or ""] = deployment
        if len(page) < _PAGE:
            break
    return found


def _is_as(found: DeploymentResponse, spec: DeploymentSpec) -> bool:
    crons = [item.schedule.cron for item in found.schedules if isinstance(item.schedule, CronSchedule)]
    return (
        crons == [spec.cron]
        and found.entrypoint == spec.entrypoint
        and found.work_pool_name == spec.work_pool
        and found.parameters == dict(spec.parameters)
        and set(found.tags) == set(spec.tags)
    )


def _apply(client: SyncPrefectClient, spec: DeploymentSpec) -> None:
    with contextlib.suppress(ObjectAlreadyExists):
        client.create_work_pool(WorkPoolCreate(name=spec.work_pool, type=WORKER_TYPE))
    schedule = CronSchedule(cron=spec.cron, timezone=spec.timezone)
    client.create_deployment(
        client.create_flow_from_name(spec.flow),
        spec.name,
        work_pool_name=spec.work_pool,
        entrypoint=spec.entrypoint,
        pull_steps=list(PULL_STEPS),
        schedules=[DeploymentScheduleCreate(schedule=schedule)],
        parameters=dict(spec.parameters),
        tags=list(spec.tags),
        concurrency_limit=spec.concurrency_limit,
        concurrency_options=ConcurrencyOptions(collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW),
    )
