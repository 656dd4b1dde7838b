"""Deployments of one satellite: its own work pool, and one deployment in it."""

from __future__ import annotations

from deployments.spec import DeploymentSpec
from harbor_satellite.state.names import SatelliteName, work_pool_name

SATELLITE_TAG = "satellite:"
"""Prefix of the Prefect tag by which a satellite's deployment is known."""


def replicate_deployment(satellite: SatelliteName, cron: str) -> DeploymentSpec:
    """Describe the deployment by which a satellite replicates.

    Args:
        satellite: its name.
        cron: 5 fields.
    """
    return DeploymentSpec(
        flow="replicate-state",
        name=satellite,
        entrypoint="flows/replicate_state.py:replicate_state",
        work_pool=work_pool_name(satellite),
        cron=cron,
        parameters={"satellite": satellite},
        tags=("harbor-satellite", f"{SATELLITE_TAG}{satellite}"),
        concurrency_limit=1,
    )
