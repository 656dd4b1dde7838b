"""When each satellite was last heard of by the gateway, written down together every now and then."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from harbor_satellite.ground_control.database import commit_soon
from harbor_satellite.ground_control.satellites.identities import note_seen

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from harbor_satellite.ground_control.database import SessionFactory

logger = logging.getLogger(__name__)

_EVERY_SECONDS: Final = 30.0
_AT_ONCE: Final = 500  # in one transaction: reports of the same satellites wait for its end


class Seen:
    """Collects signs of life.

    Args:
        factory: where they are written.
        clock: what time it is.
    """

    def __init__(self, factory: SessionFactory, clock: Callable[[], datetime]) -> None:
        self._factory = factory
        self._clock = clock
        self._moments: dict[int, datetime] = {}

    def note(self, satellite_id: int) -> None:
        """Note that a satellite called just now."""
        self._moments[satellite_id] = self._clock()

    async def flush(self) -> None:
        """Write what was noted; it is kept for the next time if the database is away."""
        moments, self._moments = self._moments, {}
        if not moments:
            return
        try:
            await run_in_threadpool(self._write, moments)
        except SQLAlchemyError as error:
            logger.warning("signs of life not written count=%d reason=%s", len(moments), type(error).__name__)
            self._moments = {**moments, **self._moments}

    async def keep_flushing(self) -> None:
        """Write every half minute, until cancelled."""
        while True:
            await asyncio.sleep(_EVERY_SECONDS)
            await self.flush()

    def _write(self, moments: dict[int, datetime]) -> None:
        satellites = sorted(moments)
        for start in range(0, len(satellites), _AT_ONCE):
            with self._factory.begin() as session:
                commit_soon(session)
                note_seen(session, {one: moments[one] for one in satellites[start : start + _AT_ONCE]})
