"""Publish what groups hold: resolve at the source, push new generations, move the satellites to them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from prefect import flow
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from tasks.centre import open_centre
from tasks.groups import list_groups, publish_group_state
from tasks.satellites import list_satellites, publish_satellite_states

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

_PATIENCE_SECONDS = 60.0
"""For slow groups, until the satellites of the others are moved."""


def run_name() -> str:
    """Name the run after its group."""
    return f"publish-state {flow_run.parameters.get('group') or 'all groups'}"


@flow(name="publish-state", flow_run_name=run_name, persist_result=False)
def publish_state(group: str | None = None) -> State[None]:
    """Publish one group, or all; then move every satellite whose groups moved, which asks for its replication.

    Args:
        group: its name: then only its satellites are looked at; None: every group and the whole fleet, which is how
            the schedule calls this.
    """
    with open_centre() as centre:
        groups = (group,) if group else list_groups(centre)
        published = [publish_group_state.submit(centre, name) for name in groups]
        patient_until = time.monotonic() + _PATIENCE_SECONDS
        for future in published:
            future.wait(max(0.0, patient_until - time.monotonic()))
        has_late = time.monotonic() >= patient_until
        moved = publish_satellite_states(centre, list_satellites(centre, group), is_thorough=group is None)
        # A group that cannot be published keeps its last generation and holds up no other.
        states = [future.wait() or future.state for future in published]
        if has_late:
            moved_later = publish_satellite_states(centre, list_satellites(centre, group))
            moved = tuple(dict.fromkeys([*moved, *moved_later]))
    broken = [name for name, state in zip(groups, states, strict=True) if not state.is_completed()]
    missing = [problem for future in published if future.state.is_completed() for problem in future.result()]
    if problems := [*(f"group {name} not published" for name in broken), *missing, *centre.problems]:
        return Failed(message="; ".join(problems))
    return Completed(message=f"{len(groups)} groups; {len(moved)} satellites moved")
