"""The audit log: rows with their changes, refusals, JSON lines, no secrets."""

from __future__ import annotations

import json
import logging
import stat
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr
from sqlalchemy import func, select

from harbor_satellite.ground_control.models import AuditEvent
from harbor_satellite.ground_control.people import audit_log, audit_view
from harbor_satellite.ground_control.people.audit_budget import Overflow, RefusalBudget
from harbor_satellite.ground_control.people.audit_log import AUDIT_LOGGER, Actor, write_audit_lines_to
from harbor_satellite.ground_control.people.audit_redaction import redacted
from tests.fixtures_ground_control import ADMIN_PASSWORD

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harbor_satellite.ground_control.database import SessionFactory
    from tests.fixtures_ground_control import GroundControl

PASSWORD = "Another-Pass-1"
NOW = datetime(2026, 1, 31, 9, 0, tzinfo=UTC)
MARA = Actor("user:mara", "192.0.2.7", "request-1")


@pytest.fixture
def audit_file(tmp_path: Path) -> Iterator[Path]:
    file = tmp_path / "audit.jsonl"
    write_audit_lines_to(file)
    yield file
    logger = logging.getLogger(AUDIT_LOGGER)
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.propagate = True
    logger.setLevel(logging.NOTSET)


def events(running: GroundControl, **filters: Any) -> list[dict[str, Any]]:
    response = running.admin.get("/api/audit", params=filters)
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()
    return found


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


# -- lines --------------------------------------------------------------------------------------------------------


def test_line_is_written_after_the_commit(session_factory: SessionFactory, audit_file: Path) -> None:
    with session_factory.begin() as session:
        audit_log.record(session, MARA, "group.sync", "group:shops", changes={"size": [1, 2]}, now=NOW)
        session.flush()
        assert lines(audit_file) == []

    (line,) = lines(audit_file)
    assert len(line.pop("event_id")) == 36
    assert line == {
        "timestamp": "2026-01-31T09:00:00Z",
        "actor": "user:mara",
        "source_address": "192.0.2.7",
        "request_id": "request-1",
        "action": "group.sync",
        "resource": "group:shops",
        "outcome": "done",
        "reason": "",
        "changes": {"size": [1, 2]},
    }


def test_line_of_a_rolled_back_change_is_not_written(session_factory: SessionFactory, audit_file: Path) -> None:
    with session_factory() as session:
        audit_log.record(session, MARA, "group.sync", "group:shops", now=NOW)
        session.flush()
        session.rollback()
        session.commit()

    with session_factory.begin() as session:
        assert session.scalar(select(func.count()).select_from(AuditEvent)) == 0
    assert lines(audit_file) == []


def test_line_of_a_savepoint_taken_back_is_not_written(session_factory: SessionFactory, audit_file: Path) -> None:
    with session_factory.begin() as session:
        audit_log.record(session, MARA, "group.sync", "group:kept", now=NOW)
        savepoint = session.begin_nested()
        audit_log.record(session, MARA, "group.sync", "group:lost", now=NOW)
        session.flush()
        savepoint.rollback()

    assert [line["resource"] for line in lines(audit_file)] == ["group:kept"]


def test_file_is_private_also_after_a_rotation(session_factory: SessionFactory, audit_file: Path) -> None:
    for name in ("first", "second"):
        with session_factory.begin() as session:
            audit_log.record(session, MARA, "group.sync", f"group:{name}", now=NOW)
        assert stat.S_IMODE(audit_file.stat().st_mode) == 0o600
        assert [line["resource"] for line in lines(audit_file)] == [f"group:{name}"]
        audit_file.rename(audit_file.with_suffix(f".{name}"))


def test_line_has_the_id_of_its_row(ground_control: GroundControl, audit_file: Path) -> None:
    headers = {"X-Request-ID": "my-request"}
    ground_control.admin.post("/api/users", json={"username": "ops", "password": PASSWORD}, headers=headers)

    (row,) = events(ground_control, action="user.create")
    (line,) = lines(audit_file)
    assert line["event_id"] == row["event_id"]
    assert (row["request_id"], row["actor"], row["resource"]) == ("my-request", "user:admin", "user:ops")
    assert row["changes"] == line["changes"] == {"role": [None, "admin"]}
    assert PASSWORD not in audit_file.read_text()


# -- redaction ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({"password": ["old", "new"]}, {"password": ["***", "***"]}),
        ({"webhook_secret": [None, "s"]}, {"webhook_secret": [None, "***"]}),
        ({"Authorization": "Bearer x"}, {"Authorization": "***"}),
        ({"renewal_key_hash": ["a", "b"]}, {"renewal_key_hash": ["***", "***"]}),
        ({"value": [None, SecretStr("s")]}, {"value": [None, "***"]}),
        ({"source": [{"url": "u", "api_key": "s"}]}, {"source": [{"url": "u", "api_key": "***"}]}),
        ({"token": {"inner": ["s"]}}, {"token": {"inner": ["***"]}}),
        ({"token_expires_at": [None, "2026"]}, {"token_expires_at": [None, "2026"]}),
        ({"signature_keys": [[], ["PEM"]]}, {"signature_keys": [[], ["PEM"]]}),
        ({"at": [NOW]}, {"at": ["2026-01-31 09:00:00+00:00"]}),
        ({"artifacts": ["x" * 20_000]}, {"artifacts": "(too long to be kept)"}),
    ],
    ids=lambda value: next(iter(value)),
)
def test_redacted_hides_secrets_and_keeps_the_rest(changes: dict[str, Any], kept: dict[str, Any]) -> None:
    assert redacted(changes) == kept


# -- refusals -----------------------------------------------------------------------------------------------------


def test_refused_login_says_why_to_the_log_only(ground_control: GroundControl) -> None:
    for username, password in (("admin", "Wrong-Pass-1"), ("My-Password-1", "x")):
        ground_control.anonymous.post("/login", json={"username": username, "password": password})

    unknown, wrong = events(ground_control, action="session.open")
    assert (wrong["resource"], wrong["outcome"], wrong["reason"]) == ("user:admin", "refused", "401: wrong password")
    # What was sent as a name may be a password in the wrong field.
    assert (unknown["resource"], unknown["reason"], unknown["actor"]) == ("user:?", "401: unknown user", "anonymous")
    assert unknown["source_address"] == "127.0.0.1"


def test_locking_an_account_is_recorded(ground_control: GroundControl) -> None:
    for _ in range(6):
        ground_control.anonymous.get("/api/groups", auth=("admin", "Wrong-Pass-1"))

    reasons = [event["reason"] for event in events(ground_control, resource="user:admin")]
    assert reasons[:3] == ["401: account locked", "401: wrong password; account locked now", "401: wrong password"]


def test_login_and_logout_are_recorded(ground_control: GroundControl) -> None:
    body = {"username": "admin", "password": ADMIN_PASSWORD}
    token = ground_control.anonymous.post("/login", json=body).json()["token"]
    ground_control.anonymous.post("/api/logout", headers={"Authorization": f"Bearer {token}"})

    found = [(event["action"], event["outcome"]) for event in events(ground_control, actor="user:admin")]
    assert found == [("session.close", "done"), ("session.open", "done")]


@pytest.mark.parametrize(
    ("call", "auth", "told", "status"),
    [
        ("POST /api/groups/sync", None, ("anonymous", "/api/groups/sync"), 401),
        ("DELETE /api/groups/shops", ("op", PASSWORD), ("user:op", "group:shops"), 403),
        ("DELETE /api/users/nobody", ("admin", ADMIN_PASSWORD), ("user:admin", "username:nobody"), 404),
        ("POST /api/users", ("admin", ADMIN_PASSWORD), ("user:admin", "/api/users"), 400),
    ],
    ids=["unknown caller", "operator", "missing thing", "bad body"],
)
def test_refused_change_is_recorded(
    ground_control: GroundControl, call: str, auth: tuple[str, str] | None, told: tuple[str, str], status: int
) -> None:
    method, path = call.split()
    operator = {"username": "op", "password": PASSWORD, "role": "operator"}
    ground_control.admin.post("/api/users", json=operator)

    assert ground_control.anonymous.request(method, path, auth=auth).status_code == status

    event = events(ground_control)[0]
    assert (event["actor"], event["resource"], event["outcome"]) == (*told, "refused")
    assert event["reason"].startswith(f"{status}: ")


def test_refused_reading_is_not_recorded(ground_control: GroundControl) -> None:
    assert ground_control.anonymous.get("/api/groups").status_code == 401

    assert events(ground_control) == []


def test_flood_of_wrong_passwords_fills_nothing(ground_control: GroundControl) -> None:
    for number in range(60):
        ground_control.anonymous.post("/api/users", headers={"Authorization": f"Bearer {number}"})

    assert len(events(ground_control)) <= 20


def test_budget_lists_some_then_counts_and_tells_once() -> None:
    budget = RefusalBudget(per_address=2, in_all=3)

    taken = [budget.take(address, 0.0)[0] for address in ("a", "a", "a", "b", "b", "c")]
    later = budget.take("a", 61.0)
    last = budget.take("a", 62.0)

    assert taken == [True, True, False, True, False, False]
    assert later == (True, (Overflow("a", 1), Overflow("b", 1), Overflow("c", 1)))
    assert last == (True, ())


def test_budget_forgets_no_count_of_addresses_that_it_forgets() -> None:
    budget = RefusalBudget(per_address=1, capacity=2)

    for address in ("a", "a", "b", "c", "d"):
        budget.take(address, 0.0)

    assert budget.take("a", 61.0) == (True, (Overflow("", 1),))


# -- reading ------------------------------------------------------------------------------------------------------


def write_events(factory: SessionFactory, count: int) -> None:
    with factory.begin() as session:
        for number in range(count):
            moment = NOW + timedelta(minutes=number)
            audit_log.record(session, MARA, "group.sync", f"group:{number % 2}", now=moment)


def test_events_page_by_the_last_id_newest_first(ground_control: GroundControl) -> None:
    write_events(ground_control.factory, 5)

    first = events(ground_control, limit=3)
    second = events(ground_control, limit=3, before=first[-1]["id"])

    moments = [event["timestamp"] for event in (*first, *second)]
    assert moments == [f"2026-01-31T09:0{minute}:00Z" for minute in (4, 3, 2, 1, 0)]


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        ({"resource": "group:0"}, 3),
        ({"actor": "user:mara"}, 5),
        ({"actor": "user:nobody"}, 0),
        ({"action": "group.sync", "resource": "group:1"}, 2),
        ({"outcome": "refused"}, 0),
        ({"since": "2026-01-31T09:03:00Z"}, 2),
    ],
    ids=str,
)
def test_events_are_filtered(ground_control: GroundControl, filters: dict[str, str], count: int) -> None:
    write_events(ground_control.factory, 5)

    assert len(events(ground_control, **filters)) == count


@pytest.mark.parametrize("query", ["limit=501", "limit=0", "before=-1", "since=2026-01-31T09:00:00", "actor=%00"])
def test_events_bad_query_is_refused(ground_control: GroundControl, query: str) -> None:
    assert ground_control.admin.get(f"/api/audit?{query}").status_code == 400


def test_prune_deletes_what_is_older(session_factory: SessionFactory) -> None:
    write_events(session_factory, 5)

    with session_factory.begin() as session:
        assert audit_view.prune(session, NOW + timedelta(minutes=3), limit=2) == 2
        assert audit_view.prune(session, NOW + timedelta(minutes=3)) == 1
        assert len(audit_view.list_events(session, audit_view.AuditFilter())) == 2
