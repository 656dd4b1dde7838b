"""Events of Prefect's on their way to the centre: kept until it has confirmed them, in order, several to a request.

What must not live here: who hands them over (``proxy.py``), the link (``link.py``).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Final

from harbor_satellite.edge.link import ANSWERS, UNAUTHORIZED, CentreAwayError

if TYPE_CHECKING:
    from collections.abc import Callable

    from harbor_satellite.edge.link import Centre

_LOG = logging.getLogger(__name__)
LINGER_SECONDS: Final = 3.0
"""Events come in flocks, and a request of its own costs more than ten packed events; a run that changes nothing, with
what is told after it, is one flock."""
_RETRY_SECONDS: Final = 5
_EVENTS_MAX: Final = 5000  # kept while the link is down; then the run waits
_WAITING_MAX_BYTES: Final = 16 * 1024 * 1024  # of all that are kept
_BATCH: Final = 50
_BATCH_MAX_BYTES: Final = 1024 * 1024  # the gateway refuses requests of more than 4 MiB, with all that is in them
_COME_AGAIN: Final = frozenset({UNAUTHORIZED, 408, 429})
"""What is refused for good would be refused for ever."""


class EventPost:
    """Brings events to the centre, each batch until it has arrived.

    Args:
        centre: where they go.
        note: told after each failure why; must return at once.
        linger_seconds: for which an event waits for others to go with it.
    """

    def __init__(self, centre: Centre, note: Callable[[str], object], linger_seconds: float) -> None:
        self._centre = centre
        self._note = note
        self._linger_seconds = linger_seconds
        self._events: asyncio.Queue[bytes] = asyncio.Queue(_EVENTS_MAX)
        self._waiting_bytes = 0
        self._room = asyncio.Event()
        self._hurried = asyncio.Event()
        self._is_well = True

    async def put(self, event: str) -> None:
        """Take one event, as JSON: that is how its size is known, and a tenth of what it would take when parsed."""
        one = event.encode("utf-8", "replace")
        while self._waiting_bytes > _WAITING_MAX_BYTES:
            self._room.clear()
            await self._room.wait()
        await self._events.put(one)
        self._waiting_bytes += len(one)

    async def drain(self, seconds: float) -> None:
        """Wait until the centre has all events, but no longer than so many seconds; nothing lingers from here on."""
        self._hurried.set()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._events.join(), seconds)

    async def deliver(self) -> None:
        """Deliver for ever."""
        while True:
            events = [await self._events.get()]
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._hurried.wait(), self._linger_seconds)
            size = len(events[0])
            while len(events) < _BATCH and size < _BATCH_MAX_BYTES and not self._events.empty():
                events.append(self._events.get_nowait())
                size += len(events[-1])
            body = b"[" + b",".join(events) + b"]"
            while not await self._is_delivered(body):  # noqa: ASYNC110  (it is the peer that is asked again)
                await asyncio.sleep(_RETRY_SECONDS)
            self._waiting_bytes -= size
            self._room.set()
            for _ in events:
                self._events.task_done()

    async def _is_delivered(self, body: bytes) -> bool:
        try:
            status, _, _ = await self._centre.send("POST", "/events", body)
        except CentreAwayError as error:
            self._note(str(error))
            return False
        except Exception as error:  # noqa: BLE001  (else no event of this process would ever arrive)
            level = logging.WARNING if self._is_well else logging.DEBUG
            _LOG.log(level, "events not delivered, they are kept reason=%s", error, exc_info=True)
            self._is_well = False
            return False
        self._is_well = True
        if status not in ANSWERS:
            _LOG.warning("events refused by the centre status=%d", status)
        return status not in _COME_AGAIN
