"""The gateway as an ASGI app: who calls, which line of the table, is it theirs, pass it on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from harbor_satellite.ground_control.api.throttle import TokenBuckets
from harbor_satellite.ground_control.gateway.backlog import without_superseded
from harbor_satellite.ground_control.gateway.calls import Call, How, find_call
from harbor_satellite.ground_control.gateway.documents import RefusedError, a_list, parse
from harbor_satellite.ground_control.gateway.events import EVENTS_MAX, judge_event
from harbor_satellite.ground_control.gateway.look import HORIZON_MAX, SharedLook
from harbor_satellite.ground_control.gateway.owners import Owners
from harbor_satellite.ground_control.gateway.pools import Pools
from harbor_satellite.ground_control.gateway.prefect_api import Answer, PrefectApi, PrefectAwayError
from harbor_satellite.ground_control.gateway.requests import (
    NOTHING,
    TOO_MANY,
    CallerGoneError,
    Door,
    NotLetIn,
    Reply,
    client_of,
    has_good_credential,
    maintenance,
    outline,
    packed_for,
    path_of,
    read_body,
    refusal,
    refusal_of,
)
from harbor_satellite.ground_control.gateway.rules import IDS_MAX, Allowed, Asked, few
from harbor_satellite.ground_control.gateway.seen import Seen
from harbor_satellite.ground_control.gateway.sockets import serve_socket
from harbor_satellite.state.names import satellite_name, work_pool_name

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    import httpx
    from starlette.types import Receive, Scope, Send

    from harbor_satellite.ground_control.api.context import Context
    from harbor_satellite.ground_control.gateway.rules import Claim
    from harbor_satellite.ground_control.satellites.credentials import SatelliteIdentity

logger = logging.getLogger(__name__)

_AT_ONCE: Final = 10  # calls of one satellite: its own proxy has at most 8, and a few must not take all ways to Prefect
_SOCKETS: Final = 4  # of one satellite; a worker and its runs share one
_BURST: Final = 1000.0  # calls and looks of one satellite, after a pause
_PER_SECOND: Final = 20.0
_PAID_BYTES: Final = 256 * 1024  # of a body: a few packed bytes may hold as much as a body may at most
_CHECKED_SECONDS: Final = 3.0  # between two looks whether a websocket's satellite is still let in
_ANYWAY_SECONDS: Final = 60.0  # a credential ends without anybody changing it
_DONE: Final = range(200, 300)
_CLOSED: Final = 499  # which nobody reads
_SAID: Final = {
    How.HEALTH: Reply(200, b"true"),
    How.TEMPLATE: Reply(204),
    How.NO_CSRF: refusal(422, "CSRF protection is disabled."),
    How.NO_STORAGE: Reply(200, b'{"default_result_storage_block_id":null}'),
}


class Gateway:
    """Answers everything below ``GATEWAY_PATH``; belongs to one event loop.

    Args:
        context: what the app's handlers share; its options name Prefect.
        transport: for tests.
    """

    def __init__(self, context: Context, transport: httpx.AsyncBaseTransport | None = None) -> None:
        options = context.options
        self.counters = context.counters
        self._context = context
        self._api = PrefectApi(options.prefect_api_internal_url, options.prefect_api_auth, self.counters, transport)
        self._pools = Pools(self._api, context.monotonic)
        self._owners = Owners(self._api, self._pools, context.monotonic)
        self._look = SharedLook(self._api, context.clock, context.monotonic)
        self._door = Door(context)
        self._under_way: Counter[str] = Counter()
        self._sockets: Counter[str] = Counter()
        self._buckets = TokenBuckets(_BURST, _PER_SECOND)
        self.seen = Seen(context.factory, context.clock)

    def expect_run(self, satellite: str) -> None:
        """Note that an event makes a run of a satellite; called in the dispatcher's thread."""
        self._look.expect(work_pool_name(satellite_name(satellite)))

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Write signs of life while the app runs, and close connections after it."""
        flushing = asyncio.create_task(self.seen.keep_flushing())
        try:
            yield
        finally:
            flushing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await flushing
            await self.seen.flush()
            await self._api.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, or one websocket."""
        if scope["type"] == "http":
            await (await packed_for(scope, await self._reply(scope, receive))).send(send)
        elif scope["type"] == "websocket":
            await serve_socket(self, scope, receive, send)

    @contextlib.contextmanager
    def socket_of(self, satellite: str) -> Iterator[bool]:
        """Count a websocket; tells whether the satellite may have one more."""
        self._sockets[satellite] += 1
        try:
            yield self._sockets[satellite] <= _SOCKETS
        finally:
            _count_down(self._sockets, satellite)

    async def wait_until_shut_out(self, satellite_id: int) -> None:
        """Return once a satellite is revoked or gone; a credential that it has renewed meanwhile is as good."""
        checked = (-1, 0.0)
        while True:
            await asyncio.sleep(_CHECKED_SECONDS)
            try:
                now = self._context.monotonic()
                revision = await run_in_threadpool(self._context.identities.revision)
                if revision == checked[0] and now - checked[1] < _ANYWAY_SECONDS:
                    continue
                if not await run_in_threadpool(has_good_credential, self._context, satellite_id):
                    return
                checked = revision, now
            except SQLAlchemyError as error:
                logger.info("websocket not checked, the database is away error=%s", type(error).__name__)

    async def let_in(self, scope: Scope) -> SatelliteIdentity:
        """Return who calls; raises ``NotLetIn``."""
        try:
            identity = await self._door.let_in(scope)
        except NotLetIn:
            self.counters.unauthenticated += 1
            raise
        self.seen.note(identity.satellite_id)
        return identity

    async def pass_events(self, caller: Asked, events: list[Any]) -> None:
        """Pass on those events that are about the satellite's own; the others are dropped.

        Raises:
            PrefectAwayError: nothing was passed on; the same events may come again.
        """
        await self._pay(caller)
        good, new, why = [], [], None
        claims: set[Claim] = set()
        for event in events:
            try:
                allowed = judge_event(event, caller)
                claims |= few(allowed.claims - claims, IDS_MAX - len(claims))
                await self._prove(caller, allowed)
            except RefusedError as error:
                self.counters.events_dropped += 1
                why = error
                continue
            good.append(allowed.body)
            new.append(str(allowed.body["resource"]["prefect.resource.id"]).removeprefix("prefect.task-run."))
        if why is not None:
            dropped = len(events) - len(good)
            logger.warning("events dropped satellite=%s count=%d last_reason=%s", caller.satellite, dropped, why)
        if not good:
            return
        answer = await self._api.call("POST", "/events", good)
        if answer.status not in _DONE:
            self.counters.events_dropped += len(good)
            logger.warning("events refused by Prefect satellite=%s status=%d", caller.satellite, answer.status)
            return
        self.counters.events_passed += len(good)
        for one in new:
            if not one.startswith("prefect."):
                self._owners.learn("task_run", one.lower(), caller.pool)

    async def _reply(self, scope: Scope, receive: Receive) -> Reply:
        try:
            identity = await self.let_in(scope)
        except NotLetIn as refused:
            return refused.reply
        caller = Asked(satellite_name(identity.name), {})
        is_full = self._under_way[caller.satellite] >= _AT_ONCE
        wait = 1 if is_full else self._buckets.take(caller.satellite, self._context.monotonic())
        if wait is not None:
            self.counters.throttled += 1
            return refusal(TOO_MANY, "too many calls", {"Retry-After": str(wait)})
        self._under_way[caller.satellite] += 1
        path = outline(scope)
        try:
            call, params = find_call(scope["method"], path_of(scope))
            path = call.path
            raw = await read_body(scope, receive)
            for _ in range(len(raw) // _PAID_BYTES):
                await self._pay(caller)
            body = parse(raw) if raw else None
            return await self._answer(call, Asked(caller.satellite, params, body, client_of(scope)))
        except RefusedError as error:
            self.counters.denied += 1
            logger.warning(
                "call denied satellite=%s method=%s path=%s reason=%s", caller.satellite, scope["method"], path, error
            )
            return refusal_of(error)
        except CallerGoneError:
            return Reply(_CLOSED)
        except PrefectAwayError as error:
            self.counters.maintenance += 1
            logger.info("Prefect is away satellite=%s path=%s reason=%s", caller.satellite, path, error)
            return maintenance()
        finally:
            _count_down(self._under_way, caller.satellite)

    async def _answer(self, call: Call, asked: Asked) -> Reply:
        allowed = call.rule(asked)
        reply = await self._own_reply(call.how, asked, allowed)
        if reply is not None:
            self.counters.answered_from_memory += 1
            return reply
        if call.how is How.EVENTS:
            await self.pass_events(asked, a_list(asked.body, "the body", EVENTS_MAX))
            return Reply(204)
        await self._prove(asked, allowed)
        answer = await self._api.call(call.method, _filled(call.path, asked.params), allowed.body, agent=asked.agent)
        self.counters.allowed += 1
        self._note(call, asked, answer)
        if call.how is How.POLL:
            answer = await without_superseded(self._api, answer, self._context.clock())
        return _reply_of(answer)

    async def _own_reply(self, how: How, asked: Asked, allowed: Allowed) -> Reply | None:
        """Return the answer to what need not be passed on; None if it must be."""
        if how in _SAID:
            return _SAID[how]
        if how is How.POOL:
            return _reply_of(await self._pools.read(asked.pool))
        if how is How.HEARTBEAT and not self._pools.takes_heartbeat(asked.pool):
            return Reply(204)
        if how is How.DUE:
            ahead = min(timedelta(seconds=allowed.body), HORIZON_MAX)
            is_due = await self._look.is_due(asked.pool, self._context.clock() + ahead)
            self.counters.polls_answered_from_memory += not is_due
            return Reply(200, b"true") if is_due else NOTHING
        if how is How.POLL:
            now = self._context.clock()
            # A site whose clock is behind is handed what is due by ours.
            before = min(max(datetime.fromisoformat(allowed.body["scheduled_before"]), now), now + HORIZON_MAX)
            allowed.body["scheduled_before"] = before.isoformat()
            if not await self._look.is_due(asked.pool, before):
                self.counters.polls_answered_from_memory += 1
                return Reply(200, b"[]")
        return None

    async def _prove(self, asked: Asked, allowed: Allowed) -> None:
        for claim in sorted(allowed.claims, key=lambda one: (one.kind, one.id)):
            if not self._owners.recalls(asked.pool, claim):
                # Each look is a call to Prefect: whoever names many unknown ids soon waits, and nobody else does.
                await self._pay(asked)
            if not await self._owners.is_own(asked.pool, claim):
                raise RefusedError(f"the {claim.kind} is not the satellite's own")

    async def _pay(self, asked: Asked) -> None:
        while (wait := self._buckets.take(asked.satellite, self._context.monotonic())) is not None:  # noqa: ASYNC110
            await asyncio.sleep(wait)

    def _note(self, call: Call, asked: Asked, answer: Answer) -> None:
        if answer.status not in _DONE:
            return
        if call.how is How.HEARTBEAT:
            self._pools.note_heartbeat(asked.pool)


def _count_down(counter: Counter[str], key: str) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]


def _filled(path: str, params: Mapping[str, str]) -> str:
    return path.format_map(params)


def _reply_of(answer: Answer) -> Reply:
    return Reply(answer.status, answer.body)
