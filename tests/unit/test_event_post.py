"""Events wait for each other, so that few requests cross the link."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING

from harbor_satellite.edge.event_post import EventPost

if TYPE_CHECKING:
    from harbor_satellite.edge.link import Centre


class Sent:
    """A centre that takes everything."""

    def __init__(self) -> None:
        self.bodies: list[list[dict[str, int]]] = []

    async def send(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        assert (method, path) == ("POST", "/events")
        self.bodies.append(json.loads(body))
        return 204, {}, b""


def post(centre: Sent, linger_seconds: float) -> EventPost:
    as_centre: Centre = centre  # type: ignore[assignment]  # as far as events go
    return EventPost(as_centre, lambda _reason: None, linger_seconds)


def test_events_that_come_one_after_the_other_cross_the_link_together() -> None:
    centre = Sent()

    async def act() -> None:
        events = post(centre, 0.01)
        delivering = asyncio.create_task(events.deliver())
        for number in range(3):
            await events.put(json.dumps({"id": number}))
            await asyncio.sleep(0)  # the other task runs, and lingers
        await events._events.join()
        delivering.cancel()

    asyncio.run(act())

    assert centre.bodies == [[{"id": 0}, {"id": 1}, {"id": 2}]]


def test_event_that_lingers_goes_at_once_when_the_agent_stops() -> None:
    centre = Sent()

    async def act() -> None:
        events = post(centre, 60.0)
        delivering = asyncio.create_task(events.deliver())
        await events.put('{"id": 1}')
        await asyncio.sleep(0)
        await events.drain(5.0)
        delivering.cancel()

    before = time.monotonic()
    asyncio.run(act())

    assert (centre.bodies, time.monotonic() - before < 5.0) == ([[{"id": 1}]], True)
