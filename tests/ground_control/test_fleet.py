"""What flows read and record."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import func, select

from harbor_satellite.errors import ConflictError, InvalidInputError, NotFoundError, RemoteError
from harbor_satellite.ground_control.groups import group_states, groups
from harbor_satellite.ground_control.models import DEFAULT_SCHEDULE, GroupState, SatelliteStateHistory
from harbor_satellite.ground_control.satellites import credentials, satellite_states, satellites
from harbor_satellite.ground_control.satellites.sources import OciSource
from harbor_satellite.oci.digest import Digest
from harbor_satellite.state.artifact import StateArtifact, StateEntry, state_artifact_json
from harbor_satellite.state.names import group_name

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from harbor_satellite.ground_control.database import SessionFactory
    from tests.fixtures_ground_control import HarborParts

NOW = datetime(2026, 11, 22, 20, tzinfo=UTC)


def digest(number: int) -> Digest:
    return Digest.of(str(number).encode())


def add_group(session: Session, name: str, *repositories: str) -> None:
    entries = [groups.group_entry(repository, ["v1"], "") for repository in repositories]
    groups.sync_group(session, name, registry="http://harbor.test", entries=entries, now=NOW)


def add_satellite(session: Session, name: str, *names: str) -> None:
    satellites.register_satellite(
        session,
        OciSource(),
        name=name,
        group_names=names,
        config_name="",
        schedule=None,
        token_ttl=timedelta(hours=1),
        now=NOW,
    )


def publish(session: Session, group: str, generation: int) -> None:
    entry = StateEntry("acme/app", ("v1",), digest(generation))
    state = StateArtifact(group_name(group), "http://harbor.test", (entry,), generation)
    group_states.record_group_state(session, group, generation, digest(generation), state_artifact_json(state), NOW)


def test_group_spec_before_and_after_the_first_publication(session_factory: SessionFactory) -> None:
    with session_factory.begin() as session:
        add_group(session, "shop", "acme/b", "acme/a")
        before = group_states.group_spec(session, "shop")
        publish(session, "shop", 1)
        publish(session, "shop", 2)
        after = group_states.group_spec(session, "shop")

    assert [entry.repository for entry in before.entries] == ["acme/a", "acme/b"]
    assert (before.generation, before.published, before.published_digest) == (0, None, None)
    assert (after.generation, after.published_digest) == (2, digest(2))
    assert after.published is not None
    assert after.published.artifacts[0].digest == digest(2)


def test_group_spec_unknown(session_factory: SessionFactory) -> None:
    with session_factory() as session, pytest.raises(NotFoundError):
        group_states.group_spec(session, "nope")


def test_record_group_state_again_is_fine_and_another_conflicts(session_factory: SessionFactory) -> None:
    with session_factory.begin() as session:
        add_group(session, "shop")
        publish(session, "shop", 1)
        publish(session, "shop", 1)
        with pytest.raises(ConflictError):
            group_states.record_group_state(session, "shop", 1, digest(9), "{}")
        with pytest.raises(InvalidInputError):
            group_states.record_group_state(session, "shop", 0, digest(9), "{}")


def test_group_made_anew_goes_on_counting(session_factory: SessionFactory) -> None:
    for first in (1, 3):
        with session_factory.begin() as session:
            add_group(session, "shop")
            assert group_states.group_spec(session, "shop").generation == first - 1
            publish(session, "shop", first)
            publish(session, "shop", first + 1)
        with session_factory.begin() as session:
            groups.delete_group(session, "shop", NOW)

    with session_factory.begin() as session:
        add_group(session, "shop")
        spec = group_states.group_spec(session, "shop")
    assert (spec.generation, spec.published) == (4, None)


def test_old_generations_are_dropped(session_factory: SessionFactory) -> None:
    with session_factory.begin() as session:
        add_group(session, "shop")
        for generation in range(1, group_states.KEPT_GENERATIONS + 4):
            publish(session, "shop", generation)
        kept = session.scalars(select(GroupState.generation).order_by(GroupState.generation)).all()

    assert kept == list(range(4, group_states.KEPT_GENERATIONS + 4))


def test_pins_are_the_last_generations_of_the_satellite_s_groups(session_factory: SessionFactory) -> None:
    with session_factory.begin() as session:
        for name in ("ops", "shop", "other", "unpublished"):
            add_group(session, name)
        add_satellite(session, "edge-1", "shop", "ops", "unpublished")
        for group, generation in (("shop", 1), ("shop", 2), ("ops", 5), ("other", 7)):
            publish(session, group, generation)
        pins = satellite_states.satellite_pins(session, "edge-1")

    assert pins == (("ops", 5, digest(5), False), ("shop", 2, digest(2), False))


def test_lists_are_sorted(session_factory: SessionFactory) -> None:
    with session_factory.begin() as session:
        add_group(session, "shop")
        add_group(session, "ops")
        add_satellite(session, "edge-2", "shop", "ops")
        add_satellite(session, "edge-1", "shop")

        assert group_states.list_group_names(session) == ("ops", "shop")
        assert satellite_states.satellites_of_group(session, "shop") == ("edge-1", "edge-2")
        assert satellite_states.satellite_deployments(session) == (
            satellite_states.SatelliteDeployment("edge-1", DEFAULT_SCHEDULE, ("shop",)),  # type: ignore[arg-type]
            satellite_states.SatelliteDeployment("edge-2", DEFAULT_SCHEDULE, ("ops", "shop")),  # type: ignore[arg-type]
        )


def test_record_satellite_state_keeps_the_moment_of_the_first(session_factory: SessionFactory) -> None:
    with session_factory.begin() as session:
        add_satellite(session, "edge-1")
        changed = satellite_states.record_satellite_state(session, "edge-1", digest(1), NOW)
        again = satellite_states.record_satellite_state(session, "edge-1", digest(1), NOW + timedelta(hours=1))
        row = satellites.show_satellite(session, "edge-1")
        for number in range(2, satellite_states.KEPT_SATELLITE_STATES + 5):
            satellite_states.record_satellite_state(session, "edge-1", digest(number), NOW)
        kept = session.scalar(select(func.count()).select_from(SatelliteStateHistory))

    assert (changed, again) == (True, False)
    assert (row.state_published_at, kept) == (NOW, satellite_states.KEPT_SATELLITE_STATES)


def test_grant_projects_follows_the_groups_and_asks_only_when_they_changed(harbor_ground_control: HarborParts) -> None:
    fake, running = harbor_ground_control.fake, harbor_ground_control.ground_control
    running.sync_group("shop", "acme/app")
    running.sync_group("ops", "tools/cli")
    credential = running.enroll("edge-1", "shop")
    (robot,) = fake.accounts.robots.values()

    def grant() -> bool:
        with running.factory.begin() as session:
            return credentials.grant_projects(session, running.source, "edge-1")

    def granted() -> list[str]:
        return [permission["namespace"] for permission in robot.permissions]

    fake.requests.clear()
    assert grant() is False
    assert fake.requests == []

    running.admin.post("/api/groups/satellite", json={"satellite": "edge-1", "group": "ops"})
    assert (grant(), granted()) == (True, ["acme", "satellite", "tools"])

    running.admin.request("DELETE", "/api/groups/satellite", json={"satellite": "edge-1", "group": "shop"})
    assert (grant(), granted()) == (True, ["satellite", "tools"])
    assert robot.secret == credential[1]
    assert grant() is False


def test_grant_projects_project_that_comes_later_is_granted_later(harbor_ground_control: HarborParts) -> None:
    fake, running = harbor_ground_control.fake, harbor_ground_control.ground_control
    running.sync_group("shop", "acme/app", "later/app")
    running.enroll("edge-1", "shop")
    (robot,) = fake.accounts.robots.values()
    fake.accounts.projects["later"] = False

    with running.factory.begin() as session:
        assert credentials.grant_projects(session, running.source, "edge-1") is True

    assert [permission["namespace"] for permission in robot.permissions] == ["acme", "later", "satellite"]


def test_grant_projects_source_down_changes_nothing(harbor_ground_control: HarborParts) -> None:
    fake, running = harbor_ground_control.fake, harbor_ground_control.ground_control
    running.sync_group("shop", "acme/app")
    running.enroll("edge-1")
    running.admin.post("/api/groups/satellite", json={"satellite": "edge-1", "group": "shop"})
    fake.is_down = True

    def grant() -> bool:
        with running.factory.begin() as session:
            return credentials.grant_projects(session, running.source, "edge-1")

    with pytest.raises(RemoteError) as caught:
        grant()
    assert (caught.value.status, caught.value.retryable, caught.value.retry_after_seconds) == (503, True, 7)
    fake.is_down = False
    assert grant() is True


def test_grant_projects_before_the_claim_and_of_nobody(session_factory: SessionFactory) -> None:
    with session_factory.begin() as session:
        add_satellite(session, "edge-1")

        assert credentials.grant_projects(session, OciSource(), "edge-1") is False
        with pytest.raises(NotFoundError):
            credentials.grant_projects(session, OciSource(), "nope")
