"""Taking over what another registry of the site holds, between two layouts on the disk."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

from harbor_satellite.demo import images
from harbor_satellite.errors import RemoteError, StorageError
from harbor_satellite.registry.client import HttpRegistry
from harbor_satellite.registry.layout import LayoutRegistry
from harbor_satellite.satellite.adoption import AdoptionOptions, adopt, check_answers, look_again
from harbor_satellite.satellite.adoption_journal import AdoptionJournal
from harbor_satellite.satellite.adoption_source import LeftRegistryError
from harbor_satellite.satellite.applied import Applied
from harbor_satellite.satellite.disk import DiskGuard
from harbor_satellite.satellite.store import SatelliteStore
from harbor_satellite.state.desired import LocalTag
from tests.fakes.registry import FakeRegistry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harbor_satellite.oci.digest import Digest

OURS, THEIRS = "acme/app", "theirs/thing"
WHOLE = AdoptionOptions(is_whole=True, workers=1)
OWNED = AdoptionOptions(workers=1)


@dataclass
class Site:
    old: LayoutRegistry
    new: LayoutRegistry
    store: SatelliteStore

    def own(self, *tags: tuple[str, Digest]) -> None:
        owned = {LocalTag(OURS, tag): frozenset({digest}) for tag, digest in tags}
        self.store.save_applied(Applied(owned=owned, wanted={LocalTag(OURS, tag): digest for tag, digest in tags}))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with ExitStack() as stack:
        old, new = (stack.enter_context(LayoutRegistry(tmp_path / name, name)) for name in ("old", "new"))
        yield Site(old, new, SatelliteStore(tmp_path / "site"))


def push(registry: LayoutRegistry, repository: str, tag: str, name: str = "one") -> Digest:
    image = images.push_image(registry, repository, images.AMD64, [images.layer(name, 500)])
    images.tag_image(registry, repository, tag, image)
    return image.digest


@pytest.mark.parametrize(("options", "taken"), [(WHOLE, ("v1",)), (OWNED, ())], ids=["all of it", "only what is ours"])
def test_adopt_what_others_put_there(site: Site, options: AdoptionOptions, taken: tuple[str, ...]) -> None:
    site.own(("v1", push(site.old, OURS, "v1")))
    push(site.old, THEIRS, "v1")

    adopt(site.old, site.new, site.store, options)

    assert site.new.tag_list(OURS) == ("v1",)
    assert site.new.tag_list(THEIRS) == taken


def test_adopt_twice_copies_nothing_the_second_time(site: Site) -> None:
    site.own(("v1", push(site.old, OURS, "v1")))

    first = adopt(site.old, site.new, site.store, WHOLE)
    second = adopt(site.old, site.new, site.store, WHOLE)

    assert first.images == second.images == 1
    assert first.bytes_copied > 0
    assert second.bytes_copied == 0


def test_adopt_tag_that_was_moved_names_what_it_names(site: Site) -> None:
    before = push(site.old, OURS, "v1")
    site.own(("v1", before))
    after = push(site.old, OURS, "v1", "two")

    adopt(site.old, site.new, site.store, WHOLE)

    assert site.new.manifest_get(OURS, "v1").digest == after
    assert site.new.manifest_get(OURS, str(before)).digest == before


def test_adopt_again_moves_a_tag_that_moved_meanwhile(site: Site) -> None:
    push(site.old, OURS, "v1")
    adopt(site.old, site.new, site.store, WHOLE)
    after = push(site.old, OURS, "v1", "two")

    adopt(site.old, site.new, site.store, WHOLE)

    assert site.new.manifest_get(OURS, "v1").digest == after


@pytest.mark.parametrize("is_moved_there", [False, True], ids=["as we left it", "moved there by others"])
def test_adopt_again_takes_back_a_tag_that_was_deleted_meanwhile(
    site: Site, tmp_path: Path, *, is_moved_there: bool
) -> None:
    options = replace(WHOLE, journal=AdoptionJournal(tmp_path / "journal"))
    push(site.old, OURS, "v1")
    push(site.old, OURS, "v2", "two")
    push(site.new, THEIRS, "v1")
    adopt(site.old, site.new, site.store, options)
    with (tmp_path / "journal").open("a") as journal:
        journal.write('["torn')
    site.old.manifest_delete(OURS, "v1")
    if is_moved_there:
        push(site.new, OURS, "v1", "three")

    adopt(site.old, site.new, site.store, options)

    assert site.new.tag_list(OURS) == (("v1", "v2") if is_moved_there else ("v2",))
    assert site.new.tag_list(THEIRS) == ("v1",)


def test_check_answers_only_complains_where_nothing_can_be_had(site: Site) -> None:
    site.own(("v1", push(site.new, OURS, "v1")))

    check_answers(site.old, site.store)  # it has not got it, and says so
    with (
        HttpRegistry("http://127.0.0.1:9", transport=FakeRegistry(auth="basic").transport()) as refusing,
        pytest.raises(LeftRegistryError),
    ):
        check_answers(refusing, site.store)


def test_adopt_into_somebody_elses_leaves_their_tag(site: Site) -> None:
    site.own(("v1", push(site.old, OURS, "v1")))
    theirs = push(site.new, OURS, "v1", "two")

    adopt(site.old, site.new, site.store, AdoptionOptions(is_whole=True, is_shared=True, workers=1))

    assert site.new.manifest_get(OURS, "v1").digest == theirs


def test_adopt_what_is_lost_is_named_and_the_rest_comes(site: Site, tmp_path: Path) -> None:
    lost = push(site.old, OURS, "lost")
    whole = push(site.old, OURS, "whole", "two")
    site.own(("lost", lost), ("whole", whole))
    (tmp_path / "old" / OURS / "blobs" / lost.algorithm / lost.hex).unlink()

    adopted = adopt(site.old, site.new, site.store, WHOLE)

    assert [what for what, _ in adopted.left_behind] == [f"{OURS}@{lost}"]
    assert site.new.tag_list(OURS) == ("whole",)


def test_adopt_from_a_registry_that_refuses_stops(site: Site) -> None:
    site.own(("v1", push(site.old, OURS, "v1")))
    with HttpRegistry("http://127.0.0.1:9", transport=FakeRegistry(auth="basic").transport()) as refusing:
        with pytest.raises(LeftRegistryError):
            adopt(refusing, site.new, site.store, OWNED)
        with pytest.raises(RemoteError) as error:
            adopt(site.old, refusing, site.store, OWNED)

    assert not isinstance(error.value, LeftRegistryError)


def test_adopt_without_room_stops(site: Site, tmp_path: Path) -> None:
    site.own(("v1", push(site.old, OURS, "v1")))
    full = DiskGuard(tmp_path, 10**6, free=lambda _: 10**6)

    with pytest.raises(StorageError, match="needs"):
        adopt(site.old, site.new, site.store, AdoptionOptions(workers=1, disk=full))

    assert site.new.tag_list(OURS) == ()


def test_look_again_makes_the_next_run_look(site: Site) -> None:
    digest = push(site.old, OURS, "v1")
    site.store.save_applied(Applied(state_digest=digest, is_converged=True, choices="these"))

    look_again(site.store)

    applied = site.store.applied()
    assert (applied.is_converged, applied.choices) == (False, "")
