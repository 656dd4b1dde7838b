"""A group's selectors as rows: read, and replaced as a whole. Use cases over a ``Session``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import delete, insert, select

from harbor_satellite.errors import InvalidInputError, NotFoundError
from harbor_satellite.ground_control import outbox
from harbor_satellite.ground_control.groups.selectors import Selector, make_selector
from harbor_satellite.ground_control.models import Group, GroupSelector
from harbor_satellite.state.names import group_name

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy.orm import Session

SELECTORS_MOST: Final = 100
"""Of one group."""


def selectors_of(session: Session, group_id: int) -> tuple[Selector, ...]:
    """Return a group's selectors in the order in which they were given."""
    query = select(GroupSelector).where(GroupSelector.group_id == group_id).order_by(GroupSelector.id)
    return tuple(
        make_selector(
            f"selector {row.id}",
            project=row.project,
            repository=row.repository,
            tag=row.tag,
            labels=row.labels,
            platforms=row.platforms,
            newest=row.newest,
            priority=row.priority,
        )
        for row in session.scalars(query)
    )


def replace_selectors(
    session: Session, group: str, selectors: Sequence[Selector], now: datetime
) -> tuple[Selector, ...]:
    """Give a group these selectors and no others, and tell Prefect.

    Returns:
        What it had before.

    Raises:
        NotFoundError: there is no such group.
        InvalidInputError: too many of them.
    """
    if len(selectors) > SELECTORS_MOST:
        raise InvalidInputError(f"selectors: {len(selectors)} of them; at most {SELECTORS_MOST} are taken")
    row = session.scalar(select(Group).where(Group.name == group_name(group)).with_for_update())
    if row is None:
        raise NotFoundError(f"no group {group!r}")
    before = selectors_of(session, row.id)
    session.execute(delete(GroupSelector).where(GroupSelector.group_id == row.id))
    if selectors:
        session.execute(insert(GroupSelector), [_row(row.id, selector) for selector in selectors])
    row.updated_at = now
    outbox.enqueue_group_changed(session, group, now)
    return before


def _row(group_id: int, selector: Selector) -> dict[str, object]:
    return {
        "group_id": group_id,
        "project": selector.project,
        "repository": selector.repository.text,
        "tag": selector.tag.text,
        "labels": sorted(selector.labels),
        "platforms": [str(platform) for platform in selector.platforms],
        "newest": selector.newest,
        "priority": selector.priority,
    }
