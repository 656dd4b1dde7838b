"""Report to Ground Control what this site follows, holds and could not get; renew its credential when that is due."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect import flow
from prefect.logging import get_run_logger

from tasks.ground_control import post_status, renew_credential, wants_renewal

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

    from harbor_satellite.edge.delivery import Delivered


@flow(name="report-status", flow_run_name="report-status {satellite}", persist_result=False)
def report_status(satellite: str) -> str:
    """Deliver one status report; return the digest of the state that it says is applied."""
    return send_report(satellite).result().state_digest


def send_report(satellite: str) -> State[Delivered]:
    """Deliver one status report as part of the run that calls this: a run of its own would cost it as much again."""
    delivered = post_status(satellite, return_state=True)
    if wants_renewal(delivered):
        renewed = renew_credential(satellite, return_state=True)
        if renewed.is_completed():
            delivered = post_status(satellite, return_state=True)  # its first use ends the one before
        else:
            get_run_logger().warning("credential not renewed reason=%s", renewed.message)
    return delivered
