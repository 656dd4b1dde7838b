"""A Harbor that behaves like the real one where that hurts: cookies, filters, paging, robots, tokens, hooks, rules.

How to use it::

    fake = FakeHarbor()
    with serve(fake.app) as url:                     # tests.fixtures_ground_control; or the fixture ``fake_harbor``
        fake.accounts.projects["acme"] = False       # a private project
        digest = fake.push("acme/app", "v1", platforms=("linux/amd64", "linux/arm64"))  # no HTTP; events are sent
        ...                                          # or push over ``/v2/`` with any client, as ADMIN or a robot

By itself it is a process: ``python -m tests.fakes.harbor --port N [--project acme] [--registry URL]``; with the URL of
a registry it keeps the bytes there, else in memory.

- Who may what: ``harbor_accounts`` (``accounts.now`` is its clock, ``accounts.prefix`` the robots' prefix).
- What it holds: ``harbor_content`` (``content``) and ``harbor_registry`` (``backend``, ``tokens``).
- Webhooks: ``harbor_hooks`` (``hooks.copies``, ``hooks.lost``, ``hooks.is_reordering``, ``hooks.delay_seconds``).
- Replication: ``harbor_replication`` (``replication.lost``, ``replication.status_lag_seconds``), ``harbor_sending``.
- How it misbehaves otherwise: the fields below. ``requests`` are those so far; ``settled()`` waits for what it does
  behind its answers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
import uuid
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from tests.fakes import harbor_admin, harbor_artifacts, harbor_hooks, harbor_replication, harbor_seed
from tests.fakes.harbor_accounts import ADMIN, Accounts, Refused
from tests.fakes.harbor_content import Content, FakeArtifact
from tests.fakes.harbor_hooks import Hooks, artifact_data
from tests.fakes.harbor_registry import Backend, Tokens, answer_registry, give_token
from tests.fakes.harbor_replication import Replication
from tests.fakes.harbor_wire import API, check_csrf, refuse_method

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping

    from starlette.requests import Request

    from tests.fakes.harbor_wire import Handler


@dataclass
class FakeHarbor:
    """The app, its state, and how it misbehaves."""

    accounts: Accounts = field(default_factory=Accounts)
    backend: Backend = field(default_factory=Backend)
    content: Content = field(default_factory=Content)
    hooks: Hooks = field(default_factory=Hooks)
    replication: Replication = field(default_factory=Replication)
    tokens: Tokens = field(default_factory=Tokens)
    is_down: bool = False
    is_unhealthy: bool = False
    answer_bytes: int = 0  # pad every JSON answer by so many bytes
    item_bytes: int = 0  # pad every page by so many bytes for each of its items
    delay_seconds: float = 0.0
    after_page: Callable[[str, int], None] | None = None  # called with path and number when a page was made
    requests: list[str] = field(default_factory=list)
    host: str = "harbor.test"  # as events name it; the last request's
    loop: asyncio.AbstractEventLoop | None = None
    _running: set[Any] = field(default_factory=set)

    def reset(self) -> None:
        """Forget everything, for the next test."""
        vars(self).update({name: value for name, value in vars(FakeHarbor()).items() if name != "loop"})

    @property
    def app(self) -> Starlette:
        parts = (harbor_admin, harbor_artifacts, harbor_hooks, harbor_replication)
        listed = [(API + path, handlers) for part in parts for path, handlers in part.ROUTES]
        methods = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
        listed.append(("/service/token", {"GET": give_token}))
        listed.append(("/v2/{rest:path}", dict.fromkeys(methods, answer_registry)))
        routes = [Route(path, self._endpoint(handlers), methods=list(handlers)) for path, handlers in listed]

        @asynccontextmanager
        async def lifespan(_app: Starlette) -> AsyncIterator[None]:
            self.loop = asyncio.get_running_loop()
            yield
            for task in list(self._running):
                task.cancel()

        return Starlette(routes=routes, lifespan=lifespan)

    # -- what happens here ------------------------------------------------------------------------------------------

    def push(self, repository: str, tag: str = "", **options: Any) -> str:
        """Push an image as a client would, without HTTP; see ``harbor_seed.push``. Gives the digest."""
        return harbor_seed.push(self, repository, tag, **options)

    async def pushed(self, repository: str, raw: bytes, media_type: str, reference: str) -> FakeArtifact:
        """Note a manifest that came; even the same bytes again are told."""
        config = await self.backend.config(repository, json.loads(raw))
        return self.note_push(repository, raw, media_type, config, "" if ":" in reference else reference)

    def note_push(self, repository: str, raw: bytes, media_type: str, config: dict[str, Any], tag: str) -> FakeArtifact:
        one = self.content.record(repository, raw, media_type, config, tag=tag, now=self.accounts.clock())
        self._tell("PUSH_ARTIFACT", one, tag)
        self.replication.changed(self, one, [tag] if tag else [], is_deleted=False)
        return one

    def pulled(self, repository: str, reference: str) -> None:
        one = self.content.find(repository, reference)
        if one is not None:
            self._tell("PULL_ARTIFACT", one, "" if ":" in reference else reference)

    async def delete_artifact(self, one: FakeArtifact, *, is_told: bool = True, is_forced: bool = False) -> None:
        parents = [each for each in self.content.all_of(one.repository) if one.digest in each.children]
        if parents and not is_forced:
            raise Refused(412, "VIOLATE_FOREIGN_KEY_CONSTRAINT", f"the artifact {one.id} is referenced by an index")
        self.content.remove(one)
        await self.backend.send("DELETE", f"/v2/{one.repository}/manifests/{one.digest}")
        for referrer in list(self.content.referrers(one)):
            self.content.remove(referrer)
        if is_told:  # one event, of one of its tags only
            self._tell("DELETE_ARTIFACT", one, next(iter(one.tag_names), ""))
            self.replication.changed(self, one, one.tag_names, is_deleted=True)

    async def add_tag(self, one: FakeArtifact, name: str) -> None:
        """Tag over the API: no webhook tells of it, event-based rules start."""
        self.content.tag(one, name, self.accounts.clock())
        path = f"/v2/{one.repository}/manifests/{name}"
        await self.backend.send("PUT", path, {"Content-Type": one.media_type}, one.raw)
        self.replication.changed(self, one, [name], is_deleted=False)

    async def delete_tag(self, one: FakeArtifact, name: str) -> None:
        """Untag over the API: nothing tells of it."""
        one.tags = [tag for tag in one.tags if tag["name"] != name]
        await self.backend.send("DELETE", f"/v2/{one.repository}/manifests/{name}")

    def all_listed(self, project: str) -> list[FakeArtifact]:
        return [one for name in self.content.repositories(project) for one in self.content.listed(name)]

    def _tell(self, event_type: str, one: FakeArtifact, tag: str) -> None:
        data = artifact_data(one.repository, one.digest, tag, self.host, self.accounts.clock())
        self.hooks.tell(self, one.repository.partition("/")[0], event_type, data)

    # -- what it does behind its answers ----------------------------------------------------------------------------

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something that no request waits for; from any thread."""
        if self.loop is None or self.loop.is_closed():
            work.close()  # it is not served: nobody listens either
            return
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        self._running.add(future)
        future.add_done_callback(self._running.discard)

    def settled(self, seconds: float = 10.0) -> None:
        """Wait until nothing is done behind the answers any more; not to be called from the app itself."""
        deadline = time.monotonic() + seconds
        while self._running:
            assert time.monotonic() < deadline, "the fake Harbor is still busy"
            time.sleep(0.01)

    # -- requests ---------------------------------------------------------------------------------------------------

    def _endpoint(self, handlers: Mapping[str, Handler]) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            self.requests.append(f"{request.method} {request.url.path}")
            self.host = request.url.netloc
            response = await self._answer(request, handlers)
            response.headers["X-Request-Id"] = str(uuid.uuid4())
            response.set_cookie("sid", uuid.uuid4().hex, httponly=True)
            response.headers["X-Harbor-CSRF-Token"] = "csrf"
            return response

        return endpoint

    async def _answer(self, request: Request, handlers: Mapping[str, Handler]) -> Response:
        if self.delay_seconds:
            time.sleep(self.delay_seconds)  # noqa: ASYNC251 - the whole Harbor hangs
        if self.is_down:
            return PlainTextResponse("upstream down", 503, headers={"Retry-After": "7"})
        try:
            check_csrf(request)
            caller = self.accounts.caller(request.headers.get("Authorization", ""))
            return await handlers.get(request.method, refuse_method)(self, request, caller)
        except Refused as refused:
            error = {"code": refused.code, "message": refused.message}
            return JSONResponse({"errors": [error]}, refused.status)

    def json(self, document: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
        raw = json.dumps(document) + " " * self.answer_bytes
        return Response(raw, status, headers, "application/json")


def main() -> None:
    """Run the fake as a process; the administrator is admin with Harbor's well-known first password."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--project", action="append", default=[], help="a private project that is there (repeatable)")
    parser.add_argument("--registry", default="", help="URL of the registry that keeps the bytes (without: in memory)")
    parser.add_argument("--down", action="store_true", help="answer everything with 503")
    arguments = parser.parse_args()
    accounts = Accounts(dict.fromkeys(arguments.project, False))
    fake = FakeHarbor(accounts, Backend(arguments.registry), is_down=arguments.down)
    print(f"fake Harbor on port {arguments.port}, user {ADMIN[0]}", flush=True)  # noqa: T201 - a program's output
    uvicorn.run(fake.app, host="127.0.0.1", port=arguments.port, log_level="warning", ws="none")


if __name__ == "__main__":
    main()
