"""Who may call what: every route of the app has exactly one rule, and keeps it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import httpx
import pytest
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute

from harbor_satellite.ground_control.api import callers, site_callers
from harbor_satellite.ground_control.api.app import AppOptions, create_app
from harbor_satellite.ground_control.database import make_engine, make_session_factory
from harbor_satellite.ground_control.satellites.sources import OciSource

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastapi.dependencies.models import Dependant

    from tests.fixtures_ground_control import GroundControl

PASSWORD = "Another-Pass-1"

# Whoever adds a line here says why nobody has to be known to call it.
PUBLIC: Final = {
    "GET /ping": "liveness of the process; says nothing",
    "GET /health": "whether the database answers, for load balancers",
    "GET /healthz": "liveness, for probes",
    "GET /readyz": "readiness, for probes",
    "POST /login": "where people become known; checks a password itself",
    "GET /satellites/ztr/{token}": "where a site becomes known; the one-time token in the path is the proof",
    "POST /satellites/ztr": "where a site becomes known; the one-time token in the body is the proof",
    "GET /openapi.json": "the API's document, the same for everybody",
    "GET /docs": "the API's document, for people",
    "GET /docs/oauth2-redirect": "a part of FastAPI's page of documentation",
}
# Changes that operators may make, too: only what is their own.
OWN: Final = {
    "POST /api/logout",
    "PATCH /api/users/password",
    "POST /api/tokens",
    "DELETE /api/tokens/{name}",
}
# ASGI apps and routes that check their callers themselves, each with the test that shows it.
CHECKED_INSIDE: Final = {
    "/prefect": "the gateway: tests/ground_control/test_gateway*.py",
    "/webhooks": "a secret per project: tests/ground_control/test_hooks*.py",
    "/static-offline-docs": "files of the page of documentation; public",
}
RULES: Final = {
    callers.require_system_admin: "SystemAdmin",
    callers.require_admin: "Admin",
    callers.require_owner: "Owner",
    callers.require_person: "Person",
    site_callers.require_satellite: "CallingSatellite",
}
STRICTEST_FIRST: Final = tuple(RULES.values())
# Rules of single routes, by the name of their dependency.
OTHER_RULES: Final = {
    "require_scraper": "the metrics token, or a person",
    "require_renewing_satellite": "a satellite's credential, also one that was just superseded",
    "require_rule": "the credential of a group's replication rule",
}


def _app() -> Any:
    factory = make_session_factory(make_engine("sqlite:///never-opened.db"))
    return create_app(AppOptions(source_url="http://source.test"), factory, OciSource())


def _walk(routes: list[BaseRoute], prefix: str = "") -> Iterator[tuple[str, BaseRoute]]:
    for route in routes:
        if isinstance(route, Mount):
            yield prefix + route.path, route
            continue
        included = getattr(route, "original_router", None)
        if included is not None:  # FastAPI keeps an included router as it is
            yield from _walk(included.routes, prefix + getattr(getattr(route, "include_context", None), "prefix", ""))
            continue
        yield prefix + str(getattr(route, "path", "?")), route


def _dependencies(dependant: Dependant) -> Iterator[Any]:
    for each in dependant.dependencies:
        yield each.call
        yield from _dependencies(each)


def _rules(route: BaseRoute) -> set[str]:
    if not isinstance(route, APIRoute):
        return set()
    found = set()
    for call in _dependencies(route.dependant):
        if call in RULES:
            found.add(RULES[call])
        elif getattr(call, "__name__", "") in OTHER_RULES:
            found.add(call.__name__)
    # The stricter ones are built of the wider ones.
    people = [rule for rule in STRICTEST_FIRST[:4] if rule in found]
    return found - set(people[1:])


ALL: Final = list(_walk(_app().routes))
CALLS: Final = sorted(
    {(method, path) for path, route in ALL for method in getattr(route, "methods", None) or ()}, key=str
)
RULE_OF: Final = {
    (method, path): _rules(route) for path, route in ALL for method in getattr(route, "methods", None) or ()
}


def _is_checked_inside(path: str) -> bool:
    return path.startswith(tuple(CHECKED_INSIDE))


def _name(method: str, path: str) -> str:
    return f"{'GET' if method == 'HEAD' else method} {path}"


def _filled(path: str) -> str:
    return re.sub(r"{[^}]*}", "nobody", path)


def test_walk_finds_the_routes_of_all_routers() -> None:
    paths = {path for path, _ in ALL}

    assert {"/ping", "/api/users", "/api/groups/{group}", "/satellites/sync", "/api/audit"} <= paths


@pytest.mark.parametrize(("path", "route"), ALL, ids=lambda value: value if isinstance(value, str) else "")
def test_route_kind_is_one_that_is_checked(path: str, route: BaseRoute) -> None:
    is_known = isinstance(route, (APIRoute, Route))

    assert is_known or _is_checked_inside(path), f"{path}: a {type(route).__name__} needs a line in CHECKED_INSIDE"
    assert not isinstance(route, WebSocketRoute) or _is_checked_inside(path)


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_route_has_exactly_one_rule(method: str, path: str) -> None:
    rules = RULE_OF[method, path]

    if _is_checked_inside(path):
        return
    if _name(method, path) in PUBLIC:
        assert rules == set(), f"{method} {path} is in PUBLIC, and has a rule: take the line out"
    else:
        assert len(rules) == 1, f"{method} {path} must have one rule, not {sorted(rules)}"


@pytest.mark.parametrize(
    ("method", "path"), [(method, path) for method, path in CALLS if path.startswith("/api/") and method != "GET"]
)
def test_change_needs_an_admin_or_is_ones_own(method: str, path: str) -> None:
    wanted = {"Owner"} if f"{method} {path}" in OWN else {"Admin", "SystemAdmin"}

    # A quote of a rollout is asked for with a body, and changes nothing.
    assert RULE_OF[method, path] <= wanted | ({"Person"} if path.endswith("/quote") else set())


@pytest.mark.parametrize("name", sorted(OWN))
def test_list_of_own_changes_is_up_to_date(name: str) -> None:
    method, path = name.split()

    assert (method, path) in CALLS


@pytest.fixture
def headers(ground_control: GroundControl) -> dict[str, dict[str, str]]:
    """What each kind of caller sends."""

    def token(username: str, role: str) -> dict[str, str]:
        body = {"username": username, "password": PASSWORD, "role": role}
        assert ground_control.admin.post("/api/users", json=body).status_code == 201
        answer = ground_control.anonymous.post("/login", json={"username": username, "password": PASSWORD})
        return {"Authorization": f"Bearer {answer.json()['token']}"}

    satellite = httpx.BasicAuth(*ground_control.enroll("edge-1"))
    request = next(satellite.auth_flow(httpx.Request("GET", "http://nowhere.test")))
    return {
        "anonymous": {},
        "operator": token("op", "operator"),
        "admin": token("ops", "admin"),
        "satellite": {"Authorization": request.headers["Authorization"]},
    }


MAY: Final = {
    "Person": {"operator", "admin"},
    "Owner": {"operator", "admin"},
    "Admin": {"admin"},
    "SystemAdmin": set[str](),
    "CallingSatellite": {"satellite"},
}


def _forget_failures(running: GroundControl) -> None:
    for throttle in (running.context.password_failures, running.context.address_failures):
        throttle._windows.clear()


def test_routes_let_in_whom_they_must_and_nobody_else(
    ground_control: GroundControl, headers: dict[str, dict[str, str]]
) -> None:
    wrong = []
    for method, path in CALLS:
        rule = next(iter(RULE_OF[method, path]), "")
        if rule not in MAY or path == "/api/logout":
            continue
        for caller, sent in headers.items():
            _forget_failures(ground_control)
            # No body: whoever is let in is told that it is missing, and nothing changes.
            status = ground_control.anonymous.request(method, _filled(path), headers=sent).status_code
            is_refused = status in {401, 403}
            if is_refused != (caller not in MAY[rule]) or status >= 500:
                wrong.append((caller, method, path, rule, status))

    assert wrong == []


@pytest.mark.parametrize(
    ("method", "path"),
    [(method, path) for method, path in CALLS if _name(method, path) not in PUBLIC and not _is_checked_inside(path)],
)
def test_route_lets_nobody_in_unknown(ground_control: GroundControl, method: str, path: str) -> None:
    for headers in ({}, {"Authorization": "Bearer nothing"}, {"Authorization": "Basic nothing"}):
        _forget_failures(ground_control)
        response = ground_control.anonymous.request(method, _filled(path), headers=headers)

        assert response.status_code == 401


def test_unknown_callers_get_401_and_known_ones_403(
    ground_control: GroundControl, headers: dict[str, dict[str, str]]
) -> None:
    asked = {
        caller: ground_control.anonymous.delete("/api/groups/nothing", headers=sent).status_code
        for caller, sent in headers.items()
    }

    assert asked == {"anonymous": 401, "satellite": 401, "operator": 403, "admin": 403}


def test_operator_that_reads_all_sees_what_an_admin_sees(
    ground_control: GroundControl, headers: dict[str, dict[str, str]]
) -> None:
    paths = [path for method, path in CALLS if method == "GET" and path.startswith("/api/") and "{" not in path]
    paths.remove("/api/tokens")
    paths.remove("/api/audit")

    differences = []
    for path in paths:
        answers = [ground_control.anonymous.get(path, headers=headers[who]) for who in ("operator", "admin")]
        if answers[0].status_code != answers[1].status_code:
            differences.append(path)

    assert differences == []
