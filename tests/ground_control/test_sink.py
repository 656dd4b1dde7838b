"""The endpoint of Harbor's replication rules: what is pushed becomes a member, and nothing else is kept."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from sqlalchemy import func, select

from harbor_satellite.errors import InvalidInputError
from harbor_satellite.ground_control.groups import rule_members
from harbor_satellite.ground_control.groups.sink_paths import SinkPath, parse_sink_path
from harbor_satellite.ground_control.models import AuditEvent, OutboxEvent, RuleMember
from harbor_satellite.oci import media_types
from harbor_satellite.oci.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fixtures_ground_control import GroundControl

PLACE = "/v2/shops/acme/team/app"
EMPTY = {"mediaType": media_types.OCI_EMPTY, "digest": str(Digest.of(b"{}")), "size": 2}
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"


def manifest(name: str, media_type: str = media_types.OCI_MANIFEST, **values: Any) -> bytes:
    body = {"schemaVersion": 2, "mediaType": media_type, "annotations": {"name": name}, **values}
    if media_type in media_types.IMAGES:
        body |= {"config": EMPTY, "layers": [EMPTY]}
    return json.dumps(body).encode()


def digest_of(raw: bytes) -> str:
    return str(Digest.of(raw))


@pytest.fixture
def sink(ground_control: GroundControl) -> Iterator[httpx.Client]:
    """The sink, logged in as the rule of the group shops."""
    ground_control.sync_group("shops", "acme/listed")
    issued = ground_control.admin.post("/api/groups/shops/rule", json={}).json()
    auth = (issued["username"], issued["secret"])
    limits = httpx.Limits(max_connections=20)
    with httpx.Client(base_url=ground_control.url, auth=auth, timeout=30, limits=limits) as client:
        yield client


def put(sink: httpx.Client, reference: str, raw: bytes, place: str = PLACE, **headers: str) -> httpx.Response:
    kind = {"Content-Type": json.loads(raw).get("mediaType", media_types.OCI_MANIFEST)}
    return sink.put(f"{place}/manifests/{reference}", content=raw, headers=kind | headers)


def members(running: GroundControl) -> list[tuple[str, list[str], str]]:
    shown = running.admin.get("/api/groups/shops").json()["members"]
    return [(item["repository"], item["tag"], item["digest"]) for item in shown]


def forget_events(running: GroundControl) -> None:
    with running.factory.begin() as session:
        for event in session.scalars(select(OutboxEvent)):
            session.delete(event)


def events(running: GroundControl) -> list[str]:
    with running.factory() as session:
        return [row.payload["group"] for row in session.scalars(select(OutboxEvent)) if "group" in row.payload]


def audited(running: GroundControl) -> list[tuple[str, str, Any]]:
    with running.factory() as session:
        rows = session.scalars(select(AuditEvent).where(AuditEvent.actor == "rule:shops").order_by(AuditEvent.id))
        return [(row.action, row.outcome, row.changes) for row in rows]


# -- paths --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("g/acme/app/manifests/v1", SinkPath("g", "acme/app", "manifests", "v1")),
        ("g/a/manifests/b/manifests/v1", SinkPath("g", "a/manifests/b", "manifests", "v1")),
        ("g/a/b/c/d/e/tags/list", SinkPath("g", "a/b/c/d/e", "tags", "list")),
        ("g/acme/app/blobs/uploads/", SinkPath("g", "acme/app", "blobs", "uploads/")),
        ("g/acme/app/blobs/uploads/1-2", SinkPath("g", "acme/app", "blobs", "uploads/1-2")),
        ("_catalog", None),
        ("g/acme/app", None),
        ("g/acme/app/tags/other", None),
    ],
)
def test_parse_sink_path_of_the_protocol(path: str, expected: SinkPath | None) -> None:
    assert parse_sink_path(path) == expected


@pytest.mark.parametrize(
    "path",
    [
        "g/manifests/v1",
        "g/UPPER/manifests/v1",
        "g/a/../b/manifests/v1",
        "g/a/manifests/-bad",
        "g/a/blobs/v1",
        "g/a/blobs/sha256:12",
        "g/a//b/manifests/v1",
    ],
)
def test_parse_sink_path_bad_name_is_refused(path: str) -> None:
    with pytest.raises(InvalidInputError):
        parse_sink_path(path)


# -- who calls ----------------------------------------------------------------------------------------------------


def test_greet_without_credentials_is_challenged(ground_control: GroundControl, sink: httpx.Client) -> None:
    refused, known = ground_control.anonymous.get("/v2/"), sink.get("/v2/")

    assert (refused.status_code, known.status_code) == (401, 200)
    assert refused.headers["WWW-Authenticate"].startswith("Basic ")
    assert refused.json()["errors"][0]["code"] == "UNAUTHORIZED"
    assert known.headers["Docker-Distribution-Api-Version"] == "registry/2.0"


def test_wrong_secret_is_refused_then_throttled_while_the_right_one_gets_in(
    ground_control: GroundControl, sink: httpx.Client
) -> None:
    statuses = [ground_control.anonymous.get("/v2/", auth=("shops", "wrong")).status_code for _ in range(62)]

    assert (statuses[0], statuses[-1]) == (401, 429)
    assert sink.get("/v2/").status_code == 200


def test_person_is_no_rule(ground_control: GroundControl, sink: httpx.Client) -> None:
    del sink

    assert ground_control.admin.get("/v2/").status_code == 401
    assert ground_control.anonymous.get("/v2/", auth=("admin", "Ground-Control-1")).status_code == 401


@pytest.mark.parametrize("method", ["HEAD", "PUT", "DELETE", "GET"])
def test_other_group_s_namespace_is_forbidden(ground_control: GroundControl, sink: httpx.Client, method: str) -> None:
    ground_control.sync_group("other", "acme/app")

    answer = sink.request(method, "/v2/other/acme/app/manifests/v1", content=manifest("one"))

    assert answer.status_code == 403
    with ground_control.factory() as session:
        assert session.scalar(select(func.count()).select_from(RuleMember)) == 0


# -- the sequence of a stock Harbor -------------------------------------------------------------------------------


def test_index_as_harbor_sends_it_makes_one_member(ground_control: GroundControl, sink: httpx.Client) -> None:
    children = [manifest(name, media_types.DOCKER_MANIFEST) for name in ("amd64", "arm64")]
    listed = [
        {"mediaType": media_types.DOCKER_MANIFEST, "digest": digest_of(raw), "size": len(raw)} for raw in children
    ]
    index = manifest("index", media_types.OCI_INDEX, manifests=listed)
    forget_events(ground_control)

    assert sink.head(f"{PLACE}/manifests/v1").status_code == 404
    for child in children:
        assert sink.head(f"{PLACE}/manifests/{digest_of(child)}").status_code == 404
        assert sink.head(f"{PLACE}/blobs/{digest_of(b'layer')}").status_code == 200
        assert put(sink, digest_of(child), child).status_code == 201
        assert sink.head(f"{PLACE}/manifests/{digest_of(child)}").status_code == 200
    assert events(ground_control) == []
    assert put(sink, "v1", index).status_code == 201

    assert members(ground_control) == [("acme/team/app", ["v1"], digest_of(index))]
    assert events(ground_control) == ["shops"]
    assert ground_control.admin.get("/api/groups/shops").json()["Projects"] == ["acme"]


def test_head_of_a_member_tells_its_digest_so_that_a_moved_tag_is_sent(sink: httpx.Client) -> None:
    raw = manifest("one")
    put(sink, "v1", raw)

    head = sink.head(f"{PLACE}/manifests/v1")

    assert head.status_code == 200
    assert head.headers["Docker-Content-Digest"] == digest_of(raw)
    assert (head.headers["Content-Type"], head.headers["Content-Length"]) == (media_types.OCI_MANIFEST, str(len(raw)))


def test_put_of_a_moved_tag_moves_the_member(ground_control: GroundControl, sink: httpx.Client) -> None:
    before, after = manifest("one"), manifest("two")
    put(sink, "v1", before)

    put(sink, "v1", after)

    assert members(ground_control) == [("acme/team/app", ["v1"], digest_of(after))]
    assert audited(ground_control) == [
        ("member.push", "done", {"acme/team/app:v1": [None, digest_of(before)]}),
        ("member.push", "done", {"acme/team/app:v1": [digest_of(before), digest_of(after)]}),
    ]


def test_put_of_the_same_again_changes_and_tells_nothing(ground_control: GroundControl, sink: httpx.Client) -> None:
    put(sink, "v1", manifest("one"))
    forget_events(ground_control)

    answer = put(sink, "v1", manifest("one"))

    assert answer.status_code == 201
    assert (events(ground_control), len(audited(ground_control))) == ([], 1)


def test_delete_by_digest_takes_every_tag_on_it(ground_control: GroundControl, sink: httpx.Client) -> None:
    gone, kept = manifest("one"), manifest("two")
    for tag, raw in (("v1", gone), ("latest", gone), ("v2", kept)):
        put(sink, tag, raw)
    forget_events(ground_control)

    answer = sink.delete(f"{PLACE}/manifests/{digest_of(gone)}")
    again = sink.delete(f"{PLACE}/manifests/{digest_of(gone)}")

    assert (answer.status_code, again.status_code) == (202, 404)
    assert members(ground_control) == [("acme/team/app", ["v2"], digest_of(kept))]
    assert events(ground_control) == ["shops"]
    changes = {f"acme/team/app:{tag}": [digest_of(gone), None] for tag in ("latest", "v1")}
    assert audited(ground_control)[-1] == ("member.delete", "done", changes)


def test_delete_in_one_repository_leaves_the_same_digest_in_another(
    ground_control: GroundControl, sink: httpx.Client
) -> None:
    raw = manifest("one")
    put(sink, "v1", raw)
    put(sink, "v1", raw, place="/v2/shops/acme/copy")

    sink.delete(f"{PLACE}/manifests/{digest_of(raw)}")

    assert [item[0] for item in members(ground_control)] == ["acme/copy"]


def test_parallel_pushes_of_the_same_and_of_many_are_all_taken(
    ground_control: GroundControl, sink: httpx.Client
) -> None:
    child, forget = manifest("child"), manifest("tag")
    forget_events(ground_control)

    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(put, sink, digest_of(child), child) for _ in range(8)]
        jobs += [pool.submit(put, sink, f"v{number % 10}", forget) for number in range(40)]
        statuses = {job.result().status_code for job in jobs}

    assert statuses == {201}
    assert len(members(ground_control)) == 10
    told = events(ground_control)
    assert set(told) == {"shops"}
    assert len(told) <= 8  # a burst makes one event; those that were under way together do not see each other's


def test_signature_by_digest_is_no_member_and_its_subject_is_answered(
    ground_control: GroundControl, sink: httpx.Client
) -> None:
    subject = {"mediaType": media_types.OCI_MANIFEST, "digest": digest_of(b"subject"), "size": 7}
    raw = manifest("signature", subject=subject, artifactType=BUNDLE)

    answer = put(sink, digest_of(raw), raw)

    assert answer.status_code == 201
    assert answer.headers["OCI-Subject"] == digest_of(b"subject")
    assert members(ground_control) == []


def test_what_only_a_digest_names_is_forgotten_after_a_month(ground_control: GroundControl, sink: httpx.Client) -> None:
    child = manifest("child")
    put(sink, digest_of(child), child)

    ground_control.clock.advance(days=31)
    put(sink, "v1", manifest("one"))

    assert sink.head(f"{PLACE}/manifests/{digest_of(child)}").status_code == 404
    assert len(members(ground_control)) == 1


# -- what it does not take ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reference", "raw", "code"),
    [
        ("v1", b"no json", "MANIFEST_INVALID"),
        ("v1", b'{"schemaVersion":1}', "MANIFEST_INVALID"),
        (digest_of(b"other"), manifest("one"), "DIGEST_INVALID"),
    ],
    ids=["no json", "unknown kind", "another digest"],
)
def test_put_of_what_is_no_manifest_is_refused(
    ground_control: GroundControl, sink: httpx.Client, reference: str, raw: bytes, code: str
) -> None:
    answer = sink.put(f"{PLACE}/manifests/{reference}", content=raw, headers={"Content-Type": "text/plain"})

    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (400, code)
    assert members(ground_control) == []


def test_put_of_too_much_is_refused(sink: httpx.Client) -> None:
    answer = sink.put(f"{PLACE}/manifests/v1", content=b" " * (4 * 1024 * 1024 + 1))

    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (413, "SIZE_INVALID")


@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT"])
def test_upload_of_a_blob_is_refused(sink: httpx.Client, method: str) -> None:
    answer = sink.request(method, f"{PLACE}/blobs/uploads/")

    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (405, "UNSUPPORTED")


def test_content_is_never_given_out(sink: httpx.Client) -> None:
    raw = manifest("one")
    put(sink, "v1", raw)

    answers = [sink.get(f"{PLACE}/{part}") for part in ("manifests/v1", f"blobs/{digest_of(b'layer')}")]

    assert [(answer.status_code, answer.json()["errors"][0]["code"]) for answer in answers] == [
        (404, "MANIFEST_UNKNOWN"),
        (404, "BLOB_UNKNOWN"),
    ]


def test_tags_of_a_repository_are_its_members(sink: httpx.Client) -> None:
    put(sink, "v2", manifest("one"))
    put(sink, "v1", manifest("one"))
    put(sink, digest_of(manifest("child")), manifest("child"))

    answer = sink.get(f"{PLACE}/tags/list")

    assert answer.json() == {"name": "shops/acme/team/app", "tags": ["v1", "v2"]}
    assert sink.get("/v2/shops/acme/none/tags/list").status_code == 404


def test_members_belong_to_the_group_beside_what_it_lists(ground_control: GroundControl, sink: httpx.Client) -> None:
    put(sink, "v1", manifest("one"))

    ground_control.sync_group("shops", "acme/another")

    with ground_control.factory() as session:
        found = session.scalars(select(RuleMember.group_id)).one()
        entries = rule_members.members_of(session, found)
    assert [(entry.repository, entry.tags, str(entry.digest)) for entry in entries] == [
        ("acme/team/app", ("v1",), digest_of(manifest("one")))
    ]
