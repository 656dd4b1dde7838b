"""Move rollouts: take receipts in, let the next wave go when the last one has proved itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect import flow
from prefect.states import Completed, Failed

from tasks.centre import open_centre
from tasks.roll_out import advance_rollout, list_rollouts
from tasks.satellites import list_satellites, publish_satellite_states

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State


@flow(name="roll-out", persist_result=False)
def roll_out(rollout_id: int | None = None) -> State[None]:
    """Take one rollout, or all that are going on, one step further; then end: the next run goes on from the rows.

    Args:
        rollout_id: its id; None: every rollout that is going on, which is how the schedule calls this.
    """
    with open_centre() as centre:
        ids = list_rollouts(centre) if rollout_id is None else (rollout_id,)
        steps = [step for number in ids if (step := advance_rollout(centre, number))]
        moved = list[str]()
        # Whatever the step did: a run before this one may have died between moving pins and publishing them.
        for group in sorted({step.group for step in steps}):
            moved += publish_satellite_states(centre, list_satellites(centre, group))
    if centre.problems:
        return Failed(message="; ".join(centre.problems))
    return Completed(message=f"{len(steps)} rollouts; {len(moved)} satellites moved")
