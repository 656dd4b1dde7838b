"""A Harbor that behaves like the real one where that hurts: cookies, filters, paging, robots, tokens.

In a test it runs in a thread (``tests.fixtures_ground_control.serve``); by itself it is a process:
``python -m tests.fakes.harbor --port N``.
"""

from __future__ import annotations

import argparse
import json
import time
import uuid
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from tests.fakes.harbor_accounts import ADMIN, Accounts, Caller, Refused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from starlette.requests import Request

    Handler = Callable[["FakeHarbor", Request, Caller], Awaitable[Response]]

API = "/api/v2.0"
COMPONENTS = ("core", "database", "jobservice", "portal", "redis", "registry", "registryctl")


@dataclass
class FakeHarbor:
    """The app, its state, and how it misbehaves."""

    accounts: Accounts = field(default_factory=Accounts)
    is_down: bool = False
    is_unhealthy: bool = False
    answer_bytes: int = 0  # pad every JSON answer by so many bytes
    delay_seconds: float = 0.0
    requests: list[str] = field(default_factory=list)

    def reset(self) -> None:
        """Forget everything, for the next test."""
        vars(self).update(vars(FakeHarbor()))

    @property
    def app(self) -> Starlette:
        routes = [
            ("/ping", {"GET": _ping}),
            ("/health", {"GET": _health}),
            ("/projects", {"GET": _list_projects, "HEAD": _head_project, "POST": _add_project}),
            ("/projects/{name}", {"GET": _show_project, "PUT": _change_project}),
            ("/robots", {"GET": _list_robots, "POST": _add_robot}),
            (
                "/robots/{id:int}",
                {"GET": _show_robot, "PUT": _change_robot, "PATCH": _patch_robot, "DELETE": _drop_robot},
            ),
        ]
        mounted = [Route(API + path, self._endpoint(handlers), methods=list(handlers)) for path, handlers in routes]
        token = Route("/service/token", self._endpoint({"GET": _token}))
        v2 = Route("/v2/", self._endpoint({"GET": _v2}))
        return Starlette(routes=[*mounted, token, v2])

    def _endpoint(self, handlers: Mapping[str, Handler]) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            self.requests.append(f"{request.method} {request.url.path}")
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
            _check_csrf(request)
            caller = self.accounts.caller(request.headers.get("Authorization", ""))
            return await handlers[request.method](self, request, caller)
        except Refused as refused:
            error = {"code": refused.code, "message": refused.message}
            return JSONResponse({"errors": [error]}, refused.status)

    def json(self, document: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
        raw = json.dumps(document) + " " * self.answer_bytes
        return Response(raw, status, headers, "application/json")


def _check_csrf(request: Request) -> None:
    """Even with Basic auth: who brings the cookie back is taken for a browser."""
    is_write = request.method in {"POST", "PUT", "PATCH", "DELETE"}
    if is_write and "sid" in request.cookies and "X-Harbor-CSRF-Token" not in request.headers:
        raise Refused(403, "FORBIDDEN", "CSRF token not found in request")


def _require(caller: Caller, resource: str, action: str) -> None:
    if not caller.is_known:
        raise Refused(401, "UNAUTHORIZED", "unauthorized")
    if not caller.may(resource, action):
        raise Refused(403, "FORBIDDEN", "forbidden")


def _page(fake: FakeHarbor, request: Request, items: Sequence[dict[str, Any]]) -> Response:
    page, size = int(request.query_params.get("page", 1)), int(request.query_params.get("page_size", 10))
    if size > 100 or size < -1:
        raise Refused(422, "UNPROCESSABLE_ENTITY", "validation failure list:\npage_size in query should be <= 100")
    start = 0 if size == -1 else (page - 1) * size
    found = list(items) if size == -1 else list(items[start : start + size])
    headers = {"X-Total-Count": str(len(items))}
    if size == -1 or start + size < len(items):  # with -1 there is always a next page
        headers["Link"] = f'<{request.url.path}?page={page + 1}&page_size={size}>; rel="next"'
    return fake.json(found, headers=headers)


def _query(request: Request) -> dict[str, str]:
    pairs = (part.partition("=") for part in request.query_params.get("q", "").split(",") if part)
    return {key: value for key, _, value in pairs}


async def _ping(fake: FakeHarbor, request: Request, caller: Caller) -> Response:
    return PlainTextResponse("Pong")


async def _health(fake: FakeHarbor, request: Request, caller: Caller) -> Response:
    status = "unhealthy" if fake.is_unhealthy else "healthy"  # always with 200
    components = [{"name": name, "status": status if name == "redis" else "healthy"} for name in COMPONENTS]
    return fake.json({"status": status, "components": components})


async def _list_projects(fake: FakeHarbor, request: Request, caller: Caller) -> Response:
    name = _query(request).get("name")
    projects = [_project(fake, each) for each in sorted(fake.accounts.projects) if name in {None, each}]
    return _page(fake, request, projects)


async def _head_project(fake: FakeHarbor, request: Request, caller: Caller) -> Response:
    _require(caller, "project", "list")
    return Response(status_code=200 if request.query_params["project_name"] in fake.accounts.projects else 404)


async def _add_project(fake: FakeHarbor, request: Request, caller: Caller) -> Response:
    _require(caller, "project", "create")
    body = await request.json()
    if body["project_name"] in fake.accounts.projects:
        raise Refused(409, "CONFLICT", f"The project named {body['project_name']} already exists")
    metadata = body.get("metadata") or {}
    fake.accounts.projects[body["project_name"]] = metadata.get("public", str(body.get("public"))).lower() == "true"
    return Response(status_code=201, headers={"Location": f"{API}/projects/{len(fake.accounts.projects)}"})


async def _show_project(fake: FakeHarbor, request: Request, caller: Caller) -> Response:
    name = request.path_params["name"]
    if not caller.is_known and not fake.accounts.projects.get(name):
        raise Refused(401, "UNAUTHORIZED", "unauthorized")
    if name not in fake.accounts.projects:
        raise Refused(403, "FORBIDDEN", "forbidden") if caller.robot else Refused(404, "NOT_FOUND", f"project {name}")
    if caller.robot and not caller.robot.holds("project", name, "project", "read"):
        raise Refused(403, "FORBIDDEN", "forbidden")
    return fake.json(_project(fake, name))


async def _change_project(fake: FakeHarbor, request: Request, caller: Caller) -> Response:
    if not caller.is_admin:
        raise Refused(403, "FORBIDDEN", "forbidden")
    body = await request.json()
    fake.accounts.projects[request.path_params["name"]] = body["metadata"]["public"] == "true"
    return Response(status_code=200)


async def _list_robots(fake: FakeHarbor, request: Request, caller: Caller) -> Response:
    _require(caller, "robot", "list")
    name = _query(request).get("name")  # any other key is ignored: everything comes
    robots = [robot.document() for robot in fake.accounts.robots.values() if name in {None, robot.name}]
    return _page(fake, request, robots)


async def _add_robot(fake: FakeHarbor, request: Request, caller: Caller) -> Response:
    _require(caller, "robot", "create")
    robot = fake.accounts.add_robot(caller, await request.json())
    document = {key: robot.document()[key] for key in ("creation_time", "expires_at", "id", "name")}
    return fake.json(document | {"secret": robot.secret}, 201, {"Location": f"{API}/robots/{robot.id}"})


async def _show_robot(fake: FakeHarbor, request: Request, caller: Caller) -> Response:
    _require(caller, "robot", "read")
    return fake.json(fake.accounts.robot(request.path_params["id"]).document())


async def _change_robot(fake: FakeHarbor, request: Request, caller: Caller) -> Response:
    _require(caller, "robot", "update")  # not grantable: robots never may
    fake.accounts.change_robot(fake.accounts.robot(request.path_params["id"]), await request.json())
    return Response(status_code=200)


async def _patch_robot(fake: FakeHarbor, request: Request, caller: Caller) -> Response:
    _require(caller, "robot", "update")
    robot = fake.accounts.robot(request.path_params["id"])
    return fake.json(fake.accounts.set_secret(robot, await request.json()))


async def _drop_robot(fake: FakeHarbor, request: Request, caller: Caller) -> Response:
    _require(caller, "robot", "delete")
    del fake.accounts.robots[fake.accounts.robot(request.path_params["id"]).id]
    return Response(status_code=200)


async def _token(fake: FakeHarbor, request: Request, caller: Caller) -> Response:
    scopes = []
    for scope in request.query_params.getlist("scope"):
        kind, name, actions = scope.split(":")
        scopes.append({"type": kind, "name": name, "actions": _allowed(caller, name, actions.split(","))})
    claims = urlsafe_b64encode(json.dumps({"access": scopes}).encode()).decode().rstrip("=")
    # Wrong credentials, too, get a token: one that allows nothing.
    return fake.json({"token": f"e30.{claims}.sig", "access_token": "", "expires_in": 1800, "issued_at": "now"})


async def _v2(fake: FakeHarbor, request: Request, caller: Caller) -> Response:
    realm = f'Bearer realm="{request.base_url}service/token",service="harbor-registry"'
    error = {"code": "UNAUTHORIZED", "message": "unauthorized: unauthorized"}
    return JSONResponse({"errors": [error]}, 401, {"WWW-Authenticate": realm})


def _allowed(caller: Caller, repository: str, asked: list[str]) -> list[str]:
    if caller.is_admin:
        return asked
    project, robot = repository.partition("/")[0], caller.robot
    return [action for action in asked if robot and robot.holds("project", project, "repository", action)]


def _project(fake: FakeHarbor, name: str) -> dict[str, Any]:
    public = "true" if fake.accounts.projects[name] else "false"
    return {"name": name, "project_id": 1, "owner_name": "admin", "repo_count": 0, "metadata": {"public": public}}


def main() -> None:
    """Run the fake as a process; the administrator is admin with Harbor's well-known first password."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--project", action="append", default=[], help="a private project that is there (repeatable)")
    parser.add_argument("--down", action="store_true", help="answer everything with 503")
    arguments = parser.parse_args()
    fake = FakeHarbor(Accounts(dict.fromkeys(arguments.project, False)), is_down=arguments.down)
    print(f"fake Harbor on port {arguments.port}, user {ADMIN[0]}", flush=True)  # noqa: T201 - a program's output
    uvicorn.run(fake.app, host="127.0.0.1", port=arguments.port, log_level="warning", ws="none")


if __name__ == "__main__":
    main()
