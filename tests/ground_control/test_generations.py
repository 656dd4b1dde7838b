"""What satellites may pull: what their groups name now, and what the generations that they are on still name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select, update

from harbor_satellite.ground_control.groups import group_states
from harbor_satellite.ground_control.models import Credential, Group, GroupState, Satellite
from harbor_satellite.ground_control.satellites import credentials, provisioning
from harbor_satellite.oci.digest import Digest
from harbor_satellite.state.artifact import StateArtifact, StateEntry, state_artifact_json
from harbor_satellite.state.names import group_name
from tests.ground_control.fleet_simulation import NOW, REGISTRY, Fleet

if TYPE_CHECKING:
    from harbor_satellite.ground_control.database import SessionFactory


@pytest.fixture
def fleet(session_factory: SessionFactory) -> Fleet:
    """Return a group whose rows name ``acme``, and whose first generation names ``old`` too."""
    fleet = Fleet(session_factory)
    fleet.add_group()
    publish(fleet, 1, "old/tool", "acme/app")
    publish(fleet, 2, "acme/app")
    return fleet


def publish(fleet: Fleet, generation: int, *repositories: str) -> None:
    entries = tuple(StateEntry(name, ("v1",), Digest.of(name.encode())) for name in repositories)
    raw = state_artifact_json(StateArtifact(group_name("shop"), REGISTRY, entries, generation))
    with fleet.factory.begin() as session:
        group_states.record_group_state(session, "shop", generation, Digest.of(raw), raw, NOW)


def stage(fleet: Fleet, released: int) -> None:
    with fleet.factory.begin() as session:
        session.execute(update(Group).values(is_staged=True, released_generation=released))


def wanted(fleet: Fleet, name: str) -> tuple[str, ...]:
    with fleet.factory() as session:
        satellite = session.scalars(select(Satellite).where(Satellite.name == name)).one()
        return credentials.wanted_projects(session, satellite)


@pytest.mark.parametrize(
    ("released", "projects"), [(1, ("acme", "old", "satellite")), (2, ("acme", "satellite"))], ids=["older", "newest"]
)
def test_wanted_projects_follow_the_generation_that_is_released(
    fleet: Fleet, released: int, projects: tuple[str, ...]
) -> None:
    (name,) = fleet.add_satellites(1)

    stage(fleet, released)

    assert wanted(fleet, name) == projects


def test_wanted_projects_of_a_generation_that_an_earlier_release_recorded(fleet: Fleet) -> None:
    (name,) = fleet.add_satellites(1)
    stage(fleet, 1)

    with fleet.factory.begin() as session:
        session.execute(update(GroupState).values(projects=None))

    assert wanted(fleet, name) == ("acme", "old", "satellite")


def test_grant_differences_ask_for_what_the_released_generation_names(fleet: Fleet) -> None:
    (name,) = fleet.add_satellites(1)
    with fleet.factory.begin() as session:
        satellite_id = session.scalars(select(Satellite.id)).one()
        granted = ["acme", "satellite"]
        row = Credential(
            satellite_id=satellite_id, username=name, secret_hash="0", granted_projects=granted, created_at=NOW
        )
        session.add(row)
    stage(fleet, 1)

    with fleet.factory() as session:
        (difference,) = provisioning.grant_differences(session)

    assert (difference.missing, difference.surplus) == ({"old"}, frozenset())
