"""Harbor's repositories, artifacts, tags and labels, against a fake with the real one's manners."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr

from harbor_satellite.errors import RemoteError
from harbor_satellite.harbor import artifacts, labels, projects, tags
from harbor_satellite.harbor.client import HarborClient
from tests.fakes.harbor_accounts import ADMIN
from tests.unit.harbor.harness import golden

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


def test_repositories_of_a_project_are_named_below_it(fake: FakeHarbor, client: HarborClient) -> None:
    for name in ("acme/team/app", "acme/app", "acme2/app"):
        fake.push(name, "v1")

    assert list(artifacts.list_repositories(client, "acme")) == ["app", "team/app"]


def test_artifacts_of_a_nested_repository(fake: FakeHarbor, client: HarborClient) -> None:
    old = fake.push("acme/team/app", "v1", platforms=BOTH)
    new = fake.push("acme/team/app", "v2")
    prod = labels.ensure_label(client, "prod", project_id=fake.accounts.project_id("acme"))
    labels.add_label(client, "acme", "team/app", "v1", prod)
    labels.add_label(client, "acme", "team/app", "v1", prod)  # twice is fine

    newest, oldest = artifacts.list_artifacts(client, "acme", "team/app")  # not the children

    assert (newest.digest, newest.tags, newest.platforms, newest.labels) == (new, ("v2",), ("linux/amd64",), ())
    assert (oldest.digest, oldest.tags, oldest.platforms, oldest.labels) == (old, ("v1",), BOTH, ("prod",))


def test_artifact_that_was_tagged_and_untagged(fake: FakeHarbor, client: HarborClient) -> None:
    digest = fake.push("acme/app", "v1")

    tags.add_tag(client, "acme", "app", digest, "stable")
    tags.delete_tag(client, "acme", "app", digest, "v1")
    tags.delete_tag(client, "acme", "app", digest, "v1")

    found = artifacts.find_artifact(client, "acme", "app", "stable")
    assert found is not None
    assert (found.digest, found.tags) == (digest, ("stable",))
    assert artifacts.find_artifact(client, "acme", "app", "v1") is None


def test_artifacts_of_a_listing_that_loses_one_meanwhile_are_all_found(fake: FakeHarbor, client: HarborClient) -> None:
    for number in range(105):
        fake.push("acme/app", f"v{number}")

    def lose_one(path: str, number: int) -> None:
        if path.endswith("/artifacts") and fake.content.find("acme/app", "v104"):
            fake.content.remove(next(one for one in fake.content.listed("acme/app") if one.tag_names == ["v104"]))

    fake.after_page = lose_one

    found = [artifact.tags[0] for artifact in artifacts.list_artifacts(client, "acme", "app")]

    assert sorted(found) == sorted(f"v{number}" for number in range(104))


def test_artifact_page_too_long_is_read_in_parts(fake: FakeHarbor, client: HarborClient) -> None:
    for number in range(30):
        fake.push("acme/app", f"v{number}")
    fake.item_bytes = 200_000

    assert len(list(artifacts.list_artifacts(client, "acme", "app"))) == 30


def test_child_of_an_index_cannot_be_deleted_alone(fake: FakeHarbor, client: HarborClient) -> None:
    fake.push("acme/app", "v1", platforms=BOTH)
    child = next(one.digest for one in fake.content.all_of("acme/app") if not one.is_index)

    with pytest.raises(RemoteError) as caught:
        artifacts.delete_artifact(client, "acme", "app", child)

    assert caught.value.status == 412


def test_repository_deleted_twice_is_fine(fake: FakeHarbor, client: HarborClient) -> None:
    fake.push("acme/team/app", "v1", platforms=BOTH)

    for _ in range(2):
        artifacts.delete_repository(client, "acme", "team/app")

    assert list(artifacts.list_repositories(client, "acme")) == []


def test_label_is_found_by_its_whole_name(client: HarborClient) -> None:
    labels.ensure_label(client, "production")

    prod = labels.ensure_label(client, "prod")

    assert labels.ensure_label(client, "prod") == prod
    assert [label.name for label in labels.list_labels(client)] == ["production", "prod"]


def test_project_that_a_robot_may_not_see_is_not_found(client: HarborClient) -> None:
    assert projects.find_project(client, "nope") is None
    found = projects.find_project(client, "acme")
    assert found is not None
    assert not found.is_public


def test_fake_artifacts_have_the_real_ones_keys(fake: FakeHarbor, client: HarborClient) -> None:
    fake.push("acme/app", "v1", platforms=BOTH)
    (document,) = client.items("/projects/acme/repositories/app/artifacts", {"with_label": "true"})
    real = golden("artifact-index.json")

    assert set(document) == set(real)
    assert set(document["tags"][0]) == set(real["tags"][0])


def test_label_that_was_taken_off(fake: FakeHarbor, client: HarborClient) -> None:
    fake.push("acme/app", "v1")
    edge = labels.ensure_label(client, "edge")
    labels.add_label(client, "acme", "app", "v1", edge)

    for _ in range(2):
        labels.remove_label(client, "acme", "app", "v1", edge)

    (found,) = artifacts.list_artifacts(client, "acme", "app")
    assert found.labels == ()
    assert tags.list_tags(client, "acme", "app", found.digest) == ("v1",)
