from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr

from harbor_satellite.demo.images import AMD64, layer, push_image
from harbor_satellite.errors import InvalidInputError, RemoteError
from harbor_satellite.oci.reference import Reference
from harbor_satellite.registry.auth import Credentials
from harbor_satellite.registry.client import HttpRegistry
from harbor_satellite.registry.layout import LayoutRegistry
from harbor_satellite.registry.state_store import StatePusher
from harbor_satellite.satellite.connections import Connections, registry_host
from harbor_satellite.satellite.engine import Engine
from harbor_satellite.satellite.store import SatelliteStore
from harbor_satellite.satellite.sync import sync_satellite
from harbor_satellite.state.artifact import StateArtifact, state_artifact_json
from harbor_satellite.state.names import GroupName, SatelliteName, group_state_repository
from harbor_satellite.state.satellite_state import SatelliteState, StatePin, satellite_state_json
from tests.fakes.registry import FakeRegistry
from tests.unit.satellite.site import OPTIONS, wanted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WHO = Credentials("robot$edge", SecretStr("made-up-secret"))


@pytest.fixture
def local(tmp_path: Path) -> Iterator[LayoutRegistry]:
    with LayoutRegistry(tmp_path / "local", "local.test") as registry:
        yield registry


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://harbor.example/satellite/x:latest", "harbor.example"),
        ("http://h:5000", "h:5000"),
        ("h:5000/a/b", "h:5000"),
        ("[::1]:5000", "[::1]:5000"),
    ],
)
def test_registry_host(url: str, host: str) -> None:
    assert registry_host(url) == host


@pytest.mark.parametrize("url", ["", "https://", "https://user:secret@h", "h:port", "../x"])
def test_registry_host_of_something_else_is_refused(url: str) -> None:
    with pytest.raises(InvalidInputError):
        registry_host(url)


def test_source_of_state_that_names_none_is_home(local: LayoutRegistry) -> None:
    with Connections(home_url="http://127.0.0.1:5000", credentials=None, target=local) as connections:
        assert connections.source("").name == "127.0.0.1:5000"
        assert connections.source("127.0.0.1:5000") is connections.source("")


def test_source_without_home_or_name_is_refused(local: LayoutRegistry) -> None:
    with Connections(home_url="", credentials=None, target=local) as connections, pytest.raises(InvalidInputError):
        connections.source("")


def test_source_is_only_copies_all_from_home(local: LayoutRegistry) -> None:
    with Connections(home_url="http://h:1", credentials=None, target=local, is_only=True) as connections:
        assert connections.source("https://other.example").name == "h:1"


def test_source_other_registry_never_sees_the_credential(local: LayoutRegistry) -> None:
    home, other = FakeRegistry(auth="basic"), FakeRegistry(auth="basic")

    with (
        home.serving() as home_url,
        other.serving() as other_url,
        Connections(home_url=home_url, credentials=WHO, target=local) as connections,
    ):
        connections.source(home_url).tag_list("acme/app")
        with pytest.raises(RemoteError, match="401"):
            connections.source(other_url).tag_list("acme/app")

    assert any("authorization" in one.headers for one in home.requests)
    assert not any("authorization" in one.headers for one in other.requests)


@pytest.mark.parametrize("auth", ["", "basic"], ids=["open", "basic"])
def test_sync_over_http_unchanged_costs_one_request_for_the_state(
    tmp_path: Path, local: LayoutRegistry, auth: str
) -> None:
    centre = FakeRegistry(auth=auth)
    store = SatelliteStore(tmp_path / "satellite")
    with centre.serving() as url:
        host = registry_host(url)
        with HttpRegistry(url, credentials=WHO) as registry:
            image = push_image(registry, "acme/app", AMD64, [layer("one", 2000)])
        group, pusher = GroupName("g"), StatePusher(host, plain_http=True, credentials=WHO)
        state = StateArtifact(group, url, (wanted("acme/app", image.digest, "v1"),), 1)
        digest = pusher.push(group_state_repository(group), ("latest",), state_artifact_json(state))
        pin = StatePin(group, Reference(host, group_state_repository(group), "latest", digest), 1)
        raw = satellite_state_json(SatelliteState(SatelliteName("shop"), (pin,), scheme="http"))
        pusher.push("satellite/satellite-state/shop/state", ("latest",), raw)
        outcomes = []
        for _ in range(2):
            centre.requests.clear()
            with Connections(home_url=url, credentials=WHO, target=local) as connections:
                engine = Engine(connections, store, OPTIONS)
                outcomes.append(sync_satellite(engine, f"{url}/satellite/satellite-state/shop/state:latest"))

    assert [len(outcome.of("copied")) for outcome in outcomes] == [1, 0]
    assert [one.method for one in centre.requests if one.path != "/v2/"] == ["HEAD"]
    assert outcomes[1].requests == len(centre.requests) <= 2


def test_source_left_open_by_an_earlier_run_is_logged_in_and_counts_anew(local: LayoutRegistry) -> None:
    centre = FakeRegistry(auth="basic")
    with centre.serving() as url, HttpRegistry(url, credentials=WHO) as home:
        requests = []
        for _ in range(2):
            with Connections(home_url=url, credentials=WHO, target=local, home=home) as connections:
                connections.source("").manifest_head("acme/app", "v1")
                requests.append(connections.requests)

    assert requests[1] == 1 < requests[0]
