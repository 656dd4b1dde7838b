"""One step of a rollout: take receipts in, decide, move pins. One transaction, safe to repeat and to be killed.

Whoever holds the rollout's row makes the step; another one at the same time waits, reads what was done, and finds
nothing left to do. Publishing the satellites' states comes after the commit, and is level-triggered too.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import and_, exists, or_, select, update
from sqlalchemy.orm import aliased

from harbor_satellite.errors import InvalidInputError
from harbor_satellite.ground_control.models import (
    AppliedGroupRow,
    Group,
    Rollout,
    RolloutSatellite,
    Satellite,
    SatelliteGroup,
)
from harbor_satellite.ground_control.people import audit_log
from harbor_satellite.ground_control.rollouts import pins, rollout_view, rollouts
from harbor_satellite.ground_control.rollouts.rollout_plan import Action, Progress, Receipt, judge, next_action
from harbor_satellite.ground_control.satellites import configs
from harbor_satellite.ground_control.satellites.satellites import (
    MISSED_REPORTS_UNTIL_STALE,
    STALE_WITHOUT_INTERVAL_SECONDS,
)
from harbor_satellite.state.windows import SyncWindows

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import ColumnElement, Row, Select
    from sqlalchemy.orm import Session


_ACTOR: Final = audit_log.flow_actor("roll-out")


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step came to."""

    rollout_id: int
    group: str
    state: str
    is_changed: bool
    """Whether anything of the rollout is another than before, a satellite's part too."""
    reason: str
    """What it waits for, or why it ended."""


def advance(session: Session, rollout_id: int, now: datetime) -> StepResult:
    """Take a rollout as far as it goes now.

    Args:
        session: open; committed by the caller.
        rollout_id: of any rollout; one that is over is left as it is.
        now: this moment.

    Raises:
        NotFoundError: there is no such rollout (any more).
    """
    rollout, group = rollouts.locked_rollout(session, rollout_id)
    if rollout.state not in pins.ACTIVE_STATES:
        return StepResult(rollout_id, group.name, rollout.state, is_changed=False, reason=rollout.reason)
    is_changed = _take_receipts(session, rollout, group, now)
    while True:
        action, reason = next_action(progress_of(session, rollout), now)
        if action is Action.WAIT:
            break
        before = rollout.state, rollout.current_wave
        _act(session, rollout, group, action, reason, now)
        _record(session, rollout, group, action, before, now)
        is_changed = True
    if is_changed:
        rollout.updated_at = now
    return StepResult(rollout_id, group.name, rollout.state, is_changed, reason)


def progress_of(session: Session, rollout: Rollout) -> Progress:
    """Return where a rollout stands."""
    counts = rollout_view.counts_of(session, [rollout.id])[rollout.id]
    mine = counts.get(rollout.current_wave, {})
    return Progress(
        state=rollout.state,
        current_wave=rollout.current_wave,
        wave_count=len(rollout.waves),
        waiting=mine.get("waiting", 0),
        open=sum(count.get("released", 0) for count in counts.values()),
        succeeded=mine.get("succeeded", 0),
        size=sum(mine.values()),
        failed=sum(count.get("failed", 0) for count in counts.values()),
        max_failures=rollout.max_failures,
        soak_seconds=int(rollout.waves[rollout.current_wave]["soak_seconds"]),
        wave_settled_at=rollout.wave_settled_at,
    )


def _act(  # noqa: PLR0917 - read from left to right it is the step
    session: Session, rollout: Rollout, group: Group, action: Action, reason: str, now: datetime
) -> None:
    match action:
        case Action.RELEASE:
            rollout.wave_started_at, rollout.wave_settled_at = now, None
            _release(session, rollout, group, now)
        case Action.SOAK:
            rollout.state, rollout.wave_settled_at = "soaking", now
        case Action.ADVANCE:
            rollout.state, rollout.current_wave = "running", rollout.current_wave + 1
            rollout.wave_started_at = rollout.wave_settled_at = None
        case Action.PAUSE:
            # Who resumes it says that the wave is enough: then it is watched, and the next one goes.
            rollout.state, rollout.paused_state, rollout.reason = "paused", "soaking", reason
            rollout.wave_settled_at = now
        case Action.ABORT:
            rollout.state, rollout.reason = "aborted", reason
        case Action.COMPLETE:
            rollout.state, rollout.reason = "completed", ""
            pins.release_generation(session, group, rollout.generation, now)
        case Action.WAIT:
            return
    session.flush()


def _release(session: Session, rollout: Rollout, group: Group, now: datetime) -> None:
    """Move the pins of the current wave, and of nobody who was revoked, has left the group or is held."""
    row = RolloutSatellite
    waiting = and_(row.rollout_id == rollout.id, row.wave == rollout.current_wave, row.state == "waiting")
    found = session.execute(
        select(row.satellite_id, Satellite.lifecycle).join(Satellite, Satellite.id == row.satellite_id).where(waiting)
    ).all()
    before = pins.followed(session, group.id, [satellite_id for satellite_id, _ in found])
    settled: dict[str, list[int]] = defaultdict(list)
    released: dict[int, list[int]] = defaultdict(list)  # by what they followed before
    for satellite_id, lifecycle in found:
        item = before.get(satellite_id)
        if item is None or lifecycle == "revoked":
            settled["no longer follows the group" if item is None else "revoked"].append(satellite_id)
        elif item.is_held:
            settled["held by an operator"].append(satellite_id)
        else:
            released[item.generation].append(satellite_id)
    for reason, ids in settled.items():
        _set(session, waiting, ids, {"state": "skipped", "reason": reason, "settled_at": now})
    for generation, ids in released.items():
        pins.move_pins(session, group.id, dict.fromkeys(ids, rollout.generation), now)
        _set(session, waiting, ids, {"state": "released", "released_at": now, "from_generation": generation})


def _take_receipts(session: Session, rollout: Rollout, group: Group, now: datetime) -> bool:
    """Judge every satellite whose part may have changed; return whether one's has."""
    rows = session.execute(_receipts(rollout, group)).all()
    overdue = [row for row in rows if row.state == "released" and _age(row, now) > rollout.receipt_timeout_seconds]
    open_seconds = _open_seconds(session, overdue, now)
    verdicts: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row in rows:
        receipt = _receipt(row, rollout.generation, open_seconds.get(row.satellite_id, 0.0))
        verdict = judge(row.state, receipt, rollout.generation, rollout.receipt_timeout_seconds, now)
        if verdict is not None:
            verdicts[verdict].append(row.satellite_id)
    mine = and_(RolloutSatellite.rollout_id == rollout.id, RolloutSatellite.released_at.is_not(None))
    for (state, reason), ids in verdicts.items():
        _set(session, mine, ids, {"state": state, "reason": reason, "settled_at": now})
    return bool(verdicts)


def _receipts(rollout: Rollout, group: Group) -> Select[Any]:
    row, applied, named = RolloutSatellite, AppliedGroupRow, aliased(AppliedGroupRow)
    # Of those that have succeeded, only the ones that say otherwise now: a fleet at rest costs next to nothing.
    is_open = or_(
        row.state != "succeeded",
        applied.generation.is_(None),
        applied.generation != rollout.generation,
        and_(Satellite.applied_digest.is_(None), Satellite.failure_count > 0),
    )
    return (
        select(
            row.satellite_id,
            row.state,
            row.released_at,
            row.from_generation,
            applied.generation.label("followed"),
            Satellite.applied_digest,
            Satellite.state_digest,
            exists().where(named.satellite_id == row.satellite_id).label("names_generations"),
            Satellite.failure_count,
            Satellite.last_seen,
            Satellite.report_interval_seconds,
            Satellite.state_published_at,
            Satellite.lifecycle,
            SatelliteGroup.group_id.label("member_of"),
        )
        .join(Satellite, Satellite.id == row.satellite_id)
        .join(applied, and_(applied.satellite_id == row.satellite_id, applied.group_name == group.name), isouter=True)
        .join(
            SatelliteGroup,
            and_(SatelliteGroup.satellite_id == row.satellite_id, SatelliteGroup.group_id == group.id),
            isouter=True,
        )
        .where(row.rollout_id == rollout.id, row.released_at.is_not(None), is_open)
    )


def _receipt(row: Row[Any], target: int, open_seconds: float) -> Receipt:
    interval = row.report_interval_seconds
    allowed = interval * MISSED_REPORTS_UNTIL_STALE if interval else STALE_WITHOUT_INTERVAL_SECONDS
    published_at = row.state_published_at
    is_told = row.from_generation == target or (published_at is not None and published_at >= row.released_at)
    # Satellites of the original name no generations: of theirs, the state that they are on says it, once.
    is_on_told = is_told and row.state_digest is not None and row.applied_digest == row.state_digest
    is_taken = not row.names_generations and (is_on_told or row.state == "succeeded")
    return Receipt(
        released_at=row.released_at,
        followed=target if is_taken else row.followed,
        is_converged=row.applied_digest is not None,
        failure_count=row.failure_count,
        last_seen=row.last_seen,
        is_told=is_told,
        has_state=row.state_digest is not None,
        was_silent=row.last_seen is None or (row.released_at - row.last_seen).total_seconds() > allowed,
        is_member=row.member_of is not None and row.lifecycle != "revoked",
        open_seconds=open_seconds,
    )


def _age(row: Row[Any], now: datetime) -> float:
    return float((now - row.released_at).total_seconds())


def _open_seconds(session: Session, rows: Sequence[Row[Any]], now: datetime) -> Mapping[int, float]:
    """Return for how long each of these satellites could work since it was released, as far as its config says."""
    found = {}
    released_at = {row.satellite_id: row.released_at for row in rows}
    for chunk in pins.chunks(released_at):
        for satellite_id, config in configs.effective_configs(session, chunk).items():
            windows, zone = config.sync_windows or (), config.timezone or "UTC"
            found[satellite_id] = _open_between(windows, zone, released_at[satellite_id], now)
    return found


@lru_cache(maxsize=1024)
def _open_between(windows: tuple[str, ...], timezone: str, start: datetime, end: datetime) -> float:
    if not windows:
        return (end - start).total_seconds()
    try:
        parsed = SyncWindows.parse(windows, timezone)
    except InvalidInputError:  # the zone is unknown here: the site may know it, and gets the benefit
        return 0.0
    total, moment = 0.0, start
    while (opens := parsed.next_opening(moment)) is not None and opens < end:
        closes = min(parsed.closes_at(opens) or end, end)
        total += (closes - opens).total_seconds()
        moment = closes
        if closes >= end:
            break
    return total


def _set(
    session: Session, where: ColumnElement[bool], satellite_ids: Collection[int], values: Mapping[str, Any]
) -> None:
    for chunk in pins.chunks(satellite_ids):
        statement = update(RolloutSatellite).where(where, RolloutSatellite.satellite_id.in_(chunk)).values(**values)
        session.execute(statement.execution_options(synchronize_session=False))


def _record(  # noqa: PLR0917 - read from left to right it is the event
    session: Session, rollout: Rollout, group: Group, action: Action, before: tuple[str, int], now: datetime
) -> None:
    changes = audit_log.difference(
        {"state": before[0], "wave": before[1]}, {"state": rollout.state, "wave": rollout.current_wave}
    )
    changes |= {"group": [group.name, group.name], "reason": [None, rollout.reason]} if rollout.reason else {}
    resource = f"rollout:{rollout.id}"
    audit_log.record(session, _ACTOR, f"rollout.{action.value}", resource, changes=changes, now=now)
