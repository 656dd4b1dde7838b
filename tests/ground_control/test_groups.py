"""Groups: sync, show, members, and what Prefect is told."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select

from harbor_satellite.ground_control.groups import group_states, groups
from harbor_satellite.ground_control.models import (
    AuditEvent,
    GenerationPin,
    Group,
    GroupArtifact,
    OutboxEvent,
    RuleMember,
    Satellite,
)

if TYPE_CHECKING:
    from tests.fixtures_ground_control import GroundControl

DIGEST = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64


KEY_LIKE = "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n"
KEY, OTHER_KEY = (
    KEY_LIKE.format(f"MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE{letter * 44}\n{letter * 42}==") for letter in "AB"
)
PRIVATE_KEY = "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\nSECRET\n-----END ENCRYPTED SIGSTORE PRIVATE KEY-----\n"


def artifact(**values: Any) -> dict[str, Any]:
    return {"artifacts": [{"repository": "acme/app", "tag": ["v1"], **values}]}


def sync(running: GroundControl, **changes: Any) -> Any:
    artifact = {"repository": "acme/app", "tag": ["v1", "v2"], "labels": None, "type": "IMAGE", "digest": DIGEST}
    body = {"group": "shop", "registry": "http://harbor.test", "artifacts": [artifact], **changes}
    return running.admin.post("/api/groups/sync", json=body)


def events(running: GroundControl) -> list[tuple[str, str, dict[str, str]]]:
    with running.factory() as session:
        rows = session.scalars(select(OutboxEvent).order_by(OutboxEvent.id))
        return [(row.event, row.resource_id, row.payload) for row in rows]


def test_sync_group_answers_with_the_original_s_row(ground_control: GroundControl) -> None:
    response = sync(ground_control)

    assert response.status_code == 200
    body = response.json()
    assert {"ID", "GroupName", "RegistryUrl", "Projects", "CreatedAt", "UpdatedAt"} <= set(body)
    assert (body["GroupName"], body["RegistryUrl"], body["Projects"]) == ("shop", "http://harbor.test", ["acme"])


def test_sync_group_replaces_the_whole_group(ground_control: GroundControl) -> None:
    sync(ground_control)

    sync(ground_control, artifacts=[{"repository": "tools/cli", "tag": ["new"]}])

    shown = ground_control.admin.get("/api/groups/shop").json()
    found = [(item["repository"], item["tag"], item["digest"]) for item in shown["artifacts"]]
    assert found == [("tools/cli", ["new"], "")]
    assert shown["Projects"] == ["tools"]


def test_sync_group_empty_is_a_group(ground_control: GroundControl) -> None:
    assert sync(ground_control, artifacts=[]).status_code == 200
    assert ground_control.admin.get("/api/groups/shop").json()["artifacts"] == []


def test_sync_group_keeps_what_was_said(ground_control: GroundControl) -> None:
    artifacts: list[dict[str, Any]] = [
        {"repository": "acme/app", "tag": ["v1"], "labels": ["edge", "\u0000"], "digest": DIGEST, "type": "IMAGE"},
        {"repository": "acme/app", "tag": [], "labels": {"a": "ü"}, "digest": OTHER, "deleted": True},
    ]
    sync(ground_control, artifacts=artifacts, expires_after_seconds=3600)

    shown = ground_control.admin.get("/api/groups/shop").json()

    assert shown["expires_after_seconds"] == 3600
    assert shown["artifacts"] == [
        {**artifacts[1], "type": "IMAGE", "priority": 0},
        {**artifacts[0], "deleted": False, "priority": 0},
    ]


def policy_of(body: dict[str, Any]) -> dict[str, Any]:
    return {name: body[name] for name in ("publish", "platforms", "signature_keys")}


def test_sync_group_keeps_its_policy_and_priorities(ground_control: GroundControl) -> None:
    policy = {"publish": "each", "platforms": ["linux/arm64", "linux/amd64"], "signature_keys": [OTHER_KEY, KEY]}

    answer = sync(ground_control, **policy, **artifact(priority=-7))

    kept = {"publish": "each", "platforms": ["linux/amd64", "linux/arm64"], "signature_keys": [KEY, OTHER_KEY]}
    shown = ground_control.admin.get("/api/groups/shop").json()
    listed = ground_control.admin.get("/api/groups").json()
    assert [policy_of(body) for body in (answer.json(), shown, *listed)] == [kept] * 3
    assert shown["artifacts"][0]["priority"] == -7


def test_sync_group_of_the_original_leaves_the_policy_as_it_is(ground_control: GroundControl) -> None:
    untouched = policy_of(sync(ground_control).json())
    sync(ground_control, signature_keys=[KEY], platforms=["linux/amd64"])

    after_the_original = policy_of(sync(ground_control).json())
    after_clearing = policy_of(sync(ground_control, signature_keys=[], platforms=[]).json())

    assert untouched == {"publish": "together", "platforms": [], "signature_keys": []}
    assert after_the_original == {"publish": "together", "platforms": ["linux/amd64"], "signature_keys": [KEY]}
    assert after_clearing == untouched


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        pytest.param({"publish": "soon"}, "publish", id="publish unknown"),
        pytest.param({"platforms": ["linux/amd64", "Linux"]}, r"platforms[1]", id="platform malformed"),
        pytest.param({"platforms": "linux/amd64"}, "platforms", id="platforms not a list"),
        pytest.param({"platforms": ["linux/amd64"] * 65}, "platforms", id="platforms too many"),
        pytest.param({"signature_keys": ["ssh-ed25519 AAAA"]}, r"signature_keys[0]", id="key of another kind"),
        pytest.param({"signature_keys": [KEY_LIKE.format("not base64")]}, r"signature_keys[0]", id="key not base64"),
        pytest.param({"signature_keys": [KEY_LIKE.format("AAAA")]}, r"signature_keys[0]", id="key not DER"),
        pytest.param({"signature_keys": [KEY, PRIVATE_KEY]}, r"signature_keys[1]", id="private key"),
        pytest.param({"signature_keys": [KEY + PRIVATE_KEY]}, r"signature_keys[0]", id="private key behind a public"),
        pytest.param({"signature_keys": [KEY] * 33}, "signature_keys", id="keys too many"),
        pytest.param({"signature_keys": ["x" * 20_000]}, "signature_keys", id="key huge"),
        pytest.param(artifact(priority="high"), "priority", id="priority not a number"),
        pytest.param(artifact(priority=True), "priority", id="priority boolean"),
        pytest.param(artifact(priority=None), "priority", id="priority null"),
        pytest.param(artifact(priority=10**30), "priority", id="priority huge"),
    ],
)
def test_sync_group_bad_policy_is_refused_naming_the_field(
    ground_control: GroundControl, changes: dict[str, Any], field: str
) -> None:
    response = sync(ground_control, **changes)

    assert response.status_code == 400
    assert field in response.json()["message"]
    assert "SECRET" not in response.text
    assert ground_control.admin.get("/api/groups").json() == []


def test_sync_group_without_registry_means_the_source(ground_control: GroundControl) -> None:
    assert sync(ground_control, registry="").json()["RegistryUrl"] == "http://source.test:5000"


def test_sync_group_ten_at_once_leaves_one_whole_group(ground_control: GroundControl) -> None:
    def sync_number(number: int) -> int:
        artifacts = [{"repository": f"acme/app{number}-{index}", "tag": ["v1"]} for index in range(5)]
        status: int = sync(ground_control, artifacts=artifacts).status_code
        return status

    with ThreadPoolExecutor(10) as pool:
        statuses = list(pool.map(sync_number, range(10)))

    assert statuses == [200] * 10
    with ground_control.factory() as session:
        repositories = session.scalars(select(GroupArtifact.repository)).all()
    assert len(repositories) == 5
    assert len({repository.partition("-")[0] for repository in repositories}) == 1


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"group": "../../etc"}, id="group escapes"),
        pytest.param({"group": ""}, id="group empty"),
        pytest.param({"group": "Shop"}, id="group upper case"),
        pytest.param({"group": "x" * 129}, id="group long"),
        pytest.param({"group": "shop\u0000"}, id="group nul"),
        pytest.param(artifact(repository="../etc/passwd"), id="repository escapes"),
        pytest.param(artifact(repository="acme//app"), id="repository empty part"),
        pytest.param(artifact(repository=""), id="repository empty"),
        pytest.param(artifact(tag=["v 1"]), id="tag with space"),
        pytest.param(artifact(tag=["../v1"]), id="tag escapes"),
        pytest.param(artifact(tag="v1"), id="tag not a list"),
        pytest.param(artifact(digest="sha256:12"), id="digest short"),
        pytest.param(artifact(tag=[]), id="neither tag nor digest"),
        pytest.param(artifact(type="x" * 65), id="type long"),
        pytest.param({"registry": "ftp://host"}, id="registry scheme"),
        pytest.param({"registry": "http://user:pw@host"}, id="registry with password"),
        pytest.param({"registry": "http://host/path"}, id="registry with path"),
        pytest.param({"expires_after_seconds": 0}, id="expiry zero"),
        pytest.param({"expires_after_seconds": 10**30}, id="expiry huge"),
        pytest.param(
            {
                "artifacts": [
                    {"repository": "acme/app", "tag": ["v1"], "digest": DIGEST},
                    {"repository": "acme/app", "tag": ["v1"], "digest": OTHER},
                ]
            },
            id="tag twice",
        ),
    ],
)
def test_sync_group_bad_value_is_refused_and_changes_nothing(
    ground_control: GroundControl, changes: dict[str, Any]
) -> None:
    response = sync(ground_control, **changes)

    assert response.status_code == 400
    assert response.json()["code"] == 400
    assert ground_control.admin.get("/api/groups").json() == []
    assert events(ground_control) == []


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b'"\\ud800"', b"[" * 100_000], ids=lambda raw: repr(raw[:8])
)
def test_sync_group_body_not_json_is_refused(ground_control: GroundControl, content: bytes) -> None:
    response = ground_control.admin.post(
        "/api/groups/sync", content=content, headers={"Content-Type": "application/json"}
    )

    assert response.status_code == 400
    assert response.json()["code"] == 400


@pytest.mark.parametrize("chunked", [False, True], ids=["announced", "chunked"])
def test_sync_group_body_too_large_is_refused(ground_control: GroundControl, chunked: bool) -> None:  # noqa: FBT001
    piece = b" " * 1024 * 1024

    response = ground_control.admin.post(
        "/api/groups/sync",
        content=(piece for _ in range(11)) if chunked else piece * 11,
        headers={"Content-Type": "application/json"},
    )

    assert response.status_code == 413
    assert response.json()["code"] == 413


def test_list_groups_gives_all_by_name(ground_control: GroundControl) -> None:
    for name in ("ops", "shop", "base"):
        ground_control.sync_group(name, "acme/app")

    assert [group["GroupName"] for group in ground_control.admin.get("/api/groups").json()] == ["base", "ops", "shop"]


@pytest.mark.parametrize(("name", "status"), [("nope", 404), ("..%2f..%2fetc", 404), ("Nope", 400)])
def test_show_group_unknown(ground_control: GroundControl, name: str, status: int) -> None:
    assert ground_control.admin.get(f"/api/groups/{name}").status_code == status


def test_delete_group_takes_it_from_its_satellites(ground_control: GroundControl) -> None:
    ground_control.sync_group("shop", "acme/app")
    ground_control.register("edge-1", "shop")

    response = ground_control.admin.delete("/api/groups/shop")

    assert (response.status_code, response.json()) == (200, {})
    assert ground_control.admin.get("/api/groups/shop").status_code == 404
    assert ground_control.admin.get("/api/satellites/edge-1").json()["groups"] == []
    assert ground_control.admin.delete("/api/groups/shop").status_code == 404


def test_add_and_remove_satellite_again_is_fine(ground_control: GroundControl) -> None:
    ground_control.sync_group("shop", "acme/app")
    ground_control.register("edge-1")
    body = {"satellite": "edge-1", "group": "shop"}

    added = [ground_control.admin.post("/api/groups/satellite", json=body) for _ in range(2)]
    members = ground_control.admin.get("/api/groups/shop/satellites").json()
    removed = [ground_control.admin.request("DELETE", "/api/groups/satellite", json=body) for _ in range(2)]

    assert [response.status_code for response in (*added, *removed)] == [200] * 4
    assert all(response.json()["message"] for response in (*added, *removed))
    assert [member["Name"] for member in members] == ["edge-1"]
    assert ground_control.admin.get("/api/groups/shop/satellites").json() == []


@pytest.mark.parametrize("method", ["POST", "DELETE"])
@pytest.mark.parametrize(
    ("satellite", "group", "status"),
    [("nope", "shop", 404), ("edge-1", "nope", 404), ("../edge", "shop", 400), ("edge-1", "../shop", 400)],
)
def test_membership_of_what_is_not_there(
    ground_control: GroundControl, method: str, satellite: str, group: str, status: int
) -> None:
    ground_control.sync_group("shop", "acme/app")
    ground_control.register("edge-1")

    response = ground_control.admin.request(
        method, "/api/groups/satellite", json={"satellite": satellite, "group": group}
    )

    assert response.status_code == status


def test_every_change_is_told_to_prefect_in_the_same_transaction(ground_control: GroundControl) -> None:
    ground_control.sync_group("shop", "acme/app")
    ground_control.register("edge-1")
    body = {"satellite": "edge-1", "group": "shop"}
    ground_control.admin.post("/api/groups/satellite", json=body)
    ground_control.admin.request("DELETE", "/api/groups/satellite", json=body)

    group = ("harbor-satellite.group.changed", "harbor-satellite.group.shop", {"group": "shop"})
    fleet = ("harbor-satellite.fleet.changed", "harbor-satellite.satellite.edge-1", {"satellite": "edge-1"})
    assert events(ground_control) == [group, fleet, group, fleet, group, fleet]


# -- groups that are not only lists -------------------------------------------------------------------------------


def generation(running: GroundControl, number: int) -> None:
    with running.factory.begin() as session:
        group_states.record_group_state(session, "shop", number, DIGEST, f'{{"group":"shop","n":{number}}}')


def test_create_group_makes_an_empty_one_once(ground_control: GroundControl) -> None:
    body = {"group": "shop"}

    first, again = (ground_control.admin.post("/api/groups", json=body) for _ in range(2))

    assert (first.status_code, again.status_code) == (201, 409)
    assert (first.json()["GroupName"], first.json()["RegistryUrl"]) == ("shop", "http://source.test:5000")
    assert events(ground_control)[-1][2] == {"group": "shop"}


def test_sync_at_the_adapter_s_path_replaces_the_list_only(ground_control: GroundControl) -> None:
    sync(ground_control)
    selectors = {"selectors": [{"project": "tools"}]}
    ground_control.admin.put("/api/groups/shop/selectors", json=selectors)
    artifacts = [{"repository": "acme/new", "tag": ["v1"]}]

    answer = ground_control.admin.post("/groups/sync", json={"group": "shop", "artifacts": artifacts})

    shown = ground_control.admin.get("/api/groups/shop").json()
    assert answer.status_code == 200
    assert [item["repository"] for item in shown["artifacts"]] == ["acme/new"]
    assert [item["project"] for item in shown["selectors"]] == ["tools"]


def test_sync_at_the_adapter_s_path_without_credentials_is_refused(ground_control: GroundControl) -> None:
    assert ground_control.anonymous.post("/groups/sync", json={"group": "shop"}).status_code == 401


def test_patch_group_stages_it_at_what_was_published_last(ground_control: GroundControl) -> None:
    sync(ground_control)
    generation(ground_control, 1)
    generation(ground_control, 2)

    staged = ground_control.admin.patch("/api/groups/shop", json={"is_staged": True}).json()
    generation(ground_control, 3)

    shown = ground_control.admin.get("/api/groups").json()[0]
    assert (staged["is_staged"], staged["released_generation"]) == (True, 2)
    assert shown["released_generation"] == 2


def test_first_generation_of_a_staged_group_is_released(ground_control: GroundControl) -> None:
    sync(ground_control)
    ground_control.admin.patch("/api/groups/shop", json={"is_staged": True})

    generation(ground_control, 1)

    assert ground_control.admin.get("/api/groups").json()[0]["released_generation"] == 1


def test_patch_group_staged_no_more_drops_pins_that_are_not_held(ground_control: GroundControl) -> None:
    sync(ground_control)
    for name in ("edge-1", "edge-2"):
        ground_control.register(name, "shop")
    ground_control.admin.patch("/api/groups/shop", json={"is_staged": True})
    with ground_control.factory.begin() as session:
        group_id = session.scalars(select(Group.id)).one()
        for number, satellite_id in enumerate(session.scalars(select(Satellite.id).order_by(Satellite.name)).all()):
            moved = datetime.now(UTC)
            pin = {"satellite_id": satellite_id, "group_id": group_id, "generation": 1, "updated_at": moved}
            session.add(GenerationPin(**pin, is_held=bool(number)))

    answer = ground_control.admin.patch("/api/groups/shop", json={"is_staged": False}).json()

    with ground_control.factory() as session:
        held = session.scalars(select(GenerationPin.is_held)).all()
    assert (answer["is_staged"], answer["released_generation"], held) == (False, None, [True])


def test_patch_group_changes_only_what_is_said(ground_control: GroundControl) -> None:
    sync(ground_control, expires_after_seconds=60)
    ground_control.admin.post("/api/configs", json={"config_name": "night", "config": {}})

    with_config = ground_control.admin.patch("/api/groups/shop", json={"config_name": "night"}).json()
    for_ever = ground_control.admin.patch("/api/groups/shop", json={"expires_after_seconds": None}).json()
    without = ground_control.admin.patch("/api/groups/shop", json={"config_name": ""}).json()

    found = [(body["config_name"], body["expires_after_seconds"]) for body in (with_config, for_ever, without)]
    assert found == [("night", 60), ("night", None), ("", None)]


@pytest.mark.parametrize(
    ("body", "status"),
    [({"config_name": "none"}, 404), ({"config_name": "NO"}, 400), ({"expires_after_seconds": 0}, 400)],
)
def test_patch_group_bad_value_is_refused(ground_control: GroundControl, body: dict[str, Any], status: int) -> None:
    sync(ground_control)

    assert ground_control.admin.patch("/api/groups/shop", json=body).status_code == status
    assert ground_control.admin.patch("/api/groups/none", json={}).status_code == 404


def test_sync_group_audit_names_what_changed(ground_control: GroundControl) -> None:
    sync(ground_control)

    sync(ground_control, artifacts=[{"repository": "acme/app", "tag": ["v1"], "digest": OTHER}])

    with ground_control.factory() as session:
        rows = session.scalars(select(AuditEvent).where(AuditEvent.action == "group.sync").order_by(AuditEvent.id))
        changes = [row.changes for row in rows][-1]
    assert changes == {"artifact acme/app:v1": [DIGEST, OTHER], "artifact acme/app:v2": [DIGEST, None]}


def test_projects_of_groups_are_those_of_all_three_ways(ground_control: GroundControl) -> None:
    sync(ground_control)
    ground_control.admin.put("/api/groups/shop/selectors", json={"selectors": [{"project": "tools"}]})
    with ground_control.factory.begin() as session:
        group_id = session.scalars(select(Group.id)).one()
        pushed = {"media_type": "x", "size": 1, "pushed_at": datetime.now(UTC), "group_id": group_id}
        session.add(RuleMember(repository="rule/app", tag="v1", digest=DIGEST, **pushed))
        session.add(RuleMember(repository="child/only", tag=DIGEST, digest=DIGEST, **pushed))

    with ground_control.factory() as session:
        of_ids = groups.projects_of_groups(session, [group_id])
        of_query = groups.projects_of_groups(session, select(Group.id).where(Group.name == "shop"))

    assert of_ids == of_query == {"acme", "rule", "tools"}
