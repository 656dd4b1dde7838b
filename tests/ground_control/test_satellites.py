"""Satellites: register, list, delete."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select

from harbor_satellite.ground_control import models

if TYPE_CHECKING:
    from tests.fixtures_ground_control import GroundControl, HarborParts


def register(running: GroundControl, **changes: Any) -> Any:
    return running.admin.post("/api/satellites", json={"name": "edge-1", "config_name": "default", **changes})


def test_register_gives_a_token_once(ground_control: GroundControl) -> None:
    ground_control.sync_group("shop", "acme/app")

    response = register(ground_control, groups=["shop"], schedule="0 4 * * mon-fri")

    assert response.status_code == 200
    assert len(response.json()["token"]) >= 43
    assert response.headers["Cache-Control"] == "no-store"
    shown = ground_control.admin.get("/api/satellites/edge-1").json()
    assert {"ID", "Name", "CreatedAt", "UpdatedAt", "LastSeen", "HeartbeatInterval"} <= set(shown)
    assert (shown["groups"], shown["schedule"], shown["config_name"]) == (["shop"], "0 4 * * mon-fri", "default")
    assert response.json()["token"] not in str(shown)


def test_register_taken_name_conflicts(ground_control: GroundControl) -> None:
    register(ground_control)

    response = register(ground_control)

    assert (response.status_code, response.json()["code"]) == (409, 409)


def test_register_unknown_group_names_it_and_registers_nothing(ground_control: GroundControl) -> None:
    response = register(ground_control, groups=["nope"])

    assert response.status_code == 404
    assert "nope" in response.json()["message"]
    assert ground_control.admin.get("/api/satellites").json() == []


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "../../etc"},
        {"name": ""},
        {"name": "Edge"},
        {"name": "edge\u0000"},
        {"name": "a" * 129},
        {"name": 7},
        {"groups": ["../x"]},
        {"config_name": "../x"},
        {"schedule": "@every 30s"},
        {"schedule": "* * * * * *"},
        {"schedule": "61 * * * *"},
    ],
    ids=repr,
)
def test_register_bad_value_is_refused(ground_control: GroundControl, changes: dict[str, Any]) -> None:
    response = register(ground_control, **changes)

    assert response.status_code == 400
    assert ground_control.admin.get("/api/satellites").json() == []


def test_register_name_that_harbor_refuses_is_refused(harbor_ground_control: HarborParts) -> None:
    response = register(harbor_ground_control.ground_control, name="edge--1")

    assert response.status_code == 400


def test_list_satellites_pages_and_filters(ground_control: GroundControl) -> None:
    ground_control.sync_group("shop", "acme/app")
    for number in range(5):
        ground_control.register(f"edge-{number}", *(["shop"] if number % 2 else []))
    ground_control.register("van-1")

    def names(query: str) -> tuple[list[str], str]:
        response = ground_control.admin.get(f"/api/satellites{query}")
        assert response.status_code == 200
        return [item["Name"] for item in response.json()], response.headers["X-Total-Count"]

    assert names("") == ([f"edge-{number}" for number in range(5)] + ["van-1"], "6")
    assert names("?limit=2&offset=1") == (["edge-1", "edge-2"], "6")
    assert names("?group=shop") == (["edge-1", "edge-3"], "2")
    assert names("?name=van-") == (["van-1"], "1")
    assert names("?limit=0") == ([], "6")
    assert ground_control.admin.get("/api/satellites?limit=-1").status_code == 400


def test_active_and_stale_by_the_interval_that_the_site_told(ground_control: GroundControl) -> None:
    quick, slow = ground_control.enroll("quick"), ground_control.enroll("slow")
    ground_control.register("silent")
    ground_control.report("quick", quick, state_report_interval="30s")
    ground_control.report("slow", slow, state_report_interval="@every 00h10m00s")

    def names(kind: str) -> list[str]:
        return [item["Name"] for item in ground_control.admin.get(f"/api/satellites/{kind}").json()]

    assert (names("active"), names("stale")) == (["quick", "slow"], [])
    ground_control.clock.advance(seconds=100)
    assert (names("active"), names("stale")) == (["slow"], ["quick"])
    shown = ground_control.admin.get("/api/satellites/stale").json()[0]
    assert shown["HeartbeatInterval"] == "@every 00h00m30s"
    assert 99 <= shown["SecondsSinceSeen"] <= 130


def test_change_schedule(ground_control: GroundControl) -> None:
    ground_control.register("edge-1")

    changed = ground_control.admin.patch("/api/satellites/edge-1", json={"schedule": "0  3 * * *"})
    refused = ground_control.admin.patch("/api/satellites/edge-1", json={"schedule": "soon"})

    assert changed.json()["schedule"] == "0 3 * * *"
    assert refused.status_code == 400


def test_shown_satellite_tells_when_its_credential_expires(harbor_ground_control: HarborParts) -> None:
    running = harbor_ground_control.ground_control
    running.register("edge-0")
    running.enroll("edge-1")

    shown = {item["Name"]: item["credential_expires_at"] for item in running.admin.get("/api/satellites").json()}

    left = datetime.fromisoformat(shown["edge-1"]) - datetime.now(UTC)
    assert shown["edge-0"] is None
    assert timedelta(days=29) < left <= timedelta(days=30)


def test_every_change_of_a_satellite_is_on_record(ground_control: GroundControl) -> None:
    token = ground_control.register("edge-1")
    ground_control.claim(token)
    ground_control.admin.patch("/api/satellites/edge-1", json={"schedule": "0 3 * * *"})
    ground_control.admin.post("/api/satellites/edge-1/revoke")
    ground_control.admin.post("/api/satellites/edge-1/token")
    ground_control.admin.delete("/api/satellites/edge-1/token")
    ground_control.admin.delete("/api/satellites/edge-1")

    with ground_control.factory() as session:
        query = select(models.AuditEvent).where(models.AuditEvent.resource == "satellite:edge-1")
        events = session.scalars(query.order_by(models.AuditEvent.id)).all()

    assert [(event.actor, event.action) for event in events] == [
        ("user:admin", "satellite.register"),
        ("satellite:edge-1", "satellite.claim"),
        ("user:admin", "satellite.change"),
        ("user:admin", "satellite.revoke"),
        ("user:admin", "token.reissue"),
        ("user:admin", "token.revoke"),
        ("user:admin", "satellite.delete"),
    ]
    assert events[2].changes == {"schedule": ["0 * * * *", "0 3 * * *"]}
    assert token not in str([event.changes for event in events])
