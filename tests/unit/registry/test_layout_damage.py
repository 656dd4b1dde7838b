from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from harbor_satellite.errors import (
    InvalidInputError,
    StorageError,
)
from harbor_satellite.oci.descriptor import descriptor_json
from harbor_satellite.oci.digest import Digest
from harbor_satellite.oci.media_types import OCI_MANIFEST
from harbor_satellite.registry.api import ManifestContent
from harbor_satellite.registry.layout import LayoutRegistry
from tests.unit.registry.test_layout import image_index, put_blob, put_image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ANY_AGE = -60.0  # seconds; everything is older


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[LayoutRegistry]:
    with LayoutRegistry(tmp_path / "registry", "127.0.0.1:8585") as registry:
        yield registry


@pytest.mark.parametrize(
    "repository",
    ["../outside", "a/../b", "/etc", "A", "a//b", "", "a/blobs", "blobs", "index.json", "a/oci-layout/b", ".uploads"],
)
def test_repository_name_never_reaches_the_file_system(layout: LayoutRegistry, repository: str) -> None:
    digest = Digest.of(b"{}")
    attempts = (
        lambda: layout.blob_head(repository, digest),
        lambda: layout.upload_start(repository),
        lambda: layout.manifest_put(repository, "v1", image_index()),
        lambda: layout.blob_mount("app", digest, repository) if repository else layout.tag_list(repository),
        lambda: layout.tag_list(repository),
    )

    for attempt in attempts:
        with pytest.raises(InvalidInputError, match="not a repository name"):
            attempt()
    assert sorted(each.name for each in layout.root.iterdir()) == [".lock", ".uploads"]


def test_root_has_one_owner(layout: LayoutRegistry) -> None:
    with pytest.raises(StorageError, match="another process owns the registry at"):
        LayoutRegistry(layout.root)


def test_root_not_writable_says_where(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(StorageError, match="opening the registry"):
        LayoutRegistry(tmp_path / "file" / "registry")


@pytest.mark.parametrize("damage", [b"", b'{"manifests": [{}]}', b"\x00" * 100], ids=["empty", "malformed", "zeroes"])
def test_damaged_index_is_set_aside_and_repository_can_be_filled_again(layout: LayoutRegistry, damage: bytes) -> None:
    put_image(layout, "app", "v1")
    (layout.root / "app/index.json").write_bytes(damage)
    for blob in (layout.root / "app/blobs/sha256").iterdir():
        os.utime(blob, (0, 0))

    assert layout.tag_list("app") == ()
    assert layout.garbage_collect() == 0
    put_image(layout, "app", "v1")

    assert layout.tag_list("app") == ("v1",)
    assert (layout.root / "app/index.json.damaged").read_bytes() == damage


def test_wiped_root_can_be_filled_again(layout: LayoutRegistry) -> None:
    put_image(layout, "app", "v1")
    layout.root.rename(layout.root.with_name("gone"))

    assert layout.repository_list() == ()
    put_image(layout, "app", "v1")
    assert layout.manifest_head("app", "v1") is not None


def test_garbage_collect_removes_only_what_nothing_reaches(layout: LayoutRegistry) -> None:
    child = layout.manifest_head("app", str(put_image(layout, "app", "", b"child layer")))
    assert child is not None
    layout.manifest_put("app", "multi", image_index(child))
    garbage = put_blob(layout, "app", b"garbage")

    assert layout.garbage_collect() == 0
    assert layout.garbage_collect(ANY_AGE) == len(b"garbage")

    assert layout.blob_head("app", garbage.digest) is None
    assert layout.blob_head("app", Digest.of(b"child layer")) is not None
    assert layout.manifest_head("app", "multi") is not None


def test_garbage_collect_untagged_old_manifest_goes_with_what_only_it_needs(layout: LayoutRegistry) -> None:
    put_image(layout, "app", "v1", b"kept")
    old = put_image(layout, "app", "", b"gone")

    freed = layout.garbage_collect(untagged_older_than_seconds=ANY_AGE)

    assert freed >= len(b"gone")
    assert layout.manifest_head("app", str(old)) is None
    assert layout.blob_head("app", Digest.of(b"gone")) is None
    assert layout.blob_head("app", Digest.of(b"{}")) is not None
    assert layout.manifest_head("app", "v1") is not None


def test_garbage_collect_untagged_children_and_referrers_of_a_tag_stay(layout: LayoutRegistry) -> None:
    child = layout.manifest_head("app", str(put_image(layout, "app", "", b"child layer")))
    assert child is not None
    layout.manifest_put("app", "multi", image_index(child))
    config = put_blob(layout, "app", b"{}")
    referrer = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": descriptor_json(config),
            "layers": [],
            "subject": descriptor_json(child),
        }
    ).encode()
    layout.manifest_put("app", str(Digest.of(referrer)), ManifestContent(OCI_MANIFEST, referrer))

    layout.garbage_collect(ANY_AGE, untagged_older_than_seconds=ANY_AGE)

    assert layout.manifest_head("app", str(child.digest)) is not None
    assert [item.digest for item in layout.referrer_list("app", child.digest)] == [Digest.of(referrer)]


def test_garbage_collect_shared_file_frees_nothing_until_last_link(layout: LayoutRegistry) -> None:
    blob = put_blob(layout, "one", b"garbage")
    layout.blob_mount("two", blob.digest, "one")

    assert layout.garbage_collect(ANY_AGE) == len(b"garbage")


def test_garbage_collect_unreadable_manifest_keeps_everything(layout: LayoutRegistry) -> None:
    digest = put_image(layout, "app", "v1")
    (layout.root / "app/blobs/sha256" / digest.hex).write_bytes(b"{")

    assert layout.garbage_collect(ANY_AGE) == 0
    assert layout.blob_head("app", Digest.of(b"layer")) == 5
