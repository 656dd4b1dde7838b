"""People: login, sessions, lockout, users."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from argon2 import PasswordHasher
from pydantic import SecretStr
from sqlalchemy import select, update

from harbor_satellite.errors import AuthenticationError, ConflictError, InvalidInputError, NotFoundError
from harbor_satellite.ground_control.models import AuditEvent, User, UserSession
from harbor_satellite.ground_control.people import api_tokens, logins, passwords, users
from harbor_satellite.ground_control.people.console import set_up_person
from tests.fixtures_ground_control import ADMIN_PASSWORD

if TYPE_CHECKING:
    from harbor_satellite.ground_control.database import SessionFactory
    from tests.fixtures_ground_control import GroundControl

PASSWORD = "Another-Pass-1"


def login(running: GroundControl, username: str = "admin", password: str = ADMIN_PASSWORD) -> httpx.Response:
    return running.anonymous.post("/login", json={"username": username, "password": password})


def get(running: GroundControl, token: str) -> int:
    return running.anonymous.get("/api/groups", headers={"Authorization": f"Bearer {token}"}).status_code


def make_user(running: GroundControl, username: str = "ops") -> httpx.Response:
    return running.admin.post("/api/users", json={"username": username, "password": PASSWORD})


def test_login_gives_a_session_until_it_ends(ground_control: GroundControl) -> None:
    response = login(ground_control)

    assert response.status_code == 200
    token = response.json()["token"]
    assert len(token) == 88
    assert get(ground_control, token) == 200
    with ground_control.factory() as session:
        assert token not in session.scalars(select(UserSession.token_hash)).all()
    ground_control.clock.advance(hours=24, seconds=1)
    assert get(ground_control, token) == 401


def test_logout_ends_the_session(ground_control: GroundControl) -> None:
    token = login(ground_control).json()["token"]

    response = ground_control.anonymous.post("/api/logout", headers={"Authorization": f"Bearer {token}"})

    assert response.status_code == 204
    assert get(ground_control, token) == 401


def test_login_wrong_unknown_and_locked_look_the_same(ground_control: GroundControl) -> None:
    wrong = [login(ground_control, password="Wrong-Pass-1") for _ in range(5)]
    locked = login(ground_control)
    unknown = login(ground_control, username="nobody")

    answers = [(answer.status_code, answer.json()) for answer in (*wrong, locked, unknown)]
    assert answers == [(401, {"message": "invalid credentials", "code": 401})] * 7


def test_lock_ends_after_five_minutes(ground_control: GroundControl) -> None:
    for _ in range(5):
        login(ground_control, password="Wrong-Pass-1")
    ground_control.clock.advance(minutes=4)
    assert login(ground_control).status_code == 401
    ground_control.clock.advance(minutes=2)

    assert login(ground_control, password="Wrong-Pass-1").status_code == 401
    assert login(ground_control).status_code == 200


def test_good_login_forgets_failures(ground_control: GroundControl) -> None:
    for _ in range(2):
        for _ in range(4):
            login(ground_control, password="Wrong-Pass-1")
        assert login(ground_control).status_code == 200


def test_basic_auth_locks_as_well(ground_control: GroundControl) -> None:
    def ask(password: str) -> int:
        return ground_control.anonymous.get("/api/groups", auth=("admin", password)).status_code

    assert ask(ADMIN_PASSWORD) == 200
    assert [ask("Wrong-Pass-1") for _ in range(5)] == [401] * 5
    assert ask(ADMIN_PASSWORD) == 401
    assert login(ground_control).status_code == 401


def test_login_guessing_on_is_told_to_wait(ground_control: GroundControl) -> None:
    answers = [login(ground_control, "nobody", "x").status_code for _ in range(21)]

    assert answers == [401] * 20 + [429]
    assert login(ground_control).status_code == 200


@pytest.mark.parametrize(
    "body",
    [{}, {"username": "admin"}, {"username": 1, "password": "x"}, [], {"username": "a", "password": "x" * 2000}],
    ids=repr,
)
def test_login_bad_body_is_refused_without_repeating_it(ground_control: GroundControl, body: Any) -> None:
    response = ground_control.anonymous.post("/login", json=body)

    assert (response.status_code, response.json()["code"]) == (400, 400)
    assert "xxx" not in response.text


@pytest.mark.parametrize(
    "username", ["nul\u0000", "a:b", "ü", "x" * 1000, " ", ""], ids=["nul", "colon", "umlaut", "long", "blank", "none"]
)
def test_login_odd_name_is_an_unknown_one(ground_control: GroundControl, username: str) -> None:
    assert login(ground_control, username).status_code == 401


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Basic",
        "Basic !!!",
        "Basic YWRtaW4=",
        "Bearer",
        "Bearer x",
        "Bearer " + "x" * 9000,
        "Digest x",
        "Basic /w==",
    ],
    ids=lambda header: header[:12] or "none",
)
def test_api_without_a_caller_is_refused(ground_control: GroundControl, header: str) -> None:
    response = ground_control.anonymous.get("/api/groups", headers={"Authorization": header})

    assert (response.status_code, response.json()["code"]) == (401, 401)


def test_users_come_and_go(ground_control: GroundControl) -> None:
    created = make_user(ground_control)

    assert created.status_code == 201
    assert set(created.json()) == {"id", "username", "role", "created_at"}
    assert created.json()["role"] == "admin"
    assert [user["username"] for user in ground_control.admin.get("/api/users").json()] == ["ops"]
    assert ground_control.admin.get("/api/users/ops").status_code == 200
    assert make_user(ground_control).status_code == 409
    assert ground_control.admin.delete("/api/users/ops").status_code == 204
    assert ground_control.admin.get("/api/users/ops").status_code == 404
    assert ground_control.admin.delete("/api/users/ops").status_code == 404


def test_system_administrator_is_neither_shown_nor_deleted(ground_control: GroundControl) -> None:
    assert ground_control.admin.get("/api/users/admin").status_code == 404
    assert ground_control.admin.delete("/api/users/admin").status_code == 400


@pytest.mark.parametrize(
    ("username", "password"),
    [
        ("admin", PASSWORD),
        ("", PASSWORD),
        ("a b", PASSWORD),
        ("ops", "Short-1"),
        ("ops", "no-upper-case-1"),
        ("ops", "NO-LOWER-CASE-1"),
        ("ops", "No-Digit-Here"),
        ("ops", "Aa1" + "x" * 126),
    ],
)
def test_create_user_bad_value_is_refused(ground_control: GroundControl, username: str, password: str) -> None:
    response = ground_control.admin.post("/api/users", json={"username": username, "password": password})

    assert response.status_code == 400
    assert password not in response.text


def test_admin_may_not_manage_users_or_delete_groups(ground_control: GroundControl) -> None:
    make_user(ground_control)
    ground_control.sync_group("shop", "acme/app")
    auth = httpx.BasicAuth("ops", PASSWORD)

    def ask(method: str, path: str, body: dict[str, str] | None = None) -> int:
        return ground_control.anonymous.request(method, path, json=body, auth=auth).status_code

    assert ask("GET", "/api/groups") == 200
    assert ask("POST", "/api/users", {"username": "more", "password": PASSWORD}) == 403
    assert ask("DELETE", "/api/users/ops") == 403
    assert ask("PATCH", "/api/users/admin/password", {"new_password": PASSWORD}) == 403
    assert ask("DELETE", "/api/groups/shop") == 403


def test_change_own_password_ends_all_sessions(ground_control: GroundControl) -> None:
    make_user(ground_control)
    token = login(ground_control, "ops", PASSWORD).json()["token"]

    def change(current: str, new: str) -> int:
        return ground_control.anonymous.patch(
            "/api/users/password",
            json={"current_password": current, "new_password": new},
            headers={"Authorization": f"Bearer {token}"},
        ).status_code

    assert change("Wrong-Pass-1", "New-Password-1") == 401
    assert change(PASSWORD, "weak") == 400
    assert change(PASSWORD, "New-Password-1") == 204
    assert get(ground_control, token) == 401
    assert login(ground_control, "ops", PASSWORD).status_code == 401
    assert login(ground_control, "ops", "New-Password-1").status_code == 200


def let_in(running: GroundControl, by: str) -> users.Principal:
    """Tell who calls, as a request does before its transaction."""
    now, policy = running.clock(), users.LockoutPolicy()
    if by == "password":
        return logins.authenticate(running.factory, "mallory", SecretStr(PASSWORD), policy, now)
    answer = running.anonymous.post("/login", json={"username": "mallory", "password": PASSWORD})
    with running.factory() as session:
        return users.resume_session(session, SecretStr(answer.json()["token"]), now)


@pytest.mark.parametrize("by", ["password", "session"])
def test_password_changed_meanwhile_gives_whoever_knew_the_old_one_nothing(
    ground_control: GroundControl, by: str
) -> None:
    now = ground_control.clock()
    ground_control.admin.post("/api/users", json={"username": "mallory", "password": PASSWORD})
    person = let_in(ground_control, by)
    with ground_control.factory.begin() as session:
        users.set_password(session, "mallory", SecretStr("Changed-Pass-1"), now)

    with pytest.raises(AuthenticationError), ground_control.factory.begin() as session:
        users.open_session(session, person, timedelta(hours=1), now)
    with pytest.raises(AuthenticationError), ground_control.factory.begin() as session:
        api_tokens.issue_token(session, person, "ci", days=1, role=None, now=now)


def test_user_deleted_meanwhile_opens_no_session(ground_control: GroundControl) -> None:
    now = ground_control.clock()
    ground_control.admin.post("/api/users", json={"username": "mallory", "password": PASSWORD})
    person = let_in(ground_control, "password")
    ground_control.admin.delete("/api/users/mallory")

    with pytest.raises(AuthenticationError), ground_control.factory.begin() as session:
        users.open_session(session, person, timedelta(hours=1), now)


def test_reset_password_lifts_a_lock(ground_control: GroundControl) -> None:
    make_user(ground_control)
    for _ in range(5):
        login(ground_control, "ops", "Wrong-Pass-1")

    response = ground_control.admin.patch("/api/users/ops/password", json={"new_password": "New-Password-1"})

    assert response.status_code == 204
    assert login(ground_control, "ops", "New-Password-1").status_code == 200
    missing = ground_control.admin.patch("/api/users/nope/password", json={"new_password": "New-Password-1"})
    assert missing.status_code == 404


def lock(running: GroundControl) -> None:
    """Let somebody lock the administrator out, as from another address."""
    known = running.context.known_callers
    remembered = dict(known._failures)
    known._failures.clear()
    for _ in range(5):
        login(running, password="Wrong-Pass-1")
    known._failures.update(remembered)


def test_lock_that_others_caused_does_not_hold_where_one_logged_in_before(ground_control: GroundControl) -> None:
    assert login(ground_control).status_code == 200
    lock(ground_control)

    assert login(ground_control, password="Wrong-Pass-1").status_code == 401
    assert login(ground_control).status_code == 200


def test_lock_holds_where_nobody_logged_in_before(ground_control: GroundControl) -> None:
    lock(ground_control)

    assert login(ground_control).status_code == 401


def test_lock_stays_for_others_after_one_passed_it(ground_control: GroundControl) -> None:
    login(ground_control)
    lock(ground_control)
    login(ground_control)

    ground_control.context.known_callers._failures.clear()

    assert login(ground_control).status_code == 401


def test_lock_leaves_sessions_and_tokens_alone(ground_control: GroundControl) -> None:
    session = login(ground_control).json()["token"]
    token = ground_control.admin.post("/api/tokens", json={"name": "ci"}).json()["token"]

    lock(ground_control)

    assert (get(ground_control, session), get(ground_control, token)) == (200, 200)


def test_login_hashes_anew_what_was_hashed_with_other_parameters(ground_control: GroundControl) -> None:
    make_user(ground_control)
    weak = PasswordHasher(time_cost=1, memory_cost=16, parallelism=2).hash(PASSWORD)
    with ground_control.factory.begin() as session:
        session.execute(update(User).where(User.username == "ops").values(password_hash=weak))

    assert [login(ground_control, "ops", PASSWORD).status_code for _ in range(2)] == [200, 200]

    with ground_control.factory() as session:
        stored = session.scalars(select(User.password_hash).where(User.username == "ops")).one()
    assert stored != weak
    assert not passwords.needs_rehash(stored)


def test_login_refused_hashes_once_for_known_and_unknown(
    ground_control: GroundControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str | None] = []

    class Counting:
        def verify(self, stored: str, _password: bytes) -> bool:
            hashed.append(stored.split("$")[3])
            return False

    monkeypatch.setattr(passwords, "_hasher", Counting())

    login(ground_control, password="Wrong-Pass-1")
    login(ground_control, "nobody", "Wrong-Pass-1")

    assert len(hashed) == 2
    assert hashed[0] == hashed[1], "both with the same parameters"


def test_operator_is_made_and_shown_with_its_role(ground_control: GroundControl) -> None:
    body = {"username": "op", "password": PASSWORD, "role": "operator"}

    assert ground_control.admin.post("/api/users", json=body).json()["role"] == "operator"
    assert ground_control.admin.get("/api/users/op").json()["role"] == "operator"


@pytest.mark.parametrize("role", ["system_admin", "root", ""])
def test_create_user_other_role_is_refused(ground_control: GroundControl, role: str) -> None:
    body = {"username": "op", "password": PASSWORD, "role": role}

    assert ground_control.admin.post("/api/users", json=body).status_code == 400


def test_console_makes_a_person_and_resets_the_administrator(session_factory: SessionFactory) -> None:
    with session_factory.begin() as session:
        made = set_up_person(session, "ops", SecretStr(PASSWORD), role="operator", is_reset=False)
        done = set_up_person(session, "admin", SecretStr(ADMIN_PASSWORD), role="admin", is_reset=True)

    assert (made, done.split(";")[0]) == ("user ops is made, with role operator", "the password of admin is set")
    with session_factory() as session:
        told = session.execute(select(AuditEvent.actor, AuditEvent.action).order_by(AuditEvent.id)).all()
    assert [tuple(row) for row in told] == [("console", "user.create"), ("console", "user.password")]


@pytest.mark.parametrize(
    ("username", "role", "is_reset", "error"),
    [
        ("admin", "admin", False, ConflictError),
        ("ops", "system_admin", False, InvalidInputError),
        ("ops", "admin", True, NotFoundError),
    ],
)
def test_console_refuses_what_cannot_be(
    session_factory: SessionFactory, username: str, role: str, is_reset: Any, error: type[Exception]
) -> None:
    with session_factory() as session, pytest.raises(error):
        set_up_person(session, username, SecretStr(PASSWORD), role=role, is_reset=is_reset)
