"""The gateway's websockets: events in are checked and passed on by HTTP, everything else is not there."""

from __future__ import annotations

import asyncio
import contextlib
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from harbor_satellite.ground_control.api.context import GATEWAY_PATH
from harbor_satellite.ground_control.models import Credential
from harbor_satellite.ground_control.satellites.revisions import bump
from tests.ground_control.test_gateway import AUTH, FOREIGN_TASK, MINE, RUN, TASK, World, task_event

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import Message

    from harbor_satellite.ground_control.database import SessionFactory
    from harbor_satellite.ground_control.gateway.app import Gateway

GREETING = {"type": "auth", "token": "never-the-centres"}


@pytest.fixture
def world(session_factory: SessionFactory) -> World:
    return World(session_factory)


def scope_of(path: str, auth: tuple[str, str] = AUTH) -> dict[str, Any]:
    return {
        "type": "websocket",
        "path": GATEWAY_PATH + path,
        "headers": [(b"authorization", httpx.BasicAuth(*auth)._auth_header.encode())],
        "subprotocols": ["prefect"],
        "extensions": {"websocket.http.response": {}},
    }


def talk(world: World, path: str, *frames: Any, auth: tuple[str, str] = AUTH) -> list[Message]:
    incoming: list[Message] = [{"type": "websocket.connect"}]
    incoming += [{"type": "websocket.receive", "text": json.dumps(frame)} for frame in frames]
    sent: list[Message] = []

    async def receive() -> Message:
        return incoming.pop(0) if incoming else {"type": "websocket.disconnect", "code": 1000}

    async def send(message: Message) -> None:
        sent.append(message)

    async def inside(_: httpx.AsyncClient, gateway: Gateway) -> None:
        await gateway(scope_of(path, auth), receive, send)

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


def hold(world: World, meanwhile: Callable[[], None], sockets: int = 1) -> list[list[Message]]:
    """Hold greeted websockets open, do something, and return what each was sent within some seconds."""
    sent: list[list[Message]] = [[] for _ in range(sockets)]

    async def one(gateway: Gateway, mine: list[Message]) -> None:
        incoming: list[Message] = [
            {"type": "websocket.connect"},
            {"type": "websocket.receive", "text": json.dumps(GREETING)},
        ]

        async def receive() -> Message:
            return incoming.pop(0) if incoming else await asyncio.Future()

        async def send(message: Message) -> None:
            mine.append(message)

        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(gateway(scope_of("/events/in"), receive, send), 4.5)

    async def inside(_: httpx.AsyncClient, gateway: Gateway) -> None:
        async def change() -> None:
            await asyncio.sleep(0.3)
            await asyncio.to_thread(meanwhile)

        await asyncio.gather(change(), *(one(gateway, mine) for mine in sent))

    world.run(inside)
    return sent


def test_websocket_of_a_revoked_satellite_is_closed_within_seconds(world: World) -> None:
    def revoke() -> None:
        with world.factory.begin() as session:
            session.query(Credential).filter(Credential.username == AUTH[0]).update({"revoked_at": datetime.now(UTC)})
            bump(session)

    ((*_, last),) = hold(world, revoke)

    assert (last["type"], last["code"]) == ("websocket.close", 1008)


def test_websocket_of_a_satellite_with_a_renewed_credential_goes_on(world: World) -> None:
    def renew() -> None:
        now = datetime.now(UTC)
        with world.factory.begin() as session:
            old = session.query(Credential).filter(Credential.username == AUTH[0]).one()
            old.revoked_at = now
            session.add(
                Credential(
                    satellite_id=old.satellite_id,
                    username="robot-mine-2",
                    account_name="robot-mine-2",
                    secret_hash=old.secret_hash,
                    source_credential_id="",
                    granted_projects=[],
                    created_at=now,
                )
            )
            bump(session)

    ((*_, last),) = hold(world, renew)

    assert last["type"] == "websocket.send"


def test_satellite_has_few_websockets(world: World) -> None:
    sent = hold(world, lambda: None, sockets=5)

    assert sorted(mine[0].get("status", 0) for mine in sent) == [0] * 4 + [429]
