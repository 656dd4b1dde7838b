"""The fake Harbor's registry: what comes over ``/v2/`` is seen over the API, and tokens are the real one's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from pydantic import SecretStr

from harbor_satellite.errors import RemoteError
from harbor_satellite.harbor import artifacts, robots
from harbor_satellite.harbor.client import HarborClient
from harbor_satellite.oci import media_types
from harbor_satellite.oci.descriptor import Descriptor
from harbor_satellite.oci.digest import Digest
from harbor_satellite.registry.api import ManifestContent
from harbor_satellite.registry.auth import Credentials
from harbor_satellite.registry.client import HttpRegistry
from tests.fakes.harbor_accounts import ADMIN
from tests.fakes.harbor_registry import Backend
from tests.fakes.registry import FakeRegistry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fakes.harbor import FakeHarbor


@pytest.fixture
def fake(fake_harbor: tuple[FakeHarbor, str]) -> FakeHarbor:
    fake_harbor[0].accounts.projects["acme"] = False
    return fake_harbor[0]


@pytest.fixture
def url(fake_harbor: tuple[FakeHarbor, str]) -> str:
    return fake_harbor[1]


@pytest.fixture
def client(fake: FakeHarbor, url: str) -> Iterator[HarborClient]:
    with HarborClient(url, ADMIN[0], SecretStr(ADMIN[1]), timeout_seconds=5) as client:
        yield client


def open_registry(url: str, username: str = ADMIN[0], password: str = ADMIN[1]) -> HttpRegistry:
    return HttpRegistry(url, credentials=Credentials(username, SecretStr(password)))


def push_image(registry: HttpRegistry, repository: str, tag: str, platform: str = "linux/arm64") -> str:
    """Push as a client does: blobs, then the manifest."""
    os, architecture = platform.split("/")
    config = f'{{"os":"{os}","architecture":"{architecture}"}}'.encode()
    layer = tag.encode()
    described = []
    for body, kind in ((config, media_types.OCI_CONFIG), (layer, media_types.OCI_LAYER_GZIP)):
        descriptor = Descriptor(kind, Digest.of(body), len(body))
        registry.blob_put(repository, descriptor, [body])
        described.append({"mediaType": kind, "digest": str(descriptor.digest), "size": len(body)})
    document = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "config": described[0],
        "layers": described[1:],
    }
    raw = httpx.Request("PUT", "http://x", json=document).content
    registry.manifest_put(repository, tag, ManifestContent(media_types.OCI_MANIFEST, raw))
    return str(Digest.of(raw))


@pytest.mark.parametrize("is_real", [False, True], ids=["in memory", "in front of a registry"])
def test_push_over_the_registry_shows_in_the_api(
    fake: FakeHarbor, client: HarborClient, url: str, *, is_real: bool
) -> None:
    with FakeRegistry().serving() as behind, open_registry(url) as registry:
        fake.backend = Backend(behind if is_real else "")
        digest = push_image(registry, "acme/team/app", "v1")

        (found,) = artifacts.list_artifacts(client, "acme", "team/app")
        pulled = registry.manifest_head("acme/team/app", "v1")

    assert (found.digest, found.tags, found.platforms) == (digest, ("v1",), ("linux/arm64",))
    assert pulled is not None
    assert str(pulled.digest) == digest


def test_deletion_over_the_api_is_seen_by_the_registry(fake: FakeHarbor, client: HarborClient, url: str) -> None:
    with open_registry(url) as registry:
        push_image(registry, "acme/app", "v1")

        artifacts.delete_repository(client, "acme", "app")

        assert registry.manifest_head("acme/app", "v1") is None


def test_push_to_a_project_that_is_not_there_is_not_found(fake: FakeHarbor, url: str) -> None:
    with open_registry(url) as registry, pytest.raises(RemoteError) as caught:
        push_image(registry, "nope/app", "v1")

    assert caught.value.status == 404


def test_satellite_robot_pulls_and_does_not_push(fake: FakeHarbor, client: HarborClient, url: str) -> None:
    fake.push("acme/app", "v1")
    fake.push("other/app", "v1")
    robot = robots.create_robot(client, "edge-1", ["acme"], 30)

    with open_registry(url, robot.name, robot.secret.get_secret_value()) as registry:
        assert registry.manifest_head("acme/app", "v1") is not None
        for act in (lambda: push_image(registry, "acme/app", "v2"), lambda: registry.manifest_head("other/app", "v1")):
            with pytest.raises(RemoteError) as caught:
                act()
            assert caught.value.status in {401, 403}


def test_wrong_credentials_get_a_token_that_is_good_for_nothing(fake: FakeHarbor, url: str) -> None:
    fake.push("acme/app", "v1")
    scope = {"scope": "repository:acme/app:pull", "service": "harbor-registry"}

    with httpx.Client(base_url=url) as http:
        answer = http.get("/service/token", params=scope, auth=("admin", "wrong"))
        token = answer.json()["token"]
        pulled = http.get("/v2/acme/app/manifests/v1", headers={"Authorization": f"Bearer {token}"})

    assert answer.status_code == 200
    assert (pulled.status_code, pulled.json()["errors"][0]["code"]) == (401, "UNAUTHORIZED")


def test_token_outlives_its_robot_by_half_an_hour(fake: FakeHarbor, client: HarborClient, url: str) -> None:
    fake.push("acme/app", "v1")
    robot = robots.create_robot(client, "edge-1", ["acme"], 30)
    scope = {"scope": "repository:acme/app:pull,push", "service": "harbor-registry"}
    statuses: list[Any] = []

    with httpx.Client(base_url=url) as http:
        basic = (robot.name, robot.secret.get_secret_value())
        token = http.get("/service/token", params=scope, auth=basic).json()["token"]
        robots.delete_robot(client, str(robot.id))
        bearer = {"Authorization": f"Bearer {token}"}
        statuses.append(http.get("/v2/acme/app/manifests/v1", auth=basic).status_code)
        for minutes in (0, 29, 31):
            fake.accounts.now = datetime.now(UTC) + timedelta(minutes=minutes)
            statuses.append(http.get("/v2/acme/app/manifests/v1", headers=bearer).status_code)

    assert statuses == [401, 200, 200, 401]
