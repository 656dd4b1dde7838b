"""The audit log: who changed what, from what to what, and whether it was done.

A change is recorded in the transaction that makes it, so neither is there without the other; once that is
committed, the same is written as one JSON line to the logger ``harbor_satellite.audit``. What must not live
here: secrets (``audit_redaction`` takes them out), and reading (``audit_view``).
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import os
import sys
import uuid
from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import event
from sqlalchemy.orm import Session, SessionTransaction

from harbor_satellite.ground_control.models import AuditEvent
from harbor_satellite.ground_control.people.audit_redaction import redacted

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

DONE: Final = "done"
REFUSED: Final = "refused"
FAILED: Final = "failed"
AUDIT_LOGGER: Final = "harbor_satellite.audit"
STDOUT: Final = "-"
"""As the name of the file: standard output."""

_lines: Final = logging.getLogger(AUDIT_LOGGER)
_PENDING: Final = "harbor_satellite.audit"
_LONGEST_REASON: Final = 1024  # characters


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
    outcome: str = DONE,
    reason: str = "",
) -> None:
    """Record a change, or that it was refused, once this transaction commits.

    Args:
        session: the one that makes the change.
        actor: who makes it.
        action: ``noun.verb``, such as ``group.sync``.
        resource: ``kind:name``, such as ``group:shops``.
        changes: field → ``[from, to]``, see ``difference``; values of fields that hold secrets are not kept.
        now: this moment.
        outcome: ``DONE``, ``REFUSED`` or ``FAILED``.
        reason: of a refusal or failure.
    """
    row = AuditEvent(
        event_id=str(uuid.uuid4()),
        occurred_at=now,
        actor=_text(actor.name, 255),
        source_address=_text(actor.source_address, 64),
        request_id=_text(actor.request_id, 128),
        action=_text(action, 64),
        resource=_text(resource, 255),
        outcome=outcome,
        reason=_text(reason, _LONGEST_REASON),
        changes=redacted(changes) if changes else None,
    )
    session.add(row)
    session.info.setdefault(_PENDING, []).append(row)


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return field → ``[from, to]`` of every field that differs; a field that is missing counts as null."""
    names = sorted({*before, *after})
    return {name: [before.get(name), after.get(name)] for name in names if before.get(name) != after.get(name)}


def write_audit_lines_to(file: Path | str | None) -> None:
    """Let the JSON lines of the audit log go to a file of mode 0600, or to standard output.

    Whoever moves the file away (logrotate) need not tell this process.

    Args:
        file: a path, ``-`` for standard output; None or empty: they go where all messages of this process go.
    """
    if not file:
        return
    handler = logging.StreamHandler(sys.stdout) if str(file) == STDOUT else _PrivateFileHandler(str(file))
    handler.setFormatter(logging.Formatter("%(message)s"))
    for old in list(_lines.handlers):
        _lines.removeHandler(old)
        old.close()
    _lines.addHandler(handler)
    _lines.setLevel(logging.INFO)
    _lines.propagate = False  # a line that is no JSON helps nobody who reads them


def audit_line(row: AuditEvent) -> str:
    """Return an event as one line of JSON."""
    moment = row.occurred_at.astimezone(UTC).isoformat().replace("+00:00", "Z")
    fields = ("actor", "source_address", "request_id", "action", "resource", "outcome", "reason", "changes")
    line = {"event_id": row.event_id, "timestamp": moment, **{name: getattr(row, name) for name in fields}}
    return json.dumps(line, separators=(",", ":"))


class _PrivateFileHandler(logging.handlers.WatchedFileHandler):
    """Writes to a file that only this user may read, also the one made after a rotation."""

    def _open(self) -> Any:
        descriptor = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.fchmod(descriptor, 0o600)
        return os.fdopen(descriptor, "a", encoding="utf-8")


def _text(value: str, longest: int) -> str:
    # PostgreSQL takes no NUL, and what a peer sends may hold anything.
    return value.encode(errors="replace").decode().replace("\0", "?")[:longest]


@event.listens_for(Session, "after_commit")
def _write_lines(session: Session) -> None:
    for row in session.info.pop(_PENDING, ()):
        # What a savepoint took back is in no session any more, and did not happen.
        if row in session:
            _lines.info("%s", audit_line(row))


@event.listens_for(Session, "after_soft_rollback")
def _forget_lines(session: Session, ended: SessionTransaction) -> None:
    if not ended.nested:
        session.info.pop(_PENDING, None)
