"""Events reach Prefect at least once, whatever it does meanwhile."""

from __future__ import annotations

import json
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import httpx
from pydantic import SecretStr
from sqlalchemy import select

from harbor_satellite.ground_control import outbox
from harbor_satellite.ground_control.api.app import AppOptions
from harbor_satellite.ground_control.dispatcher import OutboxDispatcher
from harbor_satellite.ground_control.models import OutboxEvent
from harbor_satellite.ground_control.satellites.sources import OciSource
from tests.fixtures_ground_control import SOURCE_URL, running_ground_control, serve

if TYPE_CHECKING:
    from harbor_satellite.ground_control.database import SessionFactory

NOW = datetime(2026, 11, 22, 20, tzinfo=UTC)


class FakePrefect:
    """The events endpoint."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.refused_group = ""
        self.received: list[dict[str, object]] = []
        self.authorizations: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        assert (request.method, str(request.url)) == ("POST", "http://prefect.test/api/events")
        status = self.statuses.pop(0) if self.statuses else 204
        if status == 0:
            raise httpx.ConnectError("refused")
        events = json.loads(request.content)
        if any(event["payload"].get("group") == self.refused_group for event in events):
            return httpx.Response(422)
        if status == 204:
            self.received += events
            self.authorizations.append(request.headers.get("Authorization", ""))
        return httpx.Response(status)


def enqueue(factory: SessionFactory, *names: str) -> None:
    with factory.begin() as session:
        for name in names:
            outbox.enqueue_group_changed(session, name, NOW)


def dispatcher(factory: SessionFactory, prefect: FakePrefect, auth: str = "") -> OutboxDispatcher:
    secret = SecretStr(auth) if auth else None
    return OutboxDispatcher(factory, "http://prefect.test/api/", secret, transport=httpx.MockTransport(prefect))


def undelivered(factory: SessionFactory) -> int:
    with factory() as session:
        return len(session.scalars(select(OutboxEvent.id).where(OutboxEvent.delivered_at.is_(None))).all())


def test_event_is_posted_as_prefect_reads_it(session_factory: SessionFactory) -> None:
    prefect = FakePrefect()
    enqueue(session_factory, "shop")
    posting = dispatcher(session_factory, prefect, "user:pass:word")

    assert posting.post_due(NOW) == 1
    assert posting.post_due(NOW) == 0

    (event,) = prefect.received
    assert len(str(event.pop("id"))) == 36
    assert event == {
        "occurred": "2026-11-22T20:00:00+00:00",
        "event": "harbor-satellite.group.changed",
        "resource": {"prefect.resource.id": "harbor-satellite.group.shop"},
        "related": [],
        "payload": {"group": "shop"},
    }
    assert prefect.authorizations == [httpx.BasicAuth("user", "pass:word")._auth_header]
    posting._client.close()


def test_event_prefect_down_is_posted_later_under_the_same_id(session_factory: SessionFactory) -> None:
    prefect = FakePrefect()
    prefect.statuses = [0, 503]
    enqueue(session_factory, "shop")
    posting = dispatcher(session_factory, prefect)

    posting.post_due(NOW)
    assert (posting.post_due(NOW), undelivered(session_factory)) == (0, 1)  # not due again yet
    posting.post_due(NOW + timedelta(seconds=2))
    posting.post_due(NOW + timedelta(seconds=10))

    assert (len(prefect.received), undelivered(session_factory)) == (1, 0)
    posting._client.close()


def test_event_that_prefect_refuses_does_not_hold_up_others(session_factory: SessionFactory) -> None:
    prefect = FakePrefect()
    prefect.refused_group = "bad"
    enqueue(session_factory, "a", "bad", "b")
    posting = dispatcher(session_factory, prefect)

    posting.post_due(NOW)

    assert [event["payload"] for event in prefect.received] == [{"group": "a"}, {"group": "b"}]
    assert undelivered(session_factory) == 1
    posting._client.close()


def test_two_replicas_share_the_work(session_factory: SessionFactory) -> None:
    enqueue(session_factory, "a", "b", "c")

    with session_factory.begin() as session:
        first = outbox.lease_events(session, 2, NOW)
    with session_factory.begin() as session:
        second = outbox.lease_events(session, 2, NOW)
    with session_factory.begin() as session:
        third = outbox.lease_events(session, 9, NOW + timedelta(minutes=2))  # both replicas died

    assert [event.payload["group"] for event in (*first, *second)] == ["a", "b", "c"]
    assert [event.event_id for event in third] == [event.event_id for event in (*first, *second)]


def test_delivered_events_are_forgotten_after_a_day(session_factory: SessionFactory) -> None:
    enqueue(session_factory, "a")
    posting = dispatcher(session_factory, FakePrefect())
    posting.post_due(NOW)
    enqueue(session_factory, "b")
    posting.post_due(NOW + timedelta(days=2))

    with session_factory() as session:
        assert [row.payload for row in session.scalars(select(OutboxEvent))] == [{"group": "b"}]
    posting._client.close()


def test_backoff_grows_to_five_minutes() -> None:
    assert 0.5 <= outbox.backoff_seconds(1) <= 1
    assert 150 <= outbox.backoff_seconds(50) <= 300


def test_change_through_the_api_reaches_prefect_at_once(session_factory: SessionFactory) -> None:
    received: list[dict[str, object]] = []

    async def prefect(scope: dict[str, str], receive: object, send: object) -> None:
        if scope["type"] != "http":
            return
        message = await receive()  # type: ignore[operator]
        received.extend(json.loads(message["body"]))
        await send({"type": "http.response.start", "status": 204, "headers": []})  # type: ignore[operator]
        await send({"type": "http.response.body", "body": b""})  # type: ignore[operator]

    with serve(prefect) as url:
        options = AppOptions(
            source_url=SOURCE_URL,
            prefect_api_internal_url=f"{url}/api",
            admin_password=SecretStr("Never-Used-1"),
        )
        with running_ground_control(session_factory, OciSource(), options) as running:
            began = time.monotonic()
            response = running.admin.post(
                "/api/groups/sync", json={"group": "shop"}, auth=("admin", "Ground-Control-1")
            )
            while not received and time.monotonic() - began < 10:
                time.sleep(0.01)
            seconds = time.monotonic() - began

    assert response.status_code == 200
    assert [event["event"] for event in received] == ["harbor-satellite.group.changed"]
    assert seconds < 4  # sooner than the next poll


def soon(factory: SessionFactory, *names: str, now: datetime = NOW) -> int:
    with factory.begin() as session:
        return outbox.enqueue_groups_changed_soon(session, names, now, delay_seconds=5)


def test_burst_waits_a_little_and_makes_one_event_for_each_group(session_factory: SessionFactory) -> None:
    prefect = FakePrefect()
    posting = dispatcher(session_factory, prefect)

    added = [soon(session_factory, "shop", "bar") for _ in range(20)]

    assert sum(added) == 2
    assert posting.post_due(NOW + timedelta(seconds=4)) == 0
    assert posting.post_due(NOW + timedelta(seconds=5)) == 2


def test_event_that_is_being_posted_does_not_swallow_a_new_one(session_factory: SessionFactory) -> None:
    soon(session_factory, "shop")
    with session_factory.begin() as session:
        assert len(outbox.lease_events(session, 10, NOW + timedelta(seconds=5))) == 1

    added = soon(session_factory, "shop", now=NOW + timedelta(seconds=5))

    assert added == 1


def test_event_that_waits_for_its_next_attempt_does_not_swallow_a_new_one(session_factory: SessionFactory) -> None:
    soon(session_factory, "shop")
    with session_factory.begin() as session:
        events = outbox.lease_events(session, 10, NOW + timedelta(seconds=5))
        outbox.mark_failed(session, events, NOW)

    assert soon(session_factory, "shop") == 1


def test_waiting_event_is_not_posted_before_the_change_that_counts_on_it(session_factory: SessionFactory) -> None:
    soon(session_factory, "shop")
    later = NOW + timedelta(seconds=10)
    leased: list[int] = []
    with session_factory.begin() as session:
        assert outbox.enqueue_groups_changed_soon(session, ["shop"], later, delay_seconds=5) == 0

        posting = threading.Thread(
            target=lambda: leased.append(dispatcher(session_factory, FakePrefect()).post_due(later))
        )
        posting.start()
        posting.join(0.5)  # on SQLite it waits for this transaction; on PostgreSQL it skips the event
        seen_inside = list(leased)
    posting.join(30)

    assert sum(seen_inside) == 0


def test_events_of_thousands_of_groups_are_added_at_once(session_factory: SessionFactory) -> None:
    names = [f"group-{number}" for number in range(2500)]

    added = [soon(session_factory, *names) for _ in range(2)]

    assert added == [2500, 0]


def test_event_that_waits_is_posted_when_it_is_due_and_not_at_the_next_poll(session_factory: SessionFactory) -> None:
    prefect = FakePrefect()
    posting = dispatcher(session_factory, prefect)
    posting.start()
    began = time.monotonic()

    with session_factory.begin() as session:
        outbox.enqueue_groups_changed_soon(session, ["shop"], datetime.now(UTC), delay_seconds=1)
    while not prefect.received and time.monotonic() - began < 8:
        time.sleep(0.02)
    seconds = time.monotonic() - began
    posting.stop()

    assert 1 <= seconds < 3
