"""Telling every process that credentials have changed, so that none believes what it keeps in memory.

One row counts the changes; ``identities.py`` looks at it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import event, select
from sqlalchemy.dialects import postgresql, sqlite

from harbor_satellite.ground_control.models import Revision

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

CREDENTIALS: Final = "credentials"
"""Name of the row."""
BUMPED: Final = "harbor_satellite_credentials_bumped"
"""Key in ``Session.info``: this transaction has counted a change."""
_IS_NOTED: Final = "harbor_satellite_credentials_noted"


def note_change(session: Session) -> None:
    """Make every process forget the identities that it keeps in memory, once this transaction commits."""
    if not session.info.get(_IS_NOTED):
        session.info[_IS_NOTED] = True
        # At the very end: the revision is one row for the whole fleet, and the source may still be asked before.
        event.listen(session, "before_commit", _bump, once=True)


def _bump(session: Session) -> None:
    session.info.pop(_IS_NOTED, None)
    bump(session)


def bump(session: Session) -> None:
    """Make every process forget the credentials it knows, once this transaction commits.

    The row stays locked until then, so call this last.
    """
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    statement = insert(Revision).values(name=CREDENTIALS, number=1)
    more: Any = {"number": Revision.number + 1}
    session.execute(statement.on_conflict_do_update(index_elements=[Revision.name], set_=more))
    session.info[BUMPED] = True


def revision(session: Session) -> int:
    """Return how many changes there have been."""
    return session.scalar(select(Revision.number).where(Revision.name == CREDENTIALS)) or 0
