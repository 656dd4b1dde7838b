"""The gateway's websockets: events in are checked and passed on by HTTP, everything else is not there."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from harbor_satellite.ground_control.context import GATEWAY_PATH
from tests.ground_control.test_gateway import AUTH, FOREIGN_TASK, MINE, RUN, TASK, World, task_event

if TYPE_CHECKING:
    from starlette.types import Message

    from harbor_satellite.ground_control.database import SessionFactory
    from harbor_satellite.ground_control.gateway.app import Gateway

GREETING = {"type": "auth", "token": "never-the-centres"}


@pytest.fixture
def world(session_factory: SessionFactory) -> World:
    return World(session_factory)


def talk(world: World, path: str, *frames: Any, auth: tuple[str, str] = AUTH) -> list[Message]:
    incoming: list[Message] = [{"type": "websocket.connect"}]
    incoming += [{"type": "websocket.receive", "text": json.dumps(frame)} for frame in frames]
    sent: list[Message] = []

    async def receive() -> Message:
        return incoming.pop(0) if incoming else {"type": "websocket.disconnect", "code": 1000}

    async def send(message: Message) -> None:
        sent.append(message)

    async def inside(_: httpx.AsyncClient, gateway: Gateway) -> None:
        scope = {
            "type": "websocket",
            "path": GATEWAY_PATH + path,
            "headers": [(b"authorization", httpx.BasicAuth(*auth)._auth_header.encode())],
            "subprotocols": ["prefect"],
            "extensions": {"websocket.http.response": {}},
        }
        await gateway(scope, receive, send)

    world.run(inside)
    return sent


def test_events_in_passes_own_events_and_drops_others(world: World) -> None:
    sent = talk(world, "/events/in", GREETING, task_event(TASK, RUN), task_event(FOREIGN_TASK, RUN), [])

    passed = json.loads(world.prefect.requests[-1].content)
    assert [message["type"] for message in sent] == ["websocket.accept", "websocket.send"]
    assert [event["resource"]["prefect.resource.id"] for event in passed] == [f"prefect.task-run.{TASK}"]
    assert world.counters.events_dropped == 2


@pytest.mark.parametrize("path", ["/events/out", f"/work_pools/{MINE}/workers/connect", "/events/../events/in"])
def test_other_websockets_are_404(world: World, path: str) -> None:
    sent = talk(world, path, GREETING)

    assert (sent[0]["type"], sent[0]["status"]) == ("websocket.http.response.start", 404)


def test_websocket_without_a_good_credential_is_401(world: World) -> None:
    sent = talk(world, "/events/in", GREETING, auth=("robot-mine", "wrong"))

    assert sent[0]["status"] == 401


def test_websocket_that_does_not_greet_is_closed(world: World) -> None:
    sent = talk(world, "/events/in", task_event(TASK, RUN))

    assert [message["type"] for message in sent] == ["websocket.accept", "websocket.close"]
    assert world.prefect.requests == []
