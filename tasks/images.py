"""Tasks of a replication: look, copy, publish."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect.logging import get_run_logger

from harbor_satellite.errors import HarborSatelliteError
from harbor_satellite.satellite.sync import recover
from tasks.policy import local_task, remote_task
from tasks.progress import show_progress

if TYPE_CHECKING:
    from harbor_satellite.oci.digest import Digest
    from harbor_satellite.satellite.outcome import RunOutcome
    from harbor_satellite.satellite.replication import FetchedState
    from harbor_satellite.state.plan import Copy, ReplicationPlan
    from tasks.site import Site

_STATE_TIMEOUT_SECONDS = 300.0
_COPY_TIMEOUT_SECONDS = 24 * 3600.0  # a slow link is no error; a silent peer is noticed by the client long before


@remote_task(name="check-state", timeout_seconds=_STATE_TIMEOUT_SECONDS)
def check_state(site: Site) -> Digest | None:
    """Return the digest of the state to apply, or None if the site is in step already."""
    recover(site.engine)
    current = site.engine.check(site.registration.state)
    if current is None:
        get_run_logger().info("nothing to do state=%s", site.engine.store.applied().state_digest)
    return current


@remote_task(name="fetch-state", run_name="fetch state of {site.satellite}", timeout_seconds=_STATE_TIMEOUT_SECONDS)
def fetch_states(site: Site) -> FetchedState:
    """Fetch the satellite state and every group's state, verified."""
    fetched = site.engine.fetch(site.registration.state)
    groups = ", ".join(f"{state.group}={state.generation}" for state in fetched.groups)
    get_run_logger().info("fetched state=%s generations=%s", fetched.digest, groups or "none")
    return fetched


@remote_task(name="plan-replication", timeout_seconds=_STATE_TIMEOUT_SECONDS)
def plan_images(site: Site, fetched: FetchedState) -> ReplicationPlan:
    """Hold the desired images against what the local registry really has, and the plan against the disk."""
    plan = site.engine.plan(fetched.groups)
    get_run_logger().info(
        "planned copy=%d keep=%d delete=%d refuse=%d wait=%d",
        len(plan.copy),
        len(plan.keep),
        len(plan.delete),
        len(plan.refuse),
        len(plan.wait),
    )
    return plan


@remote_task(name="copy-images", run_name="copy {label}", timeout_seconds=_COPY_TIMEOUT_SECONDS)
def copy_images(site: Site, copies: tuple[Copy, ...], label: str) -> int:
    """Bring artifacts to the site by digest; one bad artifact does not stop the others of the batch.

    Args:
        site: the run's hold on the site.
        copies: what to bring; usually one artifact.
        label: what the task run is called.

    Returns:
        Bytes read from the source.

    Raises:
        HarborSatelliteError: the first failure that trying again may mend, else the first failure.
    """
    logger = get_run_logger()
    failures: list[HarborSatelliteError] = []
    copied = 0
    with show_progress(label, sum(copy.size or 0 for copy in copies)) as on_bytes:
        for copy in copies:
            if site.engine.is_staged(copy):
                continue
            try:
                outcome = site.engine.stage(copy, on_bytes)
            except HarborSatelliteError as error:
                failures.append(error)
                logger.warning("not copied reference=%s reason=%s", copy, error)
            else:
                copied += outcome.bytes_copied
                logger.info("copied reference=%s digest=%s bytes=%d", copy, copy.digest, outcome.bytes_copied)
    if failures:
        raise next((error for error in failures if error.retryable), failures[0])
    return copied


@local_task(name="publish-images")
def publish_images(site: Site, fetched: FetchedState, plan: ReplicationPlan) -> RunOutcome:
    """Check signatures, move the tags of what is complete, take away what no group wants, and keep the record."""
    outcome = site.engine.finish(site.engine.publish(plan, fetched), fetched, plan)
    get_run_logger().info("replicated state=%s %s", fetched.digest, outcome.summary())
    return outcome


@local_task(name="record-failure")
def record_failed_run(site: Site, error: HarborSatelliteError) -> None:
    """Keep why the run failed as a whole, so that the report can say it."""
    site.engine.fail(error)


@local_task(name="record-unchanged")
def record_unchanged(site: Site) -> RunOutcome:
    """Keep the record of a run that found nothing to do."""
    return site.engine.rest()
