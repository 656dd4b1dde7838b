"""Task of a site that looks after its host: let the container runtimes pull from the local registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect.logging import get_run_logger

from harbor_satellite.edge.runtimes import follow
from harbor_satellite.edge.site import effective_settings
from harbor_satellite.errors import InvalidInputError
from harbor_satellite.satellite.store import SatelliteStore
from harbor_satellite.settings import SatelliteSettings
from tasks.policy import local_task

if TYPE_CHECKING:
    from harbor_satellite.edge.runtimes import RuntimeOutcome


@local_task(name="configure-runtimes", run_name="configure runtimes of {satellite}")
def configure_runtimes(satellite: str) -> tuple[RuntimeOutcome, ...]:
    """Let this host's runtimes be as the settings say, and return what is known of each.

    Args:
        satellite: who this site should be; a run meant for another satellite is refused.
    """
    settings = effective_settings(SatelliteSettings())
    registered = SatelliteStore(settings.data_dir).registration().satellite
    if registered and registered != satellite:
        raise InvalidInputError(f"this site is {registered}; the run is meant for {satellite}")
    outcomes = follow(settings)
    for outcome in outcomes:
        get_run_logger().info("runtime name=%s problem=%s", outcome.name, outcome.problem or "none")
    return outcomes
