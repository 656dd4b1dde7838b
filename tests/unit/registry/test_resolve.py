from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from harbor_satellite.demo.images import (
    AMD64,
    ARM64,
    blob,
    layer,
    push_artifact,
    push_image,
    push_index,
    push_manifest,
    tag_image,
)
from harbor_satellite.errors import RemoteError
from harbor_satellite.oci import media_types
from harbor_satellite.oci.descriptor import descriptor_json
from harbor_satellite.oci.digest import Digest
from harbor_satellite.registry.api import ManifestContent
from harbor_satellite.registry.layout import LayoutRegistry
from harbor_satellite.registry.resolve import cosign_tags, describe, resolve_tag
from harbor_satellite.state.artifact import StateArtifact, StateEntry, parse_state_artifact, state_artifact_json
from harbor_satellite.state.names import GroupName

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

APP = "acme/app"


@pytest.fixture
def source(tmp_path: Path) -> Iterator[LayoutRegistry]:
    with LayoutRegistry(tmp_path / "source", "source.test") as registry:
        yield registry


def test_resolve_tag_gives_digest(source: LayoutRegistry) -> None:
    image = push_image(source, APP, AMD64, [layer("a", 2000)])
    tag_image(source, APP, "v1", image)

    assert resolve_tag(source, APP, "v1") == image.digest


def test_resolve_tag_missing_is_not_found(source: LayoutRegistry) -> None:
    with pytest.raises(RemoteError, match=r"source\.test/acme/app:v1 does not exist") as raised:
        resolve_tag(source, APP, "v1")

    assert raised.value.status == 404


def test_describe_index_fills_in_what_a_site_needs(source: LayoutRegistry) -> None:
    children = [push_image(source, APP, platform, [layer(str(platform), 2000)]) for platform in (ARM64, AMD64)]
    index = push_index(source, APP, "v1", children)
    empty = blob(media_types.OCI_EMPTY, b"{}")
    sbom = push_manifest(source, APP, empty, [blob("text/sbom", b"sbom")], artifact_type="text/sbom", subject=index)

    described, closure = describe(source, StateEntry(APP, ("v1",), index.digest))

    assert described.media_type == media_types.OCI_INDEX
    assert described.platforms == (AMD64, ARM64)
    assert described.referrers == (sbom.digest,)
    assert described.size == closure.size > 4000


def test_describe_artifact_has_no_platforms(source: LayoutRegistry) -> None:
    artifact, sbom = push_artifact(source, APP, "v1")

    described, _ = describe(source, StateEntry(APP, ("v1",), artifact.digest))

    assert (described.platforms, described.referrers) == ((), (sbom.digest,))


def test_describe_missing_child_is_not_found(source: LayoutRegistry) -> None:
    child = push_image(source, APP, AMD64, [layer("a", 2000)])
    index = push_index(source, APP, "v1", [child])
    (source.root / APP / "blobs/sha256" / child.digest.hex).unlink()

    with pytest.raises(RemoteError) as raised:
        describe(source, StateEntry(APP, ("v1",), index.digest))

    assert raised.value.status == 404


@pytest.mark.parametrize("variant", ["V8", "a/b", "v8 (armv8-a)"])
def test_describe_odd_platform_gives_a_state_that_parses(source: LayoutRegistry, variant: str) -> None:
    child = push_image(source, APP, AMD64, [layer("a", 2000)])
    platform = {"os": "linux", "architecture": "arm64", "variant": variant}
    document = {"mediaType": media_types.OCI_INDEX, "manifests": [descriptor_json(child) | {"platform": platform}]}
    content = ManifestContent(media_types.OCI_INDEX, json.dumps(document).encode())
    source.manifest_put(APP, "v1", content)

    described, _ = describe(source, StateEntry(APP, ("v1",), content.digest))

    state = StateArtifact(GroupName("g"), "", (described,))
    assert parse_state_artifact(state_artifact_json(state), None, "it") == state


@pytest.mark.parametrize("suffix", [".sig", ".att", ".sbom"])
def test_cosign_tags_finds_what_belongs_to_a_child(source: LayoutRegistry, suffix: str) -> None:
    child = push_image(source, APP, AMD64, [layer("a", 2000)])
    index = push_index(source, APP, "v1", [child])
    name = f"sha256-{child.digest.hex}{suffix}"
    tag_image(source, APP, name, child)
    tag_image(source, APP, f"sha256-{Digest.of(b'other').hex}{suffix}", child)
    _, closure = describe(source, StateEntry(APP, ("v1",), index.digest))

    assert cosign_tags(source, APP, [closure]) == (name,)
