"""Harbor's client, robots and source, against a fake with the real one's manners."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from pydantic import SecretStr

from harbor_satellite.errors import InvalidInputError, RemoteError, SizeLimitError, UntrustedDataError
from harbor_satellite.ground_control.sources import HarborSource, OciSource
from harbor_satellite.harbor import robots
from harbor_satellite.harbor.client import HarborClient
from harbor_satellite.registry.htpasswd import HtpasswdAuthenticator
from tests.fakes.harbor_accounts import ADMIN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.fakes.harbor import FakeHarbor

DATA = Path(__file__).parent.parent / "data" / "harbor"
MANAGER_ACCESS = [
    *({"resource": "robot", "action": action} for action in ("create", "read", "list", "delete")),
    *({"resource": "project", "action": action} for action in ("list", "create")),
]


@pytest.fixture
def client(fake_harbor: tuple[FakeHarbor, str]) -> Iterator[HarborClient]:
    fake, url = fake_harbor
    fake.accounts.projects["acme"] = False
    with HarborClient(url, ADMIN[0], SecretStr(ADMIN[1]), timeout_seconds=2) as client:
        yield client


@pytest.fixture
def fake(fake_harbor: tuple[FakeHarbor, str]) -> FakeHarbor:
    return fake_harbor[0]


def manager(fake: FakeHarbor, client: HarborClient) -> HarborClient:
    """Ground Control as a robot that may manage robots."""
    pull = [{"resource": resource, "action": action} for resource, action in robots._PULL]
    permissions = [
        {"kind": "system", "namespace": "/", "access": MANAGER_ACCESS},
        {"kind": "project", "namespace": "*", "access": pull},
    ]
    body = {"name": "gc", "duration": -1, "level": "system", "permissions": permissions}
    made = client.request("POST", "/robots", expected={201}, body=body).document
    return HarborClient(client.url, made["name"], SecretStr(made["secret"]))


def answering(answer: Callable[[httpx.Request], httpx.Response] | httpx.Response) -> HarborClient:
    def handle(request: httpx.Request) -> httpx.Response:
        return answer if isinstance(answer, httpx.Response) else answer(request)

    return HarborClient("http://harbor.test/", "admin", SecretStr("x"), transport=httpx.MockTransport(handle))


def golden(name: str) -> Any:
    return json.loads((DATA / name).read_text())


def test_client_second_write_is_not_taken_for_a_browser(client: HarborClient) -> None:
    for name in ("one", "two"):
        client.ensure_private_project(name)

    assert client.project_exists("two")


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


def test_refusal_carries_harbor_s_words(client: HarborClient) -> None:
    with pytest.raises(RemoteError, match="NOT_FOUND: project nope not found") as caught:
        robots.create_robot(client, "edge-1", ["nope"], 30)

    assert (caught.value.status, caught.value.retryable) == (404, False)


def test_wrong_password_is_a_refusal(client: HarborClient) -> None:
    with HarborClient(client.url, "admin", SecretStr("wrong")) as stranger, pytest.raises(RemoteError) as caught:
        stranger.project_exists("acme")

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


def test_source_makes_the_state_project_private(fake: FakeHarbor, client: HarborClient) -> None:
    HarborSource(client).create("edge-1", ["acme", "satellite"])
    assert fake.accounts.projects["satellite"] is False

    fake.accounts.projects["satellite"] = True  # as the original leaves it
    HarborSource(client).create("edge-2", ["satellite"])
    assert fake.accounts.projects["satellite"] is False


def test_source_rotation_keeps_the_robot(fake: FakeHarbor, client: HarborClient) -> None:
    source = HarborSource(client)
    first = source.create("edge-1", ["satellite"])

    second = source.rotate("edge-1", first.id, ["acme", "satellite"])

    assert (second.id, second.username, second.projects) == (first.id, first.username, ("acme", "satellite"))
    assert second.secret != first.secret
    (robot,) = fake.accounts.robots.values()
    assert robot.secret == second.secret.get_secret_value()
    assert [permission["namespace"] for permission in robot.permissions] == ["acme", "satellite"]


def test_source_rotation_of_an_expired_robot_makes_a_new_one(fake: FakeHarbor, client: HarborClient) -> None:
    fake.accounts.now = datetime.now(UTC) - timedelta(days=40)
    source = HarborSource(client)
    first = source.create("edge-1", ["satellite"])
    fake.accounts.now = None

    second = source.rotate("edge-1", first.id, ["satellite"])

    assert second.id != first.id
    assert second.expires_at is not None
    assert second.expires_at > datetime.now(UTC)


@pytest.mark.parametrize("credential_id", [None, "4711"], ids=["unknown", "gone"])
def test_source_rotation_without_a_robot_makes_one(client: HarborClient, credential_id: str | None) -> None:
    assert HarborSource(client).rotate("edge-1", credential_id, ["satellite"]).username == "robot$edge-1"


def test_source_as_a_robot_renews_by_making_anew(fake: FakeHarbor, client: HarborClient) -> None:
    fake.accounts.projects["satellite"] = False
    with manager(fake, client) as as_robot:
        source = HarborSource(as_robot)
        source._client.ensure_private_project = lambda name: None  # type: ignore[method-assign]
        first = source.create("edge-1", ["acme"])
        second = source.rotate("edge-1", first.id, ["acme"])

    assert second.id != first.id
    assert [robot.name for robot in fake.accounts.robots.values()] == ["gc", "edge-1"]


def test_source_projects_of_a_robot_that_is_gone(client: HarborClient) -> None:
    with pytest.raises(RemoteError, match="gone") as caught:
        HarborSource(client).set_projects("edge-1", "4711", ["acme"])

    assert caught.value.status == 404


def test_source_delete_by_name_leaves_strangers_alone(fake: FakeHarbor, client: HarborClient) -> None:
    source = HarborSource(client)
    source.create("edge-1", ["acme"])
    source.create("edge-2", ["acme"])
    fake.accounts.robots[2].description = "the CI's"

    for name in ("edge-1", "edge-2", "edge-3"):
        source.delete(name, None)

    assert [robot.name for robot in fake.accounts.robots.values()] == ["edge-2"]


def test_oci_source_keeps_an_htpasswd_file(tmp_path: Path) -> None:
    path = tmp_path / "htpasswd"
    source = OciSource(path)
    first = source.create("edge-1", ["acme", "satellite"])
    assert HtpasswdAuthenticator(path).verify(first.username, first.secret.get_secret_value())

    second = source.rotate("edge-1", first.id, ["satellite"])
    check = HtpasswdAuthenticator(path)
    assert check.verify(second.username, second.secret.get_secret_value())
    assert not check.verify(first.username, first.secret.get_secret_value())

    source.delete("edge-1", second.id)
    source.delete("edge-1", second.id)
    assert not HtpasswdAuthenticator(path).verify(second.username, second.secret.get_secret_value())


def test_oci_source_refuses_names_that_make_too_long_a_username() -> None:
    OciSource().check_name("x" * 118)
    with pytest.raises(InvalidInputError):
        OciSource().check_name("x" * 119)


def _admin() -> tuple[str, SecretStr]:
    return ADMIN[0], SecretStr(ADMIN[1])
