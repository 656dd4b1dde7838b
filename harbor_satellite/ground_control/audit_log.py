"""The audit log: who changed what, from what to what, and whether it was done.

A change is recorded in the transaction that makes it, so neither is there without the other. What must not
live here: secrets; values of fields that hold one are told as "changed".
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from harbor_satellite.ground_control.models import AuditEvent

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from sqlalchemy.orm import Session

DONE: Final = "done"
REFUSED: Final = "refused"
FAILED: Final = "failed"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts, and in which request."""

    name: str
    """``user:NAME``, ``satellite:NAME``, ``flow:NAME``, ``rule:GROUP``, ``webhook:PROJECT`` or ``anonymous``."""
    source_address: str = ""
    request_id: str = ""


def flow_actor(name: str) -> Actor:
    """Return the actor of a flow of the centre."""
    return Actor(f"flow:{name}")


def record(
    session: Session,
    actor: Actor,
    action: str,
    resource: str,
    *,
    changes: Mapping[str, Any] | None = None,
    now: datetime,
) -> None:
    """Record a change, once this transaction commits.

    Args:
        session: the one that makes the change.
        actor: who makes it.
        action: ``noun.verb``, such as ``group.sync``.
        resource: ``kind:name``, such as ``group:shops``.
        changes: field → ``[from, to]``, see ``difference``; values must be JSON and no secrets.
        now: this moment.
    """
    session.add(
        AuditEvent(
            event_id=str(uuid.uuid4()),
            occurred_at=now,
            actor=actor.name[:255],
            source_address=actor.source_address[:64],
            request_id=actor.request_id[:128],
            action=action,
            resource=resource[:255],
            outcome=DONE,
            reason="",
            changes=dict(changes) if changes else None,
        )
    )


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return field → ``[from, to]`` of every field that differs; a field that is missing counts as null."""
    names = sorted({*before, *after})
    return {name: [before.get(name), after.get(name)] for name in names if before.get(name) != after.get(name)}
