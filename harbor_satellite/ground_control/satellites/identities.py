"""Which satellite a credential belongs to, told from memory: sites call far more often than that changes.

What is remembered is worth nothing once the revision ``credentials`` in the database has moved: whoever
revokes, removes or changes a credential calls ``revisions.bump`` in the same transaction. This process looks at the
revision at most once a second, and at once after a commit of its own.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, cast, column, event, func, or_, select, update
from sqlalchemy.dialects import postgresql

from harbor_satellite.ground_control.database import reading
from harbor_satellite.ground_control.models import Satellite
from harbor_satellite.ground_control.satellites import credentials, revisions
from harbor_satellite.ground_control.tokens import hash_token, verify_token

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pydantic import SecretStr
    from sqlalchemy.orm import Session
    from sqlalchemy.sql.dml import Update

    from harbor_satellite.ground_control.database import SessionFactory
    from harbor_satellite.ground_control.satellites.credentials import SatelliteIdentity

_LOOK_SECONDS: Final = 1.0
_LIFE_SECONDS: Final = 600.0  # a bound for what somebody changes in the database by hand
_CAPACITY: Final = 50_000  # credentials remembered; some 20 MB


@dataclass(frozen=True, slots=True)
class _Known:
    secret_hash: str
    identity: SatelliteIdentity
    revision: int
    learned_at: float


class Identities:
    """Authenticates satellites; safe to share between threads.

    Args:
        factory: where credentials are kept; its commits are listened to.
        monotonic: seconds of a clock that never goes back.
        capacity: credentials remembered at most.
        clock: gives the time, by which credentials expire.
    """

    def __init__(
        self,
        factory: SessionFactory,
        monotonic: Callable[[], float],
        capacity: int = _CAPACITY,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._factory = factory
        self._monotonic = monotonic
        self._clock = clock
        self._capacity = capacity
        self._lock = Lock()
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._revision = -1
        self._looked_at = float("-inf")
        self._expired = 0
        event.listen(factory, "after_commit", self._after_commit)

    def recall(self, username: str, secret: SecretStr) -> SatelliteIdentity | None:
        """Tell from memory alone, without waiting; None: ask ``authenticate``."""
        now = self._monotonic()
        with self._lock:
            known = self._known.get(username)
            if known is None or not self._is_good(known, now):
                return None
            expires_at = known.identity.expires_at
            if expires_at is not None and self._clock() >= expires_at:
                return None
            self._known.move_to_end(username)
        return known.identity if verify_token(secret, known.secret_hash) else None

    def authenticate(self, username: str, secret: SecretStr) -> SatelliteIdentity:
        """Tell which satellite a username and secret belong to; may ask the database.

        Raises:
            AuthenticationError: no satellite's, or revoked.
        """
        self._look()
        found = self.recall(username, secret)
        if found is not None:
            return found
        with reading(self._factory) as session:
            # First the revision, then the row: what is revoked in between is remembered under an old number.
            revision = revisions.revision(session)
            identity = credentials.authenticate_satellite(session, username, secret, self._clock())
        with self._lock:
            self._known[username] = _Known(hash_token(secret), identity, revision, self._monotonic())
            self._known.move_to_end(username)
            while len(self._known) > self._capacity:
                self._known.popitem(last=False)
        return identity

    def revision(self) -> int:
        """Return how often credentials were changed, as it was no longer than a second ago; may ask the database."""
        self._look()
        with self._lock:
            return self._revision

    def expire(self) -> None:
        """Believe nothing that is remembered until the revision has been looked at again."""
        with self._lock:
            self._expired += 1
            self._looked_at = float("-inf")

    def _is_good(self, known: _Known, now: float) -> bool:
        is_looked_at = now - self._looked_at < _LOOK_SECONDS
        return is_looked_at and known.revision == self._revision and now - known.learned_at < _LIFE_SECONDS

    def _look(self) -> None:
        started = self._monotonic()
        with self._lock:
            if started - self._looked_at < _LOOK_SECONDS:
                return
            expired = self._expired
        with reading(self._factory) as session:
            revision = revisions.revision(session)
        with self._lock:
            self._revision = max(self._revision, revision)
            if expired == self._expired:  # else somebody committed while this looked
                self._looked_at = started

    def _after_commit(self, session: Session) -> None:
        if session.info.get(revisions.BUMPED):  # stays there: several may listen to one factory
            self.expire()


def note_seen(session: Session, seen: Mapping[int, datetime]) -> None:
    """Note when satellites were last heard of, by their ids; never goes back."""
    if not seen:
        return
    connection = session.connection()
    # Sorted, so that two processes never wait for each other's rows.
    rows = [{"satellite": one, "moment": seen[one]} for one in sorted(seen)]
    if connection.dialect.name == "postgresql":
        connection.execute(_SEEN_MANY, {name: [row[name] for row in rows] for name in ("satellite", "moment")})
    else:
        connection.execute(_seen(bindparam("satellite"), bindparam("moment")), rows)


def _seen(satellite: Any, moment: Any, *more: Any) -> Update:
    columns = _SATELLITES.c
    is_older = or_(columns.last_seen.is_(None), columns.last_seen < moment)
    return update(_SATELLITES).where(columns.id == satellite, is_older, *more).values(last_seen=moment)


def _seen_many() -> Update:
    columns = _SATELLITES.c
    satellites = cast(bindparam("satellite"), postgresql.ARRAY(columns.id.type))
    moments = cast(bindparam("moment"), postgresql.ARRAY(columns.last_seen.type))
    given = func.unnest(satellites, moments)
    row = given.table_valued(column("satellite", columns.id.type), column("moment", columns.last_seen.type))
    row = row.render_derived()
    locked = select(columns.id).where(columns.id == func.any(satellites)).order_by(columns.id)
    ordered = locked.with_for_update(key_share=True).cte("locked")
    return _seen(row.c.satellite, row.c.moment, columns.id == ordered.c.id)


_SATELLITES: Final[Any] = Satellite.__table__
_SEEN_MANY: Final = _seen_many()
