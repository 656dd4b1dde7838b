"""Tasks on rollouts: which are going on, and one step of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect.artifacts import create_table_artifact
from prefect.logging import get_run_logger

from harbor_satellite.errors import NotFoundError
from harbor_satellite.ground_control.rollouts import rollout_steps, rollout_view
from harbor_satellite.satellite.replication import utc_now
from tasks.policy import remote_task

if TYPE_CHECKING:
    from harbor_satellite.ground_control.rollouts.rollout_steps import StepResult
    from tasks.centre import Centre

_TIMEOUT_SECONDS = 600.0


@remote_task(name="list-rollouts", timeout_seconds=_TIMEOUT_SECONDS)
def list_rollouts(centre: Centre) -> tuple[int, ...]:
    """Return the rollouts that are going on, the oldest first."""
    with centre.reading() as session:
        return rollout_view.active_rollouts(session)


@remote_task(name="advance-rollout", run_name="advance rollout {rollout_id}", timeout_seconds=_TIMEOUT_SECONDS)
def advance_rollout(centre: Centre, rollout_id: int) -> StepResult | None:
    """Take a rollout as far as it goes now; None if it is gone."""
    logger = get_run_logger()
    try:
        with centre.sessions.begin() as session:
            result = rollout_steps.advance(session, rollout_id, utc_now())
    except NotFoundError:
        logger.info("rollout is gone rollout=%d", rollout_id)
        return None
    logger.info("rollout %s rollout=%d group=%s reason=%s", result.state, rollout_id, result.group, result.reason)
    if result.is_changed:
        _publish_table(centre, rollout_id)
    return result


def _publish_table(centre: Centre, rollout_id: int) -> None:
    """Show how far each wave has come, as a table artifact."""
    with centre.reading() as session:
        view = rollout_view.show_rollout(session, rollout_id)
        row = view.rollout
        table = [
            {
                "wave": wave["name"],
                **{state: view.counts.get(number, {}).get(state, 0) for state in rollout_view.SATELLITE_STATES},
            }
            for number, wave in enumerate(row.waves)
        ]
        description = f"group {view.group} to generation {row.generation}: {row.state} {row.reason}".strip()
    create_table_artifact(table=table, key=f"rollout-{rollout_id}", description=description)
