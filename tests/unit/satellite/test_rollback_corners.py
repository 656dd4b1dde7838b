"""Going back where it is not plain: sparse indexes, images by digest, killed or refused half-way, held for long."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harbor_satellite.demo.images import AMD64, ARM64, layer, push_image, push_index
from harbor_satellite.errors import StorageError
from harbor_satellite.satellite.generations import load_generations
from harbor_satellite.satellite.rollback import roll_back, take_back
from harbor_satellite.state.artifact import StateArtifact
from harbor_satellite.state.names import GroupName
from harbor_satellite.state.policy import GroupPolicy
from tests.unit.satellite.site import SCHEDULED, Killed, Site, wanted
from tests.unit.satellite.test_sync import forget_local

if TYPE_CHECKING:
    from harbor_satellite.oci.digest import Digest

APP, TOOL = "acme/app", "acme/tool"


@pytest.fixture
def two(site: Site) -> tuple[Digest, Digest]:
    """Follow one generation, then the next."""
    old, new = site.image(APP, "one"), site.image(APP, "two")
    site.follow({"g": [wanted(APP, old, "v1")]})
    site.follow({"g": [wanted(APP, new, "v1")]})
    return old, new


def publish_what_waits(site: Site) -> Digest:
    """Publish a generation that the link keeps from being complete, and let the site follow as far as it can."""
    third = site.image(APP, "three")
    site.publish({"g": [wanted(APP, third, "v1"), wanted(TOOL, site.image(TOOL, "tool"), "v1")]})
    site.home.is_cut_for = TOOL
    site.sync()
    site.home.is_cut_for = ""
    return third


def test_roll_back_to_sparse_index_publishes_it(site: Site) -> None:
    children = [push_image(site.home, APP, platform, [layer(str(platform), 2000)]) for platform in (AMD64, ARM64)]
    index = push_index(site.home, APP, "x", children).digest
    policy = GroupPolicy(platforms=(AMD64,))
    tool = site.image(TOOL, "tool")
    site.sync_states([StateArtifact(GroupName("g"), "", (wanted(APP, index, "v1"),), 1, policy=policy)])
    site.sync_states([StateArtifact(GroupName("g"), "", (wanted(TOOL, tool, "v1"),), 2, policy=policy)])

    roll_back(site.local, site.store)

    assert site.local_tags(APP) == {"v1": index}
    assert site.local.manifest_head(APP, str(children[1].digest)) is None


def test_roll_back_to_image_by_digest_keeps_its_pin(site: Site) -> None:
    digest = site.image(APP, "one")
    site.follow({"g": [wanted(APP, digest), wanted(TOOL, site.image(TOOL, "1"), "v1")]})
    site.follow({"g": [wanted(TOOL, site.image(TOOL, "2"), "v1")]})

    roll_back(site.local, site.store)

    assert site.pinned(APP) == {digest}


def test_roll_back_after_group_waited_returns_to_what_stood(site: Site, two: tuple[Digest, Digest]) -> None:
    publish_what_waits(site)
    site.sync()

    roll_back(site.local, site.store)

    assert site.local_tags(APP) == {"v1": two[1]}


def test_roll_back_while_group_waits_goes_before_what_stands(site: Site, two: tuple[Digest, Digest]) -> None:
    publish_what_waits(site)

    roll_back(site.local, site.store)

    assert site.local_tags(APP) == {"v1": two[0]}


def test_roll_back_while_group_waits_is_not_undone_by_next_run(site: Site, two: tuple[Digest, Digest]) -> None:
    publish_what_waits(site)
    roll_back(site.local, site.store)

    outcome = site.sync()

    assert outcome.requests == 1
    assert site.local_tags(APP) == {"v1": two[0]}


def test_roll_back_while_group_waits_taken_back_goes_forth_again(site: Site, two: tuple[Digest, Digest]) -> None:
    publish_what_waits(site)
    roll_back(site.local, site.store)

    take_back(site.local, site.store)

    assert site.local_tags(APP) == {"v1": two[1]}


def test_roll_back_over_state_that_never_stood_then_wiped_heals_to_what_stood(site: Site) -> None:
    one = site.image(APP, "one")
    site.follow({"g": [wanted(APP, one, "v1")]})
    publish_what_waits(site)
    site.follow({"g": [wanted(APP, site.image(APP, "other"), "v1")]})
    roll_back(site.local, site.store)
    forget_local(site)

    site.sync()

    assert site.local_tags(APP) == {"v1": one}


def test_roll_back_killed_takes_away_what_only_the_newer_had(site: Site) -> None:
    site.follow({"g": [wanted(TOOL, site.image(TOOL, "1"), "v1")]})
    site.follow({"g": [wanted(TOOL, site.image(TOOL, "2"), "v1"), wanted(APP, site.image(APP, "one"), "v1")]})
    site.local.killed_at = "after:v1"
    with pytest.raises(Killed):
        roll_back(site.local, site.store)
    site.local.killed_at = ""

    site.sync(SCHEDULED)

    assert site.local_tags(APP) == {}


def test_roll_back_refused_half_way_is_not_converged(site: Site) -> None:
    names = ("v1", "v2", "v3")
    for content in ("old", "new"):
        site.follow({"g": [wanted(APP, site.image(APP, f"{content} {name}"), name) for name in names]})
    site.local.refuses_once = "v2"

    with pytest.raises(StorageError):
        roll_back(site.local, site.store)

    assert not site.store.applied().is_converged


def test_roll_back_refused_half_way_is_finished_by_next_run(site: Site) -> None:
    names = ("v1", "v2", "v3")
    old = {name: site.image(APP, f"old {name}") for name in names}
    site.follow({"g": [wanted(APP, digest, name) for name, digest in old.items()]})
    site.follow({"g": [wanted(APP, site.image(APP, f"new {name}"), name) for name in names]})
    site.local.refuses_once = "v2"
    with pytest.raises(StorageError):
        roll_back(site.local, site.store)

    site.sync(SCHEDULED)

    assert site.local_tags(APP) == old
    assert site.store.applied().is_converged


def test_roll_back_after_all_groups_left_brings_back_what_stood(site: Site) -> None:
    digest = site.image(APP, "one")
    site.follow({"g": [wanted(APP, digest, "v1")]})
    site.follow({})

    roll_back(site.local, site.store)

    assert site.local_tags(APP) == {"v1": digest}
    assert site.sync().requests == 1


def test_roll_back_ended_by_another_state_is_not_held_when_the_first_returns(
    site: Site, two: tuple[Digest, Digest]
) -> None:
    old, new = two
    roll_back(site.local, site.store)
    site.follow({"g": [wanted(APP, old, "v1")]})
    released = load_generations(site.store).held

    site.follow({"g": [wanted(APP, new, "v1")]})

    assert released is None
    assert site.local_tags(APP) == {"v1": new}


def test_roll_back_pins_what_it_left(site: Site, two: tuple[Digest, Digest]) -> None:
    roll_back(site.local, site.store)

    site.sync(SCHEDULED)

    assert site.pinned(APP) == {two[1]}
