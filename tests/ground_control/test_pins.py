"""Which generation a satellite's state names: pins, staged groups, and the way back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select, update

from harbor_satellite.errors import ConflictError, NotFoundError
from harbor_satellite.ground_control.groups import group_changes, group_states, groups
from harbor_satellite.ground_control.models import GenerationPin, Group, Satellite
from harbor_satellite.ground_control.rollouts import pins, rollouts
from harbor_satellite.ground_control.rollouts.rollout_plan import Wave
from tests.ground_control.fleet_simulation import NOW, Fleet

if TYPE_CHECKING:
    from harbor_satellite.ground_control.database import SessionFactory


@pytest.fixture
def fleet(session_factory: SessionFactory) -> Fleet:
    fleet = Fleet(session_factory)
    fleet.add_group()
    for generation in (1, 2, 3):
        fleet.publish(generation)
    return fleet


def marks(fleet: Fleet) -> dict[str, tuple[int, bool]]:
    fleet.publish_satellites()
    return {
        name: (pin.generation, pin.is_rollback) for name, state in fleet.pushes.states.items() for pin in state.groups
    }


def change_group(fleet: Fleet, **values: object) -> None:
    with fleet.factory.begin() as session:
        session.execute(update(Group).where(Group.name == "shop").values(**values))


def move(fleet: Fleet, name: str, generation: int) -> None:
    with fleet.factory.begin() as session:
        satellite_id = session.scalars(select(Satellite.id).where(Satellite.name == name)).one()
        pins.move_pins(session, groups.show_group(session, "shop").id, {satellite_id: generation}, NOW)


def test_state_of_a_group_that_is_not_staged_names_the_newest(fleet: Fleet) -> None:
    (name,) = fleet.add_satellites(1)

    assert marks(fleet) == {name: (3, False)}


@pytest.mark.parametrize(("released", "followed"), [(None, None), (2, 2)], ids=["nothing released", "second released"])
def test_state_of_a_staged_group_names_what_is_released(
    fleet: Fleet, released: int | None, followed: int | None
) -> None:
    (name,) = fleet.add_satellites(1)
    change_group(fleet, is_staged=True, released_generation=released)

    fleet.publish_satellites()

    assert fleet.followed(name) == followed


def test_state_with_a_pin_names_the_pin_whatever_the_group_says(fleet: Fleet) -> None:
    one, other = fleet.add_satellites(2)
    change_group(fleet, is_staged=True, released_generation=2)

    move(fleet, one, 3)

    assert marks(fleet) == {one: (3, False), other: (2, False)}


def test_state_with_a_pin_to_nothing_leaves_the_group_out(fleet: Fleet) -> None:
    (name,) = fleet.add_satellites(1)
    move(fleet, name, 0)

    fleet.publish_satellites()

    assert fleet.pushes.states[name].groups == ()


def test_pin_that_goes_back_is_marked_until_the_newest_is_reached(fleet: Fleet) -> None:
    (name,) = fleet.add_satellites(1)
    seen = []

    for generation in (1, 2, 3):
        move(fleet, name, generation)
        seen.append(marks(fleet)[name])

    assert seen == [(1, True), (2, True), (3, False)]


def test_pin_that_only_goes_forward_is_not_marked(fleet: Fleet) -> None:
    (name,) = fleet.add_satellites(1)
    change_group(fleet, is_staged=True, released_generation=1)

    move(fleet, name, 2)

    assert marks(fleet) == {name: (2, False)}


def test_hold_pin_stays_where_it_is_when_a_generation_is_released(fleet: Fleet) -> None:
    held, other = fleet.add_satellites(2)
    change_group(fleet, is_staged=True, released_generation=1)
    with fleet.factory.begin() as session:
        pins.hold_pin(session, held, "shop", 2, NOW)

    with fleet.factory.begin() as session:
        pins.release_generation(session, groups.show_group(session, "shop"), 3, NOW)

    assert marks(fleet) == {held: (2, False), other: (3, False)}


def test_hold_pin_to_a_generation_that_is_not_kept_is_refused(fleet: Fleet) -> None:
    (name,) = fleet.add_satellites(1)

    with fleet.factory.begin() as session, pytest.raises(NotFoundError, match="generation 9"):
        pins.hold_pin(session, name, "shop", 9, NOW)


def test_hold_pin_of_a_group_that_it_does_not_follow_is_refused(fleet: Fleet) -> None:
    fleet.add_group("ops")
    (name,) = fleet.add_satellites(1)

    with fleet.factory.begin() as session, pytest.raises(NotFoundError, match="does not follow"):
        pins.hold_pin(session, name, "ops", 0, NOW)


def test_let_go_of_a_later_generation_takes_the_site_back(fleet: Fleet) -> None:
    (name,) = fleet.add_satellites(1)
    change_group(fleet, is_staged=True, released_generation=2)
    with fleet.factory.begin() as session:
        pins.hold_pin(session, name, "shop", 3, NOW)
    fleet.publish(4)

    with fleet.factory.begin() as session:
        pins.let_go(session, name, "shop", NOW)

    assert marks(fleet) == {name: (2, True)}


def test_let_go_of_an_earlier_generation_leaves_no_pin(fleet: Fleet) -> None:
    (name,) = fleet.add_satellites(1)
    with fleet.factory.begin() as session:
        pins.hold_pin(session, name, "shop", 1, NOW)

    with fleet.factory.begin() as session:
        pins.let_go(session, name, "shop", NOW)

    with fleet.factory() as session:
        assert session.scalars(select(GenerationPin)).all() == []
    assert marks(fleet) == {name: (3, False)}


def test_release_generation_takes_pins_away_that_say_nothing_more(fleet: Fleet) -> None:
    one, other = fleet.add_satellites(2)
    change_group(fleet, is_staged=True, released_generation=1)
    move(fleet, one, 2)

    with fleet.factory.begin() as session:
        pins.release_generation(session, groups.show_group(session, "shop"), 2, NOW)

    with fleet.factory() as session:
        assert session.scalars(select(GenerationPin)).all() == []
    assert marks(fleet) == {one: (2, False), other: (2, False)}


def test_release_generation_that_goes_back_says_so_to_everybody(fleet: Fleet) -> None:
    one, other = fleet.add_satellites(2)
    change_group(fleet, is_staged=True, released_generation=3)
    move(fleet, one, 2)

    with fleet.factory.begin() as session:
        pins.release_generation(session, groups.show_group(session, "shop"), 2, NOW)

    assert marks(fleet) == {one: (2, True), other: (2, True)}


def test_generation_that_a_pin_names_outlives_the_limit(fleet: Fleet) -> None:
    (name,) = fleet.add_satellites(1)
    move(fleet, name, 2)

    for generation in range(4, group_states.KEPT_GENERATIONS + 6):
        fleet.publish(generation)

    kept = fleet.kept()
    assert (kept[0], len(kept)) == (2, group_states.KEPT_GENERATIONS + 1)


def test_generation_that_is_released_outlives_the_limit(fleet: Fleet) -> None:
    change_group(fleet, is_staged=True, released_generation=1)

    for generation in range(4, group_states.KEPT_GENERATIONS + 6):
        fleet.publish(generation)

    assert fleet.kept()[0] == 1


def test_state_whose_generation_is_gone_stays_as_it_was(fleet: Fleet) -> None:
    (name,) = fleet.add_satellites(1)
    fleet.publish_satellites()
    change_group(fleet, is_staged=True, released_generation=99)

    with pytest.raises(ConflictError, match="shop generation 99"):
        fleet.publish_satellite(name)

    assert fleet.followed(name) == 3


def test_satellite_that_comes_back_to_a_staged_group_is_told_that_it_may_go_back(fleet: Fleet) -> None:
    (name,) = fleet.add_satellites(1)
    fleet.publish_satellites()
    change_group(fleet, is_staged=True, released_generation=2)

    with fleet.factory.begin() as session:
        groups.remove_satellite(session, name, "shop", NOW)
        groups.add_satellite(session, name, "shop", NOW)

    assert marks(fleet) == {name: (2, True)}


def test_satellite_that_leaves_a_group_leaves_its_pin(fleet: Fleet) -> None:
    (name,) = fleet.add_satellites(1)
    with fleet.factory.begin() as session:
        pins.hold_pin(session, name, "shop", 1, NOW)

    with fleet.factory.begin() as session:
        groups.remove_satellite(session, name, "shop", NOW)

    with fleet.factory() as session:
        assert session.scalars(select(GenerationPin)).all() == []


def test_add_satellite_again_leaves_its_pin(fleet: Fleet) -> None:
    (name,) = fleet.add_satellites(1)
    change_group(fleet, is_staged=True, released_generation=1)
    move(fleet, name, 2)

    with fleet.factory.begin() as session:
        groups.add_satellite(session, name, "shop", NOW)

    assert marks(fleet) == {name: (2, False)}


def test_staging_ends_only_when_no_rollout_is_going_on(fleet: Fleet) -> None:
    fleet.add_satellites(1)
    change_group(fleet, is_staged=True, released_generation=2)
    with fleet.factory.begin() as session:
        plan = rollouts.RolloutPlan("shop", 3, (Wave("all", percent=100),))
        rollouts.start_rollout(session, rollouts.plan_rollout(session, plan, "admin", NOW).id, NOW)

    with fleet.factory.begin() as session, pytest.raises(ConflictError, match="is going on"):
        group_changes.change_group(session, "shop", group_changes.GroupChange(is_staged=False), NOW)
