"""The fake Harbor's registry: the token service, and ``/v2/`` in front of a registry in memory or a real one."""

from __future__ import annotations

import json
import re
import uuid
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import httpx
from starlette.responses import JSONResponse, Response

from tests.fakes.harbor_accounts import Caller, Refused
from tests.fakes.harbor_wire import answer
from tests.fakes.registry import FakeRegistry
from tests.fakes.registry_wire import FakeReply, SeenRequest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from starlette.requests import Request

    from tests.fakes.harbor import FakeHarbor

TOKEN_LIFE = timedelta(minutes=30)
_PATH = re.compile(r"/v2/(?P<repository>.+?)/(?P<kind>manifests|blobs|tags|referrers)/(?P<rest>.*)")
_ACTIONS = {"GET": "pull", "HEAD": "pull", "DELETE": "delete"}
_NOT_PASSED_ON = {"connection", "keep-alive", "transfer-encoding", "content-length", "set-cookie"}
_NOT_SENT = {"authorization", "cookie", "connection", "content-length", "transfer-encoding", "accept-encoding"}


class PatchableRegistry(FakeRegistry):
    """A registry in memory that takes uploads in chunks, too: crane and cosign send them so."""

    def __init__(self) -> None:
        super().__init__()
        self._chunks: dict[str, bytes] = {}

    def _upload(self, request: SeenRequest, repository: str, rest: str) -> FakeReply:
        identifier = rest.removeprefix("uploads/")
        if request.method == "PATCH":
            content = self._chunks[identifier] = self._chunks.get(identifier, b"") + request.body
            location = f"{request.path}?_state=a%2Fb%3D"
            return FakeReply(202, {"Location": location, "Range": f"0-{max(len(content) - 1, 0)}"})
        if request.method == "PUT":
            request = replace(request, body=self._chunks.pop(identifier, b"") + request.body)
        return super()._upload(request, repository, rest)


@dataclass
class Backend:
    """Where the bytes are: in memory, or at a registry of this URL that asks for no credentials."""

    url: str = ""
    memory: FakeRegistry = field(default_factory=PatchableRegistry)

    async def send(
        self, method: str, target: str, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> FakeReply:
        sent = {name: value for name, value in (headers or {}).items() if name.lower() not in _NOT_SENT}
        if not self.url:
            return self.memory.answer(method, target, {"Host": "harbor", **sent}, body)
        async with httpx.AsyncClient(timeout=30, trust_env=False) as client:
            # The Host header is passed on: the registry makes upload Locations of it.
            reply = await client.request(method, self.url + target, headers=sent, content=body)
        return FakeReply(reply.status_code, dict(reply.headers), reply.content)

    async def config(self, repository: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
        digest = (manifest.get("config") or {}).get("digest")
        if not digest:
            return {}
        reply = await self.send("GET", f"/v2/{repository}/blobs/{digest}")
        try:
            document = json.loads(reply.body) if reply.status == 200 else {}
        except ValueError:
            return {}
        return document if isinstance(document, dict) else {}


@dataclass
class Tokens:
    """Bearer tokens: they go on for half an hour, whatever becomes of who got them."""

    given: dict[str, tuple[datetime, list[dict[str, Any]]]] = field(default_factory=dict)

    def allows(self, token: str, repository: str, action: str, now: datetime) -> bool:
        ends, access = self.given.get(token, (now, []))
        return now < ends and any(one["name"] == repository and action in one["actions"] for one in access)


async def give_token(fake: FakeHarbor, request: Request, caller: Caller) -> Response:
    access = []
    for scope in " ".join(request.query_params.getlist("scope")).split():
        kind, _, rest = scope.partition(":")
        name, _, actions = rest.rpartition(":")
        allowed = [action for action in actions.split(",") if _may(caller, name, action)]
        access.append({"type": kind, "name": name, "actions": allowed})
    claims = {"access": access, "jti": uuid.uuid4().hex}
    token = f"e30.{urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}.sig"
    now = fake.accounts.clock()
    fake.tokens.given[token] = (now + TOKEN_LIFE, access)
    # Wrong credentials, too, get a token: one that allows nothing.
    return answer({"token": token, "access_token": "", "expires_in": 1800, "issued_at": now.isoformat()})


async def answer_registry(fake: FakeHarbor, request: Request, caller: Caller) -> Response:
    path = request.url.path
    parts = _PATH.fullmatch(path)
    repository = parts["repository"] if parts else ""
    action = _ACTIONS.get(request.method, "push")
    bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
    allowed = _may(caller, repository, action) if repository else caller.is_known
    if not allowed and not fake.tokens.allows(bearer, repository, action, fake.accounts.clock()):
        is_login = not repository and bearer in fake.tokens.given
        if not is_login:
            return _challenge(request, repository, action)
    if repository and repository.partition("/")[0] not in fake.accounts.projects:
        raise Refused(404, "NOT_FOUND", f"project {repository.partition('/')[0]} not found")
    body = await request.body()
    target = path + (f"?{request.url.query}" if request.url.query else "")
    reply = await fake.backend.send(request.method, target, request.headers, body)
    if parts and parts["kind"] == "manifests":
        await _note(fake, request, reply, parts, body)
    headers = {name: value for name, value in reply.headers.items() if name.lower() not in _NOT_PASSED_ON}
    if request.method == "HEAD":
        headers["Content-Length"] = reply.headers.get("content-length", str(len(reply.body)))
        return Response(None, reply.status, headers)
    return Response(reply.body, reply.status, headers)


async def _note(fake: FakeHarbor, request: Request, reply: FakeReply, parts: re.Match[str], body: bytes) -> None:
    repository, reference = parts["repository"], parts["rest"]
    if request.method == "PUT" and reply.status == 201:
        await fake.pushed(repository, body, request.headers["Content-Type"], reference)
    elif request.method == "DELETE" and reply.status == 202:
        one = fake.content.find(repository, reference)
        if one is not None and ":" in reference:
            await fake.delete_artifact(one, is_forced=True)
    elif request.method == "GET" and reply.status == 200:
        fake.pulled(repository, reference)


def _may(caller: Caller, repository: str, action: str) -> bool:
    if caller.is_admin:
        return True
    project = repository.partition("/")[0]
    return caller.robot is not None and caller.robot.holds("project", project, "repository", action)


def _challenge(request: Request, repository: str, action: str) -> Response:
    actions = "pull,push" if action == "push" else action
    scope = f',scope="repository:{repository}:{actions}"' if repository else ""
    realm = f'Bearer realm="{request.base_url}service/token",service="harbor-registry"{scope}'
    what = f"unauthorized to access repository: {repository}, action: {action}" if repository else "unauthorized"
    error = {"code": "UNAUTHORIZED", "message": f"unauthorized: {what}" if not repository else what}
    return JSONResponse({"errors": [error]}, 401, {"WWW-Authenticate": realm})
