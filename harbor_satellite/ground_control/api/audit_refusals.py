"""What was refused or failed, for the audit log: a layer around the API that looks at answers to changes.

It sees what no handler can: callers that were not let in, bodies that do not parse, errors nobody expected.
Bounded: of each address so many a minute are listed, then they are counted, so that a flood of wrong passwords
does not fill the database.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from fastapi.concurrency import run_in_threadpool
from sqlalchemy.exc import SQLAlchemyError

from harbor_satellite.ground_control.api.asgi import REQUEST_ID_KEY
from harbor_satellite.ground_control.people import audit_log
from harbor_satellite.ground_control.people.audit_log import Actor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from harbor_satellite.ground_control.api.context import Context
    from harbor_satellite.ground_control.people.audit_budget import Overflow

logger = logging.getLogger(__name__)

SESSION_OPEN: Final = "session.open"
ANONYMOUS: Final = "anonymous"
_KEY: Final = "harbor_satellite.audit"
_READING: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_PLACES: Final = ("/api/", "/login", "/groups/")
_LONGEST_BODY: Final = 4096  # bytes that are looked at for the message; our own are shorter
_LOWEST_ERROR: Final = 400
_SERVER_ERROR: Final = 500


def note_caller(request: Request, name: str) -> None:
    """Tell who turned out to call: ``user:NAME``."""
    _notes(request.scope)["actor"] = name


def note_refused_login(request: Request, username: str, reason: str) -> None:
    """Tell that a name and password were refused, and why; the answer does not say."""
    notes = _notes(request.scope)
    notes.update(action=SESSION_OPEN, resource=f"user:{username or '?'}", reason=reason)


@dataclass(frozen=True, slots=True)
class _Refusal:
    actor: Actor
    action: str
    resource: str
    outcome: str
    reason: str


class RecordsRefusals:
    """Records changes that were refused or failed, and logins; see the module.

    Args:
        app: what to wrap; its callers are told by ``note_caller``.
        context: the app's.
    """

    def __init__(self, app: ASGIApp, context: Context) -> None:
        self._app = app
        self._context = context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http" or not scope["path"].startswith(_PLACES):
            await self._app(scope, receive, send)
            return
        notes: dict[str, str] = {}
        scope[_KEY] = notes  # one object for all copies that routing makes of the scope
        held: Message | None = None

        async def send_after_recording(message: Message) -> None:
            nonlocal held
            if message["type"] == "http.response.start" and message["status"] >= _LOWEST_ERROR:
                held = message  # the reason is in the body
                return
            if held is not None:
                start, held = held, None
                await self._record(scope, notes, start["status"], _message_of(message.get("body", b"")))
                await send(start)
            await send(message)

        try:
            await self._app(scope, receive, send_after_recording)
        except Exception as error:
            await self._record(scope, notes, _SERVER_ERROR, f"unexpected {type(error).__name__}")
            raise

    async def _record(self, scope: Scope, notes: Mapping[str, str], status: int, message: str) -> None:
        if scope["method"] in _READING and notes.get("action") != SESSION_OPEN:
            return
        address = scope["client"][0] if scope.get("client") else ""
        is_listed, ended = self._context.refusals.take(address, self._context.monotonic())
        if not is_listed and not ended:
            return
        refusal = _Refusal(
            Actor(notes.get("actor", ANONYMOUS), address, str(scope.get(REQUEST_ID_KEY, ""))),
            notes.get("action", f"{scope['method']} {_route(scope)}"),
            notes.get("resource", _resource(scope)),
            audit_log.FAILED if status >= _SERVER_ERROR else audit_log.REFUSED,
            f"{status}: {notes.get('reason', message)}",
        )
        await run_in_threadpool(self._write, refusal if is_listed else None, ended)

    def _write(self, refusal: _Refusal | None, ended: tuple[Overflow, ...]) -> None:
        now = self._context.clock()
        try:
            with self._context.writing() as session:
                for one in ended:
                    audit_log.record(
                        session,
                        Actor(ANONYMOUS, one.address),
                        "refusals.count",
                        "api",
                        now=now,
                        outcome=audit_log.REFUSED,
                        reason=f"{one.count} more within a minute, not listed one by one",
                    )
                if refusal is not None:
                    audit_log.record(
                        session,
                        refusal.actor,
                        refusal.action,
                        refusal.resource,
                        now=now,
                        outcome=refusal.outcome,
                        reason=refusal.reason,
                    )
        except SQLAlchemyError as error:
            # The answer to the caller is the same whether this can be kept or not.
            logger.error("refusal not recorded error=%s", type(error).__name__)  # noqa: TRY400  (may show values)


def _notes(scope: Scope) -> dict[str, str]:
    notes: dict[str, str] = scope.setdefault(_KEY, {})
    return notes


def _message_of(body: bytes) -> str:
    try:
        answer: Any = json.loads(body[:_LONGEST_BODY])
    except ValueError:
        return ""
    message = answer.get("message", "") if isinstance(answer, dict) else ""
    return message if isinstance(message, str) else ""


def _route(scope: Scope) -> str:
    return str(getattr(scope.get("route"), "path", "?"))


def _resource(scope: Scope) -> str:
    """Name what the path names, the way that changes do: ``group:shops``."""
    parameters = scope.get("path_params") or {}
    return next((f"{name}:{value}" for name, value in parameters.items()), str(scope["path"]))
