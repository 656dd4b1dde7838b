"""Several rounds of one run: a link that goes away after a good one, and a table of what is in quarantine."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.sorting import ArtifactSort

from flows.publish_state import publish_state
from flows.register_satellite import register_satellite
from flows.replicate_state import follow, replicate_state
from harbor_satellite.demo.images import layer
from harbor_satellite.edge.own_site import open_own_site
from harbor_satellite.errors import RemoteError
from harbor_satellite.satellite.engine import Engine
from tasks.site import Site, open_site
from tasks.tables import artifact_key

if TYPE_CHECKING:
    from harbor_satellite.oci.digest import Digest
    from harbor_satellite.satellite.outcome import RunOutcome
    from tests.flows.conftest import World

APP, BAD, NEW = "acme/app", "acme/bad", "acme/new"


class LosingLink(Engine):
    """An engine whose link is gone after so many looks at the centre."""

    looks_left = 0

    def check(self, state_url: str) -> Digest | None:
        if not self.looks_left:
            # Not retryable, as a test has no half a minute to wait for what is not there.
            raise RemoteError("the link is cut")
        self.looks_left -= 1
        return super().check(state_url)


@flow(name="follow", persist_result=False, validate_parameters=False)
def follow_in_flow(site: Site) -> RunOutcome:
    return follow(site)


def follow_until_cut(satellite: str, looks: int) -> RunOutcome:
    """Follow the current state over a link that is gone after so many looks."""
    with open_site(satellite) as site:
        engine = LosingLink(site.engine.connections, site.engine.store, site.engine.options)
        engine.looks_left = looks
        return follow_in_flow(Site(satellite, site.registration, engine))


def join(world: World, name: str, *repositories: str) -> None:
    """Publish images in a group, and let this site be a satellite of it."""
    world.ground_control.sync_group("stores", *repositories)
    world.give_token(world.ground_control.register(name, "stores"))
    register_satellite()
    publish_state(return_state=True)


def newest_table(satellite: str) -> list[tuple[str, str]]:
    """Return action and reference of each row of the newest table of a satellite's runs."""
    key = ArtifactFilter(key=ArtifactFilterKey(any_=[artifact_key(satellite)]))
    with get_client(sync_client=True) as client:
        (newest,) = client.read_artifacts(artifact_filter=key, sort=ArtifactSort.CREATED_DESC, limit=1)
    return [(row["action"], row["reference"]) for row in json.loads(str(newest.data))]


def test_follow_link_lost_after_a_good_round_keeps_what_was_done(world: World) -> None:
    digest = world.image(APP, "one")
    join(world, "shop-1", APP)

    outcome = follow_until_cut("shop-1", looks=1)

    applied = world.store.applied()
    assert [image.reference for image in outcome.of("copied")] == [f"{APP}:v1"]
    assert world.local.manifest_get(APP, "v1").digest == digest
    assert (applied.is_converged, applied.failures) == (True, ())


def test_follow_link_lost_before_any_round_fails(world: World) -> None:
    world.image(APP, "one")
    join(world, "shop-2", APP)

    with pytest.raises(RemoteError, match="the link is cut"):
        follow_until_cut("shop-2", looks=0)

    assert world.local.tag_list(APP) == ()


def test_replicate_state_news_beside_quarantine_shows_both(world: World) -> None:
    for repository in (APP, BAD):
        world.image(repository, repository)
    join(world, "shop-3", APP, BAD)
    (world.centre.root / BAD / "blobs/sha256" / layer(BAD, 2000).descriptor.digest.hex).unlink()
    first = replicate_state("shop-3", return_state=True)
    world.image(NEW, "new")
    world.ground_control.sync_group("stores", APP, BAD, NEW)
    publish_state(return_state=True)

    second = replicate_state("shop-3", return_state=True)

    rows = newest_table("shop-3")
    assert first.is_failed()
    assert second.is_completed(), second.message
    assert rows == [("quarantined", f"{BAD}:v1"), ("copied", f"{NEW}:v1"), ("kept", f"{APP}:v1")]


def test_flow_run_that_meets_another_run_of_the_site_ends_completed_and_leaves_it_alone(world: World) -> None:
    join(world, "met", APP)

    with world.store.lock():
        state = replicate_state("met", return_state=True)

    assert (state.name, state.message) == (
        "Completed",
        "another run is under way at this site, and does all there is to do",
    )
    assert world.store.applied().last_run is None


def test_flow_run_that_meets_the_sites_own_run_waits_for_it_and_says_how_the_site_is(world: World) -> None:
    world.image(APP, "app")
    join(world, "met-own", APP)
    publish_state(return_state=True)
    register_satellite(return_state=True)
    is_held, ends = threading.Event(), []

    def hold() -> None:
        with open_own_site(is_local=True):
            is_held.set()
            time.sleep(0.5)  # the flow run comes meanwhile
            ends.append(time.monotonic())

    holding = threading.Thread(target=hold)
    holding.start()
    is_held.wait(30)

    with open_site("met-own"):
        opened = time.monotonic()

    holding.join()
    assert opened >= ends[0]
