"""Publishing satellites: serials, what is due, and a few at once."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import event, select, update

from harbor_satellite.errors import NotFoundError, RemoteError
from harbor_satellite.ground_control.groups import groups
from harbor_satellite.ground_control.models import Group, Satellite, SatelliteConfig
from harbor_satellite.ground_control.satellites import satellite_publishing
from harbor_satellite.oci.descriptor import Descriptor
from harbor_satellite.oci.digest import Digest
from tests.ground_control.fleet_simulation import NOW, REGISTRY, Fleet

if TYPE_CHECKING:
    from harbor_satellite.ground_control.database import SessionFactory


@pytest.fixture
def fleet(session_factory: SessionFactory) -> Fleet:
    fleet = Fleet(session_factory)
    fleet.add_group()
    fleet.publish(1)
    return fleet


def row(fleet: Fleet, name: str) -> Satellite:
    with fleet.factory() as session:
        return session.scalars(select(Satellite).where(Satellite.name == name)).one()


def test_publish_satellite_serial_goes_up_with_every_change_of_content(fleet: Fleet) -> None:
    (name,) = fleet.add_satellites(1)
    serials = []

    for generation in (2, 3, 3):
        fleet.publish(generation)
        fleet.publish_satellites()
        serials.append((fleet.pushes.states[name].serial, row(fleet, name).state_serial))

    first = int(NOW.timestamp())
    assert serials == [(first, first), (first + 1, first + 1), (first + 1, first + 1)]
    assert fleet.pushes.count == 2


def test_publish_satellite_by_a_restored_database_is_ahead_of_what_it_has_forgotten(fleet: Fleet) -> None:
    (name,) = fleet.add_satellites(1)
    fleet.publish_satellites()
    backup = row(fleet, name)
    for generation in (2, 3):
        fleet.advance(hours=1)
        fleet.publish(generation)
        fleet.publish_satellites()
    seen_by_the_site = fleet.pushes.states[name].serial
    with fleet.factory.begin() as session:
        restored = {"state_digest": backup.state_digest, "state_serial": backup.state_serial}
        session.execute(update(Satellite).values(restored))
    fleet.advance(hours=1)

    fleet.publish_satellites()

    assert fleet.pushes.states[name].serial > seen_by_the_site


@pytest.mark.parametrize("shown", ["published", "other", "nothing"])
def test_is_satellite_lost_unless_the_source_shows_what_was_published(shown: str) -> None:
    published = Digest.of(b"published")
    digest = {"published": published, "other": Digest.of(b"other"), "nothing": None}[shown]

    class Source:
        def manifest_head(self, repository: str, reference: str) -> Descriptor | None:
            assert (repository, reference) == ("satellite/satellite-state/edge-1/state", "latest")
            return Descriptor("application/vnd.oci.image.manifest.v1+json", digest, 9) if digest else None

    is_lost = satellite_publishing.is_satellite_lost(Source(), "edge-1", str(published))  # type: ignore[arg-type]

    assert is_lost is (shown != "published")


def test_publish_satellite_lost_is_pushed_again_under_the_next_serial(fleet: Fleet) -> None:
    (name,) = fleet.add_satellites(1)
    fleet.publish_satellites()
    before = row(fleet, name)

    with fleet.factory.begin() as session:
        is_pushed = satellite_publishing.publish_satellite(
            session, fleet.pushes, name, registry=REGISTRY, now=NOW, is_lost=True
        )

    assert (is_pushed, fleet.pushes.count) == (True, 2)
    after = row(fleet, name)
    assert after.state_digest != before.state_digest
    assert (after.state_serial, fleet.pushes.states[name].serial) == (before.state_serial + 1,) * 2


def test_publish_satellite_change_of_config_is_a_new_state(fleet: Fleet) -> None:
    (name,) = fleet.add_satellites(1)
    fleet.publish_satellites()
    with fleet.factory.begin() as session:
        content = {"bytes_per_second": 4096}
        session.add(SatelliteConfig(name="slow", source_registry="", content=content, created_at=NOW, updated_at=NOW))
        session.execute(update(Group).values(config_name="slow"))

    due = fleet.publish_satellites()

    settings = fleet.pushes.states[name].settings
    assert (due, fleet.pushes.states[name].serial) == ((name,), int(NOW.timestamp()) + 1)
    assert settings is not None
    assert settings.bytes_per_second == 4096


def test_publish_satellite_behind_since_is_the_first_that_was_not_applied(fleet: Fleet) -> None:
    (name,) = fleet.add_satellites(1)
    fleet.publish_satellites()
    fleet.advance(hours=1)
    fleet.publish(2)

    fleet.publish_satellites()

    assert (row(fleet, name).behind_since, row(fleet, name).state_published_at) == (NOW, fleet.now)


def test_publish_satellite_back_to_what_the_site_has_is_not_behind(fleet: Fleet) -> None:
    (name,) = fleet.add_satellites(1)
    fleet.publish_satellites()
    fleet.report([name])
    with fleet.factory.begin() as session:
        session.execute(update(Satellite).values(state_digest=None, state_serial=0, behind_since=NOW))

    fleet.publish_satellites()

    assert row(fleet, name).behind_since is None


def test_first_state_waits_until_every_group_has_something(fleet: Fleet) -> None:
    fleet.add_group("ops")
    (name,) = fleet.add_satellites(1, "shop", "ops")

    before = fleet.publish_satellites()
    fleet.publish(1, "ops")
    after = fleet.publish_satellites()

    assert (before, after) == ((), (name,))


def test_first_state_does_not_wait_for_a_group_that_is_not_released_to_it(fleet: Fleet) -> None:
    fleet.add_group("ops", is_staged=True)
    fleet.publish(1, "ops")
    with fleet.factory.begin() as session:
        session.execute(update(Group).where(Group.name == "ops").values(released_generation=None))
    (name,) = fleet.add_satellites(1, "shop", "ops")

    assert fleet.publish_satellites() == (name,)
    assert [pin.group for pin in fleet.pushes.states[name].groups] == ["shop"]


def test_publish_satellite_refused_by_the_source_leaves_no_trace(fleet: Fleet) -> None:
    (name,) = fleet.add_satellites(1)

    class Down:
        def push(self, *_: object) -> None:
            raise RemoteError("the source is down")

    with pytest.raises(RemoteError), fleet.factory.begin() as session:
        satellite_publishing.publish_satellite(session, Down(), name, registry=REGISTRY, now=NOW)  # type: ignore[arg-type]

    assert (row(fleet, name).state_digest, row(fleet, name).state_serial) == (None, 0)


def test_due_satellites_asks_the_same_number_of_times_however_many_there_are(fleet: Fleet) -> None:
    counts = []
    for count in (3, 300):
        names = fleet.add_satellites(count)
        with fleet.factory() as session:
            asked: list[object] = []
            note = lambda *given, asked=asked: asked.append(given)  # noqa: E731
            event.listen(session.connection(), "before_cursor_execute", note)
            assert satellite_publishing.due_satellites(session, names, REGISTRY) == tuple(sorted(names))
            counts.append(len(asked))

    assert counts[0] == counts[1] <= 6


def test_due_satellites_leaves_those_out_that_are_gone(fleet: Fleet) -> None:
    with fleet.factory() as session:
        assert satellite_publishing.due_satellites(session, ["nobody"], REGISTRY) == ()


def test_for_each_one_that_fails_or_waits_holds_up_nobody() -> None:
    def serve(name: str) -> str:
        if name == "broken":
            raise NotFoundError("gone")
        time.sleep(0.2 if name == "slow" else 0)
        return name.upper()

    began = time.monotonic()
    found = dict(satellite_publishing.for_each(["slow", "broken", "slow", "quick"], serve))

    assert (found["slow"], found["quick"]) == ("SLOW", "QUICK")
    assert isinstance(found["broken"], NotFoundError)
    assert time.monotonic() - began < 0.39  # the slow ones at once


def test_satellite_of_no_group_has_a_state_without_groups(fleet: Fleet) -> None:
    (name,) = fleet.add_satellites(1)
    with fleet.factory.begin() as session:
        groups.remove_satellite(session, name, "shop", NOW)

    fleet.publish_satellites()

    assert fleet.pushes.states[name].groups == ()
