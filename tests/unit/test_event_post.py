"""Events wait for each other, so that few requests cross the link."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING

from harbor_satellite.edge.event_post import EventPost

if TYPE_CHECKING:
    import pytest

    from harbor_satellite.edge.link import Centre


class Sent:
    """A centre that takes everything."""

    def __init__(self) -> None:
        self.bodies: list[list[dict[str, int]]] = []

    async def send(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        assert (method, path) == ("POST", "/events")
        self.bodies.append(json.loads(body))
        return 204, {}, b""


class Troubled(Sent):
    """A centre on the way to which something breaks that nobody has thought of, once."""

    async def send(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        if not self.bodies:
            self.bodies.append([])
            raise OSError("the disk is full")
        return await super().send(method, path, body)


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


def test_events_outlive_whatever_breaks_on_their_way(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("harbor_satellite.edge.event_post._RETRY_SECONDS", 0.01)
    centre = Troubled()

    async def act() -> None:
        events = post(centre, 0.0)
        delivering = asyncio.create_task(events.deliver())
        await events.put('{"id": 1}')
        await events.drain(5.0)
        delivering.cancel()

    asyncio.run(act())

    assert centre.bodies == [[], [{"id": 1}]]
    assert "the disk is full" in caplog.text


def test_batch_is_measured_in_bytes_as_the_gateway_measures_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harbor_satellite.edge.event_post._BATCH_MAX_BYTES", 1000)
    centre = Sent()

    async def act() -> None:
        events = post(centre, 0.0)
        for number in range(4):
            await events.put(json.dumps({"id": number, "text": "日" * 150}, ensure_ascii=False))
        delivering = asyncio.create_task(events.deliver())
        await events.drain(5.0)
        delivering.cancel()

    asyncio.run(act())

    assert [len(body) for body in centre.bodies] == [3, 1]


def test_events_that_wait_are_bounded_by_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harbor_satellite.edge.event_post._WAITING_MAX_BYTES", 1000)
    centre = Sent()

    async def act() -> int:
        events = post(centre, 0.0)
        taken = 0

        async def put_all() -> None:
            nonlocal taken
            for number in range(20):
                await events.put(json.dumps({"id": number, "text": "a" * 180}))
                taken += 1

        putting = asyncio.create_task(put_all())
        await asyncio.sleep(0.05)
        taken_while_away = taken
        delivering = asyncio.create_task(events.deliver())
        await asyncio.wait_for(putting, 5)
        await events.drain(5.0)
        delivering.cancel()
        return taken_while_away

    assert asyncio.run(act()) == 5
    assert [event["id"] for body in centre.bodies for event in body] == list(range(20))
