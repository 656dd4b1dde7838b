"""What the audit log is told of a group's list: what came, went or changed, in a size that a row can hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import select

from harbor_satellite.ground_control.groups import groups
from harbor_satellite.ground_control.models import Group
from harbor_satellite.state.names import group_name

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

_ENTRIES_MOST: Final = 200  # told one by one; of more, their number


def listed_values(session: Session, name: str) -> dict[str, object]:
    """Return a group as far as a sync changes it; empty for one that is not there.

    Raises:
        InvalidInputError: not a group's name.
    """
    group = session.scalar(select(Group).where(Group.name == group_name(name)))
    if group is None:
        return {}
    entries = groups.entries_of(session, group)
    named = {
        f"artifact {entry.repository}:{tag}" if tag else f"artifact {entry.repository}@{entry.digest}": (
            "deleted" if entry.deleted else str(entry.digest or "by tag")
        )
        for entry in entries
        for tag in entry.tags or ("",)
    }
    return {
        "registry": group.source_registry,
        "expires_after_seconds": group.expires_after_seconds,
        "policy": group.policy,
        **(named if len(named) <= _ENTRIES_MOST else {"artifacts": len(named)}),
    }
