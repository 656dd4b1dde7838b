from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from harbor_satellite.errors import (
    DigestMismatchError,
    HarborSatelliteError,
    MalformedStateError,
)
from harbor_satellite.oci import media_types
from harbor_satellite.oci.descriptor import Descriptor
from harbor_satellite.oci.digest import Digest
from harbor_satellite.registry.api import ManifestContent
from harbor_satellite.registry.layout import LayoutRegistry
from harbor_satellite.registry.layout_refusals import ErrorCode, RefusedError
from tests.unit.registry.test_layout import document, image, image_index, put_blob, put_image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[LayoutRegistry]:
    with LayoutRegistry(tmp_path / "registry", "127.0.0.1:8585") as registry:
        yield registry


def test_manifest_put_under_tag_and_digest_gives_exact_bytes(layout: LayoutRegistry) -> None:
    blob = put_blob(layout, "app", b"{}")
    content = ManifestContent(media_types.OCI_MANIFEST, image(blob).raw + b"\n\n")

    layout.manifest_put("app", "v1", content)

    for reference in ("v1", str(content.digest)):
        assert layout.manifest_get("app", reference) == content
        found = layout.manifest_head("app", reference)
        assert found == Descriptor(media_types.OCI_MANIFEST, content.digest, len(content.raw))


def test_manifest_put_survives_reopening(layout: LayoutRegistry) -> None:
    digest = put_image(layout, "acme/app/sub", "v1")
    layout.close()

    with LayoutRegistry(layout.root) as again:
        assert again.tag_list("acme/app/sub") == ("v1",)
        assert again.repository_list() == ("acme/app/sub",)
        assert again.manifest_get("acme/app/sub", "v1").digest == digest


def test_manifest_put_moving_tag_keeps_old_manifest_untagged(layout: LayoutRegistry) -> None:
    old = put_image(layout, "app", "latest", b"old")
    new = put_image(layout, "app", "latest", b"new")

    entries = json.loads((layout.root / "app/index.json").read_bytes())["manifests"]
    assert {entry["digest"]: entry.get("annotations") for entry in entries} == {
        str(old): None,
        str(new): {"org.opencontainers.image.ref.name": "latest"},
    }
    assert layout.manifest_get("app", str(old)).digest == old


def test_manifest_store_many_tags_at_once(layout: LayoutRegistry) -> None:
    content = image(put_blob(layout, "app", b"{}", "sha512"))
    digest = Digest.of(content.raw, "sha512")

    layout.manifest_store("app", content, digest, ("a", "b"))

    assert layout.tag_list("app") == ("a", "b")
    found = layout.manifest_head("app", "a")
    assert found is not None
    assert found.digest == digest


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (ManifestContent(media_types.OCI_MANIFEST, b"{"), MalformedStateError),
        (ManifestContent("text/plain", b'{"schemaVersion": 2}'), MalformedStateError),
        (ManifestContent("application/json", image_index().raw), MalformedStateError),
        (ManifestContent(media_types.OCI_MANIFEST, image_index().raw), MalformedStateError),
        (ManifestContent(media_types.OCI_INDEX, b" " * (4 * 1024 * 1024 + 1)), RefusedError),
    ],
    ids=["not json", "unknown kind", "sent as json", "sent as another kind", "too large"],
)
def test_manifest_put_not_a_manifest_is_refused(
    layout: LayoutRegistry, content: ManifestContent, kind: type[HarborSatelliteError]
) -> None:
    with pytest.raises(kind):
        layout.manifest_put("app", "v1", content)

    assert layout.repository_list() == ()


def test_manifest_put_wrong_digest_is_refused(layout: LayoutRegistry) -> None:
    with pytest.raises(DigestMismatchError):
        layout.manifest_put("app", str(Digest.of(b"other")), image_index())


MISSING = Descriptor(media_types.OCI_LAYER_GZIP, Digest.of(b"missing"), 7)
FOREIGN = Descriptor(f"{media_types.NONDISTRIBUTABLE[0]}tar+gzip", Digest.of(b"elsewhere"), 9)
CONFIG = Descriptor(media_types.OCI_CONFIG, Digest.of(b"{}"), 2)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (image(CONFIG, MISSING), f"needs {MISSING.digest}, which is not there"),
        (image(Descriptor("", CONFIG.digest, 3)), "has 2 bytes, not 3"),
        (image_index(Descriptor(media_types.OCI_MANIFEST, MISSING.digest, 7)), "which is not there"),
    ],
    ids=["missing layer", "wrong size", "missing child"],
)
def test_manifest_put_missing_content_is_refused(layout: LayoutRegistry, content: ManifestContent, reason: str) -> None:
    put_blob(layout, "app", b"{}")

    with pytest.raises(RefusedError, match=reason) as refused:
        layout.manifest_put("app", "v1", content)

    assert refused.value.code is ErrorCode.MANIFEST_BLOB_UNKNOWN
    assert layout.tag_list("app") == ()


@pytest.mark.parametrize(
    "content",
    [
        image(CONFIG, FOREIGN),
        image(CONFIG, subject=document(Descriptor(media_types.OCI_MANIFEST, MISSING.digest, 7))),
        image_index(Descriptor(media_types.OCI_MANIFEST, CONFIG.digest, CONFIG.size)),
    ],
    ids=["foreign layer", "missing subject", "child there as a blob (sparse index)"],
)
def test_manifest_put_content_that_may_be_absent_is_taken(layout: LayoutRegistry, content: ManifestContent) -> None:
    put_blob(layout, "app", b"{}")

    layout.manifest_put("app", "v1", content)

    assert layout.manifest_get("app", "v1") == content


def test_manifest_put_content_not_required(tmp_path: Path) -> None:
    with LayoutRegistry(tmp_path, requires_content=False) as layout:
        layout.manifest_put("app", "v1", image(MISSING))

        assert layout.tag_list("app") == ("v1",)


def test_manifest_delete_tag_keeps_manifest(layout: LayoutRegistry) -> None:
    digest = put_image(layout, "app", "v1")

    assert layout.manifest_delete("app", "v1") is True
    assert layout.manifest_delete("app", "v1") is False
    assert layout.manifest_head("app", "v1") is None
    assert layout.manifest_head("app", str(digest)) is not None


def test_manifest_delete_digest_takes_tags_along_and_frees_disk(layout: LayoutRegistry) -> None:
    digest = put_image(layout, "app", "v1")
    put_image(layout, "app", "v2")
    other = put_image(layout, "app", "kept", b"other")

    assert layout.manifest_delete("app", str(digest)) is True

    assert layout.tag_list("app") == ("kept",)
    assert layout.blob_head("app", digest) is None
    assert layout.blob_head("app", other) is not None


def test_manifest_delete_child_of_index_is_refused(layout: LayoutRegistry) -> None:
    child = layout.manifest_head("app", str(put_image(layout, "app", "")))
    assert child is not None
    layout.manifest_put("app", "multi", image_index(child))

    with pytest.raises(RefusedError, match="needed by index"):
        layout.manifest_delete("app", str(child.digest))

    assert layout.manifest_head("app", str(child.digest)) == child


def test_manifest_get_damaged_manifest_is_not_served(layout: LayoutRegistry) -> None:
    digest = put_image(layout, "app", "v1")
    path = layout.root / "app/blobs/sha256" / digest.hex
    path.write_bytes(path.read_bytes().replace(b"layer", b"LAYER"))

    with pytest.raises(DigestMismatchError, match=str(digest)):
        layout.manifest_get("app", "v1")


@pytest.mark.parametrize("damage", ["removed", "cut"])
def test_manifest_head_bytes_lost_says_absent(layout: LayoutRegistry, damage: str) -> None:
    digest = put_image(layout, "app", "v1")
    path = layout.root / "app/blobs/sha256" / digest.hex
    path.unlink() if damage == "removed" else path.write_bytes(b"{")

    assert layout.manifest_head("app", "v1") is None


def test_referrer_list_finds_subject_by_digest(layout: LayoutRegistry) -> None:
    subject = Descriptor(media_types.OCI_MANIFEST, Digest.of(b"subject"), 7)
    config = put_blob(layout, "app", b"{}")
    annotations = {"made-by": "test"}
    content = image(config, subject=document(subject), artifactType="application/sbom", annotations=annotations)
    layout.manifest_put("app", str(content.digest), content)
    put_image(layout, "app", "unrelated")

    (referrer,) = layout.referrer_list("app", subject.digest)

    assert (referrer.digest, referrer.size) == (content.digest, len(content.raw))
    assert (referrer.artifact_type, referrer.annotations) == ("application/sbom", annotations)
    layout.manifest_delete("app", str(content.digest))
    assert layout.referrer_list("app", subject.digest) == ()
    assert layout.referrer_list("unknown", subject.digest) == ()
