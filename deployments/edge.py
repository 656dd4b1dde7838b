"""Deployments of one satellite: its own work pool, and what runs in it."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Final

from deployments.spec import DeploymentSpec
from harbor_satellite.state.names import work_pool_name

if TYPE_CHECKING:
    from harbor_satellite.state.names import SatelliteName

SATELLITE_TAG = "satellite:"
"""Prefix of the Prefect tag by which a satellite's deployments are known."""
_MINUTES_OF_DAY: Final = 24 * 60
_DAYS: Final = 7


def satellite_deployments(satellite: SatelliteName, cron: str, timezone: str = "UTC") -> tuple[DeploymentSpec, ...]:
    """Describe everything that Prefect must hold for a satellite; each flow once.

    Args:
        satellite: its name.
        cron: 5 fields; when it replicates.
        timezone: IANA name; of that schedule.
    """
    return (
        replicate_deployment(satellite, cron, timezone),
        audit_deployment(satellite),
        configure_host_deployment(satellite),
    )


def replicate_deployment(satellite: SatelliteName, cron: str, timezone: str = "UTC") -> DeploymentSpec:
    """Describe the deployment by which a satellite replicates.

    Args:
        satellite: its name.
        cron: 5 fields.
        timezone: IANA name.
    """
    return _deployment(satellite, "replicate-state", "flows/replicate_state.py:replicate_state", cron, timezone)


def audit_deployment(satellite: SatelliteName, cron: str = "") -> DeploymentSpec:
    """Describe the deployment by which a satellite audits its own registry.

    Args:
        satellite: its name.
        cron: 5 fields; empty: once a week, at a moment of its own.
    """
    entrypoint = "flows/audit_registry.py:audit_registry"
    return _deployment(satellite, "audit-registry", entrypoint, cron or weekly_cron(satellite))


def configure_host_deployment(satellite: SatelliteName) -> DeploymentSpec:
    """Describe the deployment by which a satellite's runtimes are configured at once, and what became of it is shown.

    Without a schedule: the site's agent looks after them by itself.

    Args:
        satellite: its name.
    """
    return _deployment(satellite, "configure-host", "flows/configure_host.py:configure_host", "")


def weekly_cron(satellite: SatelliteName) -> str:
    """Return a weekly schedule that is always the same for a satellite, and spread over the week for a fleet."""
    number = int.from_bytes(sha256(satellite.encode()).digest()[:8], "big")
    day, minute = divmod(number % (_DAYS * _MINUTES_OF_DAY), _MINUTES_OF_DAY)
    return f"{minute % 60} {minute // 60} * * {day}"


def _deployment(
    satellite: SatelliteName, flow: str, entrypoint: str, cron: str, timezone: str = "UTC"
) -> DeploymentSpec:
    return DeploymentSpec(
        flow=flow,
        name=satellite,
        entrypoint=entrypoint,
        work_pool=work_pool_name(satellite),
        cron=cron,
        timezone=timezone,
        parameters={"satellite": satellite},
        tags=("harbor-satellite", f"{SATELLITE_TAG}{satellite}"),
        concurrency_limit=1,
    )
