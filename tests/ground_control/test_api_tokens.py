"""API tokens: made, used, narrowed, ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest
from sqlalchemy import select

from harbor_satellite.ground_control.models import ApiToken

if TYPE_CHECKING:
    from tests.fixtures_ground_control import GroundControl

PASSWORD = "Another-Pass-1"


def make_user(running: GroundControl, username: str, role: str = "admin") -> httpx.BasicAuth:
    body = {"username": username, "password": PASSWORD, "role": role}
    assert running.admin.post("/api/users", json=body).status_code == 201
    return httpx.BasicAuth(username, PASSWORD)


def make_token(running: GroundControl, auth: httpx.Auth | None = None, **body: Any) -> httpx.Response:
    client = running.anonymous if auth else running.admin
    return client.post("/api/tokens", json={"name": "ci", **body}, auth=auth or httpx.USE_CLIENT_DEFAULT)


def ask(running: GroundControl, token: str, method: str = "GET", path: str = "/api/groups", **values: Any) -> int:
    headers = {"Authorization": f"Bearer {token}"}
    return running.anonymous.request(method, path, headers=headers, **values).status_code


def test_token_is_shown_once_and_stored_hashed(ground_control: GroundControl) -> None:
    created = make_token(ground_control)

    token = created.json()["token"]
    assert created.status_code == 201
    assert created.headers["Cache-Control"] == "no-store"
    assert token.startswith("hs_")
    assert ask(ground_control, token) == 200
    assert token not in ground_control.admin.get("/api/tokens").text
    with ground_control.factory() as session:
        assert token not in session.scalars(select(ApiToken.token_hash)).all()


def test_token_ends_with_its_time(ground_control: GroundControl) -> None:
    token = make_token(ground_control, expires_in_days=2).json()["token"]
    ground_control.clock.advance(days=1, hours=23)
    assert ask(ground_control, token) == 200

    ground_control.clock.advance(hours=2)

    assert ask(ground_control, token) == 401
    assert ground_control.admin.get("/api/tokens").json() == []


def test_token_lives_ninety_days_unless_said(ground_control: GroundControl) -> None:
    make_token(ground_control)

    (listed,) = ground_control.admin.get("/api/tokens").json()
    assert listed["expires_at"][:10] > listed["created_at"][:10]
    ground_control.clock.advance(days=89)
    assert len(ground_control.admin.get("/api/tokens").json()) == 1


def test_token_deleted_holds_no_more(ground_control: GroundControl) -> None:
    token = make_token(ground_control).json()["token"]

    assert ground_control.admin.delete("/api/tokens/ci").status_code == 204
    assert ask(ground_control, token) == 401
    assert ground_control.admin.delete("/api/tokens/ci").status_code == 404


def test_token_narrowed_to_operator_only_reads(ground_control: GroundControl) -> None:
    token = make_token(ground_control, role="operator").json()["token"]

    assert ask(ground_control, token) == 200
    assert ask(ground_control, token, "POST", "/api/groups/sync", json={"group": "shops"}) == 403


@pytest.mark.parametrize("role", ["admin", "system_admin"])
def test_token_wider_than_its_user_is_refused(ground_control: GroundControl, role: str) -> None:
    operator = make_user(ground_control, "op", "operator")

    assert make_token(ground_control, operator, role=role).status_code == 400
    assert make_token(ground_control, operator).json()["role"] == "operator"


@pytest.mark.parametrize(
    "body",
    [{"expires_in_days": 0}, {"expires_in_days": 366}, {"expires_in_days": "7"}, {"name": "a b"}, {"role": "root"}],
    ids=str,
)
def test_token_bad_value_is_refused(ground_control: GroundControl, body: dict[str, Any]) -> None:
    assert make_token(ground_control, **body).status_code == 400


def test_token_name_taken_conflicts_per_user(ground_control: GroundControl) -> None:
    operator = make_user(ground_control, "op", "operator")
    make_token(ground_control)

    assert make_token(ground_control).status_code == 409
    assert make_token(ground_control, operator).status_code == 201


def test_token_makes_no_tokens_and_closes_no_session(ground_control: GroundControl) -> None:
    token = make_token(ground_control).json()["token"]

    assert ask(ground_control, token, "POST", "/api/tokens", json={"name": "more"}) == 400
    assert ask(ground_control, token, "POST", "/api/logout") == 401


def test_token_of_another_user_is_the_system_administrators_business(ground_control: GroundControl) -> None:
    operator = make_user(ground_control, "op", "operator")
    make_token(ground_control)
    make_token(ground_control, operator, name="mine")

    names = [token["name"] for token in ground_control.admin.get("/api/tokens", params={"user": "op"}).json()]
    assert names == ["mine"]
    assert ground_control.anonymous.get("/api/tokens?user=admin", auth=operator).status_code == 403
    assert ground_control.anonymous.delete("/api/tokens/ci?user=admin", auth=operator).status_code == 403
    assert ground_control.anonymous.delete("/api/tokens/ci", auth=operator).status_code == 404
    assert ground_control.admin.delete("/api/tokens/mine?user=op").status_code == 204


def test_use_is_noted_once_an_hour(ground_control: GroundControl) -> None:
    token = make_token(ground_control).json()["token"]

    def used() -> Any:
        ask(ground_control, token)
        (listed,) = ground_control.admin.get("/api/tokens").json()
        return listed["last_used_at"]

    first = used()
    ground_control.clock.advance(minutes=50)
    assert (first is None, used() == first) == (False, True)
    ground_control.clock.advance(minutes=11)
    assert used() > first


@pytest.mark.parametrize("by", ["oneself", "the system administrator"])
def test_password_change_ends_tokens(ground_control: GroundControl, by: str) -> None:
    auth = make_user(ground_control, "ops")
    token = make_token(ground_control, auth).json()["token"]

    if by == "oneself":
        body = {"current_password": PASSWORD, "new_password": "New-Password-1"}
        done = ground_control.anonymous.patch("/api/users/password", json=body, auth=auth)
    else:
        done = ground_control.admin.patch("/api/users/ops/password", json={"new_password": "New-Password-1"})

    assert done.status_code == 204
    assert ask(ground_control, token) == 401


def test_demotion_narrows_tokens_and_sessions_for_good(ground_control: GroundControl) -> None:
    auth = make_user(ground_control, "ops")
    token = make_token(ground_control, auth).json()["token"]
    session = ground_control.anonymous.post("/login", json={"username": "ops", "password": PASSWORD}).json()["token"]

    def sync(bearer: str) -> int:
        return ask(ground_control, bearer, "POST", "/api/groups/sync", json={"group": "shops", "artifacts": []})

    assert (sync(token), sync(session)) == (200, 200)
    demoted = ground_control.admin.patch("/api/users/ops/role", json={"role": "operator"})
    assert demoted.json()["role"] == "operator"
    assert (sync(token), sync(session)) == (403, 403)
    ground_control.admin.patch("/api/users/ops/role", json={"role": "admin"})
    assert (sync(token), sync(session)) == (403, 200)


def test_promotion_does_not_widen_tokens(ground_control: GroundControl) -> None:
    auth = make_user(ground_control, "op", "operator")
    token = make_token(ground_control, auth).json()["token"]

    ground_control.admin.patch("/api/users/op/role", json={"role": "admin"})

    assert ask(ground_control, token, "POST", "/api/groups/sync", json={"group": "shops"}) == 403


def test_deleted_user_has_no_tokens(ground_control: GroundControl) -> None:
    auth = make_user(ground_control, "ops")
    token = make_token(ground_control, auth).json()["token"]

    ground_control.admin.delete("/api/users/ops")

    assert ask(ground_control, token) == 401


@pytest.mark.parametrize("username", ["admin", "nobody"])
def test_role_of_the_system_administrator_or_nobody_does_not_change(
    ground_control: GroundControl, username: str
) -> None:
    assert ground_control.admin.patch(f"/api/users/{username}/role", json={"role": "operator"}).status_code == 404
