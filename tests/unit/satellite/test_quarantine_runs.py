"""What fails over several runs: who waits for it, what it costs, and what wrong clocks do to it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from harbor_satellite.errors import RemoteError
from harbor_satellite.oci.digest import Digest
from harbor_satellite.satellite.replication import FetchedState
from harbor_satellite.satellite.state_input import states_digest
from harbor_satellite.satellite.sync import Watcher, sync_fetched, sync_satellite
from harbor_satellite.state.artifact import StateArtifact
from harbor_satellite.state.names import GroupName, satellite_state_repository
from tests.unit.satellite.site import SCHEDULED, SHOP, STATE_URL, Site, wanted
from tests.unit.satellite.test_sync import forget_local

if TYPE_CHECKING:
    from harbor_satellite.state.artifact import StateEntry

APP, TOOL = "acme/app", "acme/tool"
MISSING = wanted(TOOL, Digest.of(b"missing"), "v1")
UNAVAILABLE = RemoteError("503 Service Unavailable", status=503, retryable=True)
BROKEN = RemoteError("500 Internal Server Error", status=500, retryable=True)
FORBIDDEN = RemoteError("403 Forbidden", status=403)


def fetched(*entries: StateEntry, generation: int = 1) -> FetchedState:
    state = StateArtifact(GroupName("g"), "", entries, generation)
    return FetchedState(states_digest((state,)), (state,))


def publish_both(site: Site, content: str) -> None:
    """Publish two images in one group."""
    site.publish({"g": [wanted(name, site.image(name, content), "v1") for name in (APP, TOOL)]})


def test_sync_missing_image_in_two_rounds_of_a_run_counts_once(site: Site) -> None:
    engine = site.engine(SCHEDULED)
    watcher = Watcher(sleep=lambda _: None)
    sync_fetched(engine, fetched(MISSING), watcher)
    other = wanted(APP, site.image(APP, "one"), "v1")

    sync_fetched(engine, fetched(MISSING, other, generation=2), watcher)

    assert [item.failures for item in site.store.applied().quarantine] == [1]


def test_sync_image_that_comes_at_the_second_try_is_not_in_quarantine(site: Site) -> None:
    site.publish({"g": [wanted(APP, site.image(APP, "one"), "v1")]})
    site.home.refusals = {APP: BROKEN}

    def mend(_seconds: float) -> None:
        site.home.refusals = {}

    outcome = sync_satellite(site.engine(SCHEDULED), STATE_URL, Watcher(sleep=mend))

    assert outcome.is_converged
    assert site.store.applied().quarantine == ()


def test_sync_image_that_its_registry_failed_to_give_is_tried_in_the_next_run(site: Site) -> None:
    digest = site.image(APP, "one")
    site.home.refusals = {APP: BROKEN}
    failed = site.follow({"g": [wanted(APP, digest, "v1")]}, SCHEDULED)
    site.home.refusals = {}

    site.sync(SCHEDULED)

    assert len(failed.of("failed")) == 1
    assert site.local_tags(APP) == {"v1": digest}


def test_sync_missing_image_that_comes_leaves_quarantine(site: Site) -> None:
    digest = site.image(TOOL, "tool")
    content = site.home.manifest_get(TOOL, str(digest))
    site.home.manifest_delete(TOOL, str(digest))
    site.follow({"g": [wanted(TOOL, digest, "v1")]}, SCHEDULED)
    site.home.manifest_put(TOOL, str(digest), content)
    site.pass_time(timedelta(minutes=6))

    site.sync(SCHEDULED)

    assert site.local_tags(TOOL) == {"v1": digest}
    assert site.store.applied().quarantine == ()


def test_sync_clock_far_ahead_once_does_not_stop_later_tries(site: Site) -> None:
    digest = site.image(TOOL, "tool")
    content = site.home.manifest_get(TOOL, str(digest))
    site.home.manifest_delete(TOOL, str(digest))
    site.publish({"g": [wanted(TOOL, digest, "v1")]})
    site.pass_time(timedelta(days=4000))
    site.sync(SCHEDULED)
    site.pass_time(-timedelta(days=3970))
    site.home.manifest_put(TOOL, str(digest), content)

    site.sync(SCHEDULED)

    assert site.local_tags(TOOL) == {"v1": digest}


def test_sync_clock_set_back_does_not_publish_half_a_group(site: Site) -> None:
    publish_both(site, "1")
    site.sync(SCHEDULED)
    publish_both(site, "2")
    site.home.refusals = {TOOL: BROKEN}
    before = site.local_tags(APP)
    site.sync(SCHEDULED)
    site.pass_time(-timedelta(minutes=1))

    site.sync(SCHEDULED)

    assert site.local_tags(APP) == before


def test_sync_source_unavailable_for_hours_does_not_publish_half_a_group(site: Site) -> None:
    publish_both(site, "1")
    site.sync(SCHEDULED)
    publish_both(site, "2")
    site.home.refusals = {TOOL: UNAVAILABLE}
    before = site.local_tags(APP)

    for _ in range(5):
        site.sync(SCHEDULED)
        site.pass_time(timedelta(minutes=20))

    assert site.local_tags(APP) == before


def test_sync_image_that_its_registry_fails_to_give_for_hours_lets_its_group_go_on(site: Site) -> None:
    publish_both(site, "1")
    site.sync(SCHEDULED)
    publish_both(site, "2")
    site.home.refusals = {TOOL: BROKEN}
    before = site.local_tags(APP)

    for _ in range(5):
        site.sync(SCHEDULED)
        site.pass_time(timedelta(minutes=20))

    assert site.local_tags(APP) != before
    assert [item.is_set_aside for item in site.store.applied().quarantine] == [True]


@pytest.mark.parametrize("refusal", [FORBIDDEN, BROKEN], ids=["forbidden", "broken"])
def test_sync_replacement_that_is_refused_keeps_the_image_it_replaces(site: Site, refusal: RemoteError) -> None:
    old = site.image(APP, "one")
    site.follow({"g": [wanted(APP, old, "v1")]})
    site.publish({"g": [wanted(APP, site.image(APP, "two"), "v2")]})
    site.home.refusals = {APP: refusal}

    site.sync()

    assert site.local_tags(APP) == {"v1": old}


def test_sync_replacement_in_quarantine_keeps_the_image_it_replaces(site: Site) -> None:
    old = site.image(APP, "one")
    site.follow({"g": [wanted(APP, old, "v1")]}, SCHEDULED)
    site.follow({"g": [MISSING]}, SCHEDULED)

    site.follow({"g": [MISSING]}, SCHEDULED, generation=2)

    assert site.local_tags(APP) == {"v1": old}


def test_sync_centre_down_during_quarantine_keeps_what_is_known_of_the_image(site: Site) -> None:
    site.follow({"g": [wanted(APP, site.image(APP, "one"), "v1"), MISSING]}, SCHEDULED)
    site.home.refusals = {satellite_state_repository(SHOP): UNAVAILABLE}
    with pytest.raises(RemoteError):
        site.sync(SCHEDULED)
    site.home.refusals = {}

    outcome = site.sync(SCHEDULED)

    assert [image.reference for image in outcome.of("quarantined")] == [f"{TOOL}:v1"]
    assert [failure.reference for failure in site.store.applied().failures] == [f"{TOOL}:v1"]


def test_sync_centre_down_is_the_first_of_the_failures(site: Site) -> None:
    site.follow({"g": [MISSING]}, SCHEDULED)
    site.home.refusals = {satellite_state_repository(SHOP): UNAVAILABLE}

    with pytest.raises(RemoteError):
        site.sync(SCHEDULED)

    references = [failure.reference for failure in site.store.applied().failures]
    assert references == ["satellite state", f"{TOOL}:v1"]


def test_sync_centre_back_after_a_failed_run_is_converged_without_failures(site: Site) -> None:
    site.follow({"g": [wanted(APP, site.image(APP, "one"), "v1")]})
    site.home.refusals = {satellite_state_repository(SHOP): UNAVAILABLE}
    with pytest.raises(RemoteError):
        site.sync()
    site.home.refusals = {}

    outcome = site.sync()

    assert (outcome.requests, outcome.is_converged) == (1, True)
    assert site.store.applied().failures == ()


def test_sync_disputed_name_wiped_costs_one_request_afterwards(site: Site) -> None:
    entries = [wanted(APP, site.image(APP, content), "v1") for content in ("one", "two")]
    site.follow({"g": entries[:1]}, SCHEDULED)
    site.follow({"g": entries[:1], "h": entries[1:]}, SCHEDULED)
    forget_local(site)
    site.sync(SCHEDULED)

    assert site.sync(SCHEDULED).requests == 1


def test_sync_update_set_aside_and_old_image_wiped_costs_one_request_afterwards(site: Site) -> None:
    site.follow({"g": [wanted(TOOL, site.image(TOOL, "one"), "v1")]}, SCHEDULED)
    site.follow({"g": [MISSING]}, SCHEDULED)
    forget_local(site)
    site.pass_time(timedelta(hours=6))
    site.sync(SCHEDULED)

    assert site.sync(SCHEDULED).requests == 1


def test_sync_at_rest_writes_the_small_record_only(site: Site) -> None:
    site.follow({"g": [wanted(APP, site.image(APP, "one"), "v1")]})
    before = (site.store.folder / "applied.json").stat().st_ino
    site.pass_time(timedelta(minutes=5))

    site.sync()

    assert (site.store.folder / "applied.json").stat().st_ino == before
    last_run = site.store.applied().last_run
    assert last_run is not None
    assert last_run.finished_at == site.now
