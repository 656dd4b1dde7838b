"""Which of the flow runs that Prefect offers a site starts now, later, or not at all. Pure.

Every run does all there is to do, so one run stands for all that a schedule wanted before it: what was missed in a
week without a link is made up for by one run. What somebody asked for is never taken away. Two runs of one flow never
overlap. Due times are compared with each
other, since all are by the centre's clock; the site's own clock only tells when a moment has come.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime


@dataclass(frozen=True, slots=True)
class DueRun:
    """A flow run that Prefect offers."""

    run: str
    """Its id."""
    flow: str
    """What is run: the id of its deployment."""
    due: datetime
    is_scheduled: bool
    """Whether a schedule made it; else a person or an event did."""
    inputs: str = ""
    """Its parameters: a run stands for others only if theirs are the same."""

    @property
    def kind(self) -> tuple[str, str]:
        """What runs that stand for each other have in common."""
        return self.flow, self.inputs


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of the runs at hand; those that are not named wait until they are offered again."""

    start: tuple[DueRun, ...] = ()
    later: tuple[tuple[DueRun, datetime], ...] = ()
    """With the moment of each."""
    covered: tuple[DueRun, ...] = ()
    """Another run stands for them."""


def decide(
    runs: Sequence[DueRun],
    now: datetime,
    *,
    jitter_seconds: float,
    busy: Collection[str],
    covered: Mapping[tuple[str, str], datetime],
) -> Verdict:
    """Decide about the runs at hand.

    Args:
        runs: what Prefect offers.
        now: by the site's clock.
        jitter_seconds: how much later a run starts that a schedule made.
        busy: flows of which a run is under way.
        covered: until which due time runs of a kind are covered by one that has started.
    """
    start: list[DueRun] = []
    later: list[tuple[DueRun, datetime]] = []
    done: list[DueRun] = []
    for kind in sorted({run.kind for run in runs}):
        left: list[DueRun] = []
        ready: list[DueRun] = []
        for run in sorted((run for run in runs if run.kind == kind), key=lambda run: (run.due, run.run)):
            is_covered = run.is_scheduled and kind in covered and run.due <= covered[kind]
            (done if is_covered else left).append(run)
        for run in left:
            moment = run.due + timedelta(seconds=jitter_seconds)
            # What was asked for is not held back by a clock of the site's that is behind.
            if run.is_scheduled and moment > now:
                later.append((run, moment))
            else:
                ready.append(run)
        if ready and kind[0] not in busy and kind[0] not in {run.flow for run in start}:
            chosen = ready[-1]
            start.append(chosen)
            done += [run for run in left if run.is_scheduled and run is not chosen and run.due <= chosen.due]
    return Verdict(tuple(start), tuple(item for item in later if item[0] not in done), tuple(done))
