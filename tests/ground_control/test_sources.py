"""Credentials of satellites at their source: a Harbor, asked by an administrator or by a robot, or another registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest
from pydantic import SecretStr

from harbor_satellite.errors import ConflictError, InvalidInputError, RemoteError
from harbor_satellite.ground_control.satellites.sources import HarborSource, OciSource
from harbor_satellite.harbor.client import HarborClient
from harbor_satellite.registry.htpasswd import HtpasswdAuthenticator
from tests.fakes.harbor_accounts import ADMIN

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.fakes.harbor import FakeHarbor

MANAGER = {
    "/": {"robot": "create read list delete", "project": "list create"},
    "*": {
        "repository": "read pull push list delete",
        "artifact": "read list create delete",
        "tag": "create list delete",
        "project": "read",
    },
}


@pytest.fixture
def fake(fake_harbor: tuple[FakeHarbor, str]) -> FakeHarbor:
    fake_harbor[0].accounts.projects["acme"] = False
    return fake_harbor[0]


@pytest.fixture
def admin(fake: FakeHarbor, fake_harbor: tuple[FakeHarbor, str]) -> Iterator[HarborClient]:
    with HarborClient(fake_harbor[1], ADMIN[0], SecretStr(ADMIN[1]), timeout_seconds=5) as client:
        yield client


@pytest.fixture
def robot(admin: HarborClient) -> Iterator[HarborClient]:
    """Ground Control as a robot that may make robots: it never may change one."""
    permissions = [
        {
            "kind": "system" if namespace == "/" else "project",
            "namespace": namespace,
            "access": [
                {"resource": resource, "action": action}
                for resource, actions in rights.items()
                for action in actions.split()
            ],
        }
        for namespace, rights in MANAGER.items()
    ]
    body = {"name": "gc", "duration": -1, "level": "system", "permissions": permissions}
    made = admin.request("POST", "/robots", expected={201}, body=body).document
    with HarborClient(admin.url, made["name"], SecretStr(made["secret"]), timeout_seconds=5) as client:
        yield client


@pytest.fixture(params=["admin", "robot"])
def source(request: pytest.FixtureRequest) -> HarborSource:
    client: HarborClient = request.getfixturevalue(request.param)
    return HarborSource(client)


def robot_names(fake: FakeHarbor) -> list[str]:
    return [robot.name for robot in fake.accounts.robots.values() if robot.name != "gc"]


def test_harbor_source_makes_an_account(fake: FakeHarbor, source: HarborSource) -> None:
    made = source.create("edge-1.a", ["acme", "nope", "satellite"])

    assert (made.account, made.username, made.projects) == ("edge-1.a", "robot$edge-1.a", ("acme", "satellite"))
    assert made.expires_at is not None
    assert fake.accounts.robots[int(made.id or 0)].secret == made.secret.get_secret_value()


def test_harbor_source_second_account_leaves_the_first_alone(fake: FakeHarbor, source: HarborSource) -> None:
    first = source.create("edge-1.a", ["acme"])

    source.create("edge-1.b", ["acme"])

    assert robot_names(fake) == ["edge-1.a", "edge-1.b"]
    assert fake.accounts.robots[int(first.id or 0)].secret == first.secret.get_secret_value()


@pytest.mark.parametrize("prefix", ["robot$", "robot-"])
def test_harbor_source_left_over_account_is_made_anew(fake: FakeHarbor, source: HarborSource, prefix: str) -> None:
    for manager in fake.accounts.robots.values():  # Ground Control's own robot gets another name with the prefix
        source.client._client.auth = httpx.BasicAuth(f"{prefix}{manager.name}", manager.secret)
    fake.accounts.prefix = prefix
    left = source.create("edge-1", ["acme"])
    source.create("x-edge-1", ["acme"])

    made = source.create("edge-1", ["acme"])

    assert made.id != left.id
    assert sorted(robot_names(fake)) == ["edge-1", "x-edge-1"]


def test_harbor_source_account_of_somebody_else_conflicts(fake: FakeHarbor, source: HarborSource) -> None:
    source.create("edge-1", ["acme"])
    (theirs,) = (robot for robot in fake.accounts.robots.values() if robot.name == "edge-1")
    theirs.description = "the CI's"

    with pytest.raises(ConflictError):
        source.create("edge-1", ["acme"])

    assert robot_names(fake) == ["edge-1"]


def test_harbor_source_makes_the_state_project_private(fake: FakeHarbor, admin: HarborClient) -> None:
    HarborSource(admin).create("edge-1", ["satellite"])
    assert fake.accounts.projects["satellite"] is False

    fake.accounts.projects["satellite"] = True  # as the original leaves it
    HarborSource(admin).create("edge-2", ["satellite"])
    assert fake.accounts.projects["satellite"] is False


def test_harbor_source_as_a_robot_refuses_a_state_project_it_cannot_close(
    fake: FakeHarbor, robot: HarborClient
) -> None:
    fake.accounts.projects["satellite"] = True

    with pytest.raises(RemoteError, match="is public, and a robot may not make it private") as caught:
        HarborSource(robot).create("edge-1", ["satellite"])

    assert caught.value.status == 403
    assert robot_names(fake) == []


def test_harbor_source_changes_the_projects_and_keeps_the_secret(fake: FakeHarbor, admin: HarborClient) -> None:
    source = HarborSource(admin)
    made = source.create("edge-1", ["satellite"])

    assert source.set_projects("edge-1", made.id, ["acme", "satellite"]) == ("acme", "satellite")

    (held,) = fake.accounts.robots.values()
    assert held.secret == made.secret.get_secret_value()
    assert [permission["namespace"] for permission in held.permissions] == ["acme", "satellite"]


def test_harbor_source_as_a_robot_may_not_change_projects(robot: HarborClient) -> None:
    source = HarborSource(robot)
    made = source.create("edge-1", ["satellite"])

    with pytest.raises(RemoteError) as caught:
        source.set_projects("edge-1", made.id, ["acme", "satellite"])

    assert caught.value.status == 403


@pytest.mark.parametrize("credential_id", [None, "4711"], ids=["unknown", "gone"])
def test_harbor_source_projects_of_an_account_that_is_gone(source: HarborSource, credential_id: str | None) -> None:
    with pytest.raises(RemoteError, match="gone") as caught:
        source.set_projects("edge-1", credential_id, ["acme"])

    assert caught.value.status == 404


def test_harbor_source_delete_twice_is_fine(fake: FakeHarbor, source: HarborSource) -> None:
    made = source.create("edge-1", ["acme"])

    source.delete("edge-1", made.id)
    source.delete("edge-1", made.id)

    assert robot_names(fake) == []


@pytest.mark.parametrize("description", ["the CI's", None], ids=["stranger", "another satellite's"])
def test_harbor_source_id_that_is_another_robots_now_is_left_alone(
    fake: FakeHarbor, source: HarborSource, description: str | None
) -> None:
    made = source.create("edge-2", ["acme"])
    robot = fake.accounts.robots[int(made.id or 0)]
    robot.description = description or robot.description

    source.delete("edge-1", made.id)
    with pytest.raises(RemoteError, match="gone") as caught:
        source.set_projects("edge-1", made.id, ["satellite"])

    assert caught.value.status == 404
    assert robot_names(fake) == ["edge-2"]


def test_harbor_source_delete_by_name_leaves_strangers_alone(fake: FakeHarbor, source: HarborSource) -> None:
    for name in ("edge-1", "edge-2", "x-edge-3"):
        source.create(name, ["acme"])
    next(robot for robot in fake.accounts.robots.values() if robot.name == "edge-2").description = "the CI's"

    for name in ("edge-1", "edge-2", "edge-3"):
        source.delete(name, None)

    assert robot_names(fake) == ["edge-2", "x-edge-3"]


def test_harbor_source_deletes_a_repository_of_states(fake: FakeHarbor, source: HarborSource) -> None:
    fake.push("satellite/satellite-state/edge-1/state", "latest")
    fake.push("satellite/satellite-state/edge-2/state", "latest")

    assert source.delete_repository("satellite/satellite-state/edge-1/state")
    assert source.delete_repository("satellite/satellite-state/edge-1/state")  # gone is fine

    assert fake.content.repositories("satellite") == ["satellite/satellite-state/edge-2/state"]


@pytest.mark.parametrize("repository", ["acme/app", "satellite", "satellite/"])
def test_harbor_source_deletes_no_other_repository(admin: HarborClient, repository: str) -> None:
    with pytest.raises(InvalidInputError):
        HarborSource(admin).delete_repository(repository)


def test_oci_source_keeps_an_entry_for_each_account(tmp_path: Path) -> None:
    path = tmp_path / "htpasswd"
    source = OciSource(path)

    first = source.create("edge-1.a", ["acme", "satellite"])
    second = source.create("edge-1.b", ["satellite"])
    source.delete("edge-1.a", first.id)
    source.delete("edge-1.a", first.id)

    check = HtpasswdAuthenticator(path)
    assert (first.account, second.account) == ("edge-1.a", "edge-1.b")
    assert check.verify(second.username, second.secret.get_secret_value())
    assert not check.verify(first.username, first.secret.get_secret_value())


def test_oci_source_leaves_repositories_to_the_caller() -> None:
    source = OciSource()

    assert (source.harbor, source.delete_repository("satellite/x/state")) == (None, False)


def test_oci_source_refuses_names_that_make_too_long_a_username() -> None:
    OciSource().check_name("x" * 118)
    with pytest.raises(InvalidInputError):
        OciSource().check_name("x" * 119)
