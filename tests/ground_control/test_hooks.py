"""Webhooks of Harbor: every real payload is taken, and a burst makes one event for each group it may touch."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select

from harbor_satellite.errors import InvalidInputError
from harbor_satellite.ground_control.api.app import AppOptions
from harbor_satellite.ground_control.groups.hooks import parse_event
from harbor_satellite.ground_control.models import OutboxEvent, Webhook
from tests.fixtures_ground_control import SOURCE_URL, running_ground_control

if TYPE_CHECKING:
    import httpx

    from tests.fixtures_ground_control import GroundControl, HarborParts

PAYLOADS = sorted((Path(__file__).parent.parent / "data/harbor").glob("webhook-[cd]e*.json"))


def payload(name: str) -> Any:
    path = next(path for path in PAYLOADS if path.stem == name)
    return json.loads(path.read_text())["body"]


def pushed(repository: str) -> dict[str, Any]:
    body: dict[str, Any] = payload("webhook-default-PUSH_ARTIFACT")
    body["event_data"]["repository"]["repo_full_name"] = repository
    return body


def make_hook(running: GroundControl, project: str = "acme") -> str:
    secret: str = running.admin.post("/api/webhooks", json={"project": project}).json()["secret"]
    return secret


def send(running: GroundControl, body: Any, secret: str, project: str = "acme") -> httpx.Response:
    headers = {"Authorization": secret, "Content-Type": "application/json"}
    return running.anonymous.post(f"/webhooks/harbor/{project}", content=json.dumps(body), headers=headers)


def forget_events(running: GroundControl) -> None:
    with running.factory.begin() as session:
        for event in session.scalars(select(OutboxEvent)):
            session.delete(event)


def told(running: GroundControl) -> list[str]:
    with running.factory() as session:
        return [row.payload["group"] for row in session.scalars(select(OutboxEvent).order_by(OutboxEvent.id))]


def make_groups(running: GroundControl) -> None:
    running.sync_group("by-list", "acme/hooked")
    running.sync_group("by-other-list", "acme/other")
    for name, project, pattern in (
        ("by-selector", "acme", "hook*"),
        ("by-other-selector", "acme", "x*"),
        ("by-project", "tools", "**"),
    ):
        running.sync_group(name)
        selector = {"project": project, "repository": pattern}
        assert running.admin.put(f"/api/groups/{name}/selectors", json={"selectors": [selector]}).status_code == 200
    forget_events(running)


def test_payloads_are_all_here() -> None:
    assert len(PAYLOADS) == 12


@pytest.mark.parametrize("path", PAYLOADS, ids=lambda path: path.stem)
def test_every_real_payload_is_an_event(path: Path) -> None:
    body = json.loads(path.read_text())["body"]

    event = parse_event(json.dumps(body).encode())

    assert event.type == body["type"]
    assert event.repository == ("" if "replication" in body["type"].lower() else "acme/hooked")
    assert event.is_telling is ("pull" not in event.type.lower())


@pytest.mark.parametrize(
    "raw",
    [b"", b"no json", b"[]", b"{}", b'{"type":1}', b"[" * 100_000],
    ids=["empty", "text", "list", "{}", "1", "deep"],
)
def test_what_is_no_event_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidInputError):
        parse_event(raw)


def test_event_of_odd_parts_is_an_event_all_the_same() -> None:
    raw = json.dumps({"type": "PUSH_ARTIFACT", "event_data": {"repository": {"repo_full_name": "../x"}}}).encode()

    assert parse_event(raw).repository == ""


def test_event_makes_the_groups_be_published_that_it_may_touch(ground_control: GroundControl) -> None:
    make_groups(ground_control)
    secret = make_hook(ground_control)

    answer = send(ground_control, pushed("acme/hooked"), secret)

    assert answer.status_code == 200
    assert told(ground_control) == ["by-list", "by-selector"]
    (shown,) = ground_control.admin.get("/api/webhooks").json()
    assert shown["last_event_at"] is not None
    assert "secret" not in shown


def test_event_without_a_repository_touches_all_of_its_project(ground_control: GroundControl) -> None:
    make_groups(ground_control)
    secret = make_hook(ground_control)

    send(ground_control, payload("webhook-default-REPLICATION-Success"), secret)

    assert told(ground_control) == ["by-list", "by-other-list", "by-other-selector", "by-selector"]


@pytest.mark.parametrize("name", ["PULL_ARTIFACT", "SCANNING_COMPLETED", "SOMETHING_NEW"])
def test_event_that_changes_nothing_is_taken_and_ignored(ground_control: GroundControl, name: str) -> None:
    make_groups(ground_control)
    secret = make_hook(ground_control)

    answer = send(ground_control, {**pushed("acme/hooked"), "type": name}, secret)

    assert (answer.status_code, told(ground_control)) == (200, [])


def test_event_about_another_project_touches_nothing(ground_control: GroundControl) -> None:
    make_groups(ground_control)
    secret = make_hook(ground_control)

    answer = send(ground_control, pushed("tools/cli"), secret)

    assert (answer.status_code, told(ground_control)) == (200, [])


def test_burst_of_events_makes_one_event_for_each_group(ground_control: GroundControl) -> None:
    make_groups(ground_control)
    secret = make_hook(ground_control)

    before = datetime.now(UTC)
    send(ground_control, pushed("acme/hooked"), secret)
    after = datetime.now(UTC)
    for _ in range(99):
        send(ground_control, pushed("acme/hooked"), secret)

    assert told(ground_control) == ["by-list", "by-selector"]
    with ground_control.factory() as session:
        due = [row.available_at - timedelta(seconds=5) for row in session.scalars(select(OutboxEvent))]
    assert all(before <= moment <= after for moment in due), "later events put nothing off"


@pytest.mark.parametrize("secret", ["", "wrong", "Bearer wrong"])
def test_wrong_secret_is_refused(ground_control: GroundControl, secret: str) -> None:
    make_groups(ground_control)
    make_hook(ground_control)

    answers = [send(ground_control, pushed("acme/hooked"), secret, project) for project in ("acme", "unknown")]

    assert [answer.status_code for answer in answers] == [401, 401]
    assert told(ground_control) == []


def test_secret_of_one_project_opens_no_other(ground_control: GroundControl) -> None:
    secret = make_hook(ground_control)
    make_hook(ground_control, "tools")

    assert send(ground_control, pushed("tools/cli"), secret, "tools").status_code == 401


def test_guessing_is_throttled_and_the_right_secret_still_gets_in(ground_control: GroundControl) -> None:
    secret = make_hook(ground_control)

    statuses = [send(ground_control, {}, "wrong").status_code for _ in range(62)]

    assert (statuses[0], statuses[-1]) == (401, 429)
    assert send(ground_control, pushed("acme/app"), secret).status_code == 200


def test_event_that_is_too_long_is_refused(ground_control: GroundControl) -> None:
    secret = make_hook(ground_control)

    assert send(ground_control, {"type": "x" * 1024 * 1024}, secret).status_code == 400


def test_secret_is_stored_hashed_and_made_anew_by_a_repetition(ground_control: GroundControl) -> None:
    old = make_hook(ground_control)

    new = make_hook(ground_control)

    with ground_control.factory() as session:
        stored = session.scalars(select(Webhook.secret_hash)).one()
    assert new not in stored
    assert [send(ground_control, pushed("acme/app"), secret).status_code for secret in (old, new)] == [401, 200]


def test_delete_webhook_ends_it(ground_control: GroundControl) -> None:
    secret = make_hook(ground_control)

    deleted = ground_control.admin.delete("/api/webhooks/acme")

    assert (deleted.status_code, ground_control.admin.delete("/api/webhooks/acme").status_code) == (200, 404)
    assert send(ground_control, pushed("acme/app"), secret).status_code == 401


@pytest.mark.parametrize("project", ["", "a/b", "UPPER", "a\u0000b"])
def test_webhook_of_what_is_no_project_is_refused(ground_control: GroundControl, project: str) -> None:
    assert ground_control.admin.post("/api/webhooks", json={"project": project}).status_code == 400


def test_webhook_in_harbor_without_a_public_url_is_refused(ground_control: GroundControl) -> None:
    answer = ground_control.admin.post("/api/webhooks", json={"project": "acme", "in_harbor": True})

    assert answer.status_code == 400
    assert ground_control.admin.get("/api/webhooks").json() == []


def test_webhook_in_harbor_is_made_told_by_and_deleted_there(harbor_ground_control: HarborParts) -> None:
    fake, shared = harbor_ground_control.fake, harbor_ground_control.ground_control
    options = AppOptions(source_url=SOURCE_URL, public_url="http://unset.test")
    with running_ground_control(shared.factory, shared.source, options) as running:
        object.__setattr__(running.context.options, "public_url", running.url)  # its port is known only now
        running.admin.headers["Authorization"] = shared.admin.headers["Authorization"]
        make_groups(running)

        made = running.admin.post("/api/webhooks", json={"project": "acme", "in_harbor": True})
        fake.push("acme/hooked", "v1")
        _wait(lambda: bool(told(running)))
        deleted = running.admin.delete("/api/webhooks/acme")

        assert made.status_code == 200, made.text
        assert made.json()["address"] == f"{running.url}/webhooks/harbor/acme"
        assert told(running) == ["by-list", "by-selector"]
        assert (deleted.status_code, fake.hooks.policies) == (200, {})


def _wait(condition: Any) -> None:
    until = time.monotonic() + 10
    while not condition() and time.monotonic() < until:
        time.sleep(0.02)
