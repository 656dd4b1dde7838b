"""Harbor's webhooks: made once, told late or never, as by the real one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from harbor_satellite.harbor import artifacts, labels, tags, webhooks
from harbor_satellite.harbor.client import HarborClient
from tests.fakes.harbor_accounts import ADMIN
from tests.fixtures_ground_control import serve
from tests.unit.harbor.harness import golden

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.requests import Request

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


class Receiver:
    """Takes webhooks; the first of them may fail."""

    def __init__(self) -> None:
        self.failures = 0
        self.bodies: list[Any] = []
        self.authorizations: list[str] = []

    async def __call__(self, request: Request) -> Response:
        if self.failures > 0:
            self.failures -= 1
            return Response(status_code=500)
        self.bodies.append(await request.json())
        self.authorizations.append(request.headers["Authorization"])
        return Response()


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
def address(receiver: Receiver) -> Iterator[str]:
    async def take(request: Request) -> Response:
        return await receiver(request)

    with serve(Starlette(routes=[Route("/hook", take, methods=["POST"])])) as url:
        yield f"{url}/hook"


def ensure_hook(client: HarborClient, address: str, secret: str = "s1", **options: Any) -> int:
    header = SecretStr(f"Bearer {secret}")
    return webhooks.ensure_webhook(client, "acme", name="gc", address=address, auth_header=header, **options)


def test_webhook_is_made_once(fake: FakeHarbor, client: HarborClient, address: str) -> None:
    first = ensure_hook(client, address)

    assert ensure_hook(client, address) == first
    assert [policy.id for policy in webhooks.list_webhooks(client, "acme")] == [first]


def test_webhook_with_another_secret_is_made_anew(fake: FakeHarbor, client: HarborClient, address: str) -> None:
    first = ensure_hook(client, address)

    second = ensure_hook(client, address, "s2")

    (policy,) = webhooks.list_webhooks(client, "acme")
    assert first != second == policy.id
    assert policy.auth_header.get_secret_value() == "Bearer s2"


def test_webhook_deleted_twice_is_fine(fake: FakeHarbor, client: HarborClient, address: str) -> None:
    made = ensure_hook(client, address)

    for _ in range(2):
        webhooks.delete_webhook(client, "acme", made)

    assert list(webhooks.list_webhooks(client, "acme")) == []


@pytest.mark.parametrize(
    ("payload_format", "name"),
    [("Default", "webhook-default-PUSH_ARTIFACT.json"), ("CloudEvents", "webhook-ce-harbor.artifact.pushed.json")],
    ids=["default", "cloud events"],
)
def test_push_of_an_index_is_told_in_the_real_shape(  # noqa: PLR0917 - fixtures
    fake: FakeHarbor, client: HarborClient, receiver: Receiver, address: str, payload_format: str, name: str
) -> None:
    ensure_hook(client, address, payload_format=payload_format)

    digest = fake.push("acme/app", "v1", platforms=BOTH)
    fake.settled()

    assert receiver.authorizations == ["Bearer s1"] * 3  # two children and the index
    real = golden(name)["body"]
    for body in receiver.bodies:
        assert set(body) == set(real)
    found = [body.get("event_data") or body["data"] for body in receiver.bodies]
    assert {data["resources"][0]["tag"] for data in found} >= {"v1"}
    assert digest in {data["resources"][0]["digest"] for data in found}


def test_webhooks_miss_tags_and_labels_over_the_api(
    fake: FakeHarbor, client: HarborClient, receiver: Receiver, address: str
) -> None:
    digest = fake.push("acme/app", "v1")
    ensure_hook(client, address)

    tags.add_tag(client, "acme", "app", digest, "v1b")
    labels.add_label(client, "acme", "app", digest, labels.ensure_label(client, "edge"))
    artifacts.delete_artifact(client, "acme", "app", digest)
    fake.settled()

    (body,) = receiver.bodies
    assert (body["type"], body["event_data"]["resources"][0]["tag"]) == ("DELETE_ARTIFACT", "v1b")


@pytest.mark.parametrize(("failures", "received", "status"), [(2, 1, "Success"), (3, 0, "Error")])
def test_failing_receiver_gets_three_attempts(  # noqa: PLR0917 - fixtures
    fake: FakeHarbor,
    client: HarborClient,
    receiver: Receiver,
    address: str,
    failures: int,
    received: int,
    status: str,
) -> None:
    receiver.failures = failures
    ensure_hook(client, address)

    fake.push("acme/app", "v1")
    fake.settled()

    assert len(receiver.bodies) == received
    assert [(one["status"], one["run_count"]) for one in fake.hooks.executions] == [(status, 3)]


@pytest.mark.parametrize(
    ("misbehaviour", "times"), [({"copies": 2}, 2), ({"lost": 1}, 0), ({"is_reordering": True}, 1)]
)
def test_fake_webhooks_misbehave_on_demand(  # noqa: PLR0917 - fixtures
    fake: FakeHarbor,
    client: HarborClient,
    receiver: Receiver,
    address: str,
    misbehaviour: dict[str, Any],
    times: int,
) -> None:
    ensure_hook(client, address)
    vars(fake.hooks).update(misbehaviour)

    fake.push("acme/app", "v1")
    fake.push("acme/app", "v2")
    fake.settled()

    came = [body["event_data"]["resources"][0]["tag"] for body in receiver.bodies]
    assert came.count("v1") == times
    assert (came == ["v2", "v1"]) == ("is_reordering" in misbehaviour)
