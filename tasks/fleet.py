"""Tasks on the fleet's work pools and deployments in Prefect."""

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
from harbor_satellite.edge.worker import EdgeWorker
from harbor_satellite.state.names import (
    WORKER_TYPE,
    SatelliteName,
    work_pool_name,
)
from tasks.policy import remote_task

if TYPE_CHECKING:
    from prefect.client.schemas.responses import DeploymentResponse

    from harbor_satellite.ground_control.satellites.provisioning import WantedDeployment

_TIMEOUT_SECONDS = 600.0
_PAGE = 200


@remote_task(name="list-deployed", timeout_seconds=_TIMEOUT_SECONDS)
def list_deployed() -> tuple[str, ...]:
    """Return the satellites that have a deployment in Prefect."""
    with get_client(sync_client=True) as client:
        return tuple(sorted(_satellite_deployments(client)))


@remote_task(name="upsert-deployments", timeout_seconds=_TIMEOUT_SECONDS)
def upsert_deployments(satellites: tuple[WantedDeployment, ...]) -> tuple[str, ...]:
    """Make one work pool per satellite, and its deployments; what is right already is left alone.

    Returns:
        The satellites that had no deployment before.
    """
    # One look at everything, or at one satellite: the fleet's size must not be what one of them costs.
    only = satellites[0].name if len(satellites) == 1 else None
    created = []
    with get_client(sync_client=True) as client:
        existing = _satellite_deployments(client, only)
        for satellite in satellites:
            found = existing.get(satellite.name, {})
            for spec in satellite_deployments(satellite.name, satellite.schedule, satellite.timezone):
                if spec.entrypoint in found and _is_as(found[spec.entrypoint], spec):
                    continue
                _apply(client, spec)
                get_run_logger().info(
                    "deployed satellite=%s flow=%s cron=%s timezone=%s",
                    satellite.name,
                    spec.flow,
                    spec.cron,
                    spec.timezone,
                )
            if not found:
                created.append(str(satellite.name))
    return tuple(created)


@remote_task(name="remove-deployments", timeout_seconds=_TIMEOUT_SECONDS)
def remove_deployments(satellites: tuple[str, ...]) -> tuple[str, ...]:
    """Take away deployments and work pool, with its queues, of satellites; those that have none are fine.

    Returns:
        The satellites of which something was removed.
    """
    removed = []
    with get_client(sync_client=True) as client:
        for name in satellites:
            deployments = _satellite_deployments(client, name).get(name, {})
            for deployment in deployments.values():
                with contextlib.suppress(ObjectNotFound):
                    client.delete_deployment(deployment.id)
            try:
                client.delete_work_pool(work_pool_name(SatelliteName(name)))
            except ObjectNotFound:
                if not deployments:
                    continue
            get_run_logger().info("removed deployments satellite=%s", name)
            removed.append(name)
    return tuple(removed)


def _satellite_deployments(
    client: SyncPrefectClient, satellite: str | None = None
) -> dict[str, dict[str, DeploymentResponse]]:
    """Return every satellite's deployments, or one's, by its name in their Prefect tag, then by entrypoint."""
    found: dict[str, dict[str, DeploymentResponse]] = {}
    tags = ["harbor-satellite", *([f"{SATELLITE_TAG}{satellite}"] if satellite else [])]
    tagged = DeploymentFilter(tags=DeploymentFilterTags(all_=tags))
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
    crons = [
        (item.schedule.cron, item.schedule.timezone)
        for item in found.schedules
        if isinstance(item.schedule, CronSchedule)
    ]
    return (
        crons == ([(spec.cron, spec.timezone)] if spec.cron else [])
        and found.entrypoint == spec.entrypoint
        and found.work_pool_name == spec.work_pool
        and found.parameters == dict(spec.parameters)
        and set(found.tags) == set(spec.tags)
    )


def _apply(client: SyncPrefectClient, spec: DeploymentSpec) -> None:
    with contextlib.suppress(ObjectAlreadyExists):
        template = EdgeWorker.get_default_base_job_template()
        client.create_work_pool(WorkPoolCreate(name=spec.work_pool, type=WORKER_TYPE, base_job_template=template))
    schedules = [CronSchedule(cron=spec.cron, timezone=spec.timezone)] if spec.cron else []
    client.create_deployment(
        client.create_flow_from_name(spec.flow),
        spec.name,
        work_pool_name=spec.work_pool,
        entrypoint=spec.entrypoint,
        pull_steps=list(PULL_STEPS),
        schedules=[DeploymentScheduleCreate(schedule=schedule) for schedule in schedules],
        parameters=dict(spec.parameters),
        tags=list(spec.tags),
        concurrency_limit=spec.concurrency_limit,
        concurrency_options=ConcurrencyOptions(collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW),
    )
