"""Kills, cuts and refusals between the steps of runs: what stood before them stays pinned, and nothing is left over."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from harbor_satellite.demo.images import AMD64, ARM64, layer, push_image, push_index
from harbor_satellite.errors import StorageError
from harbor_satellite.satellite.disk import DiskGuard
from harbor_satellite.satellite.generations import load_generations
from harbor_satellite.satellite.pins import pin_tag
from harbor_satellite.state.artifact import StateArtifact
from harbor_satellite.state.desired import LocalTag
from harbor_satellite.state.names import GroupName
from harbor_satellite.state.policy import GroupPolicy
from tests.unit.satellite.site import Killed, Local, Site, wanted

if TYPE_CHECKING:
    from harbor_satellite.oci.digest import Digest
    from harbor_satellite.state.artifact import StateEntry

APP, TOOL = "acme/app", "acme/tool"


def group(*entries: StateEntry, generation: int = 1, policy: GroupPolicy | None = None) -> StateArtifact:
    return StateArtifact(GroupName("g"), "", entries, generation, policy=policy or GroupPolicy())


@pytest.fixture
def old_and_new(site: Site) -> tuple[Digest, Digest]:
    """Let one image stand, and publish the next; the site has not followed yet."""
    old, new = site.image(APP, "old"), site.image(APP, "new")
    site.follow({"g": [wanted(APP, old, "v1")]})
    site.publish({"g": [wanted(APP, new, "v1")]})
    return old, new


def test_publish_killed_at_pin_pins_in_next_run(site: Site, old_and_new: tuple[Digest, Digest]) -> None:
    old, new = old_and_new
    site.local.killed_at = pin_tag(old)
    with pytest.raises(Killed):
        site.sync()
    site.local.killed_at = ""

    site.sync()

    assert site.local_tags(APP) == {"v1": new}
    assert site.pinned(APP) == {old}


def test_publish_pin_refused_moves_no_tag(site: Site, old_and_new: tuple[Digest, Digest]) -> None:
    old, _ = old_and_new
    site.local.refuses_once = pin_tag(old)

    with pytest.raises(StorageError, match="no space left"):
        site.sync()

    assert site.local_tags(APP) == {"v1": old}


def test_publish_pin_refused_once_pins_in_next_run(site: Site, old_and_new: tuple[Digest, Digest]) -> None:
    old, new = old_and_new
    site.local.refuses_once = pin_tag(old)
    with pytest.raises(StorageError):
        site.sync()

    site.sync()

    assert site.local_tags(APP) == {"v1": new}
    assert site.pinned(APP) == {old}


@pytest.mark.parametrize("moment", ["x1", "after:x1"], ids=["before the tag moves", "after the tag moved"])
def test_publish_killed_half_way_then_next_state_keeps_one_whole_generation(site: Site, moment: str) -> None:
    site.follow({"g": [wanted(APP, site.image(APP, "1"), "x1"), wanted(TOOL, site.image(TOOL, "1"), "x2")]})
    app, tool = site.image(APP, "2"), site.image(TOOL, "2")
    site.publish({"g": [wanted(APP, app, "x1"), wanted(TOOL, tool, "x2")]})
    site.local.killed_at = moment
    with pytest.raises(Killed):
        site.sync()
    site.local.killed_at = ""

    site.follow({"g": [wanted(APP, site.image(APP, "3"), "x1"), wanted(TOOL, site.image(TOOL, "3"), "x2")]})
    site.sync()  # lets go of the pins that nothing needs any more

    assert (site.pinned(APP), site.pinned(TOOL)) == ({app}, {tool})  # what was killed was finished first


def test_publish_of_states_by_hand_killed_then_next_keeps_what_stood_before(site: Site) -> None:
    app = site.image(APP, "1")
    site.sync_states([group(wanted(APP, app, "x1"))])
    site.local.killed_at = "x1"
    with pytest.raises(Killed):
        site.sync_states([group(wanted(APP, site.image(APP, "2"), "x1"), generation=2)])
    site.local.killed_at = ""

    site.sync_states([group(wanted(APP, site.image(APP, "3"), "x1"), generation=3)])

    previous = load_generations(site.store).previous
    assert previous is not None
    assert previous.digests() == {LocalTag(APP, "x1"): app}
    assert app in site.pinned(APP)


def test_publish_killed_half_way_closes_the_generation_in_next_run(
    site: Site, old_and_new: tuple[Digest, Digest]
) -> None:
    site.local.killed_at = "v1"
    with pytest.raises(Killed):
        site.sync()
    was_open = load_generations(site.store).is_open
    site.local.killed_at = ""

    site.sync()

    assert was_open
    assert not load_generations(site.store).is_open


def test_publish_group_that_waited_pins_what_stood_meanwhile(site: Site, old_and_new: tuple[Digest, Digest]) -> None:
    _, stood = old_and_new
    site.sync()
    third = site.image(APP, "third")
    site.publish({"g": [wanted(APP, third, "v1"), wanted(TOOL, site.image(TOOL, "tool"), "v1")]})
    site.home.is_cut_for = TOOL
    site.sync()
    site.home.is_cut_for = ""

    site.sync()
    site.sync()  # lets go of the pins that nothing needs any more

    assert site.local_tags(APP) == {"v1": third}
    assert site.pinned(APP) == {stood}


def test_publish_each_interrupted_is_one_generation(site: Site) -> None:
    policy = GroupPolicy(publish="each")
    app, tool = site.image(APP, "1"), site.image(TOOL, "1")
    site.sync_states([group(wanted(APP, app, "v1"), wanted(TOOL, tool, "v1"), policy=policy)])
    entries = [wanted(name, site.image(name, "2"), "v1") for name in (APP, TOOL)]
    second = group(*entries, generation=2, policy=policy)
    site.home.is_cut_for = TOOL
    site.sync_states([second])
    site.home.is_cut_for = ""

    site.sync_states([second])

    assert (site.pinned(APP), site.pinned(TOOL)) == ({app}, {tool})


def test_publish_first_content_again_pins_the_second(site: Site, old_and_new: tuple[Digest, Digest]) -> None:
    old, new = old_and_new
    site.sync()

    site.follow({"g": [wanted(APP, old, "v1")]})
    site.sync()  # lets go of the pins that nothing needs any more

    assert site.local_tags(APP) == {"v1": old}
    assert site.pinned(APP) == {new}


def test_publish_pin_lost_at_site_comes_back(site: Site, old_and_new: tuple[Digest, Digest]) -> None:
    old, new = old_and_new
    site.sync()
    site.local.manifest_delete(APP, pin_tag(old))

    site.follow({"g": [wanted(APP, new, "v1")]}, generation=2)

    assert site.pinned(APP) == {old}


def test_sync_pin_of_image_by_digest_lost_at_site_comes_back(site: Site) -> None:
    digest = site.image(APP, "one")
    site.follow({"g": [wanted(APP, digest)]})
    site.local.manifest_delete(APP, pin_tag(digest))

    site.sync()

    assert site.pinned(APP) == {digest}


def test_sync_image_by_tag_then_by_digest_stays_pinned(site: Site) -> None:
    digest = site.image(APP, "one")
    site.follow({"g": [wanted(APP, digest, "v1")]})

    site.follow({"g": [wanted(APP, digest)]})

    assert site.local_tags(APP) == {}
    assert site.pinned(APP) == {digest}


def test_sync_image_by_digest_again_is_held_and_then_let_go(site: Site) -> None:
    digest = site.image(APP, "1")
    site.follow({"g": [wanted(APP, digest)]})
    site.follow({"g": [wanted(APP, site.image(APP, "2"), "v1")]})
    site.follow({"g": [wanted(APP, digest)]})
    pinned_again = site.pinned(APP)

    for content in "123":
        site.follow({"g": [wanted(TOOL, site.image(TOOL, content), "v1")]})

    assert digest in pinned_again
    assert site.pinned(APP) == set()


def test_sync_name_moves_to_complete_group_while_its_own_waits_stays(site: Site) -> None:
    digest = site.image(APP, "one")
    site.follow({"g": [wanted(APP, digest, "v1")], "h": []})
    site.publish({"g": [wanted(TOOL, site.image(TOOL, "tool"), "v1")], "h": [wanted(APP, digest, "v1")]})
    site.home.is_cut_for = TOOL
    site.sync()
    while_cut = site.local_tags(APP)
    site.home.is_cut_for = ""

    site.sync()

    assert while_cut == site.local_tags(APP) == {"v1": digest}


def test_sync_widening_that_was_cut_is_taken_up_again(site: Site) -> None:
    site.local.close()
    site.local = Local(site.folder / "sparse", "local.test")
    children = [
        push_image(site.home, APP, platform, [layer(str(platform), 2000)])  # one for each platform
        for platform in (AMD64, ARM64)
    ]
    index = push_index(site.home, APP, "x", children)
    entry = wanted(APP, index.digest, "v1")
    site.sync_states([group(entry, policy=GroupPolicy(platforms=(AMD64,)))])
    before = site.local.manifest_head(APP, str(children[1].digest))
    wide = group(entry, generation=2)
    site.home.is_cut_for = APP
    site.sync_states([wide])
    site.home.is_cut_for = ""

    site.sync_states([wide])

    assert before is None
    assert site.local.manifest_head(APP, str(children[1].digest)) is not None
    assert site.store.applied().is_converged


def test_plan_shared_layer_of_an_image_that_is_here_needs_no_room(site: Site) -> None:
    shared = layer("big", 300_000)
    app = push_image(site.home, APP, AMD64, [shared])
    tool = push_image(site.home, TOOL, AMD64, [shared, layer("tiny", 100)])
    site.sync_states([group(wanted(APP, app.digest, "v1"))])
    engine = site.engine()
    engine._disk = DiskGuard(site.folder, 0, free=lambda _: 100_000)
    entry = replace(wanted(TOOL, tool.digest, "v1"), size=300_500)

    plan = engine.plan([group(wanted(APP, app.digest, "v1"), entry, generation=2)])

    assert [str(copy) for copy in plan.copy] == [f"{TOOL}:v1"]


def test_sync_disputed_name_leaves_no_part_of_what_nobody_wants(site: Site) -> None:
    entries = [wanted(APP, site.image(APP, content), "v1") for content in ("one", "two")]
    states = [group(entries[0]), replace(group(entries[1]), group=GroupName("h"))]
    part = site.store.folder / "partial" / f"sha256-{'0' * 64}"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * 1000)

    site.sync_states(states)

    assert not part.exists()
