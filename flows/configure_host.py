"""Point this host's container runtimes at the local registry, as the settings and the centre's config say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect import flow
from prefect.states import Completed, Failed

from tasks.host import configure_runtimes

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State


@flow(name="configure-host", flow_run_name="configure-host {satellite}", persist_result=False)
def configure_host(satellite: str) -> State[str]:
    """Configure the runtimes that are wanted, take back those that no longer are, and say what stands in the way."""
    outcomes = configure_runtimes(satellite)
    if problems := [outcome for outcome in outcomes if outcome.problem]:
        return Failed(message=f"{len(problems)} of {len(outcomes)} runtimes: {problems[0].name}: {problems[0].problem}")
    return Completed(message=f"{len(outcomes)} runtimes are configured")
