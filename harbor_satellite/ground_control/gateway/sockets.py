"""Websockets of sites: events in, passed on by HTTP, so that Prefect's answer says that they arrived."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from typing import TYPE_CHECKING, Any, Final

from harbor_satellite.ground_control.gateway.documents import RefusedError, parse
from harbor_satellite.ground_control.gateway.prefect_api import PrefectAwayError
from harbor_satellite.ground_control.gateway.requests import TOO_MANY, NotLetIn, Reply, path_of, refusal
from harbor_satellite.ground_control.gateway.rules import Asked
from harbor_satellite.state.names import satellite_name

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

    from harbor_satellite.ground_control.gateway.app import Gateway
    from harbor_satellite.ground_control.satellites.credentials import SatelliteIdentity

logger = logging.getLogger(__name__)

_PATH: Final = "/events/in"
_PROTOCOL: Final = "prefect"
_WAITING_MAX: Final = 100  # events of one site; then its socket is not read until Prefect takes them
_BATCH: Final = 50
_FRAME_MAX_BYTES: Final = 256 * 1024
_RETRY_SECONDS: Final = 2.0
_LAST_SECONDS: Final = 10.0
_AUTH_SECONDS: Final = 10.0
_POLICY: Final = 1008
_NOT_FOUND: Final = 404  # lets a worker do by requests what it would do by that websocket


async def serve_socket(gateway: Gateway, scope: Scope, receive: Receive, send: Send) -> None:
    """Take the events of one site until it hangs up."""
    await receive()  # websocket.connect
    try:
        identity = await gateway.let_in(scope)
        path = path_of(scope)
        if path != _PATH or _PROTOCOL not in scope.get("subprotocols", ()):
            gateway.counters.denied += 1
            logger.debug("websocket denied satellite=%s", identity.name)
            await _deny(scope, send, refusal(_NOT_FOUND, "no such websocket here"))
            return
    except NotLetIn as refused:
        await _deny(scope, send, refused.reply)
        return
    except RefusedError:
        gateway.counters.denied += 1
        await _deny(scope, send, refusal(_NOT_FOUND, "no such websocket here"))
        return
    with gateway.socket_of(identity.name) as may_have_one_more:
        if not may_have_one_more:
            gateway.counters.throttled += 1
            await _deny(scope, send, refusal(TOO_MANY, "too many websockets", {"Retry-After": "5"}))
            return
        await send({"type": "websocket.accept", "subprotocol": _PROTOCOL})
        if not await _greet(receive, send):
            await send({"type": "websocket.close", "code": _POLICY, "reason": "Expected 'auth' message"})
            return
        await _serve_until_shut_out(gateway, identity, receive, send)


async def _serve_until_shut_out(gateway: Gateway, identity: SatelliteIdentity, receive: Receive, send: Send) -> None:
    taking = asyncio.create_task(_take_events(gateway, Asked(satellite_name(identity.name), {}), receive))
    watching = asyncio.create_task(gateway.wait_until_shut_out(identity.satellite_id))
    try:
        await asyncio.wait({taking, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not taking.done():
            logger.info("websocket closed, the satellite was shut out satellite=%s", identity.name)
            await send({"type": "websocket.close", "code": _POLICY, "reason": "no longer let in"})
    finally:
        for one in (taking, watching):
            one.cancel()
        await asyncio.wait({taking, watching})
    if not taking.cancelled():
        taking.result()


async def _deny(scope: Scope, send: Send, reply: Reply) -> None:
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": _POLICY})
        return

    async def send_as_response(message: Any) -> None:
        await send({**message, "type": f"websocket.{message['type']}"})

    await reply.send(send_as_response)


async def _greet(receive: Receive, send: Send) -> bool:
    """Answer the frame in which clients of Prefect give its password; what it says was never the centre's."""
    try:
        async with asyncio.timeout(_AUTH_SECONDS):
            message = await receive()
        frame = parse(_bytes_of(message))
    except (TimeoutError, RefusedError):
        return False
    if not isinstance(frame, dict) or frame.get("type") != "auth":
        return False
    await send({"type": "websocket.send", "text": json.dumps({"type": "auth_success"})})
    return True


async def _take_events(gateway: Gateway, caller: Asked, receive: Receive) -> None:
    waiting: asyncio.Queue[Any] = asyncio.Queue(_WAITING_MAX)
    passing = asyncio.create_task(_pass_on(gateway, caller, waiting))
    try:
        while (message := await receive())["type"] == "websocket.receive":
            try:
                await waiting.put(parse(_bytes_of(message)))
            except RefusedError as error:
                gateway.counters.events_dropped += 1
                logger.warning("event dropped satellite=%s reason=%s", caller.satellite, error)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_SECONDS):
                await waiting.join()
    finally:
        passing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await passing


def _bytes_of(message: Message) -> bytes:
    """Return what a frame holds; raises ``RefusedError`` if that is more than an event of Prefect's ever is."""
    frame = (message.get("text") or "").encode()
    if len(frame) > _FRAME_MAX_BYTES:
        raise RefusedError(f"a frame of more than {_FRAME_MAX_BYTES} bytes")
    return frame


async def _pass_on(gateway: Gateway, caller: Asked, waiting: asyncio.Queue[Any]) -> None:
    while True:
        events = [await waiting.get()]
        while len(events) < _BATCH and not waiting.empty():
            events.append(waiting.get_nowait())
        while True:
            try:
                await gateway.pass_events(caller, events)
                break
            except PrefectAwayError:
                await asyncio.sleep(_RETRY_SECONDS)
        for _ in events:
            waiting.task_done()
