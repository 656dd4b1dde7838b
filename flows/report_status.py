"""Report to Ground Control what this site follows, holds and could not get."""

from __future__ import annotations

from prefect import flow

from tasks.ground_control import post_status


@flow(name="report-status", flow_run_name="report-status {satellite}", persist_result=False)
def report_status(satellite: str) -> str:
    """Deliver one status report; return the digest of the state that it says is applied."""
    return post_status(satellite)
