"""Satellites that are deleted: refused at once, and nothing of them stays, whatever was down meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.acceptance import artifacts
from tests.acceptance.centre import wait_until

if TYPE_CHECKING:
    from tests.acceptance.centre import Centre

DEPLOYED = {"replicate_state", "audit_registry", "configure_host", "pool"}


@pytest.mark.acceptance("A20")
def test_satellite_without_groups_is_deleted_with_its_credential(centre: Centre, name: str) -> None:
    auth = centre.claim(centre.add_satellite(name, []))
    before = centre.report(name, auth).status_code

    answer = centre.api.delete(f"/api/satellites/{name}")

    assert (before, answer.status_code) == (200, 200)
    assert centre.api.get(f"/api/satellites/{name}").status_code == 404
    assert centre.api.delete(f"/api/satellites/{name}").status_code == 404
    assert centre.report(name, auth).status_code == 401
    wait_until(lambda: _left(centre, name), lambda left: not left, "nothing to be left of the satellite")


@pytest.mark.acceptance("A20")
def test_satellite_deleted_while_harbor_is_down_is_refused_at_once_and_cleaned_up_later(
    centre: Centre, name: str
) -> None:
    reference = f"{name}/app:v1"
    centre.put_group(name, {reference: artifacts.push_simple_image(centre.central.client, reference, name)})
    auth = centre.claim(centre.add_satellite(name, [name]))
    whole = DEPLOYED | {f"robot${name}", "state"}
    wait_until(lambda: _left(centre, name), lambda left: left == whole, "the satellite to be provisioned")

    centre.central.fake.is_down = True
    try:
        answer = centre.api.delete(f"/api/satellites/{name}")
        refused = centre.report(name, auth).status_code
        wait_until(lambda: centre.deployed(name), lambda found: not found, "its deployments to go")
        left = {robot.name for robot in centre.central.fake.accounts.robots.values()}
    finally:
        centre.central.fake.is_down = False
    centre.run_flow("reconcile-fleet/central")

    assert (answer.status_code, refused) == (200, 401)
    assert name in left
    wait_until(lambda: _left(centre, name), lambda left: not left, "nothing to be left of the satellite")


@pytest.mark.acceptance("A20")
def test_name_of_a_deleted_satellite_is_free_and_works_again(centre: Centre, name: str) -> None:
    reference = f"{name}/app:v1"
    wanted = {reference: artifacts.push_simple_image(centre.central.client, reference, name)}
    centre.put_group(name, wanted)
    old = centre.claim(centre.add_satellite(name, [name]))
    centre.wait_published(name, {name: wanted})

    deleted = centre.api.delete(f"/api/satellites/{name}")
    new = centre.claim(centre.add_satellite(name, [name]))

    assert (deleted.status_code, centre.report(name, old).status_code) == (200, 401)
    assert centre.report(name, new).status_code == 200
    whole = DEPLOYED | {new[0], "state"}
    wait_until(lambda: _left(centre, name), lambda left: left == whole, "its successor to be provisioned")
    centre.wait_published(name, {name: wanted})


def _left(centre: Centre, name: str) -> set[str]:
    """Return what there is of a satellite at Prefect and Harbor."""
    state = centre.central.client.manifest_head(f"satellite/satellite-state/{name}/state", "latest")
    return centre.deployed(name) | set(centre.central.robots(name)) | ({"state"} if state else set())
