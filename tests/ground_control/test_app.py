"""What all routes share: errors, request ids, health, documentation."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from pydantic import SecretStr

from harbor_satellite.errors import RemoteError
from harbor_satellite.ground_control.api.app import AppOptions, create_app
from harbor_satellite.ground_control.database import make_engine, make_session_factory, migrate
from harbor_satellite.ground_control.people import users
from harbor_satellite.ground_control.satellites.sources import OciSource
from tests.fixtures_ground_control import SOURCE_URL, running_ground_control, serve

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from harbor_satellite.ground_control.database import SessionFactory
    from tests.fixtures_ground_control import GroundControl


class BrokenSource(OciSource):
    """Fails in ways of its own."""

    def create(self, satellite: str, projects: Collection[str]) -> Any:
        raise RuntimeError("the password is hunter2")

    def check_name(self, satellite: str) -> None:
        if satellite == "remote":
            raise RemoteError("GET /x at http://harbor.inside: 500", status=500)


def test_ping_and_health(ground_control: GroundControl) -> None:
    ping, health = ground_control.anonymous.get("/ping"), ground_control.anonymous.get("/health")

    assert (ping.status_code, ping.text, ping.headers["Content-Type"]) == (200, "pong", "text/plain; charset=utf-8")
    assert (health.status_code, health.json()) == (200, {"status": "healthy"})


def test_health_and_api_without_database(tmp_path: Path) -> None:
    engine = make_engine(f"sqlite:///{tmp_path / 'no' / 'gc.db'}")
    app = create_app(AppOptions(source_url=SOURCE_URL), make_session_factory(engine), OciSource())

    with serve(app) as url:
        health = httpx.get(f"{url}/health")
        login = httpx.post(f"{url}/login", json={"username": "admin", "password": "secret-in-the-body"})
    engine.dispose()

    assert (health.status_code, health.json()["status"]) == (503, "unhealthy")
    assert (login.status_code, login.json()["code"]) == (503, 503)
    assert int(login.headers["Retry-After"]) > 0
    assert "INSERT" not in login.text
    assert "gc.db" not in login.text


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [("GET", "/nothing", 404), ("PUT", "/api/groups", 405), ("GET", "/api/groups/", 404), ("POST", "/ping", 405)],
)
def test_unknown_routes_have_the_error_body(ground_control: GroundControl, method: str, path: str, code: int) -> None:
    response = ground_control.admin.request(method, path)

    assert response.status_code == code
    assert (set(response.json()), response.json()["code"]) == ({"message", "code"}, code)


@pytest.mark.parametrize("given", ["abc-123", "A.b_C"])
def test_request_id_is_echoed(ground_control: GroundControl, given: str) -> None:
    for path in ("/ping", "/nothing", "/api/groups"):
        response = ground_control.anonymous.get(path, headers={"X-Request-ID": given})
        assert response.headers["X-Request-ID"] == given


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "ü"])
def test_request_id_bad_or_missing_is_made(ground_control: GroundControl, given: str) -> None:
    response = ground_control.anonymous.get("/ping", headers=[(b"X-Request-ID", given.encode())])

    assert len(response.headers["X-Request-ID"]) == 36


def test_unexpected_error_says_nothing(session_factory: SessionFactory, caplog: pytest.LogCaptureFixture) -> None:
    with running_ground_control(session_factory, BrokenSource()) as running:
        running.admin.auth = httpx.BasicAuth("admin", "Ground-Control-1")
        token = running.register("edge-1")
        with caplog.at_level(logging.DEBUG):
            response = running.claim(token)

    assert (response.status_code, response.json()) == (500, {"message": "Internal server error", "code": 500})
    assert response.headers["X-Request-ID"] in caplog.text
    assert token not in caplog.text


def test_failing_source_is_named_to_people_only(session_factory: SessionFactory) -> None:
    with running_ground_control(session_factory, BrokenSource()) as running:
        running.admin.auth = httpx.BasicAuth("admin", "Ground-Control-1")
        response = running.admin.post("/api/satellites", json={"name": "remote"})

    assert response.status_code == 502
    assert "harbor.inside" in response.json()["message"]


def test_first_start_makes_the_admin_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'gc.db'}"
    migrate(url)
    engine = make_engine(url)
    factory = make_session_factory(engine)

    for password in ("First-Password-1", "Second-Password-1"):
        options = AppOptions(source_url=SOURCE_URL, admin_password=SecretStr(password))
        with serve(create_app(options, factory, OciSource())) as address:
            answers = [
                httpx.get(f"{address}/api/users", auth=("admin", each)).status_code
                for each in ("First-Password-1", "Second-Password-1")
            ]
        assert answers == [200, 401]
    with factory() as session:
        assert users.list_users(session) == []
    engine.dispose()


def test_documentation_names_every_route_and_its_errors(ground_control: GroundControl) -> None:
    document = ground_control.anonymous.get("/openapi.json").json()

    operations = [operation for path in document["paths"].values() for operation in path.values()]
    assert len(operations) >= 31
    assert all(operation.get("tags") and operation.get("summary") for operation in operations)
    assert set(document["components"]["securitySchemes"]) == {"basic", "bearer"}
    assert ground_control.anonymous.get("/docs").status_code == 200


def test_no_secret_is_logged(ground_control: GroundControl, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        token = ground_control.register("edge-1")
        auth = ground_control.claim(token, "claim-key-1").json()["auth"]
        ground_control.anonymous.get(f"/satellites/ztr/{token}")
        ground_control.report("edge-1", (auth["username"], auth["password"]))
        ground_control.anonymous.post("/login", json={"username": "admin", "password": "Typed-Wrong-1"})

    # The test's own client logs the addresses it asks.
    text = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("harbor_satellite"))
    assert "credential issued" in text
    for secret in (token, auth["password"], "claim-key-1", "Typed-Wrong-1"):
        assert secret not in text
