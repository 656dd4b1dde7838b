"""Bring this site's local registry in step with what the centre decided, and report."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from prefect import flow
from prefect.futures import wait
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner

from flows.report_status import send_report
from harbor_satellite.errors import ConflictError, HarborSatelliteError, PausedError
from tasks.images import (
    check_state,
    copy_images,
    fetch_states,
    plan_images,
    publish_images,
    record_failed_run,
    record_unchanged,
)
from tasks.site import Site, image_workers, open_site
from tasks.tables import batches, publish_table

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

    from harbor_satellite.satellite.outcome import RunOutcome

MAX_ROUNDS = 3  # a state that moved while it was applied is applied too, instead of waiting for the next run


@flow(
    name="replicate-state",
    flow_run_name="replicate-state {satellite}",
    task_runner=ThreadPoolTaskRunner(max_workers=image_workers()),  # type: ignore[arg-type]  # its type parameter is invariant
    persist_result=False,
)
def replicate_state(satellite: str) -> State[str]:
    """Replicate until the site is in step, show what was done and why, and report to Ground Control."""
    with contextlib.ExitStack() as stack:
        # Whatever became of the run, the centre should hear of it; if it cannot, the run's own end still counts.
        stack.callback(report, satellite)
        try:
            site = hold_site(satellite, stack)
            if site is None:
                stack.pop_all()  # who holds the site reports
                return Completed(message="another run is under way at this site, and does all there is to do")
            outcome = replicate(site)
        except PausedError as error:
            return Completed(message=f"paused: {error}")
    if outcome.is_news:
        publish_table(satellite, outcome)
    if failed := outcome.of("failed"):
        return Failed(message=f"{len(failed)} of {len(outcome.images)} images failed: {failed[0].reason}")
    return Completed(message=outcome.summary())


def hold_site(satellite: str, stack: contextlib.ExitStack) -> Site | None:
    """Take the site's lock and open its registries; None: another run has it, such as one by the site's own timer."""
    try:
        return stack.enter_context(open_site(satellite))
    except ConflictError as error:
        get_run_logger().info("not now: %s", error)
        return None


def report(satellite: str) -> None:
    """Report to Ground Control, or say why not."""
    delivered = send_report(satellite)
    if not delivered.is_completed():
        get_run_logger().warning("report not delivered reason=%s", delivered.message)


def replicate(site: Site) -> RunOutcome:
    """Fetch, plan, copy, publish; again if the state moved meanwhile."""
    try:
        return follow(site)
    except HarborSatelliteError as error:
        record_failed_run(site, error)
        raise


def follow(site: Site) -> RunOutcome:
    """Apply the current state until it no longer moves; a bad image is in the outcome, a bad state raises."""
    outcome: RunOutcome | None = None
    for _ in range(MAX_ROUNDS):
        try:
            current = check_state(site)
        except HarborSatelliteError:
            if outcome is None:
                raise
            break  # what was done is done and on record; the next run asks again
        if current is None or (outcome and outcome.state_digest == str(current)):
            break
        fetched = fetch_states(site)
        plan = plan_images(site, fetched)
        # A failed copy is no reason to stop: what became of each is kept by the site and published below.
        wait([copy_images.submit(site, copies, label) for label, copies in batches(plan.copy)])
        outcome = publish_images(site, fetched, plan)
    return outcome or record_unchanged(site)
