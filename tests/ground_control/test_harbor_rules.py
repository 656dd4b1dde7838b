"""Harbor's endpoints and replication rules, playing the real one's requests against a registry."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr

from harbor_satellite.errors import InvalidInputError, RemoteError
from harbor_satellite.harbor import artifacts, labels, replication
from harbor_satellite.harbor.client import HarborClient
from tests.fakes.harbor_accounts import ADMIN
from tests.fakes.registry import FakeRegistry
from tests.fakes.registry_wire import FakeReply

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fakes.harbor import FakeHarbor

BOTH = ("linux/amd64", "linux/arm/v7")


@pytest.fixture
def fake(fake_harbor: tuple[FakeHarbor, str]) -> FakeHarbor:
    fake_harbor[0].accounts.projects["acme"] = False
    return fake_harbor[0]


@pytest.fixture
def client(fake: FakeHarbor, fake_harbor: tuple[FakeHarbor, str]) -> Iterator[HarborClient]:
    with HarborClient(fake_harbor[1], ADMIN[0], SecretStr(ADMIN[1]), timeout_seconds=5) as client:
        yield client


@pytest.fixture
def sink() -> FakeRegistry:
    """A registry that says it has every blob, so that none is sent."""
    registry = FakeRegistry(auth="basic", username="rule-shops", password="made-up")
    registry.misbehave(r"HEAD /v2/.+/blobs/.+", FakeReply(200), times=1000)
    return registry


@pytest.fixture
def sink_url(sink: FakeRegistry) -> Iterator[str]:
    with sink.serving() as url:
        yield url


def ensure_rule(client: HarborClient, url: str, **options: Any) -> int:
    endpoint = replication.ensure_endpoint(
        client, name="shops", url=url, username="rule-shops", secret=SecretStr("made-up")
    )
    values = {"name": "shops", "namespace": "edge-shops", "name_filter": "acme/**", "endpoint_id": endpoint, **options}
    return replication.ensure_rule(client, **values)


def test_event_based_rule_sends_manifests_and_no_blob(
    fake: FakeHarbor, client: HarborClient, sink: FakeRegistry, sink_url: str
) -> None:
    ensure_rule(client, sink_url)

    digest = fake.push("acme/team/app", "v1", platforms=BOTH)
    fake.settled()

    target = "edge-shops/acme/team/app"
    puts = [one.path.rpartition("/")[2] for one in sink.seen(rf"PUT /v2/{target}/manifests/.+")]
    assert sink.tags[target] == {"v1": digest}
    assert len(puts) == 3
    assert puts[-1] == "v1"  # the index comes last
    assert sink.seen(r"POST .*") == []


def test_rule_takes_away_what_was_deleted(
    fake: FakeHarbor, client: HarborClient, sink: FakeRegistry, sink_url: str
) -> None:
    ensure_rule(client, sink_url)
    digest = fake.push("acme/app", "v1")
    fake.settled()

    artifacts.delete_artifact(client, "acme", "app", "v1")
    fake.settled()

    assert [one.path for one in sink.seen("DELETE .+")] == [f"/v2/edge-shops/acme/app/manifests/{digest}"]


def test_replicate_deletion_alone_is_ignored(fake: FakeHarbor, client: HarborClient, sink_url: str) -> None:
    rule = ensure_rule(client, sink_url, has_deletion=False)
    held = client.request("GET", f"/replication/policies/{rule}", expected={200}).document
    assert "replicate_deletion" not in held

    body = {**held, "replicate_deletion": True, "dest_registry": {"id": held["dest_registry"]["id"]}}
    del body["src_registry"]
    client.request("PUT", f"/replication/policies/{rule}", expected={200}, body=body)

    assert fake.replication.rules[rule]["deletion"] is False


def test_rule_filters_names_and_tags(fake: FakeHarbor, client: HarborClient, sink: FakeRegistry, sink_url: str) -> None:
    ensure_rule(client, sink_url, name_filter="acme/{app,web}", tag_filter="v*")

    for name, tag in (("acme/app", "v1"), ("acme/web", "dev"), ("acme/team/app", "v1"), ("acme/tool", "v1")):
        fake.push(name, tag)
    fake.settled()

    assert {name: tags for name, tags in sink.tags.items() if tags}.keys() == {"edge-shops/acme/app"}


def test_rule_with_a_label_sends_when_it_is_run(
    fake: FakeHarbor, client: HarborClient, sink: FakeRegistry, sink_url: str
) -> None:
    rule = ensure_rule(client, sink_url, label="edge", is_event_based=False, cron="0 0 * * * *")
    fake.push("acme/app", "v1")
    fake.push("acme/web", "v1")
    labels.add_label(client, "acme", "app", "v1", labels.ensure_label(client, "edge"))
    fake.settled()
    assert sink.seen("PUT .+") == []

    run = replication.run_rule(client, rule)
    fake.settled()

    assert {name for name, tags in sink.tags.items() if tags} == {"edge-shops/acme/app"}
    execution = replication.find_execution(client, run)
    assert execution is not None
    assert (execution.rule_id, execution.status, execution.is_done) == (rule, "Succeed", True)


def test_execution_says_that_it_is_done_long_after_it_is(
    fake: FakeHarbor, client: HarborClient, sink: FakeRegistry, sink_url: str
) -> None:
    fake.replication.status_lag_seconds = 1.0
    rule = ensure_rule(client, sink_url, is_event_based=False)
    fake.push("acme/app", "v1")

    run = replication.run_rule(client, rule)
    deadline = time.monotonic() + 5
    while not sink.seen("PUT .+") and time.monotonic() < deadline:
        time.sleep(0.01)

    execution = replication.find_execution(client, run)
    assert execution is not None
    assert not execution.is_done
    fake.settled()


def test_rule_and_endpoint_are_made_once_and_go_in_order(fake: FakeHarbor, client: HarborClient, sink_url: str) -> None:
    rule = ensure_rule(client, sink_url)
    assert ensure_rule(client, sink_url, tag_filter="v*") == rule
    (endpoint,) = replication.list_endpoints(client)
    (held,) = replication.list_rules(client)
    assert (held.endpoint_id, held.filters) == (endpoint.id, (("name", "acme/**"), ("tag", "v*")))

    with pytest.raises(RemoteError) as caught:
        replication.delete_endpoint(client, endpoint.id)
    assert caught.value.status == 412

    for _ in range(2):
        replication.delete_rule(client, rule)
        replication.delete_endpoint(client, endpoint.id)
    assert list(replication.list_endpoints(client)) == []


def test_endpoint_that_is_dead_is_refused(client: HarborClient) -> None:
    with pytest.raises(RemoteError, match="unhealthy") as caught:
        ensure_rule(client, "http://127.0.0.1:1")

    assert caught.value.status == 400


@pytest.mark.parametrize(
    "options",
    [
        {"label": "edge"},
        {"cron": "0 0 * * * *"},
        {"cron": "0 * * * *", "is_event_based": False},
    ],
    ids=["label and events", "cron and events", "five fields"],
)
def test_rule_that_harbor_would_not_run_is_refused(client: HarborClient, options: dict[str, Any]) -> None:
    values = {"name": "shops", "namespace": "edge-shops", "name_filter": "acme/**", "endpoint_id": 1, **options}

    with pytest.raises(InvalidInputError):
        replication.ensure_rule(client, **values)
