"""Whole runs without Prefect, between layouts on disk."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from harbor_satellite.demo.images import AMD64, layer, push_artifact, push_image, push_index, tag_image
from harbor_satellite.errors import HarborSatelliteError, RemoteError, UntrustedDataError
from harbor_satellite.oci.digest import Digest
from harbor_satellite.satellite.applied import Applied
from harbor_satellite.satellite.store import SatelliteStore
from harbor_satellite.state.artifact import StateArtifact
from harbor_satellite.state.desired import LocalTag
from harbor_satellite.state.names import GroupName
from harbor_satellite.state.plan import Rule
from tests.unit.satellite.site import OPTIONS, Killed, Local, Site, put_state, wanted

if TYPE_CHECKING:
    from harbor_satellite.satellite.outcome import RunOutcome

APP = "acme/app"


def actions(outcome: RunOutcome) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for image in outcome.images:
        found.setdefault(image.action, []).append(image.reference)
    return {action: sorted(references) for action, references in found.items()}


def forget_local(site: Site) -> None:
    """Wipe the local registry behind the satellite's back."""
    site.local.close()
    shutil.rmtree(site.folder / "local")
    site.local = Local(site.folder / "local", "local.test")


def test_sync_brings_image_with_its_digest(site: Site) -> None:
    digest = site.image(APP, "one")
    site.publish({"g": [wanted(APP, digest, "v1")]})

    outcome = site.sync()

    assert actions(outcome) == {"copied": [f"{APP}:v1"]}
    assert site.local_tags(APP) == {"v1": digest}
    assert outcome.is_converged


def test_sync_unchanged_costs_one_request(site: Site) -> None:
    site.publish({"g": [wanted(APP, site.image(APP, "one"), "v1"), wanted("acme/b", site.image("acme/b", "b"), "v1")]})
    site.sync()

    outcome = site.sync()

    assert outcome.requests == 1
    assert actions(outcome) == {"kept": ["acme/app:v1", "acme/b:v1"]}


def test_sync_tag_moved_follows(site: Site) -> None:
    site.publish({"g": [wanted(APP, site.image(APP, "one"), "v1")]})
    site.sync()
    new = site.image(APP, "two")
    site.publish({"g": [wanted(APP, new, "v1")]})

    site.sync()

    assert site.local_tags(APP) == {"v1": new}
    assert site.store.applied().owned == {LocalTag(APP, "v1"): frozenset({new})}


def test_sync_removed_image_goes_and_foreign_stays(site: Site) -> None:
    site.publish({"g": [wanted(APP, site.image(APP, "one"), "v1")]})
    site.sync()
    foreign = push_image(site.local, APP, AMD64, [layer("foreign", 2000)])
    tag_image(site.local, APP, "mine", foreign)
    site.publish({"g": []})

    outcome = site.sync()

    assert actions(outcome) == {"deleted": [f"{APP}:v1"]}
    assert site.local_tags(APP) == {"mine": foreign.digest}
    assert site.store.applied().owned == {}


def test_sync_image_of_two_groups_survives_leaving_one(site: Site) -> None:
    digest = site.image(APP, "one")
    site.publish({"g": [wanted(APP, digest, "v1")], "h": [wanted(APP, digest, "v1")]})
    site.sync()
    site.publish({"h": [wanted(APP, digest, "v1")]})

    site.sync()

    assert site.local_tags(APP) == {"v1": digest}


def test_sync_deleted_entry_is_not_brought(site: Site) -> None:
    site.publish({"g": [wanted(APP, site.image(APP, "one"), "v1", deleted=True)]})

    outcome = site.sync()

    assert outcome.images == ()
    assert site.local.repository_list() == ()


def test_sync_same_name_in_two_projects_is_stable(site: Site) -> None:
    entries = [wanted(name, site.image(name, name), "v1") for name in ("acme/app", "tools/app")]
    site.publish({"g": entries})
    site.sync()

    outcome = site.sync()

    assert actions(outcome) == {"kept": ["acme/app:v1", "tools/app:v1"]}


def test_sync_one_bad_image_does_not_stop_the_others(site: Site) -> None:
    good = [wanted(f"acme/good{number}", site.image(f"acme/good{number}", "x"), "v1") for number in range(3)]
    site.publish({"g": [wanted("acme/a-bad", Digest.of(b"missing"), "v1"), *good]})

    outcome = site.sync()

    assert len(outcome.of("copied")) == 3
    assert [image.reference for image in outcome.of("failed")] == ["acme/a-bad:v1"]
    assert not outcome.is_converged
    applied = site.store.applied()
    assert (applied.is_converged, applied.applied_at) == (False, None)
    assert applied.failures[0].reference == "acme/a-bad:v1"


def test_sync_bad_update_keeps_serving_the_old_image(site: Site) -> None:
    old = site.image(APP, "one")
    site.publish({"g": [wanted(APP, old, "v1")]})
    site.sync()
    new = site.image(APP, "two")
    site.publish({"g": [wanted(APP, new, "v1")]})
    path = site.home.root / APP / "blobs/sha256" / layer("two", 2000).descriptor.digest.hex
    content = path.read_bytes()
    path.unlink()

    while_missing = site.sync()
    served = site.local_tags(APP)
    path.write_bytes(content)
    site.sync()

    assert len(while_missing.of("failed")) == 1
    assert served == {"v1": old}
    assert site.local_tags(APP) == {"v1": new}


def test_sync_failed_run_is_tried_again_though_state_is_the_same(site: Site) -> None:
    digest = site.image(APP, "one")
    site.publish({"g": [wanted(APP, digest, "v1")]})
    site.local.refuses = "v1"
    failed = site.sync()
    site.local.refuses = ""

    healed = site.sync()

    assert [image.action for image in failed.images] == ["failed"]
    assert healed.is_converged
    assert site.local_tags(APP) == {"v1": digest}


def test_sync_wiped_local_registry_heals(site: Site) -> None:
    digest = site.image(APP, "one")
    site.publish({"g": [wanted(APP, digest, "v1")]})
    site.sync()
    forget_local(site)

    outcome = site.sync()

    assert actions(outcome) == {"copied": [f"{APP}:v1"]}
    assert site.local_tags(APP) == {"v1": digest}


def seed(site: Site, *, wiped: bool) -> Digest:
    """Let the local registry hold what is wanted before the satellite ever ran there."""
    digest = site.image(APP, "one")
    tag_image(site.local, APP, "v1", push_image(site.local, APP, AMD64, [layer("one", 2000)]))
    site.publish({"g": [wanted(APP, digest, "v1")]})
    site.sync()
    if wiped:
        forget_local(site)
    return digest


def test_sync_image_that_was_there_before_is_kept_and_not_owned(site: Site) -> None:
    digest = seed(site, wiped=False)

    assert site.local_tags(APP) == {"v1": digest}
    assert site.store.applied().owned == {}


def test_sync_wiped_local_registry_heals_what_it_did_not_copy_itself(site: Site) -> None:
    digest = seed(site, wiped=True)

    site.sync()

    assert site.local_tags(APP) == {"v1": digest}


@pytest.mark.parametrize("moment", ["v1", "after:v1"], ids=["before the tag moves", "after the tag moved"])
def test_sync_killed_at_first_copy_then_unwanted_cleans_up(site: Site, moment: str) -> None:
    site.publish({"g": [wanted(APP, site.image(APP, "one"), "v1")]})
    site.local.killed_at = moment
    with pytest.raises(Killed):
        site.sync()
    site.local.killed_at = ""
    site.publish({"g": []})

    site.sync()

    assert site.local_tags(APP) == {}
    assert site.store.applied().owned == {}


@pytest.mark.parametrize("moment", ["v1", "after:v1"], ids=["before the tag moves", "after the tag moved"])
def test_sync_killed_while_tag_moves_owns_both_digests(site: Site, moment: str) -> None:
    old, new = site.image(APP, "one"), site.image(APP, "two")
    site.publish({"g": [wanted(APP, old, "v1")]})
    site.sync()
    site.publish({"g": [wanted(APP, new, "v1")]})
    site.local.killed_at = moment

    with pytest.raises(Killed):
        site.sync()

    assert site.store.applied().owned == {LocalTag(APP, "v1"): frozenset({old, new})}


@pytest.mark.parametrize("moment", ["v1", "after:v1"], ids=["before the tag moves", "after the tag moved"])
def test_sync_killed_while_tag_moves_next_run_finishes(site: Site, moment: str) -> None:
    old, new = site.image(APP, "one"), site.image(APP, "two")
    site.publish({"g": [wanted(APP, old, "v1")]})
    site.sync()
    site.publish({"g": [wanted(APP, new, "v1")]})
    site.local.killed_at = moment
    with pytest.raises(Killed):
        site.sync()
    site.local.killed_at = ""

    site.sync()

    assert site.local_tags(APP) == {"v1": new}
    assert site.sync().requests == 1


def test_sync_killed_after_tag_moved_then_rolled_back_moves_it_back(site: Site) -> None:
    old, new = site.image(APP, "one"), site.image(APP, "two")
    site.publish({"g": [wanted(APP, old, "v1")]})
    site.sync()
    site.publish({"g": [wanted(APP, new, "v1")]})
    site.local.killed_at = "after:v1"
    with pytest.raises(Killed):
        site.sync()
    site.local.killed_at = ""
    site.publish({"g": [wanted(APP, old, "v1")]})

    site.sync()

    assert site.local_tags(APP) == {"v1": old}


@pytest.mark.parametrize("how", ["gone", "changed"])
def test_sync_unwanted_name_gone_or_changed_at_site_is_forgotten(site: Site, how: str) -> None:
    site.publish({"g": [wanted(APP, site.image(APP, "one"), "v1")]})
    site.sync()
    if how == "gone":
        site.local.manifest_delete(APP, "v1")
    else:
        tag_image(site.local, APP, "v1", push_image(site.local, APP, AMD64, [layer("theirs", 2000)]))
    site.publish({"g": []})
    site.sync()

    outcome = site.sync()

    assert outcome.requests == 1
    assert site.store.applied().owned == {}


def test_sync_by_digest_alone_is_pinned_and_unpinned(site: Site) -> None:
    digest = site.image(APP, "one")
    site.publish({"g": [wanted(APP, digest)]})
    site.sync()
    pinned = site.pinned(APP)
    site.publish({"g": []})
    site.sync()
    pinned_as_previous = site.pinned(APP)
    site.publish({"g": [wanted("acme/other", site.image("acme/other", "other"), "v1")]})

    site.sync()
    site.sync()

    assert pinned == pinned_as_previous == {digest}
    assert site.local.tag_list(APP) == ()


def test_sync_by_digest_alone_no_longer_wanted_leaves_tag_of_other_group(site: Site) -> None:
    digest = site.image(APP, "one")
    site.publish({"g": [wanted(APP, digest)]})
    site.sync()
    site.publish({"g": [wanted(APP, digest)], "h": [wanted(APP, digest, "v1")]})
    site.sync()
    site.publish({"h": [wanted(APP, digest, "v1")]})

    site.sync()

    assert site.local_tags(APP) == {"v1": digest}


def test_sync_tag_changed_at_site_after_planning_is_not_deleted(site: Site) -> None:
    site.publish({"g": [wanted(APP, site.image(APP, "one"), "v1")]})
    site.sync()
    theirs = push_image(site.local, APP, AMD64, [layer("theirs", 2000)])

    def change(_count: int) -> None:
        tag_image(site.local, APP, "v1", theirs)

    other = site.image("acme/other", "other")
    states = [StateArtifact(GroupName("g"), "", (wanted("acme/other", other, "v1"),))]

    site.sync_states(states, on_bytes=change)

    assert site.local_tags(APP) == {"v1": theirs.digest}


@pytest.mark.parametrize("is_index", [False, True], ids=["image", "index"])
def test_sync_lost_blob_heals_in_deep_run(site: Site, is_index: bool) -> None:  # noqa: FBT001 - a column of the table
    child = push_image(site.home, APP, AMD64, [lost := layer("one", 2000)])
    root = push_index(site.home, APP, "x", [child]) if is_index else child
    states = [StateArtifact(GroupName("g"), "", (wanted(APP, root.digest, "v1"),))]
    site.sync_states(states)
    (site.local.root / APP / "blobs/sha256" / lost.descriptor.digest.hex).unlink()

    images = site.sync_states(states, replace(OPTIONS, is_deep=True))

    assert [(image.action, image.rule) for image in images] == [("copied", Rule.INCOMPLETE)]
    assert site.local.blob_head(APP, lost.descriptor.digest) is not None


def test_sync_lost_referrer_comes_back(site: Site) -> None:
    artifact, sbom = push_artifact(site.home, APP, "v1")
    entry = replace(wanted(APP, artifact.digest, "v1"), referrers=(sbom.digest,))
    states = [StateArtifact(GroupName("g"), "", (entry,))]
    site.sync_states(states)
    site.local.manifest_delete(APP, str(sbom.digest))

    site.sync_states(states)

    assert [item.digest for item in site.local.referrer_list(APP, artifact.digest)] == [sbom.digest]


def test_sync_groups_disagree_is_reported_and_changes_nothing(site: Site) -> None:
    one, two = site.image(APP, "one"), site.image(APP, "two")
    site.publish({"g": [wanted(APP, one, "v1")]})
    site.sync()
    site.publish({"g": [wanted(APP, one, "v1")], "h": [wanted(APP, two, "v1")]})

    outcome = site.sync()

    assert [image.reason for image in outcome.of("failed")] == [f"groups disagree: g wants {one}, h wants {two}"]
    assert site.local_tags(APP) == {"v1": one}


def test_sync_expired_state_is_refused_and_changes_nothing(site: Site) -> None:
    digest = site.image(APP, "one")
    site.publish({"g": [wanted(APP, digest, "v1")]})
    site.sync()
    site.publish({"g": []}, expires_at=datetime.now(UTC) - timedelta(seconds=1))

    with pytest.raises(UntrustedDataError, match="expired"):
        site.sync()

    assert site.local_tags(APP) == {"v1": digest}


def test_sync_state_of_another_group_is_refused(site: Site) -> None:
    site.publish({"g": []})
    raw = b'{"group":"h","registry":"","artifacts":[]}'
    put_state(site.home, "satellite/group-state/g/state", raw)
    put_state(
        site.home,
        "satellite/satellite-state/shop/state",
        b'{"states":["https://centre.test/satellite/group-state/g/state:latest"]}',
    )

    with pytest.raises(UntrustedDataError, match="holds the state of group h, not of g"):
        site.sync()


def test_sync_no_state_is_not_found(site: Site) -> None:
    with pytest.raises(RemoteError) as raised:
        site.sync()

    assert raised.value.status == 404


def test_sync_one_group_state_missing_changes_nothing(site: Site) -> None:
    digest = site.image(APP, "one")
    site.publish({"g": [wanted(APP, digest, "v1")], "h": []})
    site.sync()
    site.home.manifest_delete("satellite/group-state/h/state", "latest")
    site.publish({"g": []})
    put_state(
        site.home,
        "satellite/satellite-state/shop/state",
        b'{"states":["https://c.test/satellite/group-state/g/state:latest",'
        b'"https://c.test/satellite/group-state/h/state:latest"]}',
    )

    with pytest.raises(RemoteError):
        site.sync()

    assert site.local_tags(APP) == {"v1": digest}


def test_record_run_failed_image_with_many_tags_is_recorded(site: Site) -> None:
    tags = tuple(f"{number:064d}" for number in range(20))
    site.publish({"g": [wanted("acme/bad", Digest.of(b"missing"), *tags)]})

    outcome = site.sync()

    assert not outcome.is_converged
    assert len(site.store.applied().failures) == 1


def test_sync_deep_with_platform_filter_finds_nothing_to_do(site: Site) -> None:
    site.local._layouts.clear()
    site.local.close()
    local = Local(site.folder / "sparse", "local.test", requires_content=False)
    site.local = local
    children = [push_image(site.home, APP, AMD64, [layer("amd", 2000)])]
    arm = replace(
        push_image(site.home, APP, AMD64, [layer("arm", 2000)]), platform=replace(AMD64, architecture="arm64")
    )
    index = push_index(site.home, APP, "x", [*children, arm])
    states = [StateArtifact(GroupName("g"), "", (wanted(APP, index.digest, "v1"),))]
    options = replace(OPTIONS, platforms=(AMD64,), is_deep=True)
    site.sync_states(states, options)

    images = site.sync_states(states, options)
    local.close()

    assert [image.action for image in images] == ["kept"]


def test_sync_unchanged_keeps_what_is_followed(site: Site) -> None:
    digest = site.publish({"g": []})
    site.sync()
    before = site.store.applied()

    site.sync()

    after = site.store.applied()
    assert replace(after, last_run=None) == replace(before, last_run=None)
    assert after.state_digest == digest


def test_sync_damaged_record_is_reported_and_changes_nothing(site: Site) -> None:
    digest = site.image(APP, "one")
    site.publish({"g": [wanted(APP, digest, "v1")]})
    site.sync()
    (site.store.folder / "applied.json").write_text("{")

    with pytest.raises(HarborSatelliteError, match=r"applied\.json is damaged"):
        site.sync()

    assert site.local_tags(APP) == {"v1": digest}


def test_store_of_new_site_has_an_empty_record(site: Site) -> None:
    assert SatelliteStore(site.folder / "new").applied() == Applied()
