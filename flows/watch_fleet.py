"""Keep what Prefect and Ground Control say about the fleet true: silent sites, lost runs, old rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect import flow
from prefect.states import Completed

from tasks.centre import open_centre
from tasks.watch import close_superseded, end_lost_runs, mark_silent, prune_rows, prune_runs

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State


@flow(name="watch-fleet", persist_result=False)
def watch_fleet() -> State[None]:
    """Mark who has gone silent, end the runs that are no more or not needed, forget what is too old."""
    with open_centre() as centre:
        silent = mark_silent(centre)
        ended = end_lost_runs(centre)
        closed = close_superseded(centre)
        runs = prune_runs(centre)
        rows = prune_rows(centre)
    pruned = runs + sum(rows.values())
    runs_told = f"{ended} lost and {closed} superseded runs ended"
    return Completed(message=f"{len(silent)} went silent, {runs_told}, {pruned} old rows deleted")
