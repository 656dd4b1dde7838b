"""Tasks of rotation: telling sites to renew, deleting at the source what has ended, showing who is late."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from prefect.artifacts import create_table_artifact
from prefect.logging import get_run_logger

from harbor_satellite.ground_control.people.audit_log import flow_actor
from harbor_satellite.ground_control.satellites import rotation
from harbor_satellite.satellite.replication import utc_now
from tasks.policy import local_task, remote_task

if TYPE_CHECKING:
    from harbor_satellite.ground_control.satellites.rotation import Deletions, WaitingCredential
    from tasks.centre import Centre

_TIMEOUT_SECONDS = 1800.0
_ACTOR = flow_actor("rotate-credentials")
_PERIOD = timedelta(hours=1)
TABLE_ROWS = 1000
"""Of the table artifact; those that expire first come first."""


@dataclass(frozen=True, slots=True)
class Overview:
    """Where rotation stands."""

    waiting: tuple[WaitingCredential, ...]
    renewed_count: int
    """In the last hour."""

    @property
    def stranded_count(self) -> int:
        """How many sites need an operator."""
        return sum("one-time token" in item.needs for item in self.waiting)


@local_task(name="mark-due")
def mark_due(centre: Centre) -> int:
    """Tell sites whose credentials expire before long to renew them; return how many were told now."""
    count = 0
    while True:
        with centre.sessions.begin() as session:
            marked = rotation.mark_due(session, centre.renewal_before, _ACTOR, utc_now())
        count += len(marked)
        if len(marked) < rotation.DUE_AT_ONCE:
            break
    get_run_logger().info("credentials due count=%d", count)
    return count


@remote_task(name="delete-ended", timeout_seconds=_TIMEOUT_SECONDS)
def delete_ended(centre: Centre) -> Deletions:
    """Delete superseded and revoked accounts at the source; what fails is left for the next run."""
    done = rotation.delete_ended(centre.sessions, centre.source, _ACTOR, grace=centre.superseded_grace, now=utc_now())
    centre.problems.extend(done.problems)
    get_run_logger().info("accounts deleted count=%d problems=%d", len(done.accounts), len(done.problems))
    return done


@local_task(name="look-at-waiting")
def look_at_waiting(centre: Centre) -> Overview:
    """Return which sites have yet to renew, and how many did within the last hour."""
    now = utc_now()
    with centre.reading() as session:
        waiting = rotation.list_waiting(session, centre.renewal_before, centre.renewal_grace, now)
        return Overview(waiting, rotation.count_renewed(session, now - _PERIOD))


def publish_rotation(overview: Overview, deletions: Deletions) -> None:
    """Show who is to renew and since when, what was deleted, and what could not be, as a table artifact."""
    rows = [
        {
            "satellite": item.satellite,
            "account": item.username,
            "expires": _moment(item.expires_at),
            "waiting since": _moment(item.since),
            "last seen": _moment(item.last_seen),
            "needs": item.needs,
        }
        for item in overview.waiting[:TABLE_ROWS]
    ]
    rows += [{"account": account, "needs": "nothing: deleted"} for account in deletions.accounts[:TABLE_ROWS]]
    rows += [{"needs": f"problem: {problem}"} for problem in deletions.problems]
    if not rows:
        return  # this runs every hour, for years
    create_table_artifact(
        table=rows,
        key="rotation",
        description=f"{len(overview.waiting)} due, {overview.renewed_count} renewed within the hour, "
        f"{len(deletions.accounts)} deleted, {len(deletions.problems)} problems",
    )


def _moment(moment: object) -> str:
    return "" if moment is None else f"{moment:%Y-%m-%d %H:%M}"
