"""Each flow once as it should go and once as it should fail; what lies below is tested without Prefect."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from prefect.client.orchestration import get_client
from prefect.logging import disable_run_logger
from sqlalchemy import select

from flows.publish_state import publish_state
from flows.reconcile_fleet import reconcile_fleet
from flows.register_satellite import register_satellite
from flows.replicate_state import replicate_state
from flows.report_status import report_status
from harbor_satellite.demo.images import layer
from harbor_satellite.edge.worker import EdgeWorker
from harbor_satellite.errors import AuthenticationError, NotFoundError, RemoteError
from harbor_satellite.ground_control.models import Credential
from harbor_satellite.ground_control.satellites.sources import OciSource
from harbor_satellite.registry.state_pull import pull_state
from harbor_satellite.state.artifact import parse_state_artifact
from harbor_satellite.state.satellite_state import parse_satellite_state
from tasks.centre import Centre, open_centre
from tasks.groups import publish_group_state
from tasks.satellites import list_satellites, publish_satellite_states

if TYPE_CHECKING:
    from collections.abc import Collection

    from prefect.client.schemas.objects import FlowRun

    from tests.flows.conftest import World

APP = "acme/app"


def join(world: World, name: str, *groups: str) -> None:
    """Register a satellite and let this site be it."""
    world.give_token(world.ground_control.register(name, *groups))
    assert register_satellite() == name


def published(world: World, group: str) -> dict[str, str]:
    raw = pull_state(world.centre, f"satellite/group-state/{group}/state", "latest").raw
    return {entry.repository: str(entry.digest) for entry in parse_state_artifact(raw, None, group).artifacts}


def shown(world: World, what: str) -> Any:
    return world.ground_control.admin.get(f"/api/{what}").json()


def flow_runs() -> list[FlowRun]:
    with get_client(sync_client=True) as client:
        return client.read_flow_runs(limit=200)


def test_register_satellite_keeps_credentials_and_no_secret_reaches_prefect(world: World) -> None:
    token = world.ground_control.register("shop-1")
    world.give_token(token)

    name = register_satellite()

    secret = world.store.registration().auth.password.get_secret_value()
    seen = "".join(run.model_dump_json() for run in flow_runs())
    assert name == "shop-1"
    assert token not in seen
    assert secret not in seen


def test_register_satellite_bad_token_fails_at_once(world: World) -> None:
    world.give_token("no-such-token")

    with pytest.raises(AuthenticationError):
        register_satellite()


def test_publish_state_resolves_tags_and_moves_satellites(world: World) -> None:
    digest = world.image(APP, "one")
    world.ground_control.sync_group("stores", APP)
    world.ground_control.register("shop-2", "stores")

    state = publish_state("stores", return_state=True)

    assert state.message == "1 groups; 1 satellites moved"
    assert published(world, "stores") == {APP: str(digest)}
    assert world.centre.manifest_head("satellite/satellite-state/shop-2/state", "latest") is not None


def test_publish_state_of_one_group_looks_at_its_satellites_only(world: World) -> None:
    for group, name in (("stores", "shop-2"), ("kiosks", "kiosk-1")):
        world.image(f"acme/{group}", "one")
        world.ground_control.sync_group(group, f"acme/{group}")
        world.ground_control.register(name, group)
    with open_centre() as centre, disable_run_logger():
        publish_group_state.fn(centre, "kiosks")

    state = publish_state("stores", return_state=True)

    assert state.message == "1 groups; 1 satellites moved"
    assert world.centre.manifest_head("satellite/satellite-state/kiosk-1/state", "latest") is None


def test_publish_satellite_states_of_many_asks_the_source_for_those_that_need_it_only(world: World) -> None:
    names = [f"shop-{number:02}" for number in range(21)]
    world.image(APP, "one")
    world.ground_control.sync_group("stores", APP)
    for name in names:
        world.ground_control.register(name, "stores")
    world.ground_control.enroll("late")
    world.ground_control.admin.post("/api/groups/satellite", json={"satellite": "late", "group": "stores"})

    state = publish_state(return_state=True)

    with world.ground_control.factory() as session:
        (granted,) = session.scalars(select(Credential.granted_projects))
    assert (state.message, granted) == ("1 groups; 22 satellites moved", ["acme", "satellite"])


def test_publish_state_unchanged_publishes_nothing_again(world: World) -> None:
    world.image(APP, "one")
    world.ground_control.sync_group("stores", APP)
    publish_state(return_state=True)

    publish_state(return_state=True)

    assert world.centre.tag_list("satellite/group-state/stores/state") == ("1", "latest")


def test_publish_state_source_lost_its_states_gets_them_again(world: World) -> None:
    world.image(APP, "one")
    world.ground_control.sync_group("stores", APP)
    world.ground_control.enroll("shop-7", "stores")
    publish_state(return_state=True)
    for repository in ("satellite/group-state/stores/state", "satellite/satellite-state/shop-7/state"):
        published = world.centre.manifest_get(repository, "latest").digest
        world.centre.manifest_delete(repository, str(published))

    publish_state(return_state=True)

    pulled = pull_state(world.centre, "satellite/satellite-state/shop-7/state", "latest")
    (pin,) = parse_satellite_state(pulled.raw, None, "it").groups
    assert pin.generation == 2
    assert pull_state(world.centre, pin.state.repository, pin.state.target).digest == pin.state.digest


def test_publish_state_unchanged_with_labels_publishes_nothing_again(world: World) -> None:
    world.image(APP, "one")
    artifacts = [{"repository": APP, "tag": ["v1"], "labels": ["gold"]}]
    body = {"group": "stores", "registry": "", "artifacts": artifacts}
    assert world.ground_control.admin.post("/api/groups/sync", json=body).status_code == 200
    publish_state(return_state=True)

    publish_state(return_state=True)

    assert world.centre.tag_list("satellite/group-state/stores/state") == ("1", "latest")


def test_publish_state_missing_image_fails_and_publishes_the_rest(world: World) -> None:
    digest = world.image(APP, "one")
    world.ground_control.sync_group("stores", APP, "acme/missing")

    state = publish_state(return_state=True)

    assert state.is_failed()
    assert "acme/missing:v1" in (state.message or "")
    assert published(world, "stores") == {APP: str(digest)}


def test_publish_state_missing_image_is_told_at_the_group_and_the_site_until_it_is_there(world: World) -> None:
    world.image(APP, "one")
    world.ground_control.sync_group("stores", APP, "acme/nope")
    join(world, "shop-11", "stores")
    publish_state("stores", return_state=True)
    assert replicate_state("shop-11", return_state=True).is_completed()
    group, site = shown(world, "groups/stores"), shown(world, "satellites/shop-11/status")

    world.image("acme/nope", "two")
    state = publish_state("stores", return_state=True)

    assert state.is_completed(), state.message
    (entry,) = group["unresolved"]
    assert (entry["reference"], group["unresolved_count"]) == ("acme/nope:v1", 1)
    assert "acme/nope" in entry["reason"]
    assert (site["in_step"], site["unresolved"]) == (True, [{**entry, "group": "stores"}])
    assert shown(world, "groups/stores")["unresolved"] == []
    assert shown(world, "satellites/shop-11/status")["unresolved"] == []


def test_publish_state_own_source_refuses_the_state_what_is_missing_is_known_all_the_same(world: World) -> None:
    world.ground_control.sync_group("stores", "acme/nope")
    (world.centre.root / "satellite").write_bytes(b"where the states would go")

    with open_centre() as centre, disable_run_logger(), pytest.raises(RemoteError):
        publish_group_state.fn(centre, "stores")

    assert shown(world, "groups/stores")["generation"] == 0
    assert [entry["reference"] for entry in shown(world, "groups/stores")["unresolved"]] == ["acme/nope:v1"]


class RefusingSource(OciSource):
    """A source that cannot change the account of one satellite now."""

    def set_projects(self, account: str, credential_id: str | None, projects: Collection[str]) -> tuple[str, ...]:
        if account == "shop-a":
            raise RemoteError("internal error", status=500)
        return super().set_projects(account, credential_id, projects)


def test_publish_satellite_states_one_refused_does_not_stop_the_others(world: World) -> None:
    world.image(APP, "one")
    world.ground_control.sync_group("stores", APP)
    for name in ("shop-a", "shop-b"):
        world.ground_control.enroll(name, "stores")
    world.ground_control.sync_group("stores", "tools/another-project")

    with open_centre() as real, disable_run_logger():
        centre = Centre(real.settings, real.sessions, RefusingSource())
        publish_group_state.fn(centre, "stores")
        moved = publish_satellite_states.fn(centre, list_satellites.fn(centre))

    assert moved == ("shop-b",)
    assert "shop-a" in "".join(centre.problems)


def test_reconcile_fleet_follows_the_rows(world: World) -> None:
    world.ground_control.register("shop-3")
    reconcile_fleet(return_state=True)
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("replicate-state/shop-3")
        pool = client.read_work_pool("satellite-shop-3")
    assert world.ground_control.admin.delete("/api/satellites/shop-3").status_code == 200

    state = reconcile_fleet(return_state=True)

    assert (pool.type, pool.concurrency_limit) == (EdgeWorker.type, None)
    assert deployment.parameters == {"satellite": "shop-3"}
    assert deployment.entrypoint == "flows/replicate_state.py:replicate_state"
    assert "1 removed" in (state.message or "")


def test_reconcile_fleet_database_gone_fails(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARBOR_SATELLITE_GROUND_CONTROL_DATABASE_URL", "sqlite:////no/such/folder/x.sqlite")

    assert reconcile_fleet(return_state=True).is_failed()


def test_replicate_state_brings_images_and_reports(world: World) -> None:
    digest = world.image(APP, "one")
    world.ground_control.sync_group("stores", APP)
    join(world, "shop-4", "stores")
    publish_state(return_state=True)

    state = replicate_state("shop-4", return_state=True)

    status = world.ground_control.admin.get("/api/satellites/shop-4/status").json()
    assert state.is_completed(), state.message
    assert world.local.manifest_get(APP, "v1").digest == digest
    assert str(world.store.applied().state_digest) in json.dumps(status)


def test_replicate_state_bad_image_fails_brings_the_others_and_reports(world: World) -> None:
    digest = world.image(APP, "one")
    world.image("acme/bad", "two")
    world.ground_control.sync_group("stores", APP, "acme/bad")
    join(world, "shop-5", "stores")
    publish_state(return_state=True)
    (world.centre.root / "acme/bad/blobs/sha256" / _layer("two")).unlink()

    state = replicate_state("shop-5", return_state=True)

    assert state.is_failed()
    assert "1 of 2 images failed" in (state.message or "")
    assert world.local.manifest_get(APP, "v1").digest == digest
    assert "acme/bad:v1" in world.ground_control.admin.get("/api/satellites/shop-5/status").text


def test_replicate_state_no_state_is_reported(world: World) -> None:
    join(world, "shop-6")

    state = replicate_state("shop-6", return_state=True)

    assert state.is_failed()
    assert "satellite state" in world.ground_control.admin.get("/api/satellites/shop-6/status").text


def test_replicate_state_meant_for_another_satellite_is_refused(world: World) -> None:
    join(world, "shop-7")

    state = replicate_state("shop-8", return_state=True)

    assert state.is_failed()
    assert "this site is shop-7" in str(state.message)


def test_report_status_delivers(world: World) -> None:
    join(world, "shop-9")

    digest = report_status("shop-9")

    assert digest == ""
    assert world.ground_control.admin.get("/api/satellites/shop-9/status").status_code == 200


def test_report_status_of_unregistered_site_fails(world: World) -> None:
    with pytest.raises(NotFoundError):
        report_status("shop-10")


def _layer(content: str) -> str:
    return layer(content, 2000).descriptor.digest.hex
