"""What belongs to a group comes from a list, from selectors, and from a stock replication rule of Harbor."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.acceptance import artifacts
from tests.acceptance.centre import wait_until
from tests.fakes.link import link

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.acceptance.centre import Centre
    from tests.acceptance.site import Site
    from tests.fakes.link import Link

    Join = Callable[..., Site]

LARGE_BYTES = 3_000_000
SMALL_BYTES = 100_000


@pytest.mark.acceptance("A18")
def test_selector_follows_a_push_that_harbor_tells_of(centre: Centre, name: str, join: Join) -> None:
    _select(centre, name)
    made = centre.api.post("/api/webhooks", json={"project": name, "in_harbor": True})
    site = join(name, name)
    centre.wait_published(name, {name: {}})

    wanted = {f"{name}/app:v1": _push(centre, f"{name}/app:v1")}
    _push(centre, f"{name}/app:latest")
    run = site.follow({name: wanted})

    assert (made.status_code, run.returncode) == (200, 0)
    assert site.holds(*wanted, f"{name}/app:latest") == wanted | {f"{name}/app:latest": None}
    assert centre.central.robots(name) == {f"robot${name}": {"satellite", name}}


@pytest.mark.acceptance("A18")
def test_selector_follows_a_push_that_nobody_told_of_with_the_next_periodic_publish(
    centre: Centre, name: str, join: Join
) -> None:
    _select(centre, name)
    site = join(name, name)
    centre.wait_published(name, {name: {}})

    wanted = {f"{name}/app:v1": _push(centre, f"{name}/app:v1")}
    centre.run_flow("publish-state/central")
    run = site.follow({name: wanted})

    assert (run.returncode, site.holds(*wanted)) == (0, wanted)


@pytest.mark.acceptance("A18")
def test_replication_rule_of_harbor_brings_an_image_to_a_site_and_takes_it_away_and_moves_no_layer(
    centre: Centre, name: str, join: Join
) -> None:
    reference = f"{name}/app:v1"
    _make_project(centre, name)
    centre.put_group(name, {})
    site = join(name, name)
    with _rule(centre, name) as line:
        digest = artifacts.push_simple_image(centre.central.client, reference, reference, LARGE_BYTES)
        arrived = site.follow({name: {reference: digest}})
        held = site.holds(reference)
        robots = centre.central.robots(name)
        moved = line.counters().bytes_from_client

        deleted = centre.central.api.delete(f"/projects/{name}/repositories/app/artifacts/{digest}")
        gone = site.follow({name: {}})

    assert (arrived.returncode, held) == (0, {reference: digest})
    assert robots == {f"robot${name}": {"satellite", name}}
    assert 0 < moved < SMALL_BYTES
    assert (deleted.status_code, gone.returncode, site.holds(reference)) == (200, 0, {reference: None})


@pytest.mark.acceptance("A18")
def test_list_selector_and_rule_add_up(centre: Centre, name: str) -> None:
    listed, selected, ruled = f"{name}-listed/app:v1", f"{name}/app:v1", f"{name}-ruled/app:v1"
    wanted = {reference: _push(centre, reference) for reference in (listed, selected)}
    _make_project(centre, f"{name}-ruled")
    centre.put_group(name, {listed: wanted[listed]})
    _select(centre, name, is_new=False)
    centre.claim(centre.add_satellite(name, [name]))

    with _rule(centre, name, f"{name}-ruled"):
        wanted[ruled] = _push(centre, ruled)
        centre.wait_published(name, {name: wanted})

    projects = {"satellite", name, f"{name}-listed", f"{name}-ruled"}
    wait_until(
        lambda: centre.central.robots(name), lambda robots: robots == {f"robot${name}": projects}, "all projects"
    )


def _push(centre: Centre, reference: str) -> str:
    return artifacts.push_simple_image(centre.central.client, reference, reference)


def _make_project(centre: Centre, project: str) -> None:
    made = centre.central.api.post("/projects", json={"project_name": project, "public": False})
    assert made.status_code == 201, made.text


def _select(centre: Centre, name: str, *, is_new: bool = True) -> None:
    """Let a group hold every tag of a project of its name that starts with v."""
    if is_new:
        _make_project(centre, name)
        centre.put_group(name, {})
    answer = centre.api.put(f"/api/groups/{name}/selectors", json={"selectors": [{"project": name, "tag": "v*"}]})
    assert answer.status_code == 200, answer.text


@contextmanager
def _rule(centre: Centre, group: str, project: str = "") -> Iterator[Link]:
    """Make endpoint and rule as somebody does in Harbor's own pages; gives the line between the two."""
    issued = centre.api.post(f"/api/groups/{group}/rule", json={})
    assert issued.status_code == 200, issued.text
    told = issued.json()
    with link(told["endpoint"]) as line:
        endpoint = {
            "name": group,
            "type": "docker-registry",
            "url": line.url,
            "insecure": True,
            "credential": {"type": "basic", "access_key": told["username"], "access_secret": told["secret"]},
        }
        made = centre.central.api.post("/registries", json=endpoint)
        assert made.status_code == 201, made.text
        rule = {
            "name": group,
            "enabled": True,
            "deletion": True,
            "override": True,
            "trigger": {"type": "event_based"},
            "filters": [{"type": "name", "value": f"{project or group}/**"}],
            "dest_registry": {"id": int(made.headers["Location"].rpartition("/")[2])},
            "dest_namespace": told["namespace"],
            "dest_namespace_replace_count": 0,
        }
        made = centre.central.api.post("/replication/policies", json=rule)
        assert made.status_code == 201, made.text
        try:
            yield line
        finally:
            centre.central.api.delete(f"/replication/policies/{made.headers['Location'].rpartition('/')[2]}")
