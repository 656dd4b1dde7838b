"""Which of the runs that wait for a site need not run: what they would do, a newer one does. Pure.

A site that was away for weeks finds one run of its schedule, and one that an event made. What a person asked for is
never taken away.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

Maker = Literal["schedule", "event", "person"]
SUPERSEDED: Final = "superseded: a newer run of the same kind is due"
"""Why such a run is cancelled."""


@dataclass(frozen=True, slots=True)
class WaitingRun:
    """A run that Prefect has scheduled and that no worker has."""

    id: str
    deployment: str
    maker: Maker
    due: datetime


def maker_of(*, is_auto_scheduled: bool, created_by: str | None) -> Maker:
    """Tell who made a run.

    Args:
        is_auto_scheduled: as Prefect says.
        created_by: the kind of its maker as Prefect says, such as ``AUTOMATION``; None: unknown.
    """
    if is_auto_scheduled:
        return "schedule"
    return "event" if created_by == "AUTOMATION" else "person"


def superseded(runs: Iterable[WaitingRun], now: datetime) -> tuple[str, ...]:
    """Return the ids of the runs behind which a newer one of the same deployment and maker is due, the oldest first."""
    due: dict[tuple[str, Maker], list[WaitingRun]] = defaultdict(list)
    for run in runs:
        if run.due <= now and run.maker != "person":
            due[run.deployment, run.maker].append(run)
    behind = [run for kind in due.values() for run in sorted(kind, key=lambda one: (one.due, one.id))[:-1]]
    return tuple(run.id for run in sorted(behind, key=lambda one: (one.due, one.id)))
