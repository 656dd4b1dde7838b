"""Have credentials renewed before they expire, and those that nobody uses any more deleted at the source."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect import flow
from prefect.states import Completed, Failed

from tasks.centre import open_centre
from tasks.rotate import delete_ended, look_at_waiting, mark_due, publish_rotation

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State


@flow(name="rotate-credentials", persist_result=False)
def rotate_credentials() -> State[None]:
    """Tell sites to renew, delete what has ended, and show who is late; sites renew with their next report."""
    with open_centre() as centre:
        told = mark_due(centre)
        deletions = delete_ended(centre)
        overview = look_at_waiting(centre)
    publish_rotation(overview, deletions)
    if centre.problems:
        return Failed(message="; ".join(centre.problems))
    late = f"; {overview.stranded_count} need a new one-time token" if overview.stranded_count else ""
    return Completed(message=f"{told} told to renew, {len(deletions.accounts)} accounts deleted{late}")
