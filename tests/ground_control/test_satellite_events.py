"""What tells sites that there is something to do: who writes such an event, when it is posted, and when it is not."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from sqlalchemy import delete, select, update

from harbor_satellite.ground_control import outbox
from harbor_satellite.ground_control.dispatcher import OutboxDispatcher
from harbor_satellite.ground_control.models import Credential, OutboxEvent, Satellite
from harbor_satellite.ground_control.pacing import RUNS_PER_SECOND, Pace, is_moot
from harbor_satellite.ground_control.people.audit_log import flow_actor
from harbor_satellite.ground_control.satellites import rotation
from harbor_satellite.ground_control.satellites.provisioning import WantedDeployment
from harbor_satellite.state.names import SatelliteName
from tests.ground_control.fleet_simulation import NOW, Fleet

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harbor_satellite.ground_control.database import SessionFactory
    from tests.fixtures_ground_control import GroundControl

DEPLOYMENT = "0190e8a0-0000-7000-8000-00000000000a"
RESOURCE = "harbor-satellite.satellite-state."


class FakePrefect:
    """Events and deployments."""

    def __init__(self) -> None:
        self.undeployed: set[str] = set()
        self.is_down = False
        self.received: list[dict[str, Any]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if self.is_down:
            raise httpx.ConnectError("down")
        if request.method == "GET":
            name = request.url.path.removeprefix("/api/deployments/name/replicate-state/")
            return httpx.Response(404) if name in self.undeployed else httpx.Response(200, json={"id": DEPLOYMENT})
        self.received += json.loads(request.content)
        return httpx.Response(204)

    @property
    def satellites(self) -> list[str]:
        return [event["payload"]["satellite"] for event in self.received if "satellite" in event["payload"]]


class World:
    """A fleet, and the dispatcher of its events; its clock stands still until it is moved."""

    def __init__(self, factory: SessionFactory) -> None:
        self.factory = factory
        self.fleet = Fleet(factory)
        self.fleet.add_group()
        with factory.begin() as session:
            session.execute(delete(OutboxEvent))  # of the group
        self.prefect = FakePrefect()
        self.noted: list[str] = []
        self.monotonic = 0.0
        self.dispatcher = OutboxDispatcher(
            factory,
            "http://prefect.test/api",
            note_run=self.noted.append,
            monotonic=lambda: self.monotonic,
            transport=httpx.MockTransport(self.prefect),
        )

    def change(self, *names: str, now: datetime = NOW) -> int:
        with self.factory.begin() as session:
            return outbox.enqueue_satellites_changed(session, names, now)

    def left(self) -> list[str]:
        with self.factory() as session:
            query = select(OutboxEvent.resource_id).where(OutboxEvent.delivered_at.is_(None)).order_by(OutboxEvent.id)
            return [name.removeprefix(RESOURCE) for name in session.scalars(query)]


@pytest.fixture
def world(session_factory: SessionFactory) -> Iterator[World]:
    world = World(session_factory)
    yield world
    world.dispatcher._client.close()


# -- posting


def test_event_of_a_satellite_names_the_deployment_that_is_to_run(world: World) -> None:
    (name,) = world.fleet.add_satellites(1)
    world.change(name)

    world.dispatcher.post_due(NOW)

    (event,) = world.prefect.received
    assert event["event"] == "harbor-satellite.satellite.changed"
    assert event["resource"] == {"prefect.resource.id": f"harbor-satellite.satellite-state.{name}"}
    assert event["related"] == [
        {"prefect.resource.id": f"prefect.deployment.{DEPLOYMENT}", "prefect.resource.role": "deployment"}
    ]
    assert (event["payload"], world.noted, world.left()) == ({"satellite": name}, [name], [])


def test_changes_of_a_satellite_while_its_event_waits_are_one_event_of_the_latest(world: World) -> None:
    (name,) = world.fleet.add_satellites(1)

    added = [world.change(name, now=NOW + timedelta(seconds=seconds)) for seconds in (0, 1, 2)]
    world.dispatcher.post_due(NOW + timedelta(seconds=2))

    assert added == [1, 0, 0]
    assert [event["occurred"] for event in world.prefect.received] == ["2026-11-22T20:00:02+00:00"]


def test_change_of_the_whole_fleet_is_paced_and_holds_up_no_other_event(world: World) -> None:
    world.change(*world.fleet.add_satellites(20))
    world.dispatcher.post_due(NOW)
    at_once = len(world.prefect.satellites)
    with world.factory.begin() as session:
        outbox.enqueue_group_changed(session, "late", NOW)

    world.dispatcher.post_due(NOW)
    first = world.prefect.received[at_once:]
    world.monotonic += 2.0
    while world.dispatcher.post_due(NOW + timedelta(seconds=2)):
        pass

    assert at_once == 4
    assert [event["payload"] for event in first] == [{"group": "late"}]
    assert len(world.prefect.satellites) == at_once + 2.0 * RUNS_PER_SECOND


def test_change_of_the_whole_fleet_is_paced_for_all_replicas_together(world: World) -> None:
    world.change(*world.fleet.add_satellites(20))
    other = OutboxDispatcher(
        world.factory, "http://prefect.test/api", monotonic=lambda: 0.0, transport=httpx.MockTransport(world.prefect)
    )
    asked = []
    for seconds in (0, 1, 2, 3):
        for dispatcher in (world.dispatcher, other):
            dispatcher.post_due(NOW + timedelta(seconds=seconds))
        asked.append(len(world.prefect.satellites))

    other._client.close()
    assert asked == [4, 4, 8, 8]


def test_event_without_deployment_yet_is_kept_and_stands_for_later_changes(world: World) -> None:
    (name,) = world.fleet.add_satellites(1)
    world.prefect.undeployed = {name}
    world.change(name)
    world.dispatcher.post_due(NOW)
    before = (world.prefect.satellites, world.left())

    again = world.change(name)
    world.prefect.undeployed = set()
    world.dispatcher.post_due(NOW + timedelta(seconds=6))

    assert before == ([], [name])
    assert (again, world.prefect.satellites, world.left()) == (0, [name], [])


def test_event_whose_deployment_never_comes_is_dropped(world: World) -> None:
    (name,) = world.fleet.add_satellites(1)
    set_schedule(world, "0 0 1 1 *")
    world.prefect.undeployed = {name}
    world.change(name)

    world.dispatcher.post_due(NOW + timedelta(minutes=31))

    assert (world.prefect.satellites, world.left()) == ([], [])


def test_event_that_waited_past_a_scheduled_run_is_dropped_and_costs_no_other_its_turn(world: World) -> None:
    names = world.fleet.add_satellites(9)  # every five minutes
    later = NOW + timedelta(minutes=6)
    world.change(*names[:5])
    world.change(*names[5:], now=later)

    while world.dispatcher.post_due(later):
        pass

    assert (world.prefect.satellites, world.left()) == (names[5:], [])


def test_event_of_a_satellite_that_is_gone_is_dropped(world: World) -> None:
    world.change("nobody")

    world.dispatcher.post_due(NOW)

    assert (world.prefect.satellites, world.left()) == ([], [])


def test_event_while_prefect_is_down_is_posted_when_it_is_back(world: World) -> None:
    (name,) = world.fleet.add_satellites(1)
    world.change(name)
    world.prefect.is_down = True
    world.dispatcher.post_due(NOW)
    before = world.left()
    world.prefect.is_down = False

    world.dispatcher.post_due(NOW + timedelta(seconds=2))

    assert name in before
    assert (world.prefect.satellites, world.left()) == ([name], [])


# -- pace and schedule, without a database


def test_pace_gives_a_few_at_once_and_then_so_many_a_second() -> None:
    pace = Pace(100.0)
    at_once = pace.allows(100.0)
    pace.take(at_once)

    waits = (pace.allows(100.0), pace.wait_seconds(100.0), pace.allows(100.0 + 1 / RUNS_PER_SECOND))

    assert (at_once, waits) == (4, (0, 1 / RUNS_PER_SECOND, 1))


@pytest.mark.parametrize(
    ("schedule", "waited", "expected"),
    [
        ("*/5 * * * *", timedelta(minutes=3), False),
        ("*/5 * * * *", timedelta(minutes=5), True),
        ("* * * * *", timedelta(seconds=30), False),
        ("0 3 * * *", timedelta(hours=5), False),  # 3:00 in Berlin is 2:00 in UTC, six hours after
        ("0 3 * * *", timedelta(hours=6), True),
    ],
    ids=["before its run", "at its run", "published as it ran", "before the night", "at night in its time zone"],
)
def test_is_moot_once_a_scheduled_run_was_due(schedule: str, waited: timedelta, *, expected: bool) -> None:
    event = outbox.LeasedEvent(1, "", outbox.SATELLITE_CHANGED, "", {}, NOW, 1)
    satellite = WantedDeployment(SatelliteName("edge-1"), schedule, (), None, timezone="Europe/Berlin")

    assert is_moot(event, satellite, NOW + waited) is expected


# -- who writes one


def set_schedule(world: World, schedule: str) -> None:
    with world.factory.begin() as session:
        session.execute(update(Satellite).values(schedule=schedule))


def waiting(factory: SessionFactory) -> list[str]:
    with factory() as session:
        query = select(OutboxEvent.payload).where(OutboxEvent.event == outbox.SATELLITE_CHANGED)
        return [payload["satellite"] for payload in session.scalars(query)]


@pytest.mark.parametrize("has_claimed", [True, False], ids=["claimed", "not claimed"])
def test_state_that_is_published_is_told_to_a_site_that_is_there(world: World, *, has_claimed: bool) -> None:
    world.fleet.publish(1)
    (name,) = world.fleet.add_satellites(1)
    with world.factory.begin() as session:
        session.execute(update(Satellite).values(credential_serial=int(has_claimed)))

    world.fleet.publish_satellites()
    world.fleet.publish_satellites()  # nothing moved

    assert waiting(world.factory) == ([name] if has_claimed else [])


def test_state_that_could_not_be_pushed_is_told_to_nobody(world: World) -> None:
    world.fleet.publish(1)
    world.fleet.add_satellites(1)
    with world.factory.begin() as session:
        session.execute(update(Satellite).values(credential_serial=1))
    world.fleet.pushes.push = None  # type: ignore[method-assign,assignment]

    with pytest.raises(TypeError):
        world.fleet.publish_satellites()

    assert waiting(world.factory) == []


@pytest.mark.parametrize("has_state", [True, False], ids=["published", "nothing published"])
def test_claim_asks_for_the_first_replication_if_there_is_something(
    ground_control: GroundControl, *, has_state: bool
) -> None:
    token = ground_control.register("edge-1")
    with ground_control.factory.begin() as session:
        session.execute(update(Satellite).values(state_digest="sha256:" + "a" * 64 if has_state else None))

    assert ground_control.claim(token).status_code == 200

    assert waiting(ground_control.factory) == (["edge-1"] if has_state else [])


def test_credential_that_falls_due_is_told(ground_control: GroundControl) -> None:
    ground_control.enroll("edge-1")
    with ground_control.factory.begin() as session:
        session.execute(update(Credential).values(expires_at=datetime.now(UTC) + timedelta(days=1)))

    with ground_control.factory.begin() as session:
        rotation.mark_due(session, timedelta(days=10), flow_actor("rotate-credentials"), ground_control.clock())

    assert waiting(ground_control.factory) == ["edge-1"]
