"""What every handler of the fake Harbor shares: refusals, rights, paging, filters."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from starlette.responses import Response

from tests.fakes.harbor_accounts import Caller, Refused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from starlette.requests import Request

    from tests.fakes.harbor import FakeHarbor

    Handler = Callable[["FakeHarbor", Request, Caller], Awaitable[Response]]
    Routes = list[tuple[str, dict[str, Handler]]]

API = "/api/v2.0"


def check_csrf(request: Request) -> None:
    """Even with Basic auth: who brings the cookie back is taken for a browser."""
    is_write = request.method in {"POST", "PUT", "PATCH", "DELETE"}
    if is_write and "sid" in request.cookies and "X-Harbor-CSRF-Token" not in request.headers:
        raise Refused(403, "FORBIDDEN", "CSRF token not found in request")


async def refuse_method(fake: FakeHarbor, request: Request, caller: Caller) -> Response:
    raise Refused(405, "METHOD_NOT_ALLOWED", f"method {request.method} is not allowed")


def require(caller: Caller, resource: str, action: str) -> None:
    if not caller.is_known:
        raise Refused(401, "UNAUTHORIZED", "unauthorized")
    if not caller.may(resource, action):
        raise Refused(403, "FORBIDDEN", "forbidden")


def require_in(fake: FakeHarbor, caller: Caller, project: str, resource: str, action: str) -> None:
    if not caller.is_known:
        raise Refused(401, "UNAUTHORIZED", "unauthorized")
    is_there = project in fake.accounts.projects
    if caller.robot and not (is_there and caller.robot.holds("project", project, resource, action)):
        raise Refused(403, "FORBIDDEN", "forbidden")
    if not is_there:
        raise Refused(404, "NOT_FOUND", f"project {project} not found")


def answer(document: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(json.dumps(document), status, headers, "application/json")


def created(path: str, number: int) -> Response:
    return Response(status_code=201, headers={"Location": f"{API}{path}/{number}"})


def page(fake: FakeHarbor, request: Request, items: Sequence[dict[str, Any]]) -> Response:
    number, size = int(request.query_params.get("page", 1)), int(request.query_params.get("page_size", 10))
    if size > 100 or size < -1:
        raise Refused(422, "UNPROCESSABLE_ENTITY", "validation failure list:\npage_size in query should be <= 100")
    start = 0 if size == -1 else (number - 1) * size
    found = list(items) if size == -1 else list(items[start : start + size])
    headers = {"X-Total-Count": str(len(items))}
    if size == -1 or start + size < len(items):  # with -1 there is always a next page
        headers["Link"] = f'<{request.url.path}?page={number + 1}&page_size={size}>; rel="next"'
    raw = json.dumps(found) + " " * (fake.answer_bytes + fake.item_bytes * len(found))
    response = Response(raw, 200, headers, "application/json")
    if fake.after_page is not None:
        fake.after_page(request.url.path, number)
    return response


def filters(request: Request) -> dict[str, str]:
    """Read q; its values are decoded once more than the query itself."""
    pairs = (part.partition("=") for part in request.query_params.get("q", "").split(",") if part)
    return {key: unquote(value) for key, _, value in pairs}


def without_false(document: dict[str, Any]) -> dict[str, Any]:
    """Leave out what is false or zero, as Harbor does."""
    return {key: value for key, value in document.items() if value is not False and value != 0}


async def body_of(request: Request) -> dict[str, Any]:
    try:
        document = await request.json()
    except ValueError as error:
        raise Refused(400, "BAD_REQUEST", "parsing body failed") from error
    if not isinstance(document, dict):
        raise Refused(422, "UNPROCESSABLE_ENTITY", "validation failure list:\nbody must be of type object")
    return document
