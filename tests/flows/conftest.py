"""One Prefect test server for the session; a centre and a site on loopback for each test."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from prefect.testing.utilities import prefect_test_harness
from pydantic import SecretStr

from harbor_satellite.demo.images import AMD64, layer, push_image, tag_image
from harbor_satellite.ground_control.api.context import AppOptions
from harbor_satellite.ground_control.database import make_engine, make_session_factory, migrate
from harbor_satellite.ground_control.people import users
from harbor_satellite.ground_control.satellites.sources import OciSource
from harbor_satellite.registry.layout import LayoutRegistry
from harbor_satellite.registry.server import create_registry_app
from harbor_satellite.satellite.store import SatelliteStore
from tests.fixtures_ground_control import ADMIN_PASSWORD, GroundControl, _fresh, running_ground_control, serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harbor_satellite.oci.digest import Digest


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=240):
        yield


@dataclass
class World:
    """Both ends: what a test arranges and looks at."""

    centre: LayoutRegistry
    local: LayoutRegistry
    ground_control: GroundControl
    store: SatelliteStore
    monkeypatch: pytest.MonkeyPatch

    def image(self, repository: str, content: str, tag: str = "v1") -> Digest:
        found = push_image(self.centre, repository, AMD64, [layer(content, 2000)])
        tag_image(self.centre, repository, tag, found)
        return found.digest

    def give_token(self, token: str) -> None:
        self.monkeypatch.setenv("HARBOR_SATELLITE_TOKEN", token)


@pytest.fixture
def world(prefect_server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    database = f"sqlite:///{tmp_path / 'ground-control.sqlite'}"
    migrate(database)
    engine = make_engine(database)
    factory = make_session_factory(engine)
    with factory.begin() as session:
        users.ensure_first_user(session, SecretStr(ADMIN_PASSWORD), datetime.now(UTC))
    with (
        LayoutRegistry(tmp_path / "centre") as centre,
        LayoutRegistry(tmp_path / "local") as local,
        serve(create_registry_app(centre, None, allow_anonymous_writes=True)) as centre_url,
        serve(create_registry_app(local, None, allow_anonymous_writes=True)) as local_url,
        running_ground_control(factory, OciSource(), AppOptions(source_url=centre_url)) as ground_control,
    ):
        for name, value in {
            "HARBOR_SATELLITE_GROUND_CONTROL_DATABASE_URL": database,
            "HARBOR_SATELLITE_GROUND_CONTROL_SOURCE_KIND": "oci",
            "HARBOR_SATELLITE_GROUND_CONTROL_SOURCE_URL": centre_url,
            "HARBOR_SATELLITE_GROUND_CONTROL_URL": ground_control.url,
            "HARBOR_SATELLITE_LOCAL_REGISTRY_URL": local_url,
            "HARBOR_SATELLITE_DATA_DIR": str(tmp_path / "satellite"),
        }.items():
            monkeypatch.setenv(name, value)
        store = SatelliteStore(tmp_path / "satellite")
        yield World(centre, local, _fresh(ground_control), store, monkeypatch)
    engine.dispose()
