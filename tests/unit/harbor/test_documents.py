"""Harbor's real answers parse, and no answer of another shape gets a parser to leak its own errors."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from harbor_satellite.errors import UntrustedDataError
from harbor_satellite.harbor import artifacts, labels, replication, webhooks
from harbor_satellite.harbor.artifacts import HarborArtifact
from harbor_satellite.harbor.documents import Document
from harbor_satellite.harbor.labels import HarborLabel
from harbor_satellite.harbor.projects import HarborProject
from harbor_satellite.harbor.replication import Execution, ReplicationRule
from harbor_satellite.harbor.system import system_info
from harbor_satellite.harbor.webhooks import WebhookPolicy
from tests.unit.harbor.harness import answering, golden

if TYPE_CHECKING:
    from collections.abc import Callable

DIGEST = "sha256:" + "0" * 64
INDEX = "sha256:53b0c3b4ea0e45863f57821a58113dd197d9c1027cf7abaaa5c150ad1a67f681"


def test_real_artifact_listing_parses_newest_first() -> None:
    with answering(httpx.Response(200, json=golden("artifact-list.json"), headers={"X-Total-Count": "2"})) as client:
        index, child = artifacts.list_artifacts(client, "acme", "app")

    assert index == HarborArtifact(
        digest=INDEX,
        type="IMAGE",
        media_type="application/vnd.oci.image.index.v1+json",
        artifact_type="",
        push_time=datetime(2026, 11, 22, 20, 15, 23, 445000, UTC),
        tags=("v2",),
        labels=("prod",),
        platforms=("linux/amd64", "linux/arm64"),
        size=10491042,
    )
    assert (child.platforms, child.labels, child.tags) == (("linux/arm64",), (), ("v1-arm64",))


def test_real_artifact_of_no_image_parses() -> None:
    state = HarborArtifact.from_document(Document.of(golden("artifact-oras-state.json")[0], "state"))

    assert (state.type, state.platforms, state.tags) == ("UNKNOWN", (), ("latest",))
    assert state.artifact_type == "application/vnd.goharbor.satellite.state.v1+json"


def test_real_webhook_policy_parses_without_showing_its_secret() -> None:
    failing, _, plain = (
        WebhookPolicy.from_document(Document.of(one, "hook")) for one in golden("webhook-policies.json")
    )

    assert (plain.id, plain.name, plain.is_enabled, plain.is_verify_skipped) == (1, "gc", True, True)
    assert plain.auth_header.get_secret_value() == "Bearer hook-secret-1"
    assert "hook-secret-1" not in repr(plain)
    assert (failing.auth_header.get_secret_value(), failing.is_verify_skipped) == ("", False)


def test_real_replication_rules_parse() -> None:
    pulling, scheduled = (
        ReplicationRule.from_document(Document.of(one, "rule")) for one in golden("replication-policies.json")
    )

    assert (pulling.endpoint_id, pulling.trigger, pulling.namespace) == (0, "manual", "pulled")
    assert (scheduled.endpoint_id, scheduled.trigger, scheduled.cron) == (3, "scheduled", "0 */5 * * * *")
    assert scheduled.filters == (("name", "acme/app"),)


def test_real_execution_parses() -> None:
    execution = Execution.from_document(Document.of(golden("replication-execution.json"), "execution"))

    assert (execution.id, execution.status, execution.is_done, execution.failed) == (67, "Failed", True, 2)


def test_real_project_parses() -> None:
    project = HarborProject.from_document(Document.of(golden("project-get.json"), "project"))

    assert project == HarborProject(2, "acme", is_public=False)


def test_real_label_parses() -> None:
    assert HarborLabel.from_document(Document.of(golden("labels.json")[0], "label")) == HarborLabel(1, "edge", None)


def test_real_system_information_parses() -> None:
    with answering(httpx.Response(200, json=golden("systeminfo.json"))) as client:
        info = system_info(client)

    assert (info.version, info.is_read_only) == ("v2.16.0-c50c7ddd", False)
    assert info.current_time == datetime(2026, 11, 22, 20, 13, 30, 958000, UTC)


@pytest.mark.parametrize(
    ("change", "platforms"),
    [
        ({"extra_attrs": {"os": "linux", "architecture": "arm", "variant": "v7"}}, ("linux/arm/v7",)),
        ({"extra_attrs": {"os": "linux"}}, ()),
        ({"references": [{"platform": {"os": "unknown", "architecture": "unknown"}}, {"platform": None}]}, ()),
    ],
    ids=["with variant", "half", "attestation"],
)
def test_artifact_platforms(change: dict[str, Any], platforms: tuple[str, ...]) -> None:
    artifact = HarborArtifact.from_document(Document.of({"digest": DIGEST} | change, "artifact"))

    assert artifact.platforms == platforms


def test_artifact_with_nulls_and_zero_times_parses() -> None:
    nothing = dict.fromkeys(("labels", "tags", "references", "extra_attrs", "accessories"))
    document = {"digest": DIGEST, "push_time": "0001-01-01T00:00:00.000Z", **nothing}

    artifact = HarborArtifact.from_document(Document.of(document, "artifact"))

    assert (artifact.push_time, artifact.tags, artifact.labels, artifact.size) == (None, (), (), 0)


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"digest": "sha256:zz"},
        {"digest": DIGEST, "tags": {}},
        {"digest": DIGEST, "tags": [1]},
        {"digest": DIGEST, "tags": [{"name": 1}]},
        {"digest": DIGEST, "tags": [{}]},
        {"digest": DIGEST, "labels": "edge"},
        {"digest": DIGEST, "size": "1"},
        {"digest": DIGEST, "size": True},
        {"digest": DIGEST, "push_time": "yesterday"},
        {"digest": DIGEST, "push_time": "2026-11-22T20:15:23"},
        {"digest": DIGEST, "references": [{"platform": "linux"}]},
    ],
)
def test_artifact_of_another_shape_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(UntrustedDataError):
        HarborArtifact.from_document(Document.of(document, "artifact"))


READERS: list[Callable[[Any], object]] = [
    lambda client: list(artifacts.list_repositories(client, "acme")),
    lambda client: list(artifacts.list_artifacts(client, "acme", "app")),
    lambda client: list(webhooks.list_webhooks(client, "acme")),
    lambda client: list(replication.list_rules(client)),
    lambda client: list(replication.list_endpoints(client)),
    lambda client: list(labels.list_labels(client)),
]


@pytest.mark.parametrize("answer", [{"a": 1}, [1], [{}], [{"id": "x", "name": 1, "digest": 2}]])
@pytest.mark.parametrize("read", READERS)
def test_listing_of_another_shape_is_refused(read: Callable[[Any], object], answer: object) -> None:
    with answering(httpx.Response(200, json=answer)) as client, pytest.raises(UntrustedDataError):
        read(client)


@pytest.mark.parametrize("read", READERS)
def test_listing_that_is_null_is_empty(read: Callable[[Any], object]) -> None:
    with answering(httpx.Response(200, json=None)) as client:
        assert read(client) == []


def test_repository_of_another_project_is_refused() -> None:
    with answering(httpx.Response(200, json=[{"name": "other/app"}])) as client, pytest.raises(UntrustedDataError):
        list(artifacts.list_repositories(client, "acme"))


def test_creation_without_location_is_refused() -> None:
    with answering(httpx.Response(201)) as client, pytest.raises(UntrustedDataError):
        replication.run_rule(client, 1)
