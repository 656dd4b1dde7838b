"""Configs: made, changed, given to satellites and groups, and what a satellite is told in the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event, select

from harbor_satellite.ground_control.models import AuditEvent, OutboxEvent, Satellite
from harbor_satellite.ground_control.satellites import configs
from harbor_satellite.state.config import SatelliteConfig

if TYPE_CHECKING:
    import httpx

    from tests.fixtures_ground_control import GroundControl


def create(running: GroundControl, name: str, **config: Any) -> httpx.Response:
    return running.admin.post("/api/configs", json={"config_name": name, "registry": "", "config": config})


def told(running: GroundControl, satellite: str) -> SatelliteConfig | None:
    with running.factory() as session:
        row = session.scalars(select(Satellite).where(Satellite.name == satellite)).one()
        return configs.effective_config(session, row)


def events(running: GroundControl) -> list[str]:
    with running.factory.begin() as session:
        rows = session.scalars(select(OutboxEvent).order_by(OutboxEvent.id)).all()
        for row in rows:
            session.delete(row)
        return [row.resource_id for row in rows]


def test_create_config_answers_the_row(ground_control: GroundControl) -> None:
    response = create(ground_control, "night", sync_windows="22:00-06:00", daily_bytes="1G")

    assert response.status_code == 201, response.text
    shown = ground_control.admin.get("/api/configs/night").json()
    assert shown == response.json()
    assert (shown["ConfigName"], shown["satellite_count"]) == ("night", 0)
    assert shown["Config"] == {"sync_windows": ["22:00-06:00"], "daily_bytes": 10**9}
    assert [row["ConfigName"] for row in ground_control.admin.get("/api/configs").json()] == ["night"]


def test_create_config_twice_conflicts(ground_control: GroundControl) -> None:
    create(ground_control, "night")

    assert create(ground_control, "night").status_code == 409


def test_create_config_carries_the_original_s_sections(ground_control: GroundControl) -> None:
    theirs = {"app_config": {"log_level": "info"}, "zot_config": {"http": {"port": "8585"}}}

    response = create(ground_control, "default", **theirs, image_workers=2)

    assert response.json()["Config"] == {"image_workers": 2, **theirs}


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"shedule": "x"}, "shedule"),
        ({"daily_bytes": -1}, "daily_bytes"),
        ({"state_config": {"auth": {"username": "robot"}}}, "state_config.auth"),
        ({"app_config": {"local_registry": {"password": "hush-hush"}}}, "app_config.local_registry.password"),
        ({"app_config": {"x": "\u0000"}}, "NUL"),
        ({"app_config": {"x": "y" * 70_000}}, "bytes"),
    ],
    ids=["unknown", "wrong", "auth", "password", "NUL", "large"],
)
def test_create_config_bad_content_is_refused_by_name(
    ground_control: GroundControl, config: dict[str, Any], named: str
) -> None:
    response = create(ground_control, "night", **config)

    assert response.status_code == 400
    assert named in response.json()["message"]
    assert "hush-hush" not in response.text
    assert ground_control.admin.get("/api/configs").json() == []


def test_patch_config_is_a_merge_patch(ground_control: GroundControl) -> None:
    create(ground_control, "night", image_workers=2, registry={"port": 1, "kind": "zot"})

    response = ground_control.admin.patch(
        "/api/configs/night", json={"image_workers": None, "blob_workers": 3, "registry": {"port": 2}}
    )

    assert response.json()["Config"] == {"blob_workers": 3, "registry": {"kind": "zot", "port": 2}}


def test_patch_config_wrong_value_changes_nothing(ground_control: GroundControl) -> None:
    create(ground_control, "night", image_workers=2)

    response = ground_control.admin.patch("/api/configs/night", json={"image_workers": 0})

    assert response.status_code == 400
    assert ground_control.admin.get("/api/configs/night").json()["Config"] == {"image_workers": 2}


def test_patch_config_nested_deeply_is_refused(ground_control: GroundControl) -> None:
    create(ground_control, "night")
    body = '{"app_config":' * 900 + "1" + "}" * 900

    response = ground_control.admin.patch(
        "/api/configs/night", content=body, headers={"Content-Type": "application/json"}
    )

    assert response.status_code == 400


def test_delete_config_in_use_is_refused_until_nobody_has_it(ground_control: GroundControl) -> None:
    create(ground_control, "night")
    ground_control.register("edge-1")
    assign(ground_control, "satellite", "edge-1", "night")

    refused = ground_control.admin.delete("/api/configs/night")
    assign(ground_control, "satellite", "edge-1", "")
    deleted = ground_control.admin.delete("/api/configs/night")

    assert refused.status_code == 400
    assert "1 satellites" in refused.json()["message"]
    assert deleted.status_code == 200
    assert ground_control.admin.get("/api/configs/night").status_code == 404


def assign(running: GroundControl, kind: str, name: str, config: str) -> httpx.Response:
    return running.admin.post(f"/api/configs/{kind}", json={kind: name, "config_name": config})


@pytest.mark.parametrize("kind", ["satellite", "group"])
def test_assign_what_is_not_there_is_not_found(ground_control: GroundControl, kind: str) -> None:
    ground_control.sync_group("shop", "acme/app")
    ground_control.register("edge-1")
    create(ground_control, "night")
    there = {"satellite": "edge-1", "group": "shop"}[kind]

    assert assign(ground_control, kind, there, "nope").status_code == 404
    assert assign(ground_control, kind, "nope", "night").status_code == 404


def test_effective_config_lays_groups_by_name_below_the_satellite_s_own(ground_control: GroundControl) -> None:
    for name, config in {
        "a": {"image_workers": 1, "blob_workers": 1, "daily_bytes": 1, "schedule": "1 * * * *"},
        "b": {"image_workers": 2, "blob_workers": 2},
        "own": {"image_workers": 3},
    }.items():
        create(ground_control, name, **config)
    ground_control.sync_group("a-group", "acme/app")
    ground_control.sync_group("b-group", "acme/app")
    ground_control.register("edge-1", "b-group", "a-group")
    assign(ground_control, "group", "a-group", "a")
    assign(ground_control, "group", "b-group", "b")
    assign(ground_control, "satellite", "edge-1", "own")

    assert told(ground_control, "edge-1") == SatelliteConfig(
        schedule="1 * * * *", image_workers=3, blob_workers=2, daily_bytes=1
    )


def test_effective_config_schedule_of_the_satellite_itself_wins(ground_control: GroundControl) -> None:
    create(ground_control, "default", schedule="1 * * * *")
    ground_control.register("edge-1")

    before = told(ground_control, "edge-1")
    ground_control.admin.patch("/api/satellites/edge-1", json={"schedule": "2 * * * *"})

    assert before == SatelliteConfig(schedule="1 * * * *")
    assert told(ground_control, "edge-1") == SatelliteConfig(schedule="2 * * * *")


def test_effective_config_that_is_not_there_says_nothing(ground_control: GroundControl) -> None:
    ground_control.register("edge-1")  # with a config "default" that nobody made

    assert told(ground_control, "edge-1") is None


def test_effective_configs_of_many_asks_three_times(ground_control: GroundControl) -> None:
    create(ground_control, "default", image_workers=1)
    for number in range(20):
        ground_control.register(f"edge-{number}")
    statements: list[str] = []

    with ground_control.factory() as session:
        ids = session.scalars(select(Satellite.id)).all()
        bind = session.get_bind()
        listen = lambda *values: statements.append(values[2])  # noqa: E731
        event.listen(bind, "before_cursor_execute", listen)
        found = configs.effective_configs(session, ids)
        event.remove(bind, "before_cursor_execute", listen)

    assert set(found.values()) == {SatelliteConfig(image_workers=1)}
    assert len(found) == 20
    assert len(statements) == 3


def test_change_of_a_config_is_told_once_however_many_have_it(ground_control: GroundControl) -> None:
    create(ground_control, "default", image_workers=1)
    for number in range(3):
        ground_control.register(f"edge-{number}")
    events(ground_control)

    ground_control.admin.patch("/api/configs/default", json={"image_workers": 2})
    ground_control.admin.patch("/api/configs/default", json={"image_workers": 2})  # changes nothing

    assert events(ground_control) == ["harbor-satellite.config.default"]


def test_assignment_tells_whom_it_reaches(ground_control: GroundControl) -> None:
    create(ground_control, "night")
    ground_control.sync_group("shop", "acme/app")
    ground_control.register("edge-1")
    events(ground_control)

    assign(ground_control, "satellite", "edge-1", "night")
    assign(ground_control, "group", "shop", "night")

    assert events(ground_control) == ["harbor-satellite.satellite.edge-1", "harbor-satellite.group.shop"]


def test_changes_of_configs_are_in_the_audit_log(ground_control: GroundControl) -> None:
    create(ground_control, "night", image_workers=1)
    ground_control.admin.patch("/api/configs/night", json={"image_workers": 2})

    with ground_control.factory() as session:
        rows = session.execute(select(AuditEvent.action, AuditEvent.changes).order_by(AuditEvent.id)).all()

    assert [tuple(row) for row in rows if row.action.startswith("config.")] == [
        ("config.create", {"image_workers": [None, 1]}),
        ("config.change", {"image_workers": [1, 2]}),
    ]
