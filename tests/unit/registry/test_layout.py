from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from harbor_satellite.errors import (
    DigestMismatchError,
    StorageError,
)
from harbor_satellite.oci import media_types
from harbor_satellite.oci.descriptor import Descriptor
from harbor_satellite.oci.digest import Digest
from harbor_satellite.registry.api import ManifestContent, Registry
from harbor_satellite.registry.layout import LayoutRegistry
from harbor_satellite.registry.layout_refusals import RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[LayoutRegistry]:
    with LayoutRegistry(tmp_path / "registry", "127.0.0.1:8585") as registry:
        yield registry


def put_blob(layout: LayoutRegistry, repository: str, content: bytes, algorithm: str = "sha256") -> Descriptor:
    descriptor = Descriptor(media_types.OCI_LAYER_GZIP, Digest.of(content, algorithm), len(content))
    layout.blob_put(repository, descriptor, [content[:3], content[3:]])
    return descriptor


def document(part: Descriptor) -> dict[str, Any]:
    return {"mediaType": part.media_type, "digest": str(part.digest), "size": part.size}


def image(config: Descriptor, *layers: Descriptor, **more: object) -> ManifestContent:
    body = {"schemaVersion": 2, "mediaType": media_types.OCI_MANIFEST, "config": document(config)}
    raw = json.dumps({**body, "layers": [document(layer) for layer in layers], **more}).encode()
    return ManifestContent(media_types.OCI_MANIFEST, raw)


def image_index(*children: Descriptor) -> ManifestContent:
    body = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX}
    raw = json.dumps({**body, "manifests": [document(child) for child in children]}).encode()
    return ManifestContent(media_types.OCI_INDEX, raw)


def put_image(layout: LayoutRegistry, repository: str, tag: str, content: bytes = b"layer") -> Digest:
    config, layer = put_blob(layout, repository, b"{}"), put_blob(layout, repository, content)
    manifest = image(config, layer)
    layout.manifest_put(repository, tag or str(manifest.digest), manifest)
    return manifest.digest


def read(layout: LayoutRegistry, repository: str, digest: Digest, offset: int = 0) -> bytes:
    with layout.blob_get(repository, digest, offset) as stream:
        assert stream.offset == offset
        return b"".join(stream)


def test_layout_is_a_registry(layout: LayoutRegistry) -> None:
    registry: Registry = layout

    assert registry.name == "127.0.0.1:8585"


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("content", [b"", b"some bytes"], ids=["empty", "some"])
def test_blob_put_then_get_gives_same_bytes(layout: LayoutRegistry, content: bytes, algorithm: str) -> None:
    blob = put_blob(layout, "acme/app", content, algorithm)

    assert layout.blob_head("acme/app", blob.digest) == len(content)
    assert read(layout, "acme/app", blob.digest) == content
    assert (layout.root / "acme/app/blobs" / algorithm / blob.digest.hex).read_bytes() == content


@pytest.mark.parametrize(("offset", "rest"), [(0, b"abcdef"), (4, b"ef"), (6, b"")])
def test_blob_get_offset_gives_rest(layout: LayoutRegistry, offset: int, rest: bytes) -> None:
    blob = put_blob(layout, "app", b"abcdef")

    assert read(layout, "app", blob.digest, offset) == rest


def test_blob_get_offset_past_end_is_refused(layout: LayoutRegistry) -> None:
    blob = put_blob(layout, "app", b"abcdef")

    with pytest.raises(RefusedError, match="has 6 bytes") as refused:
        read(layout, "app", blob.digest, 7)
    assert refused.value.status == 416


@pytest.mark.parametrize(
    "content", [b"other", b"conten", b"content and more"], ids=["other bytes", "too short", "too long"]
)
def test_blob_put_not_as_promised_keeps_nothing(layout: LayoutRegistry, content: bytes) -> None:
    promised = Descriptor("", Digest.of(b"content"), 7)

    with pytest.raises(DigestMismatchError, match=str(promised.digest)):
        layout.blob_put("app", promised, [content])

    assert layout.blob_head("app", promised.digest) is None
    assert [path for path in layout.root.rglob("*") if path.is_file()] == [layout.root / ".lock"]


def test_blob_put_source_fails_keeps_nothing(layout: LayoutRegistry) -> None:
    def broken() -> Iterator[bytes]:
        yield b"con"
        raise StorageError("the source broke")

    with pytest.raises(StorageError, match="the source broke"):
        layout.blob_put("app", Descriptor("", Digest.of(b"content"), 7), broken())

    assert list((layout.root / ".uploads").glob("*/*")) == []


def test_blob_put_damaged_blob_is_healed(layout: LayoutRegistry) -> None:
    blob = put_blob(layout, "app", b"content")
    (layout.root / "app/blobs/sha256" / blob.digest.hex).write_bytes(b"CONTENT")

    put_blob(layout, "app", b"content")

    assert read(layout, "app", blob.digest) == b"content"


def test_blob_mount_links_the_same_file(layout: LayoutRegistry) -> None:
    blob = put_blob(layout, "one", b"content")

    assert layout.blob_mount("two", blob.digest, "one")
    assert layout.blob_mount("two", blob.digest, "one")

    files = [layout.root / name / "blobs/sha256" / blob.digest.hex for name in ("one", "two")]
    assert files[0].samefile(files[1])
    assert list((layout.root / ".uploads").glob(".new-*")) == []


@pytest.mark.parametrize(("source", "is_mounted"), [("one", True), ("", True), ("none", False), ("target", False)])
def test_blob_mount_from_wherever_it_is(layout: LayoutRegistry, source: str, is_mounted: bool) -> None:  # noqa: FBT001
    blob = put_blob(layout, "one", b"content")

    assert layout.blob_mount("target", blob.digest, source) is is_mounted
    assert (layout.blob_head("target", blob.digest) == 7) is is_mounted


def test_blob_delete_needed_by_manifest_is_refused_until_manifest_is_gone(layout: LayoutRegistry) -> None:
    digest = put_image(layout, "app", "v1")
    layer = Digest.of(b"layer")

    with pytest.raises(RefusedError, match=f"needed by manifest {digest}") as refused:
        layout.blob_delete("app", layer)
    layout.manifest_delete("app", str(digest))

    assert refused.value.status == 405
    assert layout.blob_delete("app", layer) is True
    assert layout.blob_delete("app", layer) is False
    assert layout.blob_head("app", layer) is None
