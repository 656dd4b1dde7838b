"""The flow that moves rollouts, end to end: centre, source and one site."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prefect.logging import disable_run_logger

from flows.publish_state import publish_state
from flows.roll_out import roll_out
from harbor_satellite.ground_control.models import Satellite
from harbor_satellite.ground_control.rollouts import rollout_steps
from harbor_satellite.registry.state_pull import pull_state
from harbor_satellite.state.satellite_state import parse_satellite_state
from tasks.centre import open_centre
from tasks.satellites import list_satellites

if TYPE_CHECKING:
    from tests.flows.conftest import World

APP = "acme/app"


def followed(world: World, name: str) -> int:
    pulled = pull_state(world.centre, f"satellite/satellite-state/{name}/state", "latest")
    (pin,) = parse_satellite_state(pulled.raw, None, name).groups
    return pin.generation


def planned(world: World) -> tuple[int, dict[str, tuple[str, str]]]:
    """Bring two satellites to generation 1 of a staged group, publish generation 2, and plan its rollout."""
    world.image(APP, "one")
    world.ground_control.sync_group("stores", APP)
    auth = {name: world.ground_control.enroll(name, "stores") for name in ("shop-a", "shop-b")}
    publish_state("stores", return_state=True)
    admin = world.ground_control.admin
    assert admin.patch("/api/groups/stores", json={"is_staged": True}).status_code == 200
    world.image(APP, "two")
    publish_state("stores", return_state=True)
    for name, (username, secret) in auth.items():
        report(world, name, (username, secret), 1)
    body = {"group": "stores", "waves": [{"percent": 50, "name": "canary"}]}
    rollout: int = admin.post("/api/rollouts", json=body).json()["id"]
    assert admin.post(f"/api/rollouts/{rollout}/start").status_code == 200
    return rollout, auth


def report(world: World, name: str, auth: tuple[str, str], generation: int) -> None:
    with world.ground_control.factory() as session:
        (digest,) = session.query(Satellite.state_digest).where(Satellite.name == name).one()
    values: dict[str, Any] = {
        "latest_state_digest": digest,
        "groups": [{"group": "stores", "generation": generation, "digest": digest}],
    }
    assert world.ground_control.report(name, auth, **values).status_code == 200


def test_roll_out_moves_the_next_wave_when_the_first_has_reported(world: World) -> None:
    rollout, auth = planned(world)
    steps = [[followed(world, name) for name in auth]]

    for _ in range(2):
        state = roll_out(return_state=True)
        assert state.is_completed(), state.message
        generations = [followed(world, name) for name in auth]
        steps.append(sorted(generations))
        for name, generation in zip(auth, generations, strict=True):
            report(world, name, auth[name], generation)
    roll_out(rollout, return_state=True)

    shown = world.ground_control.admin.get(f"/api/rollouts/{rollout}").json()
    assert steps == [[1, 1], [1, 2], [2, 2]]
    assert (shown["state"], [wave["succeeded"] for wave in shown["waves"]]) == ("completed", [1, 1])


def test_roll_out_that_died_before_publishing_is_caught_up_by_the_next(world: World) -> None:
    rollout, auth = planned(world)
    with world.ground_control.factory.begin() as session:
        rollout_steps.advance(session, rollout, world.ground_control.clock())
    before = [followed(world, name) for name in auth]

    state = roll_out(return_state=True)

    assert state.is_completed(), state.message
    assert (before, sorted(followed(world, name) for name in auth)) == ([1, 1], [1, 2])


def test_roll_out_source_that_refuses_fails_and_the_next_run_goes_on(world: World) -> None:
    _, auth = planned(world)
    states = world.centre.root / "satellite"
    states.rename(world.centre.root / "away")
    states.write_bytes(b"where the states would go")

    failed = roll_out(return_state=True)
    states.unlink()
    (world.centre.root / "away").rename(states)
    state = roll_out(return_state=True)

    assert (failed.is_failed(), state.is_completed()) == (True, True)
    assert sorted(followed(world, name) for name in auth) == [1, 2]


def test_roll_out_of_a_rollout_that_is_gone_completes(world: World) -> None:
    assert roll_out(99, return_state=True).is_completed()


def test_list_satellites_of_a_group_that_is_gone_is_empty(world: World) -> None:
    world.ground_control.register("shop-1")

    with open_centre() as centre, disable_run_logger():
        assert list_satellites.fn(centre, "nope") == ()
        assert [satellite.name for satellite in list_satellites.fn(centre)] == ["shop-1"]
