"""Cutting plans into tasks, and runs into table artifacts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect.artifacts import create_table_artifact

if TYPE_CHECKING:
    from harbor_satellite.satellite.outcome import RunOutcome
    from harbor_satellite.state.plan import Copy

TASKS_PER_RUN = 32
"""Up to so many artifacts get a task each; more are batched, since a task costs the server 35 ms and 23 kB."""
TABLE_ROWS = 1000
"""Rows of a table artifact; changes and failures first, so that what was cut off is only what stayed."""
_ORDER = {
    action: place
    for place, action in enumerate(("failed", "quarantined", "paused", "staged", "copied", "deleted", "kept"))
}


def batches(copies: tuple[Copy, ...]) -> tuple[tuple[str, tuple[Copy, ...]], ...]:
    """Cut copies into at most ``TASKS_PER_RUN`` batches, each with the name of its task run."""
    if len(copies) <= TASKS_PER_RUN:
        return tuple((str(copy), (copy,)) for copy in copies)
    cut = (copies[start::TASKS_PER_RUN] for start in range(TASKS_PER_RUN))
    return tuple((f"{part[0]} and {len(part) - 1} more", part) for part in cut)


def publish_table(satellite: str, outcome: RunOutcome) -> None:
    """Show what was copied, kept, deleted and why, as a table artifact of the run."""
    images = sorted(outcome.images, key=lambda image: (_ORDER[image.action], image.reference))
    create_table_artifact(
        table=[image.row() for image in images[:TABLE_ROWS]],
        key=artifact_key(satellite),
        description=f"{outcome.summary()}; state {outcome.state_digest}",
    )


def artifact_key(satellite: str) -> str:
    """Return the key of a satellite's table: Prefect takes only lower-case letters, digits and dashes.

    ``-d-`` and ``-u-`` stand for what it does not take, so that two satellites never share a table.
    """
    return f"replication-{satellite.replace('-', '--').replace('.', '-d-').replace('_', '-u-')}"
