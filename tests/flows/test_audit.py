"""The audit as a flow: once as it should go, and once when what is damaged cannot be had."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from prefect.client.orchestration import get_client

from flows.audit_registry import audit_registry
from flows.publish_state import publish_state
from flows.reconcile_fleet import reconcile_fleet
from flows.register_satellite import register_satellite
from flows.replicate_state import replicate_state
from harbor_satellite.demo.images import layer
from harbor_satellite.errors import InvalidInputError
from harbor_satellite.satellite.findings import load_last_audit

if TYPE_CHECKING:
    from pathlib import Path

    from harbor_satellite.registry.layout import LayoutRegistry
    from tests.flows.conftest import World

APP = "acme/app"
LAYER = layer("one", 2000).descriptor.digest


@pytest.fixture
def satellite(world: World) -> str:
    """A satellite that has replicated one image, with a byte flipped in its layer."""
    name = "shop-audit"
    world.image(APP, "one")
    world.ground_control.sync_group("stores", APP)
    world.give_token(world.ground_control.register(name, "stores"))
    assert register_satellite() == name
    publish_state(return_state=True)
    reconcile_fleet(return_state=True)
    assert replicate_state(name, return_state=True).is_completed()
    path = file_of(world.local)
    raw = bytearray(path.read_bytes())
    raw[0] ^= 1
    path.write_bytes(raw)
    return name


def file_of(registry: LayoutRegistry) -> Path:
    return registry.root / APP / "blobs" / LAYER.algorithm / LAYER.hex


def tables() -> list[str]:
    with get_client(sync_client=True) as client:
        return [artifact.key or "" for artifact in client.read_artifacts()]


def test_audit_registry_heals_shows_it_and_then_shows_nothing(world: World, satellite: str) -> None:
    healed = audit_registry(satellite, return_state=True)

    assert healed.is_completed(), healed.message
    assert "1 damaged, 1 healed" in (healed.message or "")
    assert file_of(world.local).read_bytes() == file_of(world.centre).read_bytes()
    shown = [key for key in tables() if key == "audit-shop--audit"]
    assert len(shown) == 1
    assert replicate_state(satellite, return_state=True).is_completed()

    again = audit_registry(satellite, return_state=True)

    assert again.is_completed()
    assert [key for key in tables() if key == "audit-shop--audit"] == shown


def test_audit_registry_source_has_it_no_more_fails_and_keeps_it_on_record(world: World, satellite: str) -> None:
    file_of(world.centre).unlink()

    state = audit_registry(satellite, return_state=True)

    assert state.is_failed()
    assert f"1 left damaged: blob wrong bytes: {APP}@{LAYER}" in (state.message or "")
    kept = load_last_audit(world.store)
    assert kept is not None
    assert [finding.digest for finding in kept.damaged] == [LAYER]


def test_audit_registry_meant_for_another_satellite_is_refused(world: World, satellite: str) -> None:
    with pytest.raises(InvalidInputError, match="the run is meant for another"):
        audit_registry("another")
