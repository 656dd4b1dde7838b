"""Provisioning one satellite, and taking it away again: every step does what is missing, however often it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from sqlalchemy import select

from flows.provision_satellite import provision_satellite
from flows.publish_state import publish_state
from flows.reconcile_fleet import reconcile_fleet
from harbor_satellite.ground_control.models import Credential, RetiredSatellite, Satellite

if TYPE_CHECKING:
    import pytest
    from prefect.client.schemas.responses import DeploymentResponse

    from tests.flows.conftest import World

APP = "acme/app"


def deployment(satellite: str) -> DeploymentResponse | None:
    with get_client(sync_client=True) as client:
        try:
            return client.read_deployment_by_name(f"replicate-state/{satellite}")
        except ObjectNotFound:
            return None


def has_pool(satellite: str) -> bool:
    with get_client(sync_client=True) as client:
        try:
            client.read_work_pool(f"satellite-{satellite}")
        except ObjectNotFound:
            return False
    return True


def test_provision_gives_a_satellite_state_pool_deployments_and_a_run(world: World) -> None:
    world.image(APP, "one")
    world.ground_control.sync_group("stores", APP)
    publish_state("stores", return_state=True)
    world.ground_control.register("van-1", "stores")

    first = provision_satellite("van-1", return_state=True)
    again = provision_satellite("van-1", return_state=True)

    assert first.message == "state moved; 1 deployed"
    assert again.message == "state as it was; 0 deployed"
    assert deployment("van-1") is not None
    assert has_pool("van-1")
    assert world.centre.manifest_head("satellite/satellite-state/van-1/state", "latest") is not None


def test_provision_schedule_is_in_the_time_zone_of_the_config(world: World) -> None:
    config = {"timezone": "Europe/Berlin", "schedule": "0 3 * * *"}
    world.ground_control.admin.post("/api/configs", json={"config_name": "berlin", "config": config})
    world.ground_control.register("van-2")
    world.ground_control.admin.post("/api/configs/satellite", json={"satellite": "van-2", "config_name": "berlin"})

    provision_satellite("van-2", return_state=True)

    found = deployment("van-2")
    assert found is not None
    (schedule,) = [item.schedule for item in found.schedules]
    assert (schedule.cron, schedule.timezone) == ("0 3 * * *", "Europe/Berlin")  # type: ignore[union-attr]


def test_provision_of_a_deleted_satellite_takes_everything_away(world: World) -> None:
    world.ground_control.sync_group("stores")
    world.ground_control.register("van-3", "stores")
    publish_state("stores", return_state=True)
    provision_satellite("van-3", return_state=True)
    world.ground_control.admin.delete("/api/satellites/van-3")

    state = provision_satellite("van-3", return_state=True)

    assert state.message == "0 accounts deleted; 1 deployments removed"
    assert deployment("van-3") is None
    assert not has_pool("van-3")
    assert world.centre.manifest_head("satellite/satellite-state/van-3/state", "latest") is None
    with world.ground_control.factory() as session:
        assert session.scalars(select(RetiredSatellite)).all() == []


def test_provision_of_a_revoked_satellite_deletes_accounts_and_deployments(world: World) -> None:
    world.ground_control.enroll("van-4")
    provision_satellite("van-4", return_state=True)
    world.ground_control.admin.post("/api/satellites/van-4/revoke")

    state = provision_satellite("van-4", return_state=True)

    assert state.message == "1 accounts deleted; 1 deployments removed"
    with world.ground_control.factory() as session:
        assert session.scalars(select(Credential)).all() == []
        assert session.scalars(select(Satellite.lifecycle)).all() == ["revoked"]


def test_provision_of_nobody_is_fine(world: World) -> None:
    assert provision_satellite("van-0", return_state=True).is_completed()


def test_provision_database_gone_fails(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARBOR_SATELLITE_GROUND_CONTROL_DATABASE_URL", "sqlite:////no/such/folder/x.sqlite")

    assert provision_satellite("van-5", return_state=True).is_failed()


def test_reconcile_fleet_finishes_what_deletions_left(world: World) -> None:
    world.ground_control.sync_group("stores")
    world.ground_control.register("van-6", "stores")
    publish_state("stores", return_state=True)
    world.ground_control.admin.delete("/api/satellites/van-6")

    state = reconcile_fleet(return_state=True)

    assert state.is_completed(), state.message
    assert world.centre.manifest_head("satellite/satellite-state/van-6/state", "latest") is None
