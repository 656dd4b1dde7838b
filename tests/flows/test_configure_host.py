"""The host's runtimes as a flow: once as it should go, and once when a runtime's file stands in the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from flows.configure_host import configure_host
from flows.register_satellite import register_satellite
from harbor_satellite.errors import InvalidInputError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.flows.conftest import World


@pytest.fixture
def host(world: World, tmp_path: Path) -> Path:
    """A host with Podman, whose agent is registered."""
    world.give_token(world.ground_control.register("shop-host"))
    register_satellite()
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/podman").touch()
    world.monkeypatch.setenv("HARBOR_SATELLITE_HOST_ROOT", str(root))
    world.monkeypatch.setenv("HARBOR_SATELLITE_RUNTIMES", "podman")
    world.monkeypatch.setattr("os.geteuid", lambda: 0)
    return root


def test_configure_host_points_the_runtimes_at_the_local_registry(world: World, host: Path) -> None:
    state = configure_host("shop-host", return_state=True)

    assert state.is_completed(), state.message
    assert "satellite.zot" in (host / "etc/containers/registries.conf.d/50-harbor-satellite.conf").read_text()


def test_configure_host_what_stands_in_the_way_fails_the_run(world: World, host: Path) -> None:
    (host / "etc/containers").mkdir()
    (host / "etc/containers/registries.conf").write_text("[registries.search]\nregistries = ['docker.io']\n")

    state = configure_host("shop-host", return_state=True)

    assert state.is_failed()
    assert "of the old format" in (state.message or "")


def test_configure_host_meant_for_another_satellite_is_refused(world: World, host: Path) -> None:
    with pytest.raises(InvalidInputError, match="this site is shop-host"):
        configure_host("another")
