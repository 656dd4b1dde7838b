"""A local registry that deletes whole manifests only: what is needed under another name never goes with a name."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from harbor_satellite.demo.images import AMD64, ARM64, layer, push_image, push_index
from harbor_satellite.satellite.rollback import roll_back, take_back
from harbor_satellite.state.plan import Rule
from tests.unit.satellite.site import Site, WithoutTagDeletion, wanted

if TYPE_CHECKING:
    from collections.abc import Iterator

APP, TOOL = "acme/app", "acme/tool"


@pytest.fixture
def site(site: Site) -> Iterator[Site]:
    with WithoutTagDeletion(site.folder / "manifests-only", "local.test") as site.local:
        yield site


def follow_tools(site: Site, *contents: str) -> None:
    """Follow generations in which another image alone changes."""
    for content in contents:
        site.follow({"g": [wanted(TOOL, site.image(TOOL, content), "v1")]})


def test_sync_image_by_tag_then_by_digest_stays(site: Site) -> None:
    digest = site.image(APP, "one")
    site.follow({"g": [wanted(APP, digest, "v1")]})

    site.follow({"g": [wanted(APP, digest)]})

    assert site.local.manifest_head(APP, str(digest)) is not None


def test_sync_removed_image_stays_as_long_as_it_is_the_previous_generation(site: Site) -> None:
    digest = site.image(APP, "one")
    site.follow({"g": [wanted(APP, digest, "v1")]})

    outcome = site.follow({"g": []})

    assert [(image.reference, image.rule) for image in outcome.of("kept")] == [(f"{APP}:v1", Rule.WAITING)]
    assert site.local.manifest_head(APP, str(digest)) is not None


def test_sync_removed_image_goes_with_the_previous_generation(site: Site) -> None:
    site.follow({"g": [wanted(APP, site.image(APP, "one"), "v1")]})
    site.follow({"g": []})

    follow_tools(site, "1", "2", "3")

    assert site.local.tag_list(APP) == ()
    assert not [name for name in site.store.applied().owned if name.repository == APP]


def test_roll_back_to_removed_image_finds_it(site: Site) -> None:
    digest = site.image(APP, "one")
    site.follow({"g": [wanted(APP, digest, "v1")]})
    follow_tools(site, "1")

    roll_back(site.local, site.store)

    assert site.local_tags(APP) == {"v1": digest}


def test_roll_back_to_image_by_digest_finds_it(site: Site) -> None:
    digest = site.image(APP, "one")
    site.follow({"g": [wanted(APP, digest), wanted(TOOL, site.image(TOOL, "1"), "v1")]})
    follow_tools(site, "2")

    roll_back(site.local, site.store)

    assert site.local.manifest_head(APP, str(digest)) is not None


def test_roll_back_keeps_what_only_the_newer_generation_has(site: Site) -> None:
    digest = site.image(APP, "one")
    follow_tools(site, "1")
    site.follow({"g": [wanted(APP, digest, "v1")]})

    roll_back(site.local, site.store)

    assert site.local.manifest_head(APP, str(digest)) is not None


def test_take_back_publishes_what_only_the_newer_generation_has(site: Site) -> None:
    digest = site.image(APP, "one")
    follow_tools(site, "1")
    site.follow({"g": [wanted(APP, digest, "v1")]})
    roll_back(site.local, site.store)

    take_back(site.local, site.store)

    assert site.local_tags(APP) == {"v1": digest}
    assert site.store.applied().is_converged


def test_sync_image_that_became_child_of_an_index_is_never_deleted(site: Site) -> None:
    children = [push_image(site.home, APP, platform, [layer(str(platform), 2000)]) for platform in (AMD64, ARM64)]
    index = push_index(site.home, APP, "x", children).digest
    site.follow({"g": [wanted(APP, children[0].digest, "v1")]})
    site.follow({"g": [wanted(APP, index, "v1")]})

    site.follow({"g": [wanted(APP, index, "v1"), wanted(TOOL, site.image(TOOL, "tool"), "v1")]})
    site.sync()  # lets go of the pins that nothing needs any more

    assert str(children[0].digest) not in cast("WithoutTagDeletion", site.local).deleted
