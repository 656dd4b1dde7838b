"""Harbor's client and robots, against a fake with the real one's manners."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import httpx
import pytest
from pydantic import SecretStr

from harbor_satellite.errors import InvalidInputError, RemoteError, SizeLimitError, UntrustedDataError
from harbor_satellite.harbor import robots
from harbor_satellite.harbor.client import HarborClient
from harbor_satellite.harbor.projects import ensure_private_project, project_exists
from tests.fakes.harbor_accounts import ADMIN
from tests.unit.harbor.harness import answering, golden

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fakes.harbor import FakeHarbor


@pytest.fixture
def client(fake_harbor: tuple[FakeHarbor, str]) -> Iterator[HarborClient]:
    fake, url = fake_harbor
    fake.accounts.projects["acme"] = False
    with HarborClient(url, ADMIN[0], SecretStr(ADMIN[1]), timeout_seconds=2) as client:
        yield client


@pytest.fixture
def fake(fake_harbor: tuple[FakeHarbor, str]) -> FakeHarbor:
    return fake_harbor[0]


def test_client_second_write_is_not_taken_for_a_browser(client: HarborClient) -> None:
    for name in ("one", "two"):
        ensure_private_project(client, name)

    assert project_exists(client, "two")


def test_real_robot_listing_parses() -> None:
    with answering(httpx.Response(200, json=golden("robot-list.json"), headers={"X-Total-Count": "1"})) as client:
        robot = robots.find_robot(client, "sat-edge1")

    assert robot == robots.Robot(
        id=1,
        name="robot$sat-edge1",
        description=robots.DESCRIPTION,
        duration_days=30,
        is_disabled=False,
        expires_at=datetime.fromtimestamp(1797970526, UTC),
        projects=("acme",),
        permissions=frozenset(
            ("project", "acme", *right)
            for right in (("repository", "read"), ("repository", "pull"), ("artifact", "read"))
        ),
    )


def test_real_robot_creation_parses() -> None:
    with answering(httpx.Response(201, json=golden("robot-create-response.json"))) as client:
        robot = robots.create_robot(client, "sat-edge1", ["acme"], 30)

    assert (robot.id, robot.name, robot.secret.get_secret_value()) == (1, "robot$sat-edge1", "REDACTED")
    assert "REDACTED" not in repr(robot)


def test_real_health_is_read_from_the_body(fake: FakeHarbor, client: HarborClient) -> None:
    client.check()
    fake.is_unhealthy = True

    with pytest.raises(RemoteError, match="unhealthy"):
        client.check()
    with answering(httpx.Response(200, json=golden("health.json"))) as real:
        real.check()


def test_listing_ends_whatever_the_links_say(fake: FakeHarbor, client: HarborClient) -> None:
    for number in range(205):
        fake.accounts.projects[f"p{number:03}"] = False

    names = [item["name"] for item in client.items("/projects")]

    assert (len(names), len(set(names))) == (206, 206)
    assert fake.requests.count("GET /api/v2.0/projects") == 3


def test_find_robot_trusts_no_filter(client: HarborClient) -> None:
    robots.create_robot(client, "edge-1", ["acme"], 30)
    everything = list(client.items("/robots", {"q": "nonsense=1"}))

    with answering(httpx.Response(200, json=everything)) as careless:
        assert robots.find_robot(careless, "edge-2") is None
        assert robots.find_robot(careless, "edge-1") is not None
    assert robots.find_robot(client, "edge-2") is None


@pytest.mark.parametrize("prefix", ["robot$", "edge+", "bot-", ""])
def test_find_robot_under_any_prefix(fake: FakeHarbor, client: HarborClient, prefix: str) -> None:
    fake.accounts.prefix = prefix
    for name in ("edge-1", "x-edge-1"):
        robots.create_robot(client, name, ["acme"], 30)

    found = robots.find_robot(client, "edge-1")

    assert found is not None
    assert (found.id, found.name) == (1, f"{prefix}edge-1")


def test_find_robot_with_an_unclear_prefix_believes_no_listing_of_everything(
    fake: FakeHarbor, client: HarborClient
) -> None:
    fake.accounts.prefix = "bot-"
    for name in ("edge-1", "x-edge-1"):
        robots.create_robot(client, name, ["acme"], 30)
    everything = list(client.items("/robots", {"q": "nonsense=1"}))

    with answering(httpx.Response(200, json=everything)) as careless:
        assert robots.find_robot(careless, "edge-1") is None


def test_refusal_carries_harbor_s_words(client: HarborClient) -> None:
    with pytest.raises(RemoteError, match="NOT_FOUND: project nope not found") as caught:
        robots.create_robot(client, "edge-1", ["nope"], 30)

    assert (caught.value.status, caught.value.retryable) == (404, False)


def test_wrong_password_is_a_refusal(client: HarborClient) -> None:
    with HarborClient(client.url, "admin", SecretStr("wrong")) as stranger, pytest.raises(RemoteError) as caught:
        project_exists(stranger, "acme")

    assert caught.value.status == 401
    assert "wrong" not in str(caught.value)


def test_hanging_harbor_is_given_up(fake: FakeHarbor, client: HarborClient) -> None:
    fake.delay_seconds = 0.5
    with HarborClient(client.url, *_admin(), timeout_seconds=0.1) as hasty, pytest.raises(RemoteError) as caught:
        hasty.check()

    assert (caught.value.status, caught.value.retryable) == (None, True)


def test_unreachable_harbor_is_retryable() -> None:
    with HarborClient("http://127.0.0.1:1", *_admin()) as nobody, pytest.raises(RemoteError) as caught:
        nobody.check()

    assert caught.value.retryable


def test_answer_too_long_is_refused(fake: FakeHarbor, client: HarborClient) -> None:
    fake.answer_bytes = 2 * 1024 * 1024

    with pytest.raises(SizeLimitError):
        client.check()


@pytest.mark.parametrize(
    "response",
    [
        httpx.Response(200, text="{", headers={"Content-Type": "application/json"}),
        httpx.Response(200, json={"a": 1}),
        httpx.Response(200, json=[1]),
        httpx.Response(200, json=[{"id": "x", "name": "y"}]),
        httpx.Response(200, json=[{"name": "y"}]),
        httpx.Response(200, json=[{"id": 1, "name": "y", "permissions": [1]}]),
    ],
    ids=["not json", "object", "numbers", "id not a number", "no id", "permission not an object"],
)
def test_answer_of_another_shape_is_refused(response: httpx.Response) -> None:
    with answering(response) as client, pytest.raises(UntrustedDataError):
        robots.find_robot(client, "edge-1")


def test_created_robot_without_secret_is_refused() -> None:
    with answering(httpx.Response(201, json={"id": 1, "name": "robot$x"})) as client, pytest.raises(UntrustedDataError):
        robots.create_robot(client, "x", ["acme"], 30)


@pytest.mark.parametrize("robot_id", ["", "1/../2", "x", "१"])
def test_robot_id_that_is_none_is_refused(client: HarborClient, robot_id: str) -> None:
    with pytest.raises(InvalidInputError):
        robots.delete_robot(client, robot_id)


def test_delete_robot_twice_is_fine(fake: FakeHarbor, client: HarborClient) -> None:
    robot = robots.create_robot(client, "edge-1", ["acme"], 30)

    robots.delete_robot(client, str(robot.id))
    robots.delete_robot(client, str(robot.id))

    assert fake.accounts.robots == {}


def _admin() -> tuple[str, SecretStr]:
    return ADMIN[0], SecretStr(ADMIN[1])
