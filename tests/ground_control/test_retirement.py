"""Satellites that end: deleted or revoked at once, whatever the source says; nothing is left, nothing is taken back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import func, select

from harbor_satellite.ground_control import models
from harbor_satellite.ground_control.satellites import retirement

if TYPE_CHECKING:
    from tests.fixtures_ground_control import GroundControl, HarborParts


def test_delete_without_groups_leaves_nothing(ground_control: GroundControl) -> None:
    credential = ground_control.enroll("edge-1")
    ground_control.report("edge-1", credential)

    response = ground_control.admin.delete("/api/satellites/edge-1")

    assert (response.status_code, response.json()) == (200, {})
    assert ground_control.admin.get("/api/satellites/edge-1").status_code == 404
    assert ground_control.report("edge-1", credential).status_code == 401
    assert ground_control.admin.delete("/api/satellites/edge-1").status_code == 404
    with ground_control.factory() as session:
        for model in (models.Credential, models.RegistrationToken, models.SatelliteReport):
            assert session.scalar(select(func.count()).select_from(model)) == 0


def test_delete_never_claimed_needs_no_source(harbor_ground_control: HarborParts) -> None:
    running = harbor_ground_control.ground_control
    running.register("edge-1")
    harbor_ground_control.fake.is_down = True

    assert running.admin.delete("/api/satellites/edge-1").status_code == 200


def test_delete_source_down_refuses_at_once_and_keeps_what_is_left_on_record(
    harbor_ground_control: HarborParts,
) -> None:
    fake, running = harbor_ground_control.fake, harbor_ground_control.ground_control
    running.sync_group("shop", "acme/app")
    credential = running.enroll("edge-1", "shop")
    fake.is_down = True

    deleted = running.admin.delete("/api/satellites/edge-1")

    assert deleted.status_code == 200
    assert running.report("edge-1", credential).status_code == 401
    assert running.admin.get("/api/satellites/edge-1").status_code == 404
    with running.factory() as session:
        assert sorted(session.scalars(select(models.RetiredAccount.name))) == ["edge-1", "edge-1-r1"]
        assert session.scalars(select(models.RetiredSatellite.name)).all() == ["edge-1"]


def test_deleted_while_the_source_was_down_the_name_comes_back_with_another_account(
    harbor_ground_control: HarborParts,
) -> None:
    fake, running = harbor_ground_control.fake, harbor_ground_control.ground_control
    running.enroll("edge-1")
    fake.is_down = True
    running.admin.delete("/api/satellites/edge-1")
    fake.is_down = False

    username, secret = running.enroll("edge-1")
    with running.factory.begin() as session:
        retirement.delete_retired_accounts(session, running.source, "edge-1")

    assert username == "robot$edge-1-r2"
    assert running.report("edge-1", (username, secret)).status_code == 200
    assert [robot.name for robot in fake.accounts.robots.values()] == ["edge-1-r2"]


def test_retired_accounts_left_by_a_claim_that_died_are_deleted(harbor_ground_control: HarborParts) -> None:
    fake, running = harbor_ground_control.fake, harbor_ground_control.ground_control
    running.enroll("edge-1")
    running.admin.delete("/api/satellites/edge-1")
    running.source.create("edge-1", ["acme"])

    with running.factory.begin() as session:
        retirement.delete_retired_accounts(session, running.source, "edge-1")

    assert fake.accounts.robots == {}


def test_retired_accounts_left_by_a_renewal_that_died_are_deleted(harbor_ground_control: HarborParts) -> None:
    fake, running = harbor_ground_control.fake, harbor_ground_control.ground_control
    running.enroll("edge-1")
    running.source.create("edge-1-r1", ["acme"])
    running.admin.delete("/api/satellites/edge-1")

    with running.factory.begin() as session:
        retirement.delete_retired_accounts(session, running.source, "edge-1")

    assert fake.accounts.robots == {}


@pytest.mark.parametrize(("has_state_again", "is_deleted"), [(False, True), (True, False)], ids=["bare", "in use"])
def test_forget_retired_successor_keeps_its_own_state(
    ground_control: GroundControl,
    has_state_again: bool,  # noqa: FBT001
    is_deleted: bool,  # noqa: FBT001
) -> None:
    ground_control.register("edge-1")
    ground_control.admin.delete("/api/satellites/edge-1")
    ground_control.register("edge-1")
    deleted = []
    with ground_control.factory.begin() as session:
        if has_state_again:
            session.scalars(select(models.Satellite)).one().state_digest = "sha256:" + "a" * 64

        retirement.forget_retired(session, "edge-1", lambda: deleted.append("state"))

    assert deleted == (["state"] if is_deleted else [])
    with ground_control.factory() as session:
        assert retirement.list_retired(session) == ()


def test_revoke_refuses_at_once_what_was_good(harbor_ground_control: HarborParts) -> None:
    fake, running = harbor_ground_control.fake, harbor_ground_control.ground_control
    credential = running.enroll("edge-1")
    assert running.report("edge-1", credential).status_code == 200
    fake.is_down = True

    answer = running.admin.post("/api/satellites/edge-1/revoke")

    assert (answer.status_code, answer.json()["lifecycle"]) == (200, "revoked")
    assert running.report("edge-1", credential).status_code == 401
    renewal = running.anonymous.post("/satellites/credential", json={"renewal_key": "k"}, auth=credential)
    assert renewal.status_code == 401


def test_revoke_ends_one_time_tokens_too(ground_control: GroundControl) -> None:
    token = ground_control.register("edge-1")

    ground_control.admin.post("/api/satellites/edge-1/revoke")

    assert ground_control.claim(token).status_code == 401


def test_revoked_satellite_comes_back_with_a_new_token(ground_control: GroundControl) -> None:
    credential = ground_control.enroll("edge-1")
    ground_control.admin.post("/api/satellites/edge-1/revoke")

    token = ground_control.admin.post("/api/satellites/edge-1/token").json()["token"]
    auth = ground_control.claim(token).json()["auth"]

    assert ground_control.admin.get("/api/satellites/edge-1").json()["lifecycle"] == "registered"
    assert ground_control.report("edge-1", (auth["username"], auth["password"])).status_code == 200
    assert ground_control.report("edge-1", credential).status_code == 401


def test_revoke_unknown_satellite_is_not_found(ground_control: GroundControl) -> None:
    assert ground_control.admin.post("/api/satellites/nobody/revoke").status_code == 404


def test_delete_robot_gone_already_is_fine(harbor_ground_control: HarborParts) -> None:
    harbor_ground_control.ground_control.enroll("edge-1")
    harbor_ground_control.fake.accounts.robots.clear()

    assert harbor_ground_control.ground_control.admin.delete("/api/satellites/edge-1").status_code == 200


def test_deleted_name_can_be_registered_again(harbor_ground_control: HarborParts) -> None:
    running = harbor_ground_control.ground_control
    running.enroll("edge-1")
    running.admin.delete("/api/satellites/edge-1")

    credential = running.enroll("edge-1")

    assert running.report("edge-1", credential).status_code == 200
