"""Events for Prefect: written in the transaction of the change they tell of, taken out to be posted.

What must not live here: HTTP (``dispatcher.py``). A lost event costs minutes, never correctness: every
flow also runs on a slow cron.
"""

from __future__ import annotations

import random
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from sqlalchemy import delete, func, select, update

from harbor_satellite.ground_control.models import OutboxEvent

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from sqlalchemy import Select
    from sqlalchemy.orm import Session

GROUP_CHANGED: Final = "harbor-satellite.group.changed"
FLEET_CHANGED: Final = "harbor-satellite.fleet.changed"
CONFIG_CHANGED: Final = "harbor-satellite.config.changed"
SATELLITE_CHANGED: Final = "harbor-satellite.satellite.changed"
"""There is something for a site to do: the only event that starts a run at a site, and the only one that is paced."""
ROLLOUT_CHANGED: Final = "harbor-satellite.rollout.changed"
PENDING: Final = "harbor_satellite_outbox_pending"
"""Key in ``Session.info``: this transaction has written an event."""

_LEASE: Final = timedelta(seconds=60)  # longer than posting a batch may take
_KEEP_DELIVERED: Final = timedelta(days=1)  # for an operator who looks why a flow ran
_BACKOFF_LIMIT_SECONDS: Final = 300
_CHUNK: Final = 1000  # names in one statement


@dataclass(frozen=True, slots=True)
class LeasedEvent:
    """One event that this replica is to post now."""

    id: int
    event_id: str
    event: str
    resource_id: str
    payload: dict[str, str]
    occurred: datetime
    attempts: int


def enqueue_group_changed(session: Session, group: str, now: datetime) -> None:
    """Tell that a group's artifacts or members changed, once this transaction commits."""
    _enqueue(session, GROUP_CHANGED, f"harbor-satellite.group.{group}", {"group": group}, now)


def enqueue_groups_changed_soon(
    session: Session, groups: Collection[str], now: datetime, *, delay_seconds: float
) -> int:
    """Tell of changes that come in bursts: one event for each group, a little later, however often this is called.

    Transactions that are under way together may add one each: a flow too many harms nobody.

    An event that waits is enough only if it is not being posted: its flow may have read the group before this
    transaction commits. So a waiting event is locked until then, and one that has ever been taken out does not count.

    Returns:
        How many events were added.
    """
    payloads = {f"harbor-satellite.group.{group}": {"group": group} for group in groups}
    return _enqueue_once(session, GROUP_CHANGED, payloads, now, available_at=now + timedelta(seconds=delay_seconds))


def enqueue_satellites_changed(session: Session, satellites: Collection[str], now: datetime) -> int:
    """Tell that there is something to do at sites, once this transaction commits: one waiting event for each.

    Their runs are asked for at a pace of the dispatcher's; what was said of others waits no longer for that.

    Returns:
        How many events were added; see ``enqueue_groups_changed_soon`` for when one that waits is enough.
    """
    payloads = {f"harbor-satellite.satellite-state.{name}": {"satellite": str(name)} for name in satellites}
    return _enqueue_once(session, SATELLITE_CHANGED, payloads, now, available_at=now)


def enqueue_fleet_changed(session: Session, satellite: str, now: datetime) -> None:
    """Tell that a satellite came, went or changed its groups, once this transaction commits."""
    _enqueue(session, FLEET_CHANGED, f"harbor-satellite.satellite.{satellite}", {"satellite": satellite}, now)


def enqueue_config_changed(session: Session, config: str, now: datetime) -> None:
    """Tell that a config changed, once this transaction commits: one event, however many satellites have it."""
    _enqueue(session, CONFIG_CHANGED, f"harbor-satellite.config.{config}", {"config": config}, now)


def enqueue_rollout_changed(session: Session, rollout_id: int, now: datetime) -> None:
    """Tell that a rollout was started, paused, ended or turned round, once this transaction commits."""
    payload = {"rollout_id": str(rollout_id)}
    _enqueue(session, ROLLOUT_CHANGED, f"harbor-satellite.rollout.{rollout_id}", payload, now)


def lease_events(session: Session, limit: int, now: datetime) -> tuple[LeasedEvent, ...]:
    """Take the oldest due events for a minute, so that no other replica posts them meanwhile; none of satellites."""
    query = select(OutboxEvent).where(OutboxEvent.event != SATELLITE_CHANGED).order_by(OutboxEvent.id)
    return _lease(session, query.limit(limit), now)


def lease_satellite_events(session: Session, limit: int, now: datetime) -> tuple[LeasedEvent, ...]:
    """Take the due events of satellites that have waited longest for their turn, likewise."""
    query = select(OutboxEvent).where(OutboxEvent.event == SATELLITE_CHANGED)
    return _lease(session, query.order_by(OutboxEvent.available_at, OutboxEvent.id).limit(limit), now)


def count_of_satellites(session: Session, since: datetime) -> int:
    """Return how many events of satellites were posted since a moment, by whichever replica."""
    query = select(func.count()).select_from(OutboxEvent)
    query = query.where(OutboxEvent.event == SATELLITE_CHANGED, OutboxEvent.delivered_at > since)
    return session.scalar(query) or 0


def next_due(session: Session) -> tuple[datetime | None, datetime | None]:
    """Return when the next event is due that is not delivered, and the next one of a satellite; None if none is."""
    query = select(OutboxEvent.event, func.min(OutboxEvent.available_at)).where(OutboxEvent.delivered_at.is_(None))
    found = dict(session.execute(query.group_by(OutboxEvent.event)).tuples().all())
    of_satellites = found.pop(SATELLITE_CHANGED, None)
    return min(found.values(), default=None), of_satellites


def mark_delivered(session: Session, ids: Collection[int], now: datetime) -> None:
    """Note that events arrived, and forget those that arrived long ago."""
    session.execute(update(OutboxEvent).where(OutboxEvent.id.in_(ids)).values(delivered_at=now))
    session.execute(delete(OutboxEvent).where(OutboxEvent.delivered_at < now - _KEEP_DELIVERED))


def mark_failed(session: Session, events: Sequence[LeasedEvent], now: datetime) -> None:
    """Put events back; each is tried again after a delay that grows with its attempts."""
    for event in events:
        available_at = now + timedelta(seconds=backoff_seconds(event.attempts))
        session.execute(update(OutboxEvent).where(OutboxEvent.id == event.id).values(available_at=available_at))


def keep(session: Session, event: LeasedEvent, until: datetime) -> None:
    """Put an event back that cannot be posted yet; as it never was, it still stands for later changes."""
    session.execute(update(OutboxEvent).where(OutboxEvent.id == event.id).values(available_at=until, attempts=0))


def drop(session: Session, events: Collection[LeasedEvent]) -> None:
    """Forget events that nobody needs any more."""
    session.execute(delete(OutboxEvent).where(OutboxEvent.id.in_([event.id for event in events])))


def backoff_seconds(attempts: int) -> float:
    """Return how long to wait after so many failed attempts: 1 s doubling to 5 min, jittered downwards."""
    longest = min(_BACKOFF_LIMIT_SECONDS, 2.0 ** min(attempts - 1, 10))
    return longest * random.uniform(0.5, 1)  # noqa: S311 - spreads load, keeps no secret


def _lease(session: Session, query: Select[tuple[OutboxEvent]], now: datetime) -> tuple[LeasedEvent, ...]:
    is_due = OutboxEvent.delivered_at.is_(None) & (OutboxEvent.available_at <= now)
    rows = session.scalars(query.where(is_due).with_for_update(skip_locked=True)).all()
    for row in rows:
        row.available_at = now + _LEASE
        row.attempts += 1
    return tuple(
        LeasedEvent(row.id, row.event_id, row.event, row.resource_id, dict(row.payload), row.created_at, row.attempts)
        for row in rows
    )


def _enqueue_once(
    session: Session, event: str, payloads: Mapping[str, dict[str, str]], now: datetime, *, available_at: datetime
) -> int:
    """Add an event for each resource that none waits for; return how many."""
    names = sorted(payloads)
    waiting: dict[str, int] = {}
    for start in range(0, len(names), _CHUNK):
        query = (
            select(OutboxEvent.resource_id, OutboxEvent.id)
            .where(
                OutboxEvent.event == event,
                OutboxEvent.delivered_at.is_(None),
                OutboxEvent.attempts == 0,
                OutboxEvent.resource_id.in_(names[start : start + _CHUNK]),
            )
            .order_by(OutboxEvent.id)  # whoever locks several does it in the same order
            .with_for_update()
        )
        found = dict(session.execute(query).tuples().all())
        # What it tells of is the latest change, which is what an event's age is counted from; it comes no later.
        mine = update(OutboxEvent).where(OutboxEvent.id.in_(found.values()))
        session.execute(mine.values(created_at=now))
        session.execute(mine.where(OutboxEvent.available_at > available_at).values(available_at=available_at))
        waiting |= found
    for resource_id in names:
        if resource_id not in waiting:
            _enqueue(session, event, resource_id, payloads[resource_id], now, available_at=available_at)
    return len(payloads) - len(waiting)


def _enqueue(
    session: Session,
    event: str,
    resource_id: str,
    payload: dict[str, str],
    now: datetime,
    *,
    available_at: datetime | None = None,
) -> None:
    session.add(
        OutboxEvent(
            event_id=str(uuid.uuid4()),
            event=event,
            resource_id=resource_id,
            payload=payload,
            created_at=now,
            available_at=available_at or now,
            attempts=0,
        )
    )
    session.info[PENDING] = True
