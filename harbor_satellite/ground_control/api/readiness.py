"""Whether this service can do its work, and whether what it leans on is there. For probes: bounded and cached."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import httpx
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.exc import SQLAlchemyError

from harbor_satellite.errors import HarborSatelliteError
from harbor_satellite.ground_control.database import alembic_config, reading

if TYPE_CHECKING:
    from harbor_satellite.ground_control.api.context import Context
    from harbor_satellite.ground_control.database import SessionFactory

logger = logging.getLogger(__name__)

UP: Final = "up"
DOWN: Final = "down"
_KEPT_SECONDS: Final = 15.0
"""How long an answer of the source and of Prefect is believed: anybody may probe."""
_TIMEOUT_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Readiness:
    """What a probe is told; a site needs only the first two."""

    database: str
    schema: str
    """``up``: of this release, or of a later one that is safe beside it."""
    source: str
    prefect: str
    """``none``: there is none."""

    @property
    def is_ready(self) -> bool:
        """Whether requests may be sent here: without source or Prefect, reports still get through."""
        return self.database == UP and self.schema == UP


class ReadinessProbe:
    """Looks, and remembers for a moment what it saw outside. Safe to use from many threads.

    Args:
        context: the app's.
        transport: to Prefect; for tests.
    """

    def __init__(self, context: Context, transport: httpx.BaseTransport | None = None) -> None:
        self._context = context
        self._transport = transport
        self._lock = threading.Lock()
        self._outside = ("unknown", "unknown")
        self._looked_until = float("-inf")

    def look(self) -> Readiness:
        """Return what is there now."""
        schema = is_migrated(self._context.factory)
        # One thread asks; others take what was seen last, so that a source that hangs holds up one of them.
        if self._context.monotonic() >= self._looked_until and self._lock.acquire(blocking=False):
            try:
                self._outside = (self._source(), self._prefect())
                self._looked_until = self._context.monotonic() + _KEPT_SECONDS
            finally:
                self._lock.release()
        return Readiness(DOWN if schema is None else UP, UP if schema else DOWN, *self._outside)

    def _source(self) -> str:
        try:
            self._context.source.check()
        except HarborSatelliteError as error:
            logger.warning("source is not well error=%s", error)
            return DOWN
        return UP

    def _prefect(self) -> str:
        url = self._context.options.prefect_api_internal_url
        if not url:
            return "none"
        try:
            with httpx.Client(timeout=_TIMEOUT_SECONDS, transport=self._transport) as client:
                return UP if client.get(f"{url.rstrip('/')}/health").is_success else DOWN
        except httpx.HTTPError as error:
            logger.warning("prefect is not well error=%s", type(error).__name__)
            return DOWN


def is_migrated(factory: SessionFactory) -> bool | None:
    """Tell whether the schema is at least of this release; None: the database does not answer."""
    try:
        with reading(factory) as session:
            connection = session.connection()
            current = MigrationContext.configure(connection).get_current_heads()
            known = ScriptDirectory.from_config(alembic_config(connection))
    except SQLAlchemyError:
        return None
    revisions = {script.revision for script in known.walk_revisions()}
    # One that this release does not know was made by a later one, which keeps to what this one needs.
    return bool(current) and all(head in known.get_heads() or head not in revisions for head in current)
